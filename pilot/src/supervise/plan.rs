//! Who leaves when: the largest first, two at a time, and everybody when the time gets short.

use std::collections::VecDeque;
use std::time::Duration;

/// More at a time would only share the same disk and the same link.
const AT_A_TIME: usize = 2;

/// Of an image that arrive in a second: a link of 100 Mbit/s for all jobs of a pilot.
const BYTES_PER_SECOND: u64 = 12_500_000;

/// Freezing, packing and HTCondor's own steps, for each job.
const SECONDS_EACH: u64 = 10;

/// A slot with a job that wants to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) job: String,
    /// Of its memory, as far as the startd knows.
    pub(super) bytes: u64,
}

/// The order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    waiting: VecDeque<Slot>,
    leaving: Vec<Slot>,
}

impl Plan {
    pub(super) fn new(mut slots: Vec<Slot>) -> Plan {
        // What takes longest must not come last; the job's id makes the order one.
        slots.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.job.cmp(&b.job)));
        Plan {
            waiting: slots.into(),
            leaving: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.leaving.is_empty()
    }

    /// How many are not out.
    pub(super) fn rest(&self) -> usize {
        self.waiting.len() + self.leaving.len()
    }

    /// How long all of them need, one after the other.
    pub(super) fn seconds(&self) -> u64 {
        let seconds = |slot: &Slot| slot.bytes / BYTES_PER_SECOND + SECONDS_EACH;
        self.waiting.iter().chain(&self.leaving).map(seconds).sum()
    }

    /// Who is to be asked now.
    pub(super) fn next(&mut self, left: Duration) -> Vec<Slot> {
        // Nobody waits for a turn that may not come.
        let is_short = left.as_secs() < 2 * self.seconds();
        let turn = if is_short {
            self.waiting.len()
        } else {
            AT_A_TIME.saturating_sub(self.leaving.len())
        };
        let turn: Vec<Slot> = self.waiting.drain(..turn.min(self.waiting.len())).collect();
        self.leaving.extend_from_slice(&turn);
        turn
    }

    /// What a look at the slots shows: the jobs that are out.
    pub(super) fn see(&mut self, slots: &[Slot]) -> Vec<String> {
        let is_there = |slot: &Slot| {
            slots
                .iter()
                .any(|now| now.name == slot.name && now.job == slot.job)
        };
        let (here, gone): (Vec<_>, Vec<_>) = self.leaving.drain(..).partition(is_there);
        self.leaving = here;
        // One that ended by itself needs no asking.
        self.waiting.retain(is_there);
        gone.into_iter().map(|slot| slot.job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Vec<Slot> {
        let slot = |number: u64, megabytes: u64| Slot {
            name: format!("slot{number}@x"),
            job: format!("{number}.0"),
            bytes: megabytes << 20,
        };
        vec![slot(1, 10), slot(2, 900), slot(3, 0), slot(4, 300)]
    }

    fn jobs(slots: &[Slot]) -> Vec<&str> {
        slots.iter().map(|slot| slot.job.as_str()).collect()
    }

    #[test]
    fn the_largest_leave_first_two_at_a_time() {
        let mut plan = Plan::new(slots());
        let long = Duration::from_secs(3600);
        assert_eq!(jobs(&plan.next(long)), ["2.0", "4.0"]);
        assert!(plan.next(long).is_empty());
        let now: Vec<_> = slots()
            .into_iter()
            .filter(|slot| slot.job != "4.0")
            .collect();
        assert_eq!(plan.see(&now), ["4.0"]);
        assert_eq!(jobs(&plan.next(long)), ["1.0"]);
        // The third ended by itself.
        assert_eq!(plan.see(&[]), ["2.0", "1.0"]);
        assert!(plan.is_done());
    }

    #[test]
    fn when_time_is_short_nobody_waits() {
        let mut plan = Plan::new(slots());
        let needed = plan.seconds();
        assert_eq!(
            needed,
            (900 << 20) / 12_500_000 + (300 << 20) / 12_500_000 + 40
        );
        assert_eq!(
            jobs(&plan.next(Duration::from_secs(2 * needed - 1))),
            ["2.0", "4.0", "1.0", "3.0"]
        );
        assert_eq!(plan.rest(), 4);
    }

    #[test]
    fn another_job_on_the_slot_is_not_the_one_that_was_asked() {
        let mut plan = Plan::new(slots());
        plan.next(Duration::from_secs(3600));
        let mut now = slots();
        now[1].job = "9.0".into();
        assert_eq!(plan.see(&now), ["2.0"]);
    }
}
