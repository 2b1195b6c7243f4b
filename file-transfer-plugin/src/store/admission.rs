//! Many evictions at once: uploads have turns, and who has least time goes first.
//!
//! ```text
//!   asked ---> waiting, by deadline ---> uploading, with a ticket ---> committed
//!     |            |  time is up                |  unused for a minute
//!     +--> refused now, when the turn would come too late: there is time left for another way
//! ```
//!
//! A pool that drains sends everything at once. In parallel all would be late; one after the other most are in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::StoreError;
use super::owner::Owner;
use crate::workers::lock;

/// A ticket that is not used for so long is void: its holder is dead.
const UNUSED: Duration = Duration::from_secs(60);
/// How many of one owner wait.
const WAITING: usize = 4096;
/// The longest that anybody may want to wait.
const LONGEST: u64 = 3600;
/// How often the rate is taken, tickets are voided.
const TICK: Duration = Duration::from_secs(1);
/// How much a new measurement of the rate counts.
const WEIGHT: f64 = 0.2;

type Id = u64;

/// Gives out turns.
pub(super) struct Turns {
    state: Mutex<State>,
    slots: usize,
}

#[derive(Default)]
struct State {
    next: Id,
    uploading: HashMap<Id, Uploading>,
    waiting: BTreeMap<(Instant, Id), Waiting>,
    /// Bytes since the last tick.
    received: u64,
    /// Bytes a second while all turns are taken; how fast a queue moves.
    rate: Option<f64>,
}

struct Uploading {
    owner: Owner,
    left: u64,
    used: Instant,
}

struct Waiting {
    owner: Owner,
    bytes: u64,
    go: oneshot::Sender<Id>,
}

/// Takes a request out of the queue when it ends, however it ends.
struct Place<'a> {
    turns: &'a Turns,
    key: (Instant, Id),
    go: oneshot::Receiver<Id>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.turns.state);
        state.waiting.remove(&self.key);
        // Its turn came just when nobody waited for it any more.
        if let Ok(id) = self.go.try_recv() {
            state.uploading.remove(&id);
            state.advance(self.turns.slots);
        }
    }
}

impl Turns {
    pub(super) fn new(slots: usize) -> Arc<Self> {
        let state = Mutex::default();
        let slots = slots.max(1);
        Arc::new(Self { state, slots })
    }

    /// Waits for a turn to send `bytes` within `seconds`.
    pub(super) async fn wait(
        &self,
        owner: &Owner,
        bytes: u64,
        seconds: u64,
    ) -> Result<String, StoreError> {
        let seconds = seconds.min(LONGEST);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let (go, turn) = oneshot::channel();
        let mut place = {
            let mut state = lock(&self.state);
            let mine = state.waiting.values().filter(|other| other.owner == *owner);
            if mine.count() >= WAITING {
                return Err(StoreError::TooMany);
            }
            if state.uploading.len() >= self.slots
                && let Some(needed) = state.seconds_until(deadline)
                && needed > seconds
            {
                return Err(StoreError::TooLate { needed, seconds });
            }
            state.next += 1;
            let key = (deadline, state.next);
            let owner = owner.clone();
            state.waiting.insert(key, Waiting { owner, bytes, go });
            state.advance(self.slots);
            let turns = self;
            Place {
                turns,
                key,
                go: turn,
            }
        };
        match timeout(deadline - Instant::now(), &mut place.go).await {
            Ok(Ok(id)) => Ok(id.to_string()),
            _ => Err(StoreError::TooLate {
                needed: seconds + 1,
                seconds,
            }),
        }
    }

    /// A ticket is used for `bytes`. Whoever has none may send only where nobody waits.
    pub(super) fn r#use(
        &self,
        owner: &Owner,
        ticket: Option<&str>,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let state = &mut *lock(&self.state);
        let id = ticket.and_then(|ticket| ticket.parse::<Id>().ok());
        let upload = id.and_then(|id| state.uploading.get_mut(&id));
        match upload.filter(|upload| upload.owner == *owner) {
            Some(upload) => {
                upload.left = upload.left.saturating_sub(bytes);
                upload.used = Instant::now();
            }
            None if state.waiting.is_empty() => {}
            None => return Err(StoreError::NoTurn),
        }
        state.received += bytes;
        Ok(())
    }

    /// An upload has come to its end.
    pub(super) fn end(&self, owner: &Owner, ticket: Option<&str>) {
        let Some(id) = ticket.and_then(|ticket| ticket.parse().ok()) else {
            return;
        };
        let mut state = lock(&self.state);
        if state
            .uploading
            .get(&id)
            .is_some_and(|upload| upload.owner == *owner)
        {
            state.uploading.remove(&id);
            state.advance(self.slots);
        }
    }

    /// What those who have their turn are still to send: one owner, and all.
    pub(super) fn promised(&self, owner: &Owner) -> (u64, u64) {
        let state = lock(&self.state);
        let (mut own, mut all) = (0u64, 0u64);
        for upload in state.uploading.values() {
            all = all.saturating_add(upload.left);
            if upload.owner == *owner {
                own = own.saturating_add(upload.left);
            }
        }
        (own, all)
    }

    /// How many upload, and how many wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.uploading.len(), state.waiting.len())
    }

    /// Measures and voids, for ever.
    pub(super) async fn tick(self: Arc<Self>) {
        let mut every = tokio::time::interval(TICK);
        loop {
            every.tick().await;
            let mut state = lock(&self.state);
            state.measure(self.slots);
            state
                .uploading
                .retain(|_, upload| upload.used.elapsed() < UNUSED);
            state.advance(self.slots);
        }
    }
}

