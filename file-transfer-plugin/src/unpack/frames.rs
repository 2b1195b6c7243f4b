//! Frames read, verified and handed on, on all cores.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Archive, ArchiveError};
use crate::frame::{self, Unpacker};
use crate::layout::{self, Piece, What};
use crate::manifest::{Digest, Frame, Name};
use crate::monitor::{Monitor, Paced, Stage};
use crate::workers::{lock, on_threads, threads};

impl Archive {
    /// Hands the bytes of each wanted frame, once they are known to be right, to one of several hands.
    pub(super) fn each_frame<H>(
        &self,
        stage: Stage,
        monitor: &dyn Monitor,
        wanted: impl Fn(&[Piece]) -> bool,
        hand: impl Fn() -> H + Sync,
    ) -> Result<(), ArchiveError>
    where
        H: FnMut(&[Piece], &[u8]) -> Result<(), ArchiveError>,
    {
        let contents = &self.manifest.contents;
        let mut at = self.body;
        let mut total = 0;
        let mut jobs = Vec::new();
        let pieces = layout::split(
            &contents.entries,
            contents.frames.iter().map(|frame| frame.raw),
        );
        for (index, (frame, pieces)) in contents.frames.iter().zip(pieces).enumerate() {
            if wanted(&pieces) {
                total += u64::from(frame.raw);
                jobs.push((index, at, pieces));
            }
            at += u64::from(frame.packed);
        }
        let threads = threads(0).min(jobs.len());
        let paced = Paced::new(monitor, stage, total);
        let jobs = Mutex::new(jobs.into_iter());
        let failed = AtomicBool::new(false);
        let error = Mutex::new(None);
        on_threads(threads, || {
            let mut hand = hand();
            let mut work = || -> Result<(), ArchiveError> {
                let mut opener = Opener::new(self)?;
                while !failed.load(Ordering::Relaxed) {
                    if paced.cancelled() {
                        return Err(ArchiveError::Cancelled);
                    }
                    let next = lock(&jobs).next();
                    let Some((index, at, pieces)) = next else {
                        break;
                    };
                    let raw = opener.open(index, at, &pieces)?;
                    hand(&pieces, raw)?;
                    paced.add(raw.len() as u64);
                }
                Ok(())
            };
            if let Err(first) = work() {
                failed.store(true, Ordering::Relaxed);
                lock(&error).get_or_insert(first);
            }
        });
        error
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .map_or(Ok(()), Err)
    }
}

/// Reads frames and believes none that has another hash.
pub(super) struct Opener<'a> {
    archive: &'a Archive,
    unpacker: Unpacker,
    packed: Vec<u8>,
    raw: Vec<u8>,
    /// The headers last looked at. Those of a sparse file may be long and lie in many frames.
    head: (usize, Vec<u8>),
}

impl<'a> Opener<'a> {
    pub(super) fn new(archive: &'a Archive) -> Result<Self, ArchiveError> {
        let error = |source| ArchiveError::Read {
            path: archive.path.clone(),
            source,
        };
        Ok(Self {
            archive,
            unpacker: Unpacker::new().map_err(error)?,
            packed: Vec::new(),
            raw: Vec::new(),
            head: (usize::MAX, Vec::new()),
        })
    }

    /// The bytes of frame `index`, which lies at `at`.
    pub(super) fn open(
        &mut self,
        index: usize,
        at: u64,
        pieces: &[Piece],
    ) -> Result<&[u8], ArchiveError> {
        let archive = self.archive;
        let Frame { hash, raw, packed } = archive.manifest.contents.frames[index];
        let damaged = || ArchiveError::Damaged {
            path: archive.path.clone(),
            frame: index,
        };
        let cannot_read = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::CutOff {
                path: archive.path.clone(),
            },
            _ => ArchiveError::Read {
                path: archive.path.clone(),
                source,
            },
        };
        let codec = archive.manifest.contents.codec;
        let (raw, packed) = (raw as usize, packed as usize);
        // What is not this frame is not opened.
        let of_contents = archive.manifest.hashes_contents();
        let stored = frame::read_stored(codec, &archive.file, at, packed, raw, &mut self.raw);
        let whole = if let Some(found) = stored.map_err(cannot_read)? {
            of_contents || found == hash
        } else {
            self.packed.resize(packed, 0);
            let read = archive.file.read_exact_at(&mut self.packed, at);
            read.map_err(cannot_read)?;
            (of_contents || Digest::of(&self.packed) == hash)
                && self
                    .unpacker
                    .unpack(codec, &self.packed, raw, &mut self.raw)
        };
        if !whole || (of_contents && Digest::of(&self.raw) != hash) {
            return Err(damaged());
        }
        self.check_heads(pieces)?;
        Ok(&self.raw)
    }

    /// The bytes last opened, without a copy.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.raw)
    }

    /// A buffer for the next.
    pub(super) fn give(&mut self, buffer: Vec<u8>) {
        self.raw = buffer;
    }

    /// What lies between the contents is what follows from the manifest, so that `tar` and we see the same archive.
    fn check_heads(&mut self, pieces: &[Piece]) -> Result<(), ArchiveError> {
        let entries = &self.archive.manifest.contents.entries;
        let mut rest = self.raw.as_slice();
        for piece in pieces {
            let (bytes, after) = rest.split_at(piece.len as usize);
            rest = after;
            let same = match piece.what {
                What::Head(at) => {
                    if self.head.0 != piece.entry {
                        self.head = (piece.entry, layout::head(&entries[piece.entry]));
                    }
                    self.head.1[at as usize..].starts_with(bytes)
                }
                What::Pad | What::End => frame::is_zero(bytes),
                What::Data(_) => true,
            };
            if !same {
                let entry = entries
                    .get(piece.entry)
                    .map_or(Name::from("its end"), |entry| entry.path.clone());
                return Err(ArchiveError::Header {
                    path: self.archive.path.clone(),
                    entry,
                });
            }
        }
        Ok(())
    }
}
