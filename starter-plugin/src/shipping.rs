//! Images on their way to the store.
//!
//! The archive stays where HTCondor's own transfer finds it until the store has it: whatever ends a push, it goes by spool.
//!
//! While the job runs on, an image is sent when it is complete, for as long as it takes. At a soft kill every second counts:
//! `criu-transfer` is started before CRIU, hears of each frame that is written, and has little left to send at the end.

use std::fs;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use file_transfer_plugin::pack::Word;
use serde::Deserialize;

use crate::plan;
use crate::running::{Running, announce};
use crate::sandbox::Sandbox;
use crate::store::{self, Lane, Store};
use crate::transfer::{NotDone, Transfer};
use crate::vacate::{self, Packed};

/// An image that travels while the job runs on.
pub(crate) struct Push {
    transfer: Transfer,
    packed: Packed,
    begun: Instant,
}

/// An image that travels while it is written.
pub(crate) struct Along {
    transfer: Transfer,
    words: Sender<Word>,
    begun: Instant,
}

impl Along {
    fn begin(store: &Store, sandbox: &Sandbox, within: Duration) -> Result<Along, NotDone> {
        let (transfer, stdin) = store.push_along(&sandbox.archive(), within)?;
        let (words, spoken) = channel();
        let say = move || hand_on(&spoken, stdin);
        let thread = thread::Builder::new().name("along".into()).spawn(say);
        thread.map_err(|error| NotDone::new(format!("cannot start a thread: {error}")))?;
        Ok(Along {
            transfer,
            words,
            begun: Instant::now(),
        })
    }

    /// For whoever writes it.
    pub(crate) fn ear(&self) -> Sender<Word> {
        self.words.clone()
    }

    /// The archive is there: waits until it is sent, or the time is up.
    fn complete(mut self, packed: &Packed, within: Duration) -> Result<Vec<u8>, NotDone> {
        let digest = packed
            .digest
            .parse()
            .map_err(|_| NotDone::new("no digest".to_owned()))?;
        // Where nobody listens any more, its end says why.
        let _ = self.words.send(Word::Complete(digest));
        self.transfer.hasten(within);
        self.transfer.wait(None).expect("there is nobody else")
    }
}

/// A thread's work: one that does not read what it is told must not keep the writer from its work.
fn hand_on(words: &Receiver<Word>, mut to: ChildStdin) {
    for word in words {
        if writeln!(to, "{word}").is_err() {
            return;
        }
    }
}

/// What `criu-transfer` says of an image that it has sent: of its bytes those that the store lacked, and of them those
/// that went before the archive was complete.
#[derive(Default, Deserialize)]
struct Moved {
    sent_bytes: u64,
    ahead_bytes: u64,
}

/// Which way an image goes home, and why not the other.
pub(crate) struct Sent {
    lane: Lane,
    not_by_store: Option<NotDone>,
}

impl Sent {
    pub(crate) fn by_spool() -> Self {
        Self {
            lane: Lane::Spool,
            not_by_store: None,
        }
    }

    /// Tells the access point.
    pub(crate) fn announce(&self, packed: &Packed, before: &[String]) {
        announce(|chirp| {
            packed.announce(chirp, self.lane, before)?;
            self.not_by_store.as_ref().map_or(Ok(()), |why| {
                vacate::announce_failure(chirp, &format!("the image went by spool: {why}"))
            })
        });
    }
}

impl Running {
    /// Begins to send the image that was just taken; an older one that is still on its way is of no use any more.
    pub(crate) fn begin_push(&mut self, sandbox: &Sandbox, packed: &Packed) {
        self.push = None;
        let Some(store) = &self.store else { return };
        match store.push(&sandbox.archive(), &packed.digest, store::IN_PASSING) {
            Ok(transfer) => {
                self.push = Some(Push {
                    transfer,
                    packed: packed.clone(),
                    begun: Instant::now(),
                });
            }
            Err(why) => not_home(&why),
        }
    }

    /// Begins to send the image that is being taken.
    pub(crate) fn send_along(&self, sandbox: &Sandbox, within: Duration) -> Option<Along> {
        let begun = Along::begin(self.store.as_ref()?, sandbox, within);
        begun
            .inspect_err(|why| tracing::warn!("the image is sent when it is complete: {why}"))
            .ok()
    }

    /// Readable when there is something for [`Self::push_turn`].
    pub(crate) fn push_ear(&self) -> Option<BorrowedFd<'_>> {
        self.push.as_ref().map(|push| push.transfer.as_fd())
    }

    /// Hears how far it is.
    pub(crate) fn push_turn(&mut self, sandbox: &Sandbox) {
        let Some(push) = &mut self.push else { return };
        let Some(ended) = push.transfer.turn() else {
            return;
        };
        let push = self.push.take().expect("it was there just now");
        match ended {
            Ok(said) => {
                let packed = push.packed;
                let seconds = push.begun.elapsed().as_secs_f64();
                self.is_stored(sandbox, &packed, seconds, &said);
                announce(|chirp| packed.announce(chirp, Lane::Store, &self.notes.digests));
                self.notes.sent(&packed.digest);
                self.last = None;
            }
            Err(why) => not_home(&why),
        }
    }

    /// The job has ended, its archive lies ready, and `left` seconds are left: by which lane it goes home.
    pub(crate) fn send(
        &mut self,
        sandbox: &Sandbox,
        packed: &Packed,
        along: Option<Along>,
        left: Option<Duration>,
    ) -> Sent {
        let Some(store) = &self.store else {
            return Sent::by_spool();
        };
        let begun = along
            .as_ref()
            .map_or_else(Instant::now, |along| along.begun);
        let left = left.map_or(f64::INFINITY, |left| left.as_secs_f64());
        let within = plan::store_seconds(left, packed.bytes, &self.notes.rates)
            .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(store::IN_PASSING));
        let sent = match (within, along) {
            (None, _) => Err(NotDone::new("there is no time for the store".to_owned())),
            (Some(within), Some(along)) => along.complete(packed, within),
            (Some(within), None) => store
                .push(&sandbox.archive(), &packed.digest, within)
                .and_then(|mut transfer| transfer.wait(None).expect("there is nobody else")),
        };
        match sent {
            Ok(said) => {
                self.is_stored(sandbox, packed, begun.elapsed().as_secs_f64(), &said);
                Sent {
                    lane: Lane::Store,
                    not_by_store: None,
                }
            }
            Err(why) => {
                tracing::warn!("the image goes by spool: {why}");
                Sent {
                    not_by_store: Some(why),
                    ..Sent::by_spool()
                }
            }
        }
    }

    fn is_stored(&mut self, sandbox: &Sandbox, packed: &Packed, seconds: f64, said: &[u8]) {
        let bytes = packed.bytes;
        // It is there, whatever was said.
        let moved: Moved = serde_json::from_slice(said).unwrap_or_default();
        let (sent_bytes, ahead_bytes) = (moved.sent_bytes, moved.ahead_bytes);
        tracing::info!(stage = "stored", bytes, sent_bytes, ahead_bytes, seconds);
        self.notes.rates.stored(bytes, seconds);
        // HTCondor would carry it all the same.
        if let Err(error) = fs::remove_file(sandbox.archive()) {
            tracing::warn!("the image goes by spool, too: {error}");
        }
    }
}

/// The image stays here, and the next may have more luck.
fn not_home(why: &NotDone) {
    let reason = format!("the last image is not home: {why}");
    tracing::warn!("{reason}");
    announce(|chirp| vacate::announce_failure(chirp, &reason));
}
