//! Images on their way to the store.
//!
//! The archive stays where HTCondor's own transfer finds it until the store has it: whatever ends a push, it goes by spool.

use std::fs;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::plan;
use crate::running::{Running, announce};
use crate::sandbox::Sandbox;
use crate::store::Lane;
use crate::transfer::{NotDone, Transfer};
use crate::vacate::{self, Packed};

/// An image that travels while the job runs on.
pub(crate) struct Push {
    transfer: Transfer,
    packed: Packed,
    begun: Instant,
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
        match store.push_in_passing(&sandbox.archive(), &packed.digest) {
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
            Ok(_) => {
                let packed = push.packed;
                let seconds = push.begun.elapsed().as_secs_f64();
                self.is_stored(sandbox, &packed, seconds);
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
        left: Option<Duration>,
    ) -> Sent {
        let Some(store) = &self.store else {
            return Sent::by_spool();
        };
        let begun = Instant::now();
        let left = left.map_or(f64::INFINITY, |left| left.as_secs_f64());
        let sent = match plan::store_seconds(left, packed.bytes, &self.notes.rates) {
            Some(seconds) => store
                .push(&sandbox.archive(), &packed.digest, seconds)
                .and_then(|mut transfer| transfer.wait(None).expect("there is nobody else")),
            None => Err(NotDone::new("there is no time for the store".to_owned())),
        };
        match sent {
            Ok(_) => {
                self.is_stored(sandbox, packed, begun.elapsed().as_secs_f64());
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

    fn is_stored(&mut self, sandbox: &Sandbox, packed: &Packed, seconds: f64) {
        let bytes = packed.bytes;
        tracing::info!(stage = "stored", bytes, seconds);
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
