//! How long work tells its caller how far it is.
//!
//! Whoever starts the work hands in a [`Monitor`]; the work wraps it in [`Paced`], so that the hot loop may report each chunk
//! and the receiver is still called at most five times a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The shortest time between two reports of one stage.
const PACE: Duration = Duration::from_millis(200);

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Trees are read into an archive.
    Pack,
    /// The archive is being forced to disk.
    Sync,
    /// An archive is read and compared with its manifest.
    Verify,
    /// An archive is written out as trees.
    Unpack,
    /// The chunks that a store lacks go there.
    Ship,
    /// Chunks come from a store.
    Fetch,
}

/// How far a stage is: in bytes before compression, and in bytes as they travel where they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Somebody who wants to know. Called from several threads.
pub trait Monitor: Sync {
    /// A stage got this far; the last report of a stage has `done == total`.
    fn progress(&self, progress: Progress);

    /// Whether the work should end now, undone: the time is up. Asked before each chunk.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn progress(&self, _: Progress) {}
}

/// One stage of work, counted and paced.
pub struct Paced<'a> {
    monitor: &'a dyn Monitor,
    stage: Stage,
    total: u64,
    state: Mutex<(u64, Instant)>,
}

impl<'a> Paced<'a> {
    /// A stage of `total` bytes begins.
    pub fn new(monitor: &'a dyn Monitor, stage: Stage, total: u64) -> Self {
        monitor.progress(Progress {
            stage,
            done: 0,
            total,
        });
        Self {
            monitor,
            stage,
            total,
            state: Mutex::new((0, Instant::now())),
        }
    }

    /// Whether the work should end now.
    pub fn cancelled(&self) -> bool {
        self.monitor.cancelled()
    }

    /// How many bytes are not done.
    #[cfg(feature = "remote")]
    pub(crate) fn left(&self) -> u64 {
        let state = self.state.lock();
        let done = state.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        self.total.saturating_sub(done)
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        // A panic elsewhere must not become a second one here: the counter is right whoever held the lock.
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        state.0 += bytes;
        let end = state.0 >= self.total;
        if end || state.1.elapsed() >= PACE {
            state.1 = Instant::now();
            let done = state.0;
            drop(state);
            self.monitor.progress(Progress {
                stage: self.stage,
                done,
                total: self.total,
            });
        }
    }
}

/// Writes log lines.
#[cfg(feature = "archive")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

#[cfg(feature = "archive")]
impl Monitor for Log {
    fn progress(&self, Progress { stage, done, total }: Progress) {
        tracing::debug!(?stage, done, total, "progress");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(Mutex<Vec<u64>>);

    impl Monitor for Count {
        fn progress(&self, progress: Progress) {
            self.0.lock().unwrap().push(progress.done);
        }
    }

    #[test]
    fn many_small_steps_are_few_reports_and_the_last_one_is_complete() {
        let count = Count(Mutex::default());
        let paced = Paced::new(&count, Stage::Pack, 10_000);
        for _ in 0..10_000 {
            paced.add(1);
        }
        let seen = count.0.into_inner().unwrap();
        assert!(seen.len() < 10, "{} reports", seen.len());
        assert_eq!(seen.last(), Some(&10_000));
    }
}
