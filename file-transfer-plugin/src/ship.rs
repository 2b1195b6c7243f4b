//! `checkpoint.criu` -> the chunks that the store lacks -> an image that is committed there.
//!
//! ```text
//!   missing    which chunks does the store lack?         nothing for what another image of the job has
//!   admission  my turn, with so many bytes and seconds   who has least time goes first
//!   chunks     several connections                       cut off, the next try asks "missing" again
//!   commit     the manifest, last                        before it there is nothing, after it everything
//! ```
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

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;

use crate::manifest::{Frame, Limits};
use crate::monitor::{Monitor, Paced, Stage};
use crate::protocol::{Admission, Chunk, Job};
use crate::remote::{Commit, Effort, Error, Moved, Options, Remote, Requests};
use crate::rig;
use crate::unpack::Archive;
use crate::workers::lock;

/// How often a store may say that chunks are missing which it had: each time another image was removed meanwhile.
const ROUNDS: u32 = 8;

/// Where each distinct chunk lies in the archive.
type Places = HashMap<Chunk, (u64, Frame)>;

/// Sends an archive.
pub fn ship(
    archive: &Path,
    remote: &Remote,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Moved, Error> {
    let job = remote.url().job()?;
    let archive = Archive::open(archive, &Limits::default())?;
    if let Some(digest) = remote.url().digest {
        let found = archive.digest();
        if found != digest {
            let what = format!("the archive is {found}, the URL says {digest}");
            return Err(Error::Parameter(what));
        }
    }
    let manifest = Bytes::from(archive.manifest_json()?);
    let effort = Effort::new(options, monitor);
    let mut requests = Requests::new(remote, &effort)?;

    let mut places = Places::new();
    for (at, frame) in archive.frames() {
        places.entry(Chunk::from(frame)).or_insert((at, frame));
    }
    let names: Vec<Chunk> = places.keys().copied().collect();
    let mut missing = effort.persist(|| requests.missing(&names))?;

    let sent = Sent::default();
    let turn = Turn::default();
    for round in 0..ROUNDS {
        if round == 0 || !missing.is_empty() {
            let bytes = missing.iter().map(|chunk| u64::from(chunk.packed)).sum();
            let held = turn.ticket();
            effort.persist(|| turn.renew(&held, job, bytes, &effort, &mut requests))?;
        }
        let load = Load {
            archive: &archive,
            remote,
            effort: &effort,
            job,
            turn: &turn,
            sent: &sent,
        };
        load.send(&missing, &places, options.connections, monitor)?;
        let commit = effort.persist(|| {
            let ticket = turn.ticket();
            requests.commit(job, archive.digest(), manifest.clone(), ticket.as_deref())
        })?;
        match commit {
            Commit::Done => {
                return Ok(Moved {
                    file_bytes: archive.bytes(),
                    sent_bytes: sent.bytes.into_inner() + manifest.len() as u64,
                    chunks: places.len() as u64,
                    sent_chunks: sent.chunks.into_inner(),
                    digest: Some(archive.digest()),
                    generation: Some(archive.manifest().head.generation),
                    ..Moved::of(remote, &effort)
                });
            }
            Commit::Missing(chunks) => missing = chunks,
        }
    }
    Err(Error::Nonsense {
        server: remote.url().server(),
        why: format!("chunks are missing after {ROUNDS} times of sending them"),
    })
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
}

#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    chunks: AtomicU64,
}

/// Chunks on their way.
struct Load<'a> {
    archive: &'a Archive,
    remote: &'a Remote,
    effort: &'a Effort<'a>,
    job: &'a Job,
    turn: &'a Turn,
    sent: &'a Sent,
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
            server: self.remote.url().server(),
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
        let workers = connections.clamp(1, 16).min(queue.len());
        let queue = Mutex::new(queue.into_iter());
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    if let Err(error) = self.work(&queue, &paced) {
                        lock(&failed).get_or_insert(error);
                        self.effort.give_up();
                    }
                });
            }
        });
        failed
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .map_or(Ok(()), Err)
    }

    fn work(
        &self,
        queue: &Mutex<impl Iterator<Item = (u64, Frame)>>,
        paced: &Paced<'_>,
    ) -> Result<(), Error> {
        let mut requests = Requests::new(self.remote, self.effort)?;
        loop {
            let Some((at, frame)) = lock(queue).next() else {
                return Ok(());
            };
            let bytes = Bytes::from(self.archive.read_frame(at, frame.packed)?);
            let chunk = Chunk::from(frame);
            let packed = u64::from(frame.packed);
            self.effort.persist(|| {
                let ticket = self.turn.ticket();
                let put = requests.put_chunk(chunk, frame.raw, bytes.clone(), ticket.as_deref());
                match put {
                    Err(Error::Busy { status: 429, .. }) => {
                        let left = paced.left();
                        self.turn
                            .renew(&ticket, self.job, left, self.effort, &mut requests)?;
                        let ticket = self.turn.ticket();
                        requests.put_chunk(chunk, frame.raw, bytes.clone(), ticket.as_deref())
                    }
                    put => put,
                }
            })?;
            rig::stop("shipping");
            self.sent.bytes.fetch_add(packed, Ordering::Relaxed);
            self.sent.chunks.fetch_add(1, Ordering::Relaxed);
            paced.add(packed);
        }
    }
}
