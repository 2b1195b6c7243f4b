//! `checkpoint.criu` -> the chunks that the store lacks -> an image that is committed there.
//!
//! ```text
//!   missing    which chunks does the store lack?         nothing for what another image of the job has
//!   admission  my turn, with so many bytes and seconds   who has least time goes first
//!   chunks     several connections                       cut off, the next try asks "missing" again
//!   commit     the manifest, last                        before it there is nothing, after it everything
//! ```
//!
//! Of an archive that is still being written the chunks go ahead ([`ship_along`]); all of the above follows when it is complete.
//!
//! A supervisor calls it while the job runs on (periodic images) or before it ends. It returns when the image is committed,
//! or with the reason when it is not; the archive stays where it is either way.
//!
//! ```no_run
//! use file_transfer_plugin::monitor::Log;
//! use file_transfer_plugin::remote::{Options, Remote, Tokens};
//! use file_transfer_plugin::ship::ship;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let left = std::time::Duration::from_secs(60);
//! let store = Remote::new("criu://ap.example.org/12.0".parse()?, Tokens::from_environment())?;
//! let options = Options { within: left, ..Options::default() };
//! let moved = ship("checkpoint.criu".as_ref(), &store, &options, &Log)?;
//! println!("{} of {} bytes", moved.sent_bytes, moved.file_bytes);
//! # Ok(())
//! # }
//! ```

mod ahead;

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::buffers::{Buffer, Buffers};
use crate::manifest::{Digest, Frame, Limits};
use crate::monitor::{Monitor, Paced, Stage};
use crate::protocol::{Admission, Chunk, Job};
use crate::remote::{Commit, Effort, Error, Moved, Options, Remote, Requests};
use crate::rig;
use crate::unpack::Archive;
use crate::workers::lock;

/// How often a store may say that chunks are missing which it had: each time another image was removed meanwhile.
const ROUNDS: u32 = 8;

/// The most connections that are of use.
const CONNECTIONS: usize = 16;

/// Where each distinct chunk lies in the archive.
type Places = HashMap<Chunk, (u64, Frame)>;

