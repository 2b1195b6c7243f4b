//! The beginning of an archive: the manifest's frame and what fills its room, which stands for nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ArchiveError;
use crate::frame::{self, First, Skip, Unpacker};
use crate::layout;
use crate::manifest::{Codec, Limits, ManifestError};

/// How much is read at first, in the hope that the manifest is in it.
const FIRST: u64 = 256 << 10;

/// What was at the beginning.
pub(super) struct Front {
    pub(super) codec: Codec,
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
    let no_frame = "it does not begin with a frame of zstd or gzip that tells its size";
    let (codec, len, raw) = loop {
        let have = front.len();
        let want = (have as u64 * 4).max(FIRST).min(most).min(bytes);
        if want == have as u64 {
            return Err(if want == bytes { cut() } else { too_long(want) });
        }
        front.resize(want as usize, 0);
        file.read_exact_at(&mut front[have..], have as u64)
            .map_err(error)?;
        let codec = frame::codec_of(&front).ok_or_else(|| bad(no_frame))?;
        match frame::first(codec, &front, largest) {
            First::Whole(len, raw) => break (codec, len, raw),
            First::Bad => return Err(bad(no_frame)),
            First::Cut => {}
        }
    };
    if raw > largest {
        return Err(too_long(raw));
    }
    let mut tar = Vec::new();
    let mut unpacker = Unpacker::new().map_err(error)?;
    if !unpacker.unpack(codec, &front[..len], raw as usize, &mut tar) {
        return Err(bad("its first frame is damaged"));
    }
    let json = layout::manifest_of(&tar)
        .ok_or_else(|| bad("it does not begin with manifest.json"))?
        .len();

    let end = after_gap(file, codec, len as u64, bytes).map_err(|why| match why {
        NoGap::Read(source) => error(source),
        NoGap::Cut => cut(),
        NoGap::Other => bad("its manifest is not followed by a frame that stands for nothing"),
        NoGap::NotEmpty => bad("the gap after its manifest is not empty"),
    })?;
    Ok(Front {
        codec,
        tar,
        json,
        end,
    })
}

/// What is wrong behind the manifest.
enum NoGap {
    Read(io::Error),
    Cut,
    Other,
    NotEmpty,
}

/// Where the gap ends that begins at `start`. Nothing hides in what every reader skips.
fn after_gap(file: &File, codec: Codec, start: u64, bytes: u64) -> Result<u64, NoGap> {
    let skip = Skip::of(codec);
    let mut end = start;
    loop {
        let mut head = vec![0; skip.head()];
        if end + skip.least() as u64 > bytes {
            return if end == start {
                Err(NoGap::Cut)
            } else {
                Ok(end)
            };
        }
        file.read_exact_at(&mut head, end).map_err(NoGap::Read)?;
        let Some(len) = skip.len(&head) else {
            return if end == start {
                Err(NoGap::Other)
            } else {
                Ok(end)
            };
        };
        let mut at = end + head.len() as u64;
        end += len;
        if end > bytes {
            return Err(NoGap::Cut);
        }
        let zeros = end - skip.tail.len() as u64;
        let mut part = Vec::new();
        while at < zeros {
            part.resize((zeros - at).min(FIRST) as usize, 0);
            file.read_exact_at(&mut part, at).map_err(NoGap::Read)?;
            if !frame::is_zero(&part) {
                return Err(NoGap::NotEmpty);
            }
            at += part.len() as u64;
        }
        part.resize(skip.tail.len(), 0);
        file.read_exact_at(&mut part, zeros).map_err(NoGap::Read)?;
        if part != skip.tail {
            return Err(NoGap::NotEmpty);
        }
    }
}
