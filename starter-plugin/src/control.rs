//! The ear for people and scripts: `criu-starter dump`, `preflight` and `status` speak to the supervisor of a directory.
//!
//! A socket in our own directory, which nobody but the job's user may enter. The job is that user too, and may ask for
//! an image of itself; it can keep nobody else from being heard, because several are listened to at a time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::preflight::Reason;
use crate::sandbox::WORK;

const SOCKET: &str = "control";

/// Callers that are listened to at a time. The one that has waited longest makes room.
const CALLERS: usize = 8;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// An image, now.
    Dump { keep_running: bool },
    /// What would prevent one.
    Preflight,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// There is a new ./checkpoint.criu.
    Dumped {
        generation: u64,
        bytes: u64,
        frozen_seconds: f64,
    },
    /// There is none, for this reason, and the job runs on.
    NotDumped { reason: String },
    /// All that would prevent one.
    Blockers(Vec<Reason>),
}

/// The supervisor's side.
pub(crate) struct Control {
    /// Of packets, though its type speaks of streams: it is what accepts without unsafe code.
    listener: UnixListener,
    callers: Vec<Channel>,
}

impl Control {
    /// Listens in the work directory of a scratch directory.
    pub(crate) fn listen(work: &Path) -> nix::Result<Control> {
        let listener = packet_socket()?;
        through(work, |address| bind(listener.as_raw_fd(), address))?;
        listen(&listener, Backlog::new(CALLERS as i32)?)?;
        Ok(Control {
            listener: listener.into(),
            callers: Vec::new(),
        })
    }

    /// What to wait for: a caller, or what one has to say.
    pub(crate) fn ears(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let callers = self.callers.iter().map(Channel::as_fd);
        [self.listener.as_fd()].into_iter().chain(callers)
    }

    /// The requests of those whose ears (as [`Self::ears`] numbers them) are `ready`, with whom to answer.
    pub(crate) fn hear(&mut self, ready: &[bool]) -> Vec<(Request, Channel)> {
        let mut requests = Vec::new();
        let mut waiting = Vec::new();
        for (index, caller) in self.callers.drain(..).enumerate() {
            if !ready.get(index + 1).copied().unwrap_or(false) {
                waiting.push(caller);
            } else if let Ok(request) = caller.receive() {
                // Whoever hung up, or speaks another language, is let go.
                requests.push((request, caller));
            }
        }
        if ready.first() == Some(&true)
            && let Ok(caller) = self.accept()
        {
            if waiting.len() == CALLERS {
                waiting.remove(0);
            }
            waiting.push(caller);
        }
        self.callers = waiting;
        requests
    }

    fn accept(&self) -> std::io::Result<Channel> {
        let (caller, _) = self.listener.accept()?;
        Ok(Channel::from(OwnedFd::from(caller)))
    }
}

/// Asks the supervisor of `scratch`.
pub(crate) fn ask(scratch: &Path, request: Request) -> Result<Answer> {
    let caller = packet_socket()?;
    through(&scratch.join(WORK), |address| {
        connect(caller.as_raw_fd(), address)
    })
    .with_context(|| format!("no job is supervised in {}", scratch.display()))?;
    let channel = Channel::from(caller);
    channel.send(&request)?;
    channel
        .receive()
        .context("the supervisor ended before it answered")
}

/// The scratch directory of the supervisor that `pid` is, or that watches over it; none for other processes.
pub(crate) fn scratch_of(proc: &Path, pid: i32) -> Option<PathBuf> {
    let mut pid = pid;
    // Deeper trees than this are none of ours.
    for _ in 0..1000 {
        let dir = proc.join(pid.to_string());
        let cwd = std::fs::read_link(dir.join("cwd")).ok();
        if let Some(cwd) = cwd.filter(|cwd| cwd.join(WORK).join(SOCKET).exists()) {
            return Some(cwd);
        }
        let status = std::fs::read_to_string(dir.join("status")).ok()?;
        pid = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))?
            .trim()
            .parse()
            .ok()
            .filter(|parent| *parent > 1)?;
    }
    None
}

fn packet_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

/// The socket's address: a scratch directory's path can be longer than the hundred bytes that one may have.
fn through<T>(work: &Path, call: impl FnOnce(&UnixAddr) -> nix::Result<T>) -> nix::Result<T> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = open(work, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    match call(&UnixAddr::new(path.as_str())?) {
        Err(Errno::ENOENT) => Err(Errno::ECONNREFUSED),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// One turn of the supervisor's loop.
    fn turn(control: &mut Control) -> Vec<(Request, Channel)> {
        let mut ears: Vec<_> = control
            .ears()
            .map(|ear| PollFd::new(ear, PollFlags::POLLIN))
            .collect();
        poll(&mut ears, PollTimeout::NONE).unwrap();
        let ready: Vec<_> = ears.iter().map(|ear| ear.any().unwrap()).collect();
        drop(ears);
        control.hear(&ready)
    }

    #[test]
    fn silent_callers_keep_nobody_from_being_heard() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("x".repeat(200));
        std::fs::create_dir_all(scratch.join(WORK)).unwrap();
        let mut control = Control::listen(&scratch.join(WORK)).unwrap();
        let mut silent = Vec::new();
        for _ in 0..12 {
            let caller = packet_socket().unwrap();
            through(&scratch.join(WORK), |address| {
                connect(caller.as_raw_fd(), address)
            })
            .unwrap();
            silent.push(caller);
            turn(&mut control);
        }
        let there = scratch.clone();
        let asking = std::thread::spawn(move || ask(&there, Request::Preflight));
        let (request, caller) = loop {
            if let Some(heard) = turn(&mut control).pop() {
                break heard;
            }
        };
        assert_eq!(request, Request::Preflight);
        caller.send(&Answer::Blockers(Vec::new())).unwrap();
        assert_eq!(asking.join().unwrap().unwrap(), Answer::Blockers(vec![]));
    }

    #[test]
    fn where_nobody_listens_the_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask(dir.path(), Request::Preflight).unwrap_err();
        assert!(error.to_string().starts_with("no job is supervised in /"));
    }
}
