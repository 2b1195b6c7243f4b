//! A table of programs, each frozen and thawed by hand, without HTCondor and without any privilege.

mod baseline;
mod markdown;
mod run;
mod table;
mod userlands;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result};
use tests::binaries;
use tests::host::Host;
use tests::pool::Pool;
use tests::require;
use tests::roots::{HtCondor, Root};
use tests::spec::Spec;
use tests::users::User;

use run::Stop;
use table::{Row, TABLE};

/// Rows of one test that run at a time: most of a row is waiting.
const AT_ONCE: usize = 4;

/// Where `tcp-outside` finds a server that is no part of it.
const SERVER: &str = "127.0.0.1:7777";

/// Where our program has no CRIU beside it.
const ALONE: &str = "/opt/alone";

/// Answers with what it is told, for ever.
const ECHO: &str = "
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100): self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(('127.0.0.1', 7777), Echo)
print('listening', flush=True)
server.serve_forever()
";

macro_rules! families {
    ($($name:ident),+ $(,)?) => {
        mod criu_4_1_1 { $(#[test] fn $name() { super::family(super::HtCondor::V23_9, stringify!($name)); })+ }
        mod criu_4_2_1 { $(#[test] fn $name() { super::family(super::HtCondor::V25, stringify!($name)); })+ }

        #[test]
        fn every_row_is_in_a_family_that_is_tested() {
            for row in TABLE {
                assert!([$(stringify!($name)),+].contains(&row.family), "{}", row.name());
            }
        }
    };
}

families!(
    files, processes, events, sockets, memory, root, languages, runtimes
);

/// Freezes and thaws every program of a family, and names all that went otherwise.
fn family(version: HtCondor, family: &str) {
    require!(root, namespaces, roots);
    let stop = match shared(version, family) {
        Ok(stop) => stop,
        Err(error) => panic!("{error}"),
    };
    // PROGRAM=name tries one row alone.
    let only = std::env::var("PROGRAM").ok();
    let rows = TABLE.iter().filter(|row| row.family == family);
    let rows = rows.filter(|row| only.as_deref().is_none_or(|only| only == row.name()));
    let queue: Mutex<VecDeque<&Row>> = Mutex::new(rows.collect());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no row panics").pop_front();
                    let Some(row) = next else { break };
                    let outcome = row.outcomes[usize::from(version == HtCondor::V25)];
                    let stop = if row.as_root { stop.as_root() } else { stop };
                    if let Err(error) = run::check(row, outcome, &[stop; 2], SERVER) {
                        let text = format!("{}: {error:#}", row.name());
                        failures.lock().expect("no row panics").push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no row panics");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A host that lives as long as this process, with our programs on it and that version's CRIU for them.
fn shared(version: HtCondor, family: &str) -> Result<Stop<'static>, String> {
    static HOSTS: [OnceLock<Result<Pool, String>>; 3] = [const { OnceLock::new() }; 3];
    let newer = version == HtCondor::V25;
    let runtimes = family == "runtimes";
    let host = HOSTS[if runtimes { 2 } else { usize::from(newer) }].get_or_init(|| {
        let up = || -> Result<Pool> {
            if runtimes {
                let pool = Pool::up(&Spec::bare(version).root(Root::Languages))?;
                let built = binaries::dir()?;
                binaries::bundle_criu(built)?;
                bring(pool.ap(), built)?;
                for bin in [run::BIN, ALONE] {
                    let path = Path::new(bin).join("openmp");
                    pool.ap()
                        .write(path, fs::read(binaries::openmp()?)?, User::Root, 0o755)?;
                }
                return Ok(pool);
            }
            let pool = Pool::up(&Spec::bare(version))?;
            furnish(pool.ap())?;
            Ok(pool)
        };
        up().map_err(|error| format!("{error:#}"))
    });
    let mut stop = Stop::at(host.as_ref().map_err(Clone::clone)?.ap());
    if runtimes && !newer {
        // The host's own is the older one.
        stop.bin = ALONE;
    }
    Ok(stop)
}

/// Our program with a CRIU that needs nothing of the host, and alone in another place.
fn bring(host: &Host, built: &Path) -> Result<()> {
    let bin = Path::new(run::BIN);
    let starter = fs::read(built.join("criu-starter"))?;
    let alone = Path::new(ALONE).join("criu-starter");
    host.write(alone, starter, User::Root, 0o755)?;
    let mut files = vec![PathBuf::from("criu-starter")];
    for dir in ["criu-bundle/bin", "criu-bundle/lib"] {
        for entry in fs::read_dir(built.join(dir))? {
            files.push(Path::new(dir).join(entry?.file_name()));
        }
    }
    for file in files {
        let bytes = fs::read(built.join(&file))?;
        host.write(bin.join(&file), bytes, User::Root, 0o755)?;
    }
    Ok(())
}

fn furnish(host: &Host) -> Result<()> {
    let starter = binaries::dir()?.join("criu-starter");
    for (name, from) in [
        ("criu-starter", starter),
        ("specimens", binaries::specimens()?),
    ] {
        host.write(
            Path::new(run::BIN).join(name),
            fs::read(from)?,
            User::Root,
            0o755,
        )?;
    }
    let mut server: Child = host
        .command(User::Root, "/")?
        .args(["python3", "-c", ECHO])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut line)?;
    // It ends with the host; this thread is there to reap it.
    std::thread::spawn(move || server.wait());
    Ok(())
}
