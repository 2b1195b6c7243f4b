//! The body of the archive: frames made on all cores, written in order.
//!
//! Each thread takes the next frame, reads and compresses it by itself, waits until all frames before have got their place,
//! takes the place after them and writes there. So nothing is queued: the memory is a few chunks for each thread.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::{io, thread};

use super::flush::Flusher;
use super::{Options, PackError, scan};
use crate::frame::{self, Packer};
use crate::layout::{self, Piece, What};
use crate::manifest::{Digest, Entry, Frame};
use crate::monitor::Paced;
use crate::workers::{lock, threads};

pub(super) struct Job<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) sources: &'a [PathBuf],
    pub(super) frames: &'a [u32],
    pub(super) options: &'a Options,
    pub(super) file: &'a File,
    pub(super) flusher: Option<&'a Flusher>,
    pub(super) out: &'a Path,
    pub(super) paced: &'a Paced<'a>,
}

/// How far the body is.
struct Body<I> {
    /// What is in each frame that nobody has taken yet.
    plan: I,
    /// How many are taken.
    taken: usize,
    /// The frames that have their place.
    placed: Vec<Frame>,
    /// Where the next goes.
    end: u64,
    /// What went wrong first.
    error: Option<PackError>,
}

/// The frame of a whole chunk of zeros, made once.
struct Zeros {
    raw: Vec<u8>,
    hash: Digest,
}

impl Job<'_> {
    /// Writes the body from `start` on; returns its frames and where it ends.
    pub(super) fn run(&self, start: u64) -> Result<(Vec<Frame>, u64), PackError> {
        let plan = layout::split(self.entries, self.frames.iter().copied());
        let placed = Vec::with_capacity(self.frames.len());
        let body = Mutex::new(Body {
            plan,
            taken: 0,
            placed,
            end: start,
            error: None,
        });
        let turn = Condvar::new();
        let mut zeros = Zeros {
            raw: vec![0; self.options.chunk as usize],
            hash: Digest::of(b""),
        };
        zeros.hash = Digest::of(&zeros.raw);
        thread::scope(|scope| {
            for _ in 0..threads(self.options.threads).min(self.frames.len()) {
                scope.spawn(|| {
                    let panic = PackError::Compress(io::Error::other("a thread of it panicked"));
                    let mut alarm = Alarm {
                        body: &body,
                        turn: &turn,
                        error: Some(panic),
                    };
                    alarm.error = self.work(&body, &turn, &zeros).err();
                });
            }
        });
        let body = body
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        match body.error {
            Some(error) => Err(error),
            None => Ok((body.placed, body.end)),
        }
    }

    fn work<I>(&self, body: &Mutex<Body<I>>, turn: &Condvar, zeros: &Zeros) -> Result<(), PackError>
    where
        I: Iterator<Item = Vec<Piece>>,
    {
        let mut packer = Packer::new(self.options.level).map_err(PackError::Compress)?;
        let mut reader = Reader {
            job: self,
            open: None,
        };
        let (mut raw, mut packed, mut packed_zeros) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            if self.paced.cancelled() {
                return Err(PackError::Cancelled);
            }
            let (index, pieces) = {
                let mut body = lock(body);
                let next = if body.error.is_none() {
                    body.plan.next()
                } else {
                    None
                };
                let Some(pieces) = next else { return Ok(()) };
                body.taken += 1;
                (body.taken - 1, pieces)
            };
            reader.fill(&pieces, &mut raw)?;
            let is_zeros = raw.len() == zeros.raw.len() && frame::is_zero(&raw);
            let hash = if is_zeros {
                zeros.hash
            } else {
                Digest::of(&raw)
            };
            let bytes = if is_zeros {
                if packed_zeros.is_empty() {
                    packer
                        .pack(&raw, &mut packed_zeros)
                        .map_err(PackError::Compress)?;
                }
                &packed_zeros
            } else {
                packer
                    .pack(&raw, &mut packed)
                    .map_err(PackError::Compress)?;
                &packed
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
}

/// Tells the other threads when one ends with an error, or in a panic: they wait for its frame.
struct Alarm<'a, I> {
    body: &'a Mutex<Body<I>>,
    turn: &'a Condvar,
    error: Option<PackError>,
}

impl<I> Drop for Alarm<'_, I> {
    fn drop(&mut self) {
        if let Some(error) = self.error.take() {
            lock(self.body).error.get_or_insert(error);
            self.turn.notify_all();
        }
    }
}

/// Reads pieces; keeps the last file open, as the next piece is likely to be of it.
struct Reader<'a> {
    job: &'a Job<'a>,
    open: Option<(usize, File)>,
}

impl Reader<'_> {
    fn fill(&mut self, pieces: &[Piece], raw: &mut Vec<u8>) -> Result<(), PackError> {
        let len: u64 = pieces.iter().map(|piece| piece.len).sum();
        // Keeps the buffer's old bytes where it can: setting a megabyte to zero for each chunk is measurable.
        raw.resize(len as usize, 0);
        let mut rest = raw.as_mut_slice();
        for piece in pieces {
            let (into, after) = rest.split_at_mut(piece.len as usize);
            rest = after;
            match piece.what {
                What::Head(at) => {
                    let head = layout::head(&self.job.entries[piece.entry]);
                    into.copy_from_slice(&head[at as usize..][..into.len()]);
                }
                What::Data(at) => self.read(piece.entry, at, into)?,
                What::Pad | What::End => into.fill(0),
            }
        }
        Ok(())
    }

    fn read(&mut self, entry: usize, at: u64, into: &mut [u8]) -> Result<(), PackError> {
        let path = &self.job.sources[entry];
        let error = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => PackError::Changed { path: path.clone() },
            _ => PackError::Read {
                path: path.clone(),
                source,
            },
        };
        let file = match &self.open {
            Some((same, file)) if *same == entry => file,
            _ => {
                &self
                    .open
                    .insert((entry, scan::open(path).map_err(error)?))
                    .1
            }
        };
        file.read_exact_at(into, at).map_err(error)
    }
}
