//! A `criu-transfer` that was started beside us, from its start to its last word.
//!
//! It ends by itself within the time that it is given. Killed, it leaves nothing but chunks at the store, from which the
//! next one goes on.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};

use crate::sys;

/// What it says of an image is some hundred bytes, and a store keeps a few images of a job.
const MOST_SAID: usize = 1 << 20;

/// What is read of its standard error, and how much of that is an error's text.
const TAIL: u64 = 16 << 10;
const LINES: usize = 50;

/// It looks at its own clock, too; this is for one that hangs.
const GRACE: Duration = Duration::from_secs(10);

/// Why it did not do what it was started for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotDone(String);

impl NotDone {
    pub(crate) fn new(why: String) -> NotDone {
        NotDone(why)
    }
}

/// One under way; dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Transfer {
    child: Child,
    out: ChildStdout,
    said: Vec<u8>,
    log: PathBuf,
    until: Instant,
}

impl Transfer {
    /// Starts `program`, whose standard error goes to `log`.
    pub(crate) fn start(
        program: &Path,
        args: &[&OsStr],
        log: &Path,
        within: Duration,
    ) -> Result<Transfer, NotDone> {
        Self::spawn(program, args, log, within, Stdio::null())
    }

    /// The same, of one that listens to us.
    pub(crate) fn start_listening(
        program: &Path,
        args: &[&OsStr],
        log: &Path,
        within: Duration,
    ) -> Result<(Transfer, ChildStdin), NotDone> {
        let mut transfer = Self::spawn(program, args, log, within, Stdio::piped())?;
        let ear = transfer.child.stdin.take().expect("it was asked for");
        Ok((transfer, ear))
    }

    fn spawn(
        program: &Path,
        args: &[&OsStr],
        log: &Path,
        within: Duration,
        stdin: Stdio,
    ) -> Result<Transfer, NotDone> {
        let failed = |error: io::Error| NotDone(format!("cannot start criu-transfer: {error}"));
        let errors = File::create(log).map_err(failed)?;
        // Whole seconds, and none too many.
        let seconds = within.as_secs().max(1).to_string();
        let mut command = Command::new(program);
        command
            .args(args)
            .args(["--within", &seconds])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(errors);
        sys::before_exec(&mut command, || {
            // Ours are blocked, and it is of no use to anybody without us.
            SigSet::empty().thread_set_mask()?;
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take().expect("it was asked for");
        fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| failed(errno.into()))?;
        Ok(Transfer {
            child,
            out,
            said: Vec::new(),
            log: log.to_owned(),
            until: Instant::now() + within + GRACE,
        })
    }

    /// It has less time than was thought.
    pub(crate) fn hasten(&mut self, within: Duration) {
        self.until = self.until.min(Instant::now() + within);
    }

    /// Readable when there is something for [`Self::turn`].
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.out.as_fd()
    }

    /// What it has said, once it has ended well.
    pub(crate) fn turn(&mut self) -> Option<Result<Vec<u8>, NotDone>> {
        let mut part = [0; 4096];
        loop {
            match self.out.read(&mut part) {
                Ok(0) => return Some(self.ended()),
                Ok(count) if self.said.len() + count <= MOST_SAID => {
                    self.said.extend_from_slice(&part[..count]);
                }
                Ok(_) => return Some(Err(NotDone("criu-transfer says too much".to_owned()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let late = Instant::now() >= self.until;
                    return late
                        .then(|| Err(NotDone("criu-transfer has not ended in time".to_owned())));
                }
                Err(error) => return Some(Err(NotDone(format!("criu-transfer: {error}")))),
            }
        }
    }

    /// As [`Self::turn`], but waits for it; none where `other` has become readable before.
    pub(crate) fn wait(
        &mut self,
        other: Option<BorrowedFd<'_>>,
    ) -> Option<Result<Vec<u8>, NotDone>> {
        loop {
            if let Some(ended) = self.turn() {
                return Some(ended);
            }
            let left = self.until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ready = vec![PollFd::new(self.out.as_fd(), PollFlags::POLLIN)];
            ready.extend(other.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut ready, left) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Some(Err(NotDone(format!("criu-transfer: {errno}")))),
            }
            if ready.get(1).is_some_and(|fd| fd.any().unwrap_or(false)) {
                return None;
            }
        }
    }

    /// It has closed its standard output, which is the last thing that it does.
    fn ended(&mut self) -> Result<Vec<u8>, NotDone> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(std::mem::take(&mut self.said)),
            Ok(status) => Err(NotDone(match tail(&self.log) {
                said if said.is_empty() => format!("criu-transfer: {status}"),
                said => said,
            })),
            Err(error) => Err(NotDone(format!("criu-transfer: {error}"))),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Where it has ended, and was waited for, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its last lines, as one.
fn tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = fs::metadata(log)?.len();
        io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.trim_start_matches("criu-transfer: ").trim())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn run(script: &str, within: Duration) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c", script, "sh"].map(OsStr::new);
        let started = Transfer::start(Path::new("/bin/sh"), &args, &dir.path().join("log"), within);
        let ended = started.unwrap().wait(None).unwrap();
        ended
            .map(|said| String::from_utf8(said).unwrap())
            .map_err(|error| error.to_string())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_it_says_is_its_result_and_its_last_lines_are_its_error() {
        assert_eq!(run("echo $2", MINUTE), Ok("60\n".to_owned()));
        let why = run("echo a >&2; echo criu-transfer: no >&2; exit 11", MINUTE);
        assert_eq!(why, Err("a; no".to_owned()));
        let silent = run("kill -9 $$", MINUTE).unwrap_err();
        assert!(silent.contains("signal: 9"), "{silent}");
    }

    #[test]
    fn one_that_is_dropped_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c", "exec sleep 60", "sh"].map(OsStr::new);
        let log = dir.path().join("log");
        let mut transfer = Transfer::start(Path::new("/bin/sh"), &args, &log, MINUTE).unwrap();
        assert!(transfer.turn().is_none());
        let pid = transfer.child.id();
        drop(transfer);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn one_that_is_told_and_hastened_is_not_waited_for_longer() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let args = ["-c", "read word; echo $word; exec sleep 60", "sh"].map(OsStr::new);
        let started = Transfer::start_listening(Path::new("/bin/sh"), &args, &log, MINUTE);
        let (mut transfer, mut ear) = started.unwrap();
        writeln!(ear, "on").unwrap();
        while transfer.said.is_empty() {
            assert!(transfer.turn().is_none());
        }
        assert_eq!(transfer.said, b"on\n");
        transfer.hasten(Duration::from_millis(50));
        let late = transfer.wait(None).unwrap().unwrap_err();
        assert_eq!(late.to_string(), "criu-transfer has not ended in time");
    }

    #[test]
    fn somebody_else_may_be_heard_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        drop(write);
        let args = ["-c", "exec sleep 60", "sh"].map(OsStr::new);
        let log = dir.path().join("log");
        let mut transfer = Transfer::start(Path::new("/bin/sh"), &args, &log, MINUTE).unwrap();
        assert!(transfer.wait(Some(read.as_fd())).is_none());
    }
}
