//! Chunks of files that are there: their number and sizes are known before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::write::Feed;
use super::{PackError, scan};
use crate::layout::{self, Piece, What};
use crate::manifest::Entry;
use crate::workers::lock;

/// Entries with the places where they lie.
pub(super) struct Files<'a, I> {
    entries: &'a [Entry],
    sources: &'a [PathBuf],
    /// What is in each frame that nobody has taken yet, and how many are taken.
    plan: Mutex<(I, usize)>,
}

impl<'a, I: Iterator<Item = Vec<Piece>>> Files<'a, I> {
    pub(super) fn new(entries: &'a [Entry], sources: &'a [PathBuf], plan: I) -> Self {
        Self {
            entries,
            sources,
            plan: Mutex::new((plan, 0)),
        }
    }
}

impl<I: Iterator<Item = Vec<Piece>> + Send> Feed for Files<'_, I> {
    /// The last file stays open, as the next piece is likely to be of it.
    type Hand = Option<(usize, File)>;

    fn hand(&self) -> Self::Hand {
        None
    }

    fn next(&self, open: &mut Self::Hand, raw: &mut Vec<u8>) -> Result<Option<usize>, PackError> {
        let (index, pieces) = {
            let mut plan = lock(&self.plan);
            let Some(pieces) = plan.0.next() else {
                return Ok(None);
            };
            plan.1 += 1;
            (plan.1 - 1, pieces)
        };
        let len: u64 = pieces.iter().map(|piece| piece.len).sum();
        // Keeps the buffer's old bytes where it can: setting a megabyte to zero for each chunk is measurable.
        raw.resize(len as usize, 0);
        let mut rest = raw.as_mut_slice();
        for piece in pieces {
            let (into, after) = rest.split_at_mut(piece.len as usize);
            rest = after;
            match piece.what {
                What::Head(at) => {
                    let head = layout::head(&self.entries[piece.entry]);
                    into.copy_from_slice(&head[at as usize..][..into.len()]);
                }
                What::Data(at) => self.read(open, piece.entry, at, into)?,
                What::Pad | What::End => into.fill(0),
            }
        }
        Ok(Some(index))
    }
}

impl<I> Files<'_, I> {
    fn read(
        &self,
        open: &mut Option<(usize, File)>,
        entry: usize,
        at: u64,
        into: &mut [u8],
    ) -> Result<(), PackError> {
        let path = &self.sources[entry];
        let error = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => PackError::Changed { path: path.clone() },
            _ => PackError::Read {
                path: path.clone(),
                source,
            },
        };
        let file = match open {
            Some((same, file)) if *same == entry => file,
            _ => &open.insert((entry, scan::open(path).map_err(error)?)).1,
        };
        file.read_exact_at(into, at).map_err(error)
    }
}
