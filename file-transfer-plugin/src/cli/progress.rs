//! Progress for a person: a bar on a terminal, a log line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::monitor::{Monitor, Progress};
use crate::workers::lock;

/// Between two lines in a log.
const LINES: Duration = Duration::from_secs(10);
const WIDTH: usize = 30;

pub(super) struct Person {
    bar: bool,
    start: Instant,
    last: Mutex<Instant>,
}

impl Person {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            bar: io::stderr().is_terminal(),
            start: now,
            last: Mutex::new(now),
        }
    }
}

impl Monitor for Person {
    fn progress(&self, Progress { stage, done, total }: Progress) {
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let rate = done as f64 / seconds;
        if self.bar {
            let end = if done >= total { "\n" } else { "" };
            // If stderr is gone there is nobody to show it to.
            let _ = write!(io::stderr(), "\r{}{end}", bar(done, total, rate));
            return;
        }
        let mut last = lock(&self.last);
        if last.elapsed() >= LINES || (done >= total && total > 0) {
            *last = Instant::now();
            tracing::info!(?stage, done, total, bytes_per_second = rate as u64);
        }
    }
}

fn bar(done: u64, total: u64, rate: f64) -> String {
    let part =
        |whole: u64| (u128::from(done) * u128::from(whole) / u128::from(total.max(1))) as u64;
    let (filled, percent) = match total {
        0 => (WIDTH, 100),
        _ => (part(WIDTH as u64) as usize, part(100)),
    };
    let filled = "=".repeat(filled.min(WIDTH));
    format!("[{filled:<WIDTH$}] {percent:3} % {:8.1} MB/s", rate / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(
            bar(1, 2, 2e6),
            "[===============               ]  50 %      2.0 MB/s"
        );
        assert!(bar(0, 0, 0.0).contains("100 %"));
        assert!(bar(u64::MAX, u64::MAX, 0.0).contains("100 %"));
    }
}
