//! The beginning of an archive: the manifest's frame and the skippable one behind it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ArchiveError;
use crate::frame::{self, First};
use crate::layout;
use crate::manifest::{Limits, ManifestError};

/// How much is read at first, in the hope that the manifest is in it.
const FIRST: u64 = 256 << 10;

/// What was at the beginning.
pub(super) struct Front {
    tar: Vec<u8>,
    json: usize,
    /// Where the frames of the body begin.
    pub(super) end: u64,
}

impl Front {
    /// The manifest's text.
    pub(super) fn json(&self) -> &[u8] {
        &self.tar[layout::BLOCK as usize..][..self.json]
    }
}

/// Reads the beginning of an archive of `bytes` bytes.
pub(super) fn read(
    file: &File,
    path: &Path,
    bytes: u64,
    limits: &Limits,
) -> Result<Front, ArchiveError> {
    let error = |source| ArchiveError::Read {
        path: path.to_owned(),
        source,
    };
    let bad = |why| ArchiveError::NotAnArchive {
        path: path.to_owned(),
        why,
    };
    let cut = || ArchiveError::CutOff {
        path: path.to_owned(),
    };
    let too_long = |found| ArchiveError::Manifest {
        path: path.to_owned(),
        source: ManifestError::TooMuch {
            what: "bytes of manifest",
            found,
            allowed: limits.manifest,
        },
    };
    // A manifest of the allowed size, header and padding included, needs no more room than this.
    let largest = limits.manifest.saturating_add(2 * layout::BLOCK);
    let most = frame::bound(usize::try_from(largest).unwrap_or(usize::MAX)) as u64;

    let mut front = Vec::new();
    let (len, raw) = loop {
        let have = front.len();
        let want = (have as u64 * 4).max(FIRST).min(most).min(bytes);
        if want == have as u64 {
            return Err(if want == bytes { cut() } else { too_long(want) });
        }
        front.resize(want as usize, 0);
        file.read_exact_at(&mut front[have..], have as u64)
            .map_err(error)?;
        match frame::first(&front) {
            First::Whole(len, raw) => break (len, raw),
            First::Bad => {
                return Err(bad(
                    "it does not begin with a zstd frame that tells its size",
                ));
            }
            First::Cut => {}
        }
    };
    if raw > largest {
        return Err(too_long(raw));
    }
    let tar = zstd::bulk::decompress(&front[..len], raw as usize)
        .map_err(|_| bad("its first frame is damaged"))?;
    let json = layout::manifest_of(&tar)
        .ok_or_else(|| bad("it does not begin with manifest.json"))?
        .len();

    let at = len as u64;
    if at + frame::SKIPPABLE_HEAD as u64 > bytes {
        return Err(cut());
    }
    let mut head = [0; frame::SKIPPABLE_HEAD];
    file.read_exact_at(&mut head, at).map_err(error)?;
    let hole = frame::skippable_len(&head)
        .ok_or_else(|| bad("its manifest is not followed by a skippable frame"))?;
    let end = at + hole;
    if end > bytes {
        return Err(cut());
    }
    // Nothing hides in what every reader skips.
    let mut at = at + head.len() as u64;
    while at < end {
        let len = (end - at).min(FIRST) as usize;
        front.resize(len, 0);
        file.read_exact_at(&mut front, at).map_err(error)?;
        if !frame::is_zero(&front) {
            return Err(bad("the gap after its manifest is not empty"));
        }
        at += len as u64;
    }
    Ok(Front { tar, json, end })
}
