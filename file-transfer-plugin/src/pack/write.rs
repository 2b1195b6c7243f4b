//! Frames made on all cores, written in order.
//!
//! Each thread takes the next chunk from the [`Feed`], compresses it by itself, waits until all frames before have got
//! their place, takes the place after them and writes there. So nothing is queued: the memory is a few chunks for each
//! thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex};

use super::flush::Flusher;
use super::{Options, PackError};
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
}

/// How far the body is.
struct Body {
    /// The frames that have their place.
    placed: Vec<Frame>,
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
            let (hash, bytes) = match &mut zeros {
                Some((hash, bytes)) if is_zeros => (*hash, bytes),
                zeros => {
                    if !is_zeros && self.disk_waits(body) {
                        frame::store(self.options.codec, &raw, &mut packed);
                    } else {
                        packer
                            .pack(&raw, &mut packed)
                            .map_err(PackError::Compress)?;
                    }
                    let hash = Digest::of(&raw);
                    if is_zeros {
                        *zeros = Some((hash, packed.clone()));
                    }
                    (hash, &mut packed)
                }
            };
            let at = {
                let mut body = lock(body);
                while body.placed.len() < index {
                    if body.error.is_some() {
                        return Ok(());
                    }
                    body = turn
                        .wait(body)
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                body.placed.push(Frame {
                    hash,
                    raw: raw.len() as u32,
                    packed: bytes.len() as u32,
                });
                let at = body.end;
                body.end += bytes.len() as u64;
                at
            };
            turn.notify_all();
            let write = |source| PackError::Write {
                path: self.out.to_owned(),
                source,
            };
            self.file.write_all_at(bytes, at).map_err(write)?;
            if let Some(flusher) = self.flusher {
                flusher.written(at + bytes.len() as u64);
            }
            self.paced.add(raw.len() as u64);
        }
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
