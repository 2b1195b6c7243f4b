//! The frames of an archive that is being written, to the store while more are coming.
//!
//! It is a head start and no more: what did not get there, for whatever reason, is sent when the archive is complete.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::Bytes;

use super::Delivery;
use crate::manifest::{Digest, Frame};
use crate::pack::{Word, unfinished};
use crate::protocol::Chunk;
use crate::remote::{Error, Requests};
use crate::workers::lock;

/// How many frames are asked for at a time: a question costs a round trip, whatever its length.
const BATCH: usize = 64;

/// A frame and where it lies.
type Placed = (u64, Frame);

/// Sends what `words` tell of until they say that the archive is complete, and returns its digest.
pub(super) fn send(
    delivery: &Delivery<'_>,
    archive: &Path,
    words: impl BufRead,
    connections: usize,
) -> Result<Digest, Error> {
    let (frames, queue) = channel();
    // Where we are late it has its name already, and is sent as a whole.
    let Ok(file) = File::open(unfinished(archive)) else {
        return listen(words, frames);
    };
    let ahead = Ahead {
        delivery,
        file,
        queue: Mutex::new((queue, HashSet::new())),
        enough: AtomicBool::new(false),
    };
    let effort = delivery.effort;
    let (digest, sent) = thread::scope(|scope| {
        let sending = scope.spawn(|| effort.side_by_side(connections, || ahead.work()));
        let digest = listen(words, frames);
        ahead.enough.store(true, Ordering::Relaxed);
        effort.no_more_tries();
        (digest, sending.join())
    });
    let digest = digest?;
    match sent {
        Ok(Ok(())) => effort.has_worked(),
        // The turn may be void, and the next is asked for with what is really to come.
        Ok(Err(error)) => {
            tracing::info!("the archive is sent when it is complete: {error}");
            delivery.turn.forget();
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
    effort.go_on();
    Ok(digest)
}

/// Hands on what is told, at once: whoever tells it must not wait for a network.
fn listen(words: impl BufRead, frames: Sender<Placed>) -> Result<Digest, Error> {
    for line in words.lines() {
        let line = line.map_err(Error::local("read what is said of the archive"))?;
        let word: Word = line
            .parse()
            .map_err(|error| Error::Parameter(format!("{error}")))?;
        match word {
            // Where nobody takes it, it is sent later.
            Word::Frame { frame, at } => drop(frames.send((at, frame))),
            Word::Complete(digest) => return Ok(digest),
        }
    }
    let why = "its writer ended before the archive was complete";
    Err(Error::Parameter(why.to_owned()))
}

struct Ahead<'a> {
    delivery: &'a Delivery<'a>,
    file: File,
    /// What comes, and what has come.
    queue: Mutex<(Receiver<Placed>, HashSet<Chunk>)>,
    /// The archive is complete, or will never be.
    enough: AtomicBool,
}

impl Ahead<'_> {
    fn work(&self) -> Result<(), Error> {
        let effort = self.delivery.effort;
        let mut requests = Requests::new(self.delivery.remote, effort)?;
        while let Some(batch) = self.next() {
            // To wait for the writer is not to wait for the store.
            effort.has_worked();
            let names: Vec<Chunk> = batch.iter().map(|(_, frame)| Chunk::from(*frame)).collect();
            let missing = effort.persist(|| requests.missing(&names))?;
            let missing: HashSet<Chunk> = missing.into_iter().collect();
            let lacks = |(_, frame): &&Placed| missing.contains(&Chunk::from(*frame));
            let bytes = missing.iter().map(|chunk| u64::from(chunk.packed)).sum();
            for (at, frame) in batch.iter().filter(lacks) {
                if self.is_enough() {
                    return Ok(());
                }
                self.delivery.begin_turn(bytes, &mut requests)?;
                let packed = self.read(*at, *frame)?;
                self.delivery.put(*frame, &packed, bytes, &mut requests)?;
            }
        }
        Ok(())
    }

    /// What has come, each chunk once; none at the end.
    fn next(&self) -> Option<Vec<Placed>> {
        let (queue, seen) = &mut *lock(&self.queue);
        loop {
            let first = queue.recv().ok()?;
            if self.is_enough() {
                return None;
            }
            let mut batch: Vec<Placed> = [first]
                .into_iter()
                .chain(queue.try_iter().take(BATCH - 1))
                .collect();
            batch.retain(|(_, frame)| seen.insert(Chunk::from(*frame)));
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    fn read(&self, at: u64, frame: Frame) -> Result<Bytes, Error> {
        let mut bytes = self.delivery.buffer(frame);
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(Error::local("read the archive"))?;
        Ok(bytes.into())
    }
}
