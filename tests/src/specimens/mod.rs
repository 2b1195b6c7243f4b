//! Small programs, each with one kind of state that a freeze must keep.
//!
//! Every one makes its state, says `ready`, ticks until the file `go` appears in its directory, then looks at its state and ends
//! with code 7, or says what is wrong and ends with 1. It is frozen between two ticks, wherever that happens to be.
//!
//! What has no safe wrapper (mappings, System V, semaphores) is a script of [`SCRIPTS`], with the same manners.

mod events;
mod files;
mod processes;
mod sockets;

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;

/// What a specimen ends with when all of its state is as it was.
pub const WHOLE: u8 = 7;

/// The job's directory inside; a specimen whose directory is removed needs its name.
pub const HOME: &str = "/srv";

macro_rules! scripts {
    (python: $($python:literal),+ ; others: $($other:literal),+ $(,)?) => {
        /// Scripts for python, perl and shells, by file name. Those for python begin with the same lines.
        pub const SCRIPTS: &[(&str, &str)] = &[
            $((
                concat!($python, ".py"),
                concat!(include_str!("scripts/prologue.py"), include_str!(concat!("scripts/", $python, ".py"))),
            ),)+
            $(($other, include_str!(concat!("scripts/", $other))),)+
        ];
    };
}

scripts!(
    python:
    "anonymous-shared",
    "fanotify",
    "in-flight",
    "io-uring",
    "itimer",
    "mapped-file",
    "memfd",
    "message-queue",
    "netlink",
    "numpy-threads",
    "pidfd",
    "posix-shm",
    "python-forkserver-join",
    "python-forkserver-pool",
    "python-forkserver-queue",
    "python-pool",
    "python-queue",
    "python-shared-memory",
    "python-threads",
    "raised-timerfd",
    "seccomp",
    "semaphore",
    "system-v-sem",
    "system-v-shm",
    "terminal",
    "traced",
    "unlinked-semaphore",
    "unmapped-memfd",
    "vfork";
    others:
    "bash.sh",
    "dash.sh",
    "debugged.sh",
    "go.elv",
    "jvm.js",
    "node.js",
    "perl.pl",
    "r.R",
    "unhidden.sh",
);

/// What is compiled, by the machine's own compiler: its name without `.c`, and the text.
pub const OPENMP: (&str, &str) = ("openmp", include_str!("openmp.c"));

type Program = fn() -> Result<()>;

/// The program called `name`.
fn program(name: &str) -> Option<Program> {
    [
        files::PROGRAMS,
        processes::PROGRAMS,
        events::PROGRAMS,
        sockets::PROGRAMS,
    ]
    .into_iter()
    .flatten()
    .find(|(known, _)| *known == name)
    .map(|(_, program)| *program)
}

/// Runs the specimen that the command line names.
pub fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(program) = program(&name) else {
        eprintln!("no specimen {name:?}");
        return ExitCode::from(2);
    };
    match program() {
        Ok(()) => ExitCode::from(WHOLE),
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The moment in which a specimen may be frozen, once or more often.
fn freeze() -> Result<()> {
    let go = Path::new(HOME).join("go");
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    for tick in 1.. {
        writeln!(out, "tick {tick}")?;
        out.flush()?;
        if go.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    writeln!(out, "done")?;
    out.flush()?;
    Ok(())
}

/// This program again, as another specimen: forking by hand would need unsafe code.
fn again(name: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name);
    Ok(command)
}
