//! What a job may have besides: each part is made before the freeze and looked
//! at after the thaw. The names are those of `CRIUAbilities`.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::SUBCOMMAND;

/// The argument of the specimen's child.
pub(crate) const CHILD: &str = "child";

const CHILD_CODE: i32 = 3;

/// What was written before the freeze.
const WORD: &[u8] = b"before\n";

/// When the timer is due.
const DUE: Duration = Duration::from_millis(20);

/// Looks at a part after the thaw.
type Check = Box<dyn FnOnce() -> Result<()>>;

type Make = fn() -> Result<Check>;

/// The namespace of the clocks is no part of its own, but made by `criu-starter`.
pub(crate) const TIMENS: &str = "timens";

const PARTS: [(&str, Make); 8] = [
    ("fork", fork),
    ("ghost", ghost),
    ("locks", locks),
    ("pty", pty),
    ("shm", shm),
    ("tcp", tcp),
    ("timer", timer),
    ("unix", unix),
];

/// All names, sorted.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
    names.push(TIMENS);
    names.sort_unstable();
    names.into_iter()
}

/// Makes the parts that are wanted; one that cannot be made here is no ability.
pub(crate) fn begin<'a>(
    wanted: impl Iterator<Item = &'a str>,
    outer_time: &str,
) -> Vec<(&'a str, Check)> {
    let make = |name: &str| match PARTS.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => make(),
        None if name == TIMENS => timens(outer_time),
        None => bail!("no such part"),
    };
    wanted
        .filter_map(|name| make(name).ok().map(|check| (name, check)))
        .collect()
}

/// A child process that waits for us, and whom we wait for.
fn fork() -> Result<Check> {
    let mut child = Command::new(env::current_exe()?)
        .args([SUBCOMMAND, CHILD])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to = child.stdin.take().context("no pipe")?;
    let mut from = child.stdout.take().context("no pipe")?;
    Ok(Box::new(move || {
        to.write_all(WORD)?;
        drop(to);
        let mut answer = Vec::new();
        from.read_to_end(&mut answer)?;
        ensure!(answer == WORD, "the child has lost its pipes");
        let status = child.wait()?;
        ensure!(status.code() == Some(CHILD_CODE), "it ended with {status}");
        Ok(())
    }))
}

/// The child's whole life.
pub(crate) fn child() -> Result<i32> {
    let mut word = Vec::new();
    std::io::stdin().read_to_end(&mut word)?;
    std::io::stdout().write_all(&word)?;
    Ok(CHILD_CODE)
}

/// An open file that has been removed.
fn ghost() -> Result<Check> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("ghost")?;
    file.write_all(WORD)?;
    fs::remove_file("ghost")?;
    Ok(Box::new(move || {
        ensure!(file.metadata()?.nlink() == 0, "it came back");
        ensure!(all_of(&mut file)? == WORD, "its content is lost");
        Ok(())
    }))
}

/// A file lock.
fn locks() -> Result<Check> {
    let file = File::create("locked")?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    Ok(Box::new(move || {
        let another = File::create("locked")?;
        match Flock::lock(another, FlockArg::LockExclusiveNonblock) {
            Err((_, Errno::EWOULDBLOCK)) => {
                drop(lock);
                Ok(())
            }
            _ => bail!("nobody holds it"),
        }
    }))
}

/// A terminal with a line in it that nobody has read.
fn pty() -> Result<Check> {
    let pair = openpty(None, None)?;
    let (mut master, mut slave) = (File::from(pair.master), File::from(pair.slave));
    master.write_all(WORD)?;
    // The kernel hands it over when it finds the time; in between, CRIU would not see it.
    let mut arrived = [PollFd::new(slave.as_fd(), PollFlags::POLLIN)];
    poll(&mut arrived, PollTimeout::from(1000_u16))?;
    Ok(Box::new(move || {
        let mut line = [0; WORD.len()];
        slave.read_exact(&mut line)?;
        ensure!(line == WORD, "its input is lost");
        drop(master);
        Ok(())
    }))
}

/// A file in shared memory.
fn shm() -> Result<Check> {
    let name = "/dev/shm/criu-probe";
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(name)?;
    file.write_all(WORD)?;
    Ok(Box::new(move || {
        ensure!(all_of(&mut file)? == WORD, "its content is lost");
        ensure!(fs::read(name)? == WORD, "its name is lost");
        Ok(())
    }))
}

/// A socket that listens. Connections to other machines never survive.
fn tcp() -> Result<Check> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Ok(Box::new(move || {
        let mut client = TcpStream::connect(address)?;
        let (mut server, _) = listener.accept()?;
        talk(&mut client, &mut server)
    }))
}

/// A timer that is due once, after the freeze or, unread, before it.
///
/// Not one with an interval: CRIU restores it disarmed when it was frozen between
/// its expiry and the read, and its reader waits for ever.
fn timer() -> Result<Check> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    let due = Expiration::OneShot(TimeSpec::from_duration(DUE));
    timer.set(due, TimerSetTimeFlags::empty())?;
    Ok(Box::new(move || {
        let mut ready = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(DUE * 20)?;
        ensure!(poll(&mut ready, limit)? == 1, "it is disarmed");
        Ok(())
    }))
}

/// A pair of sockets with something on its way, and a named one that listens.
fn unix() -> Result<Check> {
    let (mut one, mut other) = UnixStream::pair()?;
    one.write_all(WORD)?;
    let listener = UnixListener::bind("socket")?;
    Ok(Box::new(move || {
        let mut word = [0; WORD.len()];
        other.read_exact(&mut word)?;
        ensure!(word == WORD, "what was on its way is lost");
        let mut client = UnixStream::connect("socket")?;
        let (mut server, _) = listener.accept()?;
        talk(&mut client, &mut server)?;
        drop(one);
        Ok(())
    }))
}

/// Clocks of its own, so that monotonic time never jumps.
fn timens(outer: &str) -> Result<Check> {
    let inner = time_namespace().context("this kernel has none")?;
    ensure!(inner != outer, "it is the node's");
    Ok(Box::new(|| Ok(())))
}

/// The name of this process's time namespace.
pub(crate) fn time_namespace() -> Option<String> {
    let link = fs::read_link("/proc/self/ns/time").ok()?;
    Some(link.to_string_lossy().into_owned())
}

fn all_of(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn talk(client: &mut impl Write, server: &mut impl Read) -> Result<()> {
    client.write_all(WORD)?;
    let mut word = [0; WORD.len()];
    server.read_exact(&mut word)?;
    ensure!(word == WORD, "it does not carry what was sent");
    Ok(())
}