impl State {
    /// Gives free turns to those who wait.
    fn advance(&mut self, slots: usize) {
        while self.uploading.len() < slots {
            // Half of the turns at most are one owner's while others wait, or who lies about the time would have all.
            let share = slots.div_ceil(2);
            let below = |owner: &Owner| {
                let has = self.uploading.values();
                has.filter(|upload| upload.owner == *owner).count() < share
            };
            let first = self.waiting.iter();
            let first = first
                .clone()
                .find(|(_, waiting)| below(&waiting.owner))
                .or_else(|| self.waiting.iter().next());
            let Some(key) = first.map(|(key, _)| *key) else {
                return;
            };
            let Some(Waiting { owner, bytes, go }) = self.waiting.remove(&key) else {
                return;
            };
            if go.send(key.1).is_ok() {
                let used = Instant::now();
                let left = bytes;
                self.uploading
                    .insert(key.1, Uploading { owner, left, used });
            }
        }
    }

    /// When the turn of one with this deadline would come, as far as is known.
    fn seconds_until(&self, deadline: Instant) -> Option<u64> {
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        let before = self.waiting.range(..(deadline, Id::MAX));
        let waiting: u64 = before.map(|(_, waiting)| waiting.bytes).sum();
        let uploading: u64 = self.uploading.values().map(|upload| upload.left).sum();
        // A turn is free when the first of them is done, not all.
        let slots = self.uploading.len().max(1) as u64;
        Some(((waiting + uploading / slots) as f64 / rate) as u64)
    }

    fn measure(&mut self, slots: usize) {
        let received = std::mem::take(&mut self.received) as f64;
        // Only then it is the store that is slow, not its clients.
        if self.uploading.len() < slots || self.waiting.is_empty() {
            return;
        }
        let rate = self
            .rate
            .map_or(received, |rate| rate * (1.0 - WEIGHT) + received * WEIGHT);
        self.rate = Some(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        name.parse().unwrap()
    }

    /// Lets all tasks go as far as they come by themselves.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn ask(
        turns: &Arc<Turns>,
        who: &str,
        seconds: u64,
    ) -> tokio::task::JoinHandle<Result<String, StoreError>> {
        let (turns, who) = (Arc::clone(turns), owner(who));
        let asked = tokio::spawn(async move { turns.wait(&who, 100, seconds).await });
        settle().await;
        asked
    }

    #[tokio::test]
    async fn who_has_least_time_goes_first() {
        let turns = Turns::new(1);
        let first = ask(&turns, "a", 100).await.await.unwrap().unwrap();
        let patient = ask(&turns, "b", 90).await;
        let hasty = ask(&turns, "c", 10).await;
        let last = ask(&turns, "d", 95).await;
        assert_eq!(turns.counts(), (1, 3));
        turns.end(&owner("a"), Some(&first));
        let hasty = hasty.await.unwrap().unwrap();
        settle().await;
        assert!(!patient.is_finished() && !last.is_finished());
        turns.end(&owner("c"), Some(&hasty));
        let patient = patient.await.unwrap().unwrap();
        settle().await;
        assert!(!last.is_finished());
        turns.end(&owner("b"), Some(&patient));
        last.await.unwrap().unwrap();
        assert_eq!(turns.counts(), (1, 0));
    }

    #[tokio::test]
    async fn a_turn_that_would_come_too_late_is_refused_at_once() {
        let turns = Turns::new(1);
        let _first = ask(&turns, "a", 100).await.await.unwrap().unwrap();
        let _second = ask(&turns, "b", 50).await;
        {
            let mut state = lock(&turns.state);
            // A hundred bytes are to come before the next turn, at ten a second.
            state.rate = Some(10.0);
        }
        let late = turns.wait(&owner("c"), 100, 9).await;
        assert!(
            matches!(
                late,
                Err(StoreError::TooLate {
                    needed: 10,
                    seconds: 9
                })
            ),
            "{late:?}"
        );
        // Before the second, and then behind it.
        for seconds in [11, 51] {
            assert!(!ask(&turns, "c", seconds).await.is_finished());
        }
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_queue_and_gives_its_turn_on() {
        let turns = Turns::new(1);
        let first = ask(&turns, "a", 100).await.await.unwrap().unwrap();
        let gone = ask(&turns, "b", 10).await;
        let next = ask(&turns, "c", 20).await;
        gone.abort();
        settle().await;
        assert_eq!(turns.counts(), (1, 1));
        turns.end(&owner("a"), Some(&first));
        next.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_owner_does_not_take_all_turns_while_others_wait() {
        let turns = Turns::new(2);
        let first = ask(&turns, "greedy", 1).await.await.unwrap().unwrap();
        let _second = ask(&turns, "greedy", 1).await.await.unwrap().unwrap();
        let third = ask(&turns, "greedy", 1).await;
        let other = ask(&turns, "b", 100).await;
        turns.end(&owner("greedy"), Some(&first));
        other.await.unwrap().unwrap();
        assert!(!third.is_finished());
    }

    #[tokio::test]
    async fn without_a_ticket_one_may_send_only_where_nobody_waits() {
        let turns = Turns::new(1);
        let (a, b) = (owner("a"), owner("b"));
        assert!(turns.r#use(&b, None, 1).is_ok());
        let first = ask(&turns, "a", 100).await.await.unwrap().unwrap();
        assert!(turns.r#use(&b, None, 1).is_ok());
        let _waiting = ask(&turns, "c", 100).await;
        assert!(turns.r#use(&a, Some(&first), 1).is_ok());
        for ticket in [None, Some("x"), Some(first.as_str()), Some("99")] {
            let refused = turns.r#use(&b, ticket, 1);
            assert!(matches!(refused, Err(StoreError::NoTurn)), "{ticket:?}");
        }
        turns.end(&b, Some(&first));
        assert_eq!(turns.counts(), (1, 1), "only its holder ends an upload");
    }
}
