//! What is due next in a job's life, and when.
//!
//! | what | when |
//! |---|---|
//! | a look at what would prevent an image | soon after the start, and again |
//! | a rehearsal | in the first minute, where the job asks for it |
//! | an image | each interval; a failure doubles the time to the next try |
//! | the last image | before the slot's announced end |
//!
//! Time comes in from outside, so that tests need not wait for it.

use std::time::{Duration, Instant};

use crate::period::Interval;

/// Programs open what they need when they begin.
const FIRST_LOOK: Duration = Duration::from_secs(5);
const NEXT_LOOK: Duration = Duration::from_secs(300);

const REHEARSAL: Duration = Duration::from_secs(20);

/// The most that failures put off the next try.
const MOST_DOUBLINGS: u32 = 6;

/// Before what an image costs is known, it is estimated when this time has passed.
const ESTIMATE: Duration = Duration::from_secs(60);

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Look,
    Rehearsal,
    /// The interval depends on what an image costs, and nobody knows that yet.
    Estimate,
    Image,
    LastImage,
}

/// When it is all due.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Interval,
    begun: Instant,
    failures: u32,
    look: Option<Instant>,
    rehearsal: Option<Instant>,
    estimate: Option<Instant>,
    image: Option<Instant>,
    last: Option<Instant>,
}

impl Schedule {
    /// From a start at `now` on. What an image costs is known if there was one, and `last` is how long from now on.
    pub(crate) fn new(
        interval: Interval,
        cost: Option<Duration>,
        rehearse: bool,
        last: Option<Duration>,
        now: Instant,
    ) -> Schedule {
        let mut schedule = Schedule {
            interval,
            begun: now,
            failures: 0,
            look: Some(now + FIRST_LOOK),
            rehearsal: rehearse.then_some(now + REHEARSAL),
            estimate: None,
            image: None,
            last: last.map(|last| now + last),
        };
        match (interval, cost) {
            (Interval::Measured { .. }, None) => schedule.estimate = Some(now + ESTIMATE),
            (_, cost) => schedule.image = schedule.from(now, cost.unwrap_or_default()),
        }
        schedule
    }

    fn from(&self, now: Instant, cost: Duration) -> Option<Instant> {
        let interval = self.interval.after(cost)?;
        // Far beyond any slot's life there is no image, and no overflow.
        now.checked_add(interval.saturating_mul(1 << self.failures.min(MOST_DOUBLINGS)))
    }

    /// When there is something to do again.
    pub(crate) fn next(&self) -> Option<Instant> {
        [
            self.look,
            self.rehearsal,
            self.estimate,
            self.image,
            self.last,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is due at `now`; asked until there is nothing.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Due> {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.last) {
            // The next image would be too late.
            self.image = None;
            self.estimate = None;
            return Some(Due::LastImage);
        }
        if due(&mut self.look) {
            self.look = Some(now + NEXT_LOOK);
            return Some(Due::Look);
        }
        if due(&mut self.rehearsal) {
            return Some(Due::Rehearsal);
        }
        if due(&mut self.estimate) {
            return Some(Due::Estimate);
        }
        due(&mut self.image).then_some(Due::Image)
    }

    /// An image is expected to cost that much: the first is due when its interval has passed since the start.
    pub(crate) fn estimated(&mut self, cost: Duration) {
        self.image = self.from(self.begun, cost);
    }

    /// There is an image, and it cost that much.
    pub(crate) fn taken(&mut self, cost: Duration, now: Instant) {
        self.failures = 0;
        self.estimate = None;
        self.image = self.from(now, cost);
    }

    /// The one before is still on its way.
    pub(crate) fn later(&mut self, now: Instant) {
        self.image = self.from(now, Duration::ZERO);
    }

    /// There is none, and trying cost that much.
    pub(crate) fn failed(&mut self, cost: Duration, now: Instant) {
        self.failures += 1;
        self.image = self.from(now, cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Everything that is due until `end`, and after how many seconds.
    fn all(
        schedule: &mut Schedule,
        start: Instant,
        end: Duration,
        cost: Duration,
    ) -> Vec<(Due, u64)> {
        let mut found = Vec::new();
        while let Some(next) = schedule.next().filter(|next| *next <= start + end) {
            while let Some(due) = schedule.take(next) {
                match due {
                    Due::Estimate => schedule.estimated(cost),
                    Due::Image => schedule.taken(cost, next),
                    _ => {}
                }
                if due != Due::Look {
                    found.push((due, (next - start).as_secs()));
                }
            }
        }
        found
    }

    #[test]
    fn a_chosen_interval_is_kept() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Interval::Chosen(10 * MINUTE), None, false, None, now);
        let images = all(&mut schedule, now, 31 * MINUTE, MINUTE);
        assert_eq!(images, [600, 1200, 1800].map(|at| (Due::Image, at)));
    }

    #[test]
    fn a_measured_one_is_estimated_first() {
        let now = Instant::now();
        let interval = Interval::Measured { mean_life: 7200.0 };
        let mut schedule = Schedule::new(interval, None, false, None, now);
        let cost = Duration::from_secs(5);
        let found = all(&mut schedule, now, 20 * MINUTE, cost);
        let each = interval.after(cost).unwrap().as_secs();
        let images = (1..=1200 / each).map(|i| (Due::Image, i));
        assert_eq!(found[0], (Due::Estimate, 60));
        assert_eq!(found.len() - 1, images.count());
        assert_eq!(found[1].1, each);
    }

    #[test]
    fn no_interval_no_images_but_the_looks_and_the_last() {
        let now = Instant::now();
        let last = Some(20 * MINUTE);
        let mut schedule = Schedule::new(Interval::Never, None, true, last, now);
        let found = all(&mut schedule, now, 60 * MINUTE, MINUTE);
        assert_eq!(found, [(Due::Rehearsal, 20), (Due::LastImage, 1200)]);
        assert!(schedule.next().is_some(), "it goes on looking");
    }

    #[test]
    fn after_the_last_image_there_is_none() {
        let now = Instant::now();
        let last = Some(25 * MINUTE);
        let chosen = Interval::Chosen(10 * MINUTE);
        let mut schedule = Schedule::new(chosen, None, false, last, now);
        let found = all(&mut schedule, now, 60 * MINUTE, MINUTE);
        let expected = [
            (Due::Image, 600),
            (Due::Image, 1200),
            (Due::LastImage, 1500),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn failures_put_the_next_try_off() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Interval::Chosen(MINUTE), None, false, None, now);
        let mut at = now;
        let mut waits = Vec::new();
        for _ in 0..8 {
            schedule.failed(Duration::ZERO, at);
            let next = schedule.image.unwrap();
            waits.push((next - at).as_secs() / 60);
            at = next;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64, 64]);
        schedule.taken(Duration::ZERO, at);
        assert_eq!(schedule.image.unwrap() - at, MINUTE);
    }
}
