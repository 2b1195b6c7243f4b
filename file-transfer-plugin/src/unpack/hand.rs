//! Verified frames -> contents of files.
//!
//! A file that lies in one frame is made, written and finished by whoever has the frame. A larger one is made by the first that
//! comes, written by all at their places, and finished by the last.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::ArchiveError;
use super::tree::{Way, Writer, finish};
use crate::frame;
use crate::layout::{Piece, What};
use crate::workers::lock;

/// Runs of zeros of this size become holes.
const HOLE: usize = 64 << 10;

/// Files that several frames write to.
pub(super) type Shared = Mutex<HashMap<usize, Arc<Open>>>;

/// A file that is being written.
pub(super) struct Open {
    file: File,
    left: AtomicU32,
}

/// One thread's way of writing frames.
pub(super) struct Hand<'a> {
    writer: &'a Writer<'a>,
    /// Files that several frames write to.
    shared: &'a Shared,
    at: Way,
}

impl<'a> Hand<'a> {
    pub(super) fn new(writer: &'a Writer<'a>, shared: &'a Shared) -> Self {
        Self {
            writer,
            shared,
            at: Way::default(),
        }
    }

    /// Writes what a frame holds of files.
    pub(super) fn write(&mut self, pieces: &[Piece], raw: &[u8]) -> Result<(), ArchiveError> {
        let mut rest = raw;
        let mut pieces = pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            let (bytes, after) = rest.split_at(piece.len as usize);
            rest = after;
            let What::Data(offset) = piece.what else {
                continue;
            };
            if self.writer.root_of[piece.entry].is_none() {
                continue;
            }
            let mut parts = vec![(offset, bytes)];
            while let Some(next) = pieces
                .next_if(|next| next.entry == piece.entry && matches!(next.what, What::Data(_)))
            {
                let (bytes, after) = rest.split_at(next.len as usize);
                rest = after;
                if let What::Data(offset) = next.what {
                    parts.push((offset, bytes));
                }
            }
            self.write_parts(piece.entry, &parts)
                .map_err(|error| self.writer.cannot(piece.entry, error))?;
        }
        Ok(())
    }

    /// Writes all that one frame has of one file.
    fn write_parts(&mut self, index: usize, parts: &[(u64, &[u8])]) -> io::Result<()> {
        let writer = self.writer;
        let entry = &writer.archive.manifest.contents.entries[index];
        if writer.frames[index] == 1 {
            let file = writer.create(&mut self.at, index, entry)?;
            parts
                .iter()
                .try_for_each(|(offset, bytes)| write_sparse(&file, bytes, *offset))?;
            return finish(&file, entry);
        }
        let open = {
            let mut all = lock(self.shared);
            match all.get(&index) {
                Some(open) => Arc::clone(open),
                None => {
                    let file = writer.create(&mut self.at, index, entry)?;
                    let open = Arc::new(Open {
                        file,
                        left: AtomicU32::new(writer.frames[index]),
                    });
                    all.insert(index, Arc::clone(&open));
                    open
                }
            }
        };
        parts
            .iter()
            .try_for_each(|(offset, bytes)| write_sparse(&open.file, bytes, *offset))?;
        if open.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            lock(self.shared).remove(&index);
            finish(&open.file, entry)?;
        }
        Ok(())
    }
}

/// Writes to a file that is all hole so far, and leaves long runs of zeros a hole.
fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut start = 0;
    let mut at = 0;
    for block in bytes.chunks(HOLE) {
        if block.len() == HOLE && frame::is_zero(block) {
            file.write_all_at(&bytes[start..at], offset + start as u64)?;
            start = at + HOLE;
        }
        at += block.len();
    }
    file.write_all_at(&bytes[start..], offset + start as u64)
}
