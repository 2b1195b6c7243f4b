//! How long to go on trying, shared by all connections of one transfer.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Options};
use crate::monitor::Monitor;
use crate::workers::lock;

/// The first pause, which doubles with each failure, and the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How often a pause looks whether it should end.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Effort<'a> {
    options: Options,
    monitor: &'a dyn Monitor,
    start: Instant,
    /// When something last worked.
    last: Mutex<Instant>,
    /// Another connection has failed for good.
    given_up: AtomicBool,
    /// What fails is not tried again.
    no_more_tries: AtomicBool,
    failures: AtomicU32,
    connections: AtomicU32,
    /// Until the first connection stood, in microseconds.
    connect: AtomicU64,
}

impl<'a> Effort<'a> {
    pub(crate) fn new(options: &Options, monitor: &'a dyn Monitor) -> Self {
        let start = Instant::now();
        Self {
            options: *options,
            monitor,
            start,
            last: Mutex::new(start),
            given_up: AtomicBool::new(false),
            no_more_tries: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            connect: AtomicU64::new(0),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.start + self.options.within
    }

    pub(crate) fn left(&self) -> Duration {
        self.options.within.saturating_sub(self.start.elapsed())
    }

    pub(crate) fn late(&self) -> Error {
        let after = self.options.within;
        Error::Late { after }
    }

    pub(crate) fn stall(&self) -> Duration {
        self.options.stall
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || self.monitor.cancelled()
    }

    fn is_over(&self) -> bool {
        self.no_more_tries.load(Ordering::Relaxed) || self.is_stopped()
    }

    /// All others stop, too.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// What is under way may come to its end, and no more.
    pub(crate) fn no_more_tries(&self) {
        self.no_more_tries.store(true, Ordering::Relaxed);
    }

    /// After one of these two: with other work, in the same time.
    pub(crate) fn go_on(&self) {
        self.given_up.store(false, Ordering::Relaxed);
        self.no_more_tries.store(false, Ordering::Relaxed);
    }

    /// There is no reason for impatience.
    pub(crate) fn has_worked(&self) {
        *lock(&self.last) = Instant::now();
    }

    pub(crate) fn connected(&self, after: Duration) {
        if self.connections.fetch_add(1, Ordering::Relaxed) == 0 {
            let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            self.connect.store(micros, Ordering::Relaxed);
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.failures.load(Ordering::Relaxed) + 1
    }

    pub(crate) fn connect_seconds(&self) -> f64 {
        self.connect.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Does the same on so many connections. The first that fails for good stops the others, and says why.
    pub(crate) fn side_by_side(
        &self,
        connections: usize,
        work: impl Fn() -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    if let Err(error) = work() {
                        lock(&failed).get_or_insert(error);
                        self.give_up();
                    }
                });
            }
        });
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)
    }

    /// Does something that may fail for a moment, until it works, the time is up, or nothing has worked for too long.
    pub(crate) fn persist<T>(
        &self,
        mut work: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut pause = PAUSE;
        loop {
            let error = match work() {
                Ok(done) => {
                    self.has_worked();
                    return Ok(done);
                }
                Err(error) => error,
            };
            if !error.is_transient() || self.is_over() {
                return Err(error);
            }
            self.failures.fetch_add(1, Ordering::Relaxed);
            let wanted = match &error {
                Error::Busy {
                    retry_after: Some(after),
                    ..
                } => (*after).max(pause),
                _ => pause,
            };
            let wait = jitter(wanted);
            let silent = lock(&self.last).elapsed();
            if wait >= self.left() || silent + wait >= self.options.patience {
                return Err(error);
            }
            tracing::info!(
                wait = wait.as_secs_f64(),
                left = self.left().as_secs(),
                "again after: {:#}",
                Chain(&error)
            );
            let until = Instant::now() + wait;
            while Instant::now() < until {
                if self.is_over() {
                    return Err(error);
                }
                thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// An error with its causes.
struct Chain<'e>(&'e Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut error: &dyn std::error::Error = self.0;
        write!(f, "{error}")?;
        while let Some(cause) = error.source() {
            write!(f, ": {cause}")?;
            error = cause;
        }
        Ok(())
    }
}

/// Between a half and the one and a half of it: hundreds of jobs that lost their store at once must not come back at once.
fn jitter(wait: Duration) -> Duration {
    // Each state is keyed anew, from the system's own randomness.
    let random = RandomState::new().hash_one(0) % 1024;
    wait / 2 + wait * random as u32 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;

    fn options(within: u64, patience: u64) -> Options {
        Options {
            within: Duration::from_millis(within),
            patience: Duration::from_millis(patience),
            ..Options::default()
        }
    }

    fn broken() -> Error {
        Error::Broken {
            server: "h".into(),
            source: std::io::ErrorKind::ConnectionReset.into(),
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
        let options = options(60_000, 60_000);
        let effort = Effort::new(&options, &Silent);
        let mut tries = 0;
        let done = effort.persist(|| {
            tries += 1;
            if tries < 3 { Err(broken()) } else { Ok(tries) }
        });
        assert_eq!((done.unwrap(), effort.attempts()), (3, 3));
        let mut tries = 0;
        let done: Result<(), _> = effort.persist(|| {
            tries += 1;
            Err(Error::Parameter("no".into()))
        });
        assert!(done.is_err());
        assert_eq!(tries, 1);
    }

    #[test]
    fn it_ends_with_the_time_and_with_the_patience_and_says_what_was_wrong() {
        for options in [options(900, 60_000), options(60_000, 900)] {
            let start = Instant::now();
            let effort = Effort::new(&options, &Silent);
            let done: Result<(), _> = effort.persist(|| Err(broken()));
            assert!(matches!(done, Err(Error::Broken { .. })));
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn no_two_wait_equally_long() {
        let waits: std::collections::HashSet<_> =
            (0..20).map(|_| jitter(Duration::from_secs(1))).collect();
        assert!(waits.len() > 10);
        assert!(
            waits
                .iter()
                .all(|wait| (500..1500).contains(&wait.as_millis()))
        );
    }
}