/// Sends an archive.
pub fn ship(
    archive: &Path,
    remote: &Remote,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Moved, Error> {
    let effort = Effort::new(options, monitor);
    let delivery = Delivery::new(remote, &effort)?;
    delivery.complete(archive, remote.url().digest, options, monitor)
}

/// Sends an archive that is still being written. `words` is what its writer says of it, a [`Word`](crate::pack::Word) a line;
/// where they end before the archive is complete there is no image.
pub fn ship_along(
    archive: &Path,
    words: impl BufRead,
    remote: &Remote,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Moved, Error> {
    let effort = Effort::new(options, monitor);
    let delivery = Delivery::new(remote, &effort)?;
    let digest = ahead::send(&delivery, archive, words, connections(options))?;
    delivery.complete(archive, Some(digest), options, monitor)
}

fn connections(options: &Options) -> usize {
    options.connections.clamp(1, CONNECTIONS)
}

/// An image on its way to its job's place in a store.
struct Delivery<'a> {
    remote: &'a Remote,
    effort: &'a Effort<'a>,
    job: &'a Job,
    turn: Turn,
    sent: Sent,
    buffers: Buffers,
}

impl<'a> Delivery<'a> {
    fn new(remote: &'a Remote, effort: &'a Effort<'a>) -> Result<Self, Error> {
        Ok(Self {
            remote,
            effort,
            job: remote.url().job()?,
            turn: Turn::default(),
            sent: Sent::default(),
            buffers: Buffers::default(),
        })
    }

    /// Sends what the store lacks of an archive that is complete, and commits it.
    fn complete(
        &self,
        archive: &Path,
        expected: Option<Digest>,
        options: &Options,
        monitor: &dyn Monitor,
    ) -> Result<Moved, Error> {
        let archive = Archive::open(archive, &Limits::default())?;
        archive.check_names()?;
        let digest = archive.digest();
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            let what = format!("the archive is {digest}, and not {expected}");
            return Err(Error::Parameter(what));
        }
        let ahead_bytes = self.sent.bytes.load(Ordering::Relaxed);
        let manifest = Bytes::from(archive.manifest_json()?);
        let mut requests = Requests::new(self.remote, self.effort)?;

        let mut places = Places::new();
        for (at, frame) in archive.frames() {
            places.entry(Chunk::from(frame)).or_insert((at, frame));
        }
        let names: Vec<Chunk> = places.keys().copied().collect();
        let mut missing = self.effort.persist(|| requests.missing(&names))?;

        for round in 0..ROUNDS {
            let bytes = missing.iter().map(|chunk| u64::from(chunk.packed)).sum();
            if round == 0 {
                self.begin_turn(bytes, &mut requests)?;
            } else if !missing.is_empty() {
                self.renew_turn(bytes, &mut requests)?;
            }
            let load = Load {
                delivery: self,
                archive: &archive,
            };
            load.send(&missing, &places, connections(options), monitor)?;
            let commit = self.effort.persist(|| {
                let ticket = self.turn.ticket();
                requests.commit(self.job, digest, manifest.clone(), ticket.as_deref())
            })?;
            match commit {
                Commit::Done => {
                    return Ok(Moved {
                        file_bytes: archive.bytes(),
                        sent_bytes: self.sent.bytes.load(Ordering::Relaxed) + manifest.len() as u64,
                        ahead_bytes,
                        chunks: places.len() as u64,
                        sent_chunks: self.sent.chunks.load(Ordering::Relaxed),
                        digest: Some(digest),
                        generation: Some(archive.manifest().head.generation),
                        ..Moved::of(self.remote, self.effort)
                    });
                }
                Commit::Missing(chunks) => missing = chunks,
            }
        }
        Err(Error::Nonsense {
            server: self.remote.url().server(),
            why: format!("chunks are missing after {ROUNDS} times of sending them"),
        })
    }

    /// Waits for our turn to send so much, unless it is.
    fn begin_turn(&self, bytes: u64, requests: &mut Requests<'_>) -> Result<(), Error> {
        match self.turn.ticket() {
            Some(_) => Ok(()),
            None => self.renew_turn(bytes, requests),
        }
    }

    fn renew_turn(&self, bytes: u64, requests: &mut Requests<'_>) -> Result<(), Error> {
        let held = self.turn.ticket();
        let mut renew = || {
            self.turn
                .renew(&held, self.job, bytes, self.effort, requests)
        };
        self.effort.persist(&mut renew)
    }

    /// As much memory as the frame takes.
    fn buffer(&self, frame: Frame) -> Buffer {
        let mut buffer = self.buffers.take();
        buffer.resize(frame.packed as usize, 0);
        buffer
    }

    /// Sends a frame, of `left` bytes that are still to come.
    fn put(
        &self,
        frame: Frame,
        bytes: &Bytes,
        left: u64,
        requests: &mut Requests<'_>,
    ) -> Result<(), Error> {
        let chunk = Chunk::from(frame);
        self.effort.persist(|| {
            let ticket = self.turn.ticket();
            let put = requests.put_chunk(chunk, bytes.clone(), ticket.as_deref());
            match put {
                Err(Error::Busy { status: 429, .. }) => {
                    self.turn
                        .renew(&ticket, self.job, left, self.effort, requests)?;
                    let ticket = self.turn.ticket();
                    requests.put_chunk(chunk, bytes.clone(), ticket.as_deref())
                }
                put => put,
            }
        })?;
        rig::stop("shipping");
        let packed = u64::from(frame.packed);
        self.sent.bytes.fetch_add(packed, Ordering::Relaxed);
        self.sent.chunks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Our turn at the store. It ends there when it is not used for a while, as on a slow network: then another is asked for.
#[derive(Default)]
struct Turn(Mutex<Option<String>>);

impl Turn {
    fn ticket(&self) -> Option<String> {
        lock(&self.0).clone()
    }

    /// Asks for another in the place of `held`, unless another connection has done so.
    fn renew(
        &self,
        held: &Option<String>,
        job: &Job,
        bytes: u64,
        effort: &Effort<'_>,
        requests: &mut Requests<'_>,
    ) -> Result<(), Error> {
        let mut ticket = lock(&self.0);
        if *ticket != *held {
            return Ok(());
        }
        *ticket = Some(requests.admission(&Admission {
            bytes,
            seconds: effort.left().as_secs(),
            job: Some(job.clone()),
        })?);
        Ok(())
    }

    /// Another is to be asked for.
    fn forget(&self) {
        *lock(&self.0) = None;
    }
}

#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    chunks: AtomicU64,
}

/// Chunks on their way out of an archive.
struct Load<'a> {
    delivery: &'a Delivery<'a>,
    archive: &'a Archive,
}

impl Load<'_> {
    fn send(
        &self,
        missing: &[Chunk],
        places: &Places,
        connections: usize,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        // The store may name only what it was asked for.
        let unknown = |chunk: &Chunk| Error::Nonsense {
            server: self.delivery.remote.url().server(),
            why: format!("it wants the chunk {chunk}, which the image does not have"),
        };
        let mut queue = Vec::with_capacity(missing.len());
        for chunk in missing {
            queue.push(*places.get(chunk).ok_or_else(|| unknown(chunk))?);
        }
        // In the archive's order, so that it is read from end to end.
        queue.sort_unstable_by_key(|(at, _)| *at);
        let total = queue.iter().map(|(_, frame)| u64::from(frame.packed)).sum();
        let paced = Paced::new(monitor, Stage::Ship, total);
        let workers = connections.min(queue.len());
        let queue = Mutex::new(queue.into_iter());
        let effort = self.delivery.effort;
        effort.side_by_side(workers, || self.work(&queue, &paced))
    }

    fn work(
        &self,
        queue: &Mutex<impl Iterator<Item = (u64, Frame)>>,
        paced: &Paced<'_>,
    ) -> Result<(), Error> {
        let delivery = self.delivery;
        let mut requests = Requests::new(delivery.remote, delivery.effort)?;
        loop {
            let Some((at, frame)) = lock(queue).next() else {
                return Ok(());
            };
            let mut bytes = delivery.buffer(frame);
            self.archive.read_frame(at, &mut bytes)?;
            delivery.put(frame, &bytes.into(), paced.left(), &mut requests)?;
            paced.add(u64::from(frame.packed));
        }
    }
}
