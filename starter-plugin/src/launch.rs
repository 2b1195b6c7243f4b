//! From a begin to a running pid 1.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::channel::Channel;
use crate::init::{self, Init, Order};
use crate::namespaces::{Clocks, Ids, unshare_all};
use crate::sys;

/// A pid 1 at work.
pub(crate) struct Launched {
    /// The line to it.
    pub(crate) channel: Channel,
    /// Its number out here.
    pub(crate) pid: Pid,
}

impl Launched {
    /// Pid 1's number out here.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The processes of its namespace, as it sees them.
    pub(crate) fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/proc", self.pid))
    }

    /// Ends it, and with it everything in its namespace.
    pub(crate) fn end(&self) {
        // It may have ended by itself; then there is a zombie to reap, or nothing.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Makes the namespaces and starts pid 1 in them.
///
/// The caller must be a subreaper: the maker ends, and pid 1 becomes its child.
pub(crate) fn launch(init: Init, ids: Option<Ids>, resume: Option<Clocks>) -> Result<Launched> {
    let (ours, theirs) = Channel::pair().context("cannot make a channel")?;
    let (made, from_maker) = Channel::pair().context("cannot make a channel")?;
    let Some(maker) = sys::fork().context("cannot fork")? else {
        // Held open by pid 1, these would hide the outer supervisor's death.
        drop((ours, made));
        sys::end(make(init, ids, resume, &from_maker, theirs));
    };
    drop((from_maker, theirs));
    let result: Result<i32, String> = made.receive()?;
    waitpid(maker, None)?;
    let pid = Pid::from_raw(result.map_err(|message| anyhow!(message))?);
    ours.send(&Order::Begin)?;
    Ok(Launched { channel: ours, pid })
}

/// The maker's whole life.
fn make(
    init: Init,
    ids: Option<Ids>,
    resume: Option<Clocks>,
    report: &Channel,
    channel: Channel,
) -> i32 {
    let made = match unshare_all(ids, resume) {
        Err(error) => Err(error.to_string()),
        Ok(()) => match sys::fork() {
            Ok(None) => sys::end(init::run(init, channel)),
            // By the number that this process and the outer supervisor share.
            Ok(Some(pid)) => Ok(pid.as_raw()),
            Err(errno) => Err(format!("cannot fork pid 1 of the job's namespace: {errno}")),
        },
    };
    i32::from(report.send(&made).is_err() || made.is_err())
}
