//! How long the probe waits, and for whom it stops.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// All of a probe, whatever happens: a glidein waits for it at its start.
const LIMIT: Duration = Duration::from_secs(30);

/// One freeze and thaw, which takes 0.3 s; a node that needs this long is no good
/// one. Twice fits into the whole: what hangs with all parts may work with none.
pub(crate) const TRIAL: Duration = Duration::from_secs(12);

/// Longer than this, and the node is busy with something else.
pub(crate) const SLOW: Duration = Duration::from_millis(1500);

/// For a part that hangs alone: it is good to know and nothing to wait for.
pub(crate) const PART: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_millis(1);

/// Told to stop, so the probe has no answer.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {0} before there was an answer")]
pub(crate) struct Stopped(Signal);

/// A deadline for all of a probe.
pub(crate) struct Patience {
    begun: Instant,
    end: Instant,
    deadline: Instant,
    signals: SignalFd,
}

impl Patience {
    /// From now on this thread's stop signals are read from here.
    pub(crate) fn begin() -> Result<Patience> {
        let mut mask = SigSet::empty();
        // STARTD_CRON's KILL is a TERM first.
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let begun = Instant::now();
        Ok(Patience {
            begun,
            end: begun + LIMIT,
            deadline: begun + TRIAL,
            signals: SignalFd::with_flags(&mask, flags).context("cannot wait for signals")?,
        })
    }

    /// What comes next has that long, or what is left.
    pub(crate) fn allow(&mut self, limit: Duration) {
        self.begun = Instant::now();
        self.deadline = self.end.min(self.begun + limit);
    }

    /// Lets a moment pass; an error when there is none left.
    pub(crate) fn wait(&mut self) -> Result<()> {
        if let Some(info) = self.signals.read_signal()? {
            let signal = i32::try_from(info.ssi_signo).context("a signal of the kernel's")?;
            return Err(Stopped(Signal::try_from(signal)?).into());
        }
        if Instant::now() > self.deadline {
            let spent = self.begun.elapsed().as_secs();
            bail!("freezing and thawing took more than {spent} s");
        }
        std::thread::sleep(POLL);
        Ok(())
    }
}
