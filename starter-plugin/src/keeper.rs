//! The starter's child where HTCondor runs us: it waits for the supervisor, its own child, and does nothing else.
//!
//! ```text
//! starter ──> keeper ──> supervisor ──> pid 1 ──> the job
//!               │  signals ──^  │
//!               │               ├── takes its leave, and ends as the job did, or with a code of ours: the same end
//!               └───────────────┴── is killed, or panics: the job goes back to the queue, with its older image
//! ```
//!
//! HTCondor takes the death of the process that it started for the job's. A supervisor has the job's images in its hands
//! and may be what a memory limit kills; without its keeper the job would leave the queue as killed by signal 9, with a
//! good image at home. The keeper has nothing, and nothing to do that could fail.

use std::io::{self, PipeReader, PipeWriter, Read, Write};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::exit_code::ExitCode;
use crate::job::Job;
use crate::signals::PASSED_ON;
use crate::{supervise, sys};

/// The supervisor's word that it ends as it means to.
#[derive(Debug)]
pub(crate) struct Farewell(Option<PipeWriter>);

/// In HTCondor this goes on as the supervisor, and its keeper stays here; by hand it is the supervisor.
pub(crate) fn keep(job: &Job) -> Result<Farewell> {
    if !job.is_htcondor() {
        return Ok(Farewell(None));
    }
    let (said, say) = io::pipe().context("cannot make a pipe")?;
    let mut mask = SigSet::empty();
    let passed_on = PASSED_ON.into_iter();
    for signal in passed_on.chain([job.vacate_signal(), Signal::SIGCHLD]) {
        mask.add(signal);
    }
    // Before the fork: what comes too early waits.
    let before = mask.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let Some(supervisor) = sys::fork().context("cannot fork")? else {
        // Without its keeper nobody waits for it.
        set_pdeathsig(Signal::SIGKILL)?;
        before.thread_set_mask()?;
        return Ok(Farewell(Some(say)));
    };
    drop(say);
    end(job, wait(supervisor, &mask)?, said)
}

impl Farewell {
    /// From here on, whatever end there is is meant.
    pub(crate) fn say(self) {
        if let Farewell(Some(mut pipe)) = self {
            let _ = pipe.write_all(b"+");
        }
    }
}

fn wait(supervisor: Pid, mask: &SigSet) -> Result<WaitStatus> {
    loop {
        let signal = mask.wait()?;
        if signal != Signal::SIGCHLD {
            // It may have ended just now, which is seen next.
            let _ = kill(supervisor, signal);
            continue;
        }
        match waitpid(supervisor, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            ended => return Ok(ended),
        }
    }
}

fn end(job: &Job, status: WaitStatus, mut said: PipeReader) -> ! {
    // What it has not said by now it will not say, though its pid 1 may hold the pipe a moment longer.
    let _ = fcntl(&said, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    let is_meant = matches!(said.read(&mut [0]), Ok(1));
    match status {
        WaitStatus::Exited(_, code) if is_meant => std::process::exit(code),
        WaitStatus::Signaled(_, signal, _) if is_meant => sys::die_of(signal),
        status => {
            let reason = match status {
                WaitStatus::Signaled(_, signal, _) => format!("the supervisor died of {signal}"),
                // A panic, which has told its own story.
                WaitStatus::Exited(_, code) => format!("the supervisor ended with {code}"),
                other => format!("the supervisor is gone: {other:?}"),
            };
            eprintln!("criu-starter: {reason}");
            supervise::give_the_job_back(job, &reason);
            std::process::exit(ExitCode::NotHere as i32)
        }
    }
}
