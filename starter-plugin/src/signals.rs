//! The signals that are ours to pass on or to obey.
//!
//! | signal | what becomes of it |
//! |---|---|
//! | the vacating one | the job is frozen |
//! | TERM, INT, HUP, QUIT, USR1, USR2 | the job gets it |
//! | the same from a terminal | the job's process group gets it, as it would without us |
//! | TSTP | the job stops, and we do; CONT continues both |
//! | STOP | no process can pass it on; HTCondor suspends a job's whole family, the job included |

use anyhow::{Context, Result};
use nix::libc::SI_KERNEL;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub(crate) const PASSED_ON: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Ours, waiting to be read.
pub(crate) struct Signals(pub(crate) SignalFd);

/// One that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// A key was pressed: whoever is in the foreground is meant.
    pub(crate) by_terminal: bool,
}

impl Signals {
    /// Blocks them, `vacate` among them, whichever it is.
    pub(crate) fn block(vacate: Signal) -> Result<Signals> {
        let mut mask = SigSet::empty();
        for signal in PASSED_ON.into_iter().chain([vacate]) {
            mask.add(signal);
        }
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals(SignalFd::with_flags(&mask, flags)?))
    }

    pub(crate) fn next(&self) -> Result<Option<Arrived>> {
        let Some(info) = self.0.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).context("a signal of the kernel's")?;
        let signal = Signal::try_from(number).ok();
        Ok(signal.map(|signal| Arrived {
            signal,
            by_terminal: info.ssi_code == SI_KERNEL,
        }))
    }
}
