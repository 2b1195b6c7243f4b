//! Frames made on all cores, written in order.
//!
//! Each thread takes the next chunk from the [`Feed`] and compresses it by itself. A frame whose turn it is gets the next
//! place, and those get theirs that were ready before it; a frame that is early is left to whoever has the one before it. As
//! few are as there are threads: the memory is a few chunks for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};

use super::flush::Flusher;
use super::{Options, PackError, Word, word};
use crate::frame::{self, Packer};
use crate::manifest::{Digest, Frame};
use crate::monitor::Paced;
use crate::workers::{lock, on_threads, threads};

/// Where chunks come from.
pub(super) trait Feed: Sync {
    /// What one thread keeps between chunks.
    type Hand;

    /// For one thread.
    fn hand(&self) -> Self::Hand;

    /// Makes `raw` the next chunk and says which it is, counted from 0; none after the last.
    fn next(&self, hand: &mut Self::Hand, raw: &mut Vec<u8>) -> Result<Option<usize>, PackError>;
}

/// Where frames go.
pub(super) struct Sink<'a> {
    pub(super) options: &'a Options,
    pub(super) file: &'a File,
    pub(super) flusher: Option<&'a Flusher>,
    pub(super) out: &'a Path,
    pub(super) paced: &'a Paced<'a>,
    /// Who is told of each frame that lies where it belongs.
    pub(super) told: Option<&'a Sender<Word>>,
}

/// A frame without a place.
struct Ready {
    hash: Digest,
    raw: u32,
    bytes: Vec<u8>,
}

/// How far the body is.
struct Body {
    /// The frames that have their place.
    placed: Vec<Frame>,
    /// Those that were ready before their turn.
    early: BTreeMap<usize, Ready>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// Where the next goes.
    end: u64,
    /// What went wrong first.
    error: Option<PackError>,
}

impl Sink<'_> {
    /// Writes all that the feed gives from `start` on; returns its frames and where they end.
    pub(super) fn run(
        &self,
        feed: &impl Feed,
        most: usize,
        start: u64,
    ) -> Result<(Vec<Frame>, u64), PackError> {
        let body = Mutex::new(Body {
            placed: Vec::new(),
            early: BTreeMap::new(),
            spare: Vec::new(),
            end: start,
            error: None,
        });
        let turn = Condvar::new();
        on_threads(threads(self.options.threads).min(most), || {
            let panic = PackError::Compress(io::Error::other("a thread of it panicked"));
            let mut alarm = Alarm {
                body: &body,
                turn: &turn,
                error: Some(panic),
            };
            alarm.error = self.work(feed, &body, &turn).err();
        });
        let body = body
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        match body.error {
            Some(error) => Err(error),
            None => Ok((body.placed, body.end)),
        }
    }

    fn work(&self, feed: &impl Feed, body: &Mutex<Body>, turn: &Condvar) -> Result<(), PackError> {
        let mut packer =
            Packer::new(self.options.codec, self.options.level).map_err(PackError::Compress)?;
        let mut hand = feed.hand();
        let (mut raw, mut packed) = (Vec::new(), Vec::new());
        // The frame of a whole chunk of zeros, made once.
        let mut zeros: Option<(Digest, Vec<u8>)> = None;
        loop {
            if self.paced.cancelled() {
                return Err(PackError::Cancelled);
            }
            if lock(body).error.is_some() {
                return Ok(());
            }
            let Some(index) = feed.next(&mut hand, &mut raw)? else {
                return Ok(());
            };
            let is_zeros = raw.len() == self.options.chunk as usize && frame::is_zero(&raw);
            let hash = match &zeros {
                Some((hash, frame)) if is_zeros => {
                    packed.clone_from(frame);
                    *hash
                }
                _ => {
                    if !is_zeros && self.disk_waits(body) {
                        frame::store(self.options.codec, &raw, &mut packed);
                    } else {
                        packer
                            .pack(&raw, &mut packed)
                            .map_err(PackError::Compress)?;
                    }
                    let hash = Digest::of(&packed);
                    if is_zeros {
                        zeros = Some((hash, packed.clone()));
                    }
                    hash
                }
            };
            let ready = Ready {
                hash,
                raw: raw.len() as u32,
                bytes: std::mem::take(&mut packed),
            };
            let Some(placed) = self.place(index, ready, body, turn) else {
                return Ok(());
            };
            for (at, frame, bytes) in &placed {
                self.write(*at, *frame, bytes)?;
            }
            let mut body = lock(body);
            body.spare
                .extend(placed.into_iter().map(|(.., bytes)| bytes));
            packed = body.spare.pop().unwrap_or_default();
        }
    }

    /// Gives a frame its place, and those behind it that wait for that; none where another thread has failed.
    fn place(
        &self,
        index: usize,
        ready: Ready,
        body: &Mutex<Body>,
        turn: &Condvar,
    ) -> Option<Vec<(u64, Frame, Vec<u8>)>> {
        let most = threads(self.options.threads);
        let mut guard = lock(body);
        while guard.placed.len() < index && guard.early.len() >= most && guard.error.is_none() {
            guard = turn
                .wait(guard)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if guard.error.is_some() {
            return None;
        }
        let body = &mut *guard;
        body.early.insert(index, ready);
        let mut placed = Vec::new();
        while let Some(ready) = body.early.remove(&body.placed.len()) {
            let frame = Frame {
                hash: ready.hash,
                raw: ready.raw,
                packed: ready.bytes.len() as u32,
            };
            body.placed.push(frame);
            placed.push((body.end, frame, ready.bytes));
            body.end += u64::from(frame.packed);
        }
        drop(guard);
        turn.notify_all();
        Some(placed)
    }

    fn write(&self, at: u64, frame: Frame, bytes: &[u8]) -> Result<(), PackError> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|source| PackError::Write {
            path: self.out.to_owned(),
            source,
        })?;
        word::tell(self.told, frame, at);
        if let Some(flusher) = self.flusher {
            flusher.written(at + bytes.len() as u64);
        }
        self.paced.add(u64::from(frame.raw));
        Ok(())
    }

    /// Whether the disk is to be given something at once.
    fn disk_waits(&self, body: &Mutex<Body>) -> bool {
        let flusher = self.flusher.filter(|_| self.options.keep_disk_busy);
        flusher.is_some_and(|flusher| flusher.is_idle(lock(body).end))
    }
}

/// Tells the other threads when one ends with an error, or in a panic: they wait for its frame.
struct Alarm<'a> {
    body: &'a Mutex<Body>,
    turn: &'a Condvar,
    error: Option<PackError>,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(error) = self.error.take() {
            lock(self.body).error.get_or_insert(error);
            self.turn.notify_all();
        }
    }
}
