//! From a begin to a running pid 1.

use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::channel::Channel;
use crate::init::{self, Init, Order};
use crate::namespaces::{Clocks, Ids, unshare_all};
use crate::sys;

/// Makes the namespaces and starts pid 1 in them; the channel leads to it.
///
/// The caller must be a subreaper: the maker ends, and pid 1 becomes its child.
pub(crate) fn launch(init: Init, ids: Ids, resume: Option<Clocks>) -> Result<Channel> {
    let (ours, theirs) = Channel::pair().context("cannot make a channel")?;
    let (made, from_maker) = Channel::pair().context("cannot make a channel")?;
    let Some(maker) = sys::fork().context("cannot fork")? else {
        // Held open by pid 1, these would hide the outer supervisor's death.
        drop((ours, made));
        sys::end(make(init, ids, resume, &from_maker, theirs));
    };
    drop((from_maker, theirs));
    let result: Result<(), String> = made.receive()?;
    let status = waitpid(maker, None)?;
    if let Err(message) = result {
        bail!(message);
    }
    if status != WaitStatus::Exited(maker, 0) {
        bail!("cannot fork pid 1 of the job's namespace");
    }
    ours.send(&Order::Begin)?;
    Ok(ours)
}

/// The maker's whole life.
fn make(init: Init, ids: Ids, resume: Option<Clocks>, report: &Channel, channel: Channel) -> i32 {
    let result = unshare_all(ids, resume).map_err(|error| error.to_string());
    if report.send(&result).is_err() || result.is_err() {
        return 1;
    }
    match sys::fork() {
        Ok(None) => sys::end(init::run(init, channel)),
        Ok(Some(_)) => 0,
        Err(_) => 1,
    }
}
