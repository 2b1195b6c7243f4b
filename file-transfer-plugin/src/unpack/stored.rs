//! Single files out of an archive, each verified as it is read, and never on the disk a second time.
//!
//! A file is written from its beginning to its end, into a pipe for instance: threads read, decompress and verify ahead of
//! whoever writes, each with the two buffers of its frame, so the memory does not depend on the file's size.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::thread;

use super::frames::Opener;
use super::{Archive, ArchiveError};
use crate::layout::{self, Piece, What};
use crate::manifest::{Entry, Kind, Name};
use crate::workers::{lock, on_threads};

/// A frame with contents of a file: its number, where it lies, what is in it.
type Part = (usize, u64, Vec<Piece>);

/// Where a file's verified bytes go, one part after the other.
pub trait Take: Sync {
    /// Takes this part of a buffer, which it may keep; gives it back, or another one, to go on with.
    fn take(&self, buffer: Vec<u8>, part: Range<usize>) -> io::Result<Vec<u8>>;
}

impl Take for File {
    fn take(&self, buffer: Vec<u8>, part: Range<usize>) -> io::Result<Vec<u8>> {
        let mut file = self;
        file.write_all(&buffer[part])?;
        Ok(buffer)
    }
}

/// Files that can be read one by one.
#[derive(Debug)]
pub struct Stored<'a> {
    archive: &'a Archive,
    files: HashMap<&'a Name, (usize, Vec<Part>)>,
}

impl Archive {
    /// Some of the archive's files. Those with holes are not among them: the holes are not in the archive.
    pub fn stored(&self, pick: impl Fn(&Name) -> bool) -> Stored<'_> {
        let contents = &self.manifest.contents;
        let whole = |entry: &Entry| matches!(entry.kind, Kind::File { extents: None, .. });
        let mut files: HashMap<&Name, (usize, Vec<Part>)> = contents
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| whole(entry) && pick(&entry.path))
            .map(|(index, entry)| (&entry.path, (index, Vec::new())))
            .collect();
        let mut at = self.body;
        let raw = contents.frames.iter().map(|frame| frame.raw);
        let split = layout::split(&contents.entries, raw);
        for (index, (frame, pieces)) in contents.frames.iter().zip(split).enumerate() {
            let mut last = None;
            for piece in &pieces {
                if matches!(piece.what, What::Data(_))
                    && last.replace(piece.entry) != Some(piece.entry)
                    && let Some((_, parts)) = files.get_mut(&contents.entries[piece.entry].path)
                {
                    parts.push((index, at, pieces.clone()));
                }
            }
            at += u64::from(frame.packed);
        }
        Stored {
            archive: self,
            files,
        }
    }
}

/// How far a file is.
struct Progress<'p> {
    parts: std::slice::Iter<'p, Part>,
    taken: usize,
    written: usize,
    error: Option<ArchiveError>,
    /// Nobody reads any more.
    left: bool,
}

impl Stored<'_> {
    /// Whether a file is among them.
    pub fn has(&self, path: &Name) -> bool {
        self.files.contains_key(path)
    }

    /// Writes a file, on so many threads. That its reader leaves early is no error.
    ///
    /// What was written before an error was verified; what comes after it is missing.
    pub fn write(&self, path: &Name, to: &impl Take, threads: usize) -> Result<(), ArchiveError> {
        let Some((entry, parts)) = self.files.get(path) else {
            return Ok(());
        };
        let progress = Mutex::new(Progress {
            parts: parts.iter(),
            taken: 0,
            written: 0,
            error: None,
            left: false,
        });
        let turn = Condvar::new();
        on_threads(threads.clamp(1, parts.len().max(1)), || {
            let _bell = Bell(&progress, &turn);
            if let Err(error) = self.work(*entry, to, &progress, &turn) {
                lock(&progress).error.get_or_insert(error);
            }
        });
        let progress = progress
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        progress.error.map_or(Ok(()), Err)
    }

    fn work(
        &self,
        entry: usize,
        to: &impl Take,
        progress: &Mutex<Progress<'_>>,
        turn: &Condvar,
    ) -> Result<(), ArchiveError> {
        let mut opener = Opener::new(self.archive)?;
        loop {
            let (number, (index, at, pieces)) = {
                let mut progress = lock(progress);
                if progress.error.is_some() || progress.left {
                    return Ok(());
                }
                let Some(part) = progress.parts.next() else {
                    return Ok(());
                };
                progress.taken += 1;
                (progress.taken - 1, part)
            };
            opener.open(*index, *at, pieces)?;
            let mut now = lock(progress);
            while now.written < number && now.error.is_none() && !now.left {
                now = turn
                    .wait(now)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            if now.error.is_some() || now.left {
                return Ok(());
            }
            // Nobody else writes before our number is passed on.
            drop(now);
            let written = to.take(opener.take(), part_of(entry, pieces));
            let mut now = lock(progress);
            now.written += 1;
            match written.map(|buffer| opener.give(buffer)) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => now.left = true,
                other => other.map_err(|source| ArchiveError::Write {
                    path: self.archive.path.clone(),
                    source,
                })?,
            }
            drop(now);
            turn.notify_all();
        }
    }
}

/// Tells the others that a thread is gone, also in a panic: they wait for their turn.
struct Bell<'a, 'p>(&'a Mutex<Progress<'p>>, &'a Condvar);

impl Drop for Bell<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            lock(self.0).left = true;
        }
        self.1.notify_all();
    }
}

/// Where the contents of a file are in a frame: without holes they are in one place.
fn part_of(entry: usize, pieces: &[Piece]) -> Range<usize> {
    let mut at = 0;
    for piece in pieces {
        let end = at + piece.len as usize;
        if piece.entry == entry && matches!(piece.what, What::Data(_)) {
            return at..end;
        }
        at = end;
    }
    at..at
}
