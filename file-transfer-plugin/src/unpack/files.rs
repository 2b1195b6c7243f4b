//! A few small files of an archive, read into memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Archive, ArchiveError};
use crate::layout::{Piece, What};
use crate::manifest::{Entry, Kind, ManifestError, Name};
use crate::monitor::{Silent, Stage};
use crate::workers::lock;

impl Archive {
    /// The contents of the files that are wanted, at most `limit` bytes in all. Only the frames that hold them are read.
    pub fn read_files(
        &self,
        wanted: impl Fn(&Entry) -> bool,
        limit: u64,
    ) -> Result<BTreeMap<Name, Vec<u8>>, ArchiveError> {
        let entries = &self.manifest.contents.entries;
        let sizes: Vec<Option<u64>> = entries
            .iter()
            .map(|entry| match entry.kind {
                Kind::File { size, .. } if wanted(entry) => Some(size),
                _ => None,
            })
            .collect();
        let all = sizes
            .iter()
            .flatten()
            .fold(0_u64, |sum, size| sum.saturating_add(*size));
        if all > limit {
            let source = ManifestError::TooMuch {
                what: "bytes of such files",
                found: all,
                allowed: limit,
            };
            return Err(ArchiveError::Manifest {
                path: self.path.clone(),
                source,
            });
        }
        let empty = sizes
            .iter()
            .map(|size| size.map_or_else(Vec::new, |size| vec![0; size as usize]));
        let files = Mutex::new(empty.collect::<Vec<Vec<u8>>>());
        self.each_frame(
            Stage::Verify,
            &Silent,
            |pieces| {
                pieces.iter().any(|piece| {
                    matches!(piece.what, What::Data(_)) && sizes[piece.entry].is_some()
                })
            },
            || {
                |pieces: &[Piece], raw: &[u8]| {
                    let mut rest = raw;
                    for piece in pieces {
                        let (bytes, after) = rest.split_at(piece.len as usize);
                        rest = after;
                        if let (What::Data(offset), Some(_)) =
                            (piece.what, sizes.get(piece.entry).copied().flatten())
                        {
                            let file = &mut lock(&files)[piece.entry];
                            // The manifest's check has seen to it that its pieces lie in the file.
                            file[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                        }
                    }
                    Ok(())
                }
            },
        )?;
        let files = files
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let named = entries.iter().zip(files).zip(&sizes);
        Ok(named
            .filter(|(_, size)| size.is_some())
            .map(|((entry, bytes), _)| (entry.path.clone(), bytes))
            .collect())
    }
}
