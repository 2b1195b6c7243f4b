//! Every thread of a job, standing still.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{NamelessError, numbers, of, processes};

/// A thread that waits for its vfork'ed child, or for a dead disk, does not stop; the dump can wait for neither.
const PATIENCE: Duration = Duration::from_secs(2);

/// Threads that are held, each with its process. They go on when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<Pid, Pid>);

impl Held {
    /// Holds all that there are, those that are made meanwhile included.
    pub(super) fn all(proc: &Path) -> Result<Held, NamelessError> {
        let mut held = Held::default();
        loop {
            let before = held.0.len();
            for process in processes(proc) {
                for thread in numbers(&of(proc, process, "task")) {
                    if !held.0.contains_key(&thread) && !is_dead(proc, process, thread) {
                        held.hold(process, thread)?;
                    }
                }
            }
            // Nothing that stands still makes a thread.
            if held.0.len() == before {
                return Ok(held);
            }
        }
    }

    fn hold(&mut self, process: Pid, thread: Pid) -> Result<(), NamelessError> {
        let failed = |source| NamelessError::Trace { thread, source };
        match ptrace::seize(thread, Options::empty()) {
            // It has ended by now, or is about to.
            Err(Errno::ESRCH | Errno::EPERM)
                if !Path::new("/proc").join(thread.to_string()).exists() =>
            {
                return Ok(());
            }
            other => other.map_err(failed)?,
        }
        self.0.insert(thread, process);
        ptrace::interrupt(thread).map_err(failed)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))
                .map_err(failed)?
            {
                WaitStatus::StillAlive if Instant::now() >= until => {
                    return Err(NamelessError::Restless(thread));
                }
                WaitStatus::StillAlive => std::thread::sleep(Duration::from_micros(200)),
                WaitStatus::PtraceEvent(..) => return Ok(()),
                // A signal was on its way: the thread gets it, and stops after that.
                WaitStatus::Stopped(_, signal) => ptrace::cont(thread, signal).map_err(failed)?,
                _ => {
                    self.0.remove(&thread);
                    return Ok(());
                }
            }
        }
    }

    /// A thread of a process.
    pub(super) fn thread_of(&self, process: Pid) -> Option<Pid> {
        self.0
            .iter()
            .find(|(_, owner)| **owner == process)
            .map(|(thread, _)| *thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for thread in self.0.keys() {
            // One that does not stand still cannot be let go; it is when we end, which is what a tracer's end does.
            let _ = ptrace::detach(*thread, None);
        }
    }
}

/// A leader that has ended before its threads, or a child that nobody has waited for.
fn is_dead(proc: &Path, process: Pid, thread: Pid) -> bool {
    let stat = std::fs::read_to_string(of(proc, process, &format!("task/{thread}/stat")));
    let state = stat
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.chars().next()));
    !matches!(state, Some(Some(state)) if state != 'Z' && state != 'X')
}
