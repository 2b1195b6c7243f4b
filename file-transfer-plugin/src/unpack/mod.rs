//! `checkpoint.criu` -> verified chunks -> trees.
//!
//! [`Archive::open`] reads the manifest only and checks what it claims. Afterwards each frame is believed exactly when its
//! bytes have the hash that the manifest names, and only then does any of them reach a file. The order does not matter, so
//! all cores work at once, each with the two buffers of its frame.

mod files;
mod frames;
mod front;
mod hand;
mod stored;
mod tree;

pub use stored::{Stored, Take};

use std::fs::File;
use std::io;
#[cfg(feature = "remote")]
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::OFlags;

use crate::layout::Piece;
#[cfg(feature = "remote")]
use crate::manifest::Frame;
use crate::manifest::{Digest, Limits, Manifest, ManifestError, Name};
use crate::monitor::{Monitor, Stage};

/// What could not be done. An archive that gives one of the first eight is damaged or hostile: another copy may be good.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It does not begin as an archive does.
    #[error("{path} is no checkpoint archive: {why}")]
    NotAnArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// It is shorter than its beginning says.
    #[error("{path} is cut off")]
    CutOff {
        /// The archive.
        path: PathBuf,
    },
    /// It is longer than its beginning says.
    #[error("{path} has {bytes} bytes after its end")]
    TrailingData {
        /// The archive.
        path: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// Its manifest cannot be believed.
    #[error("cannot believe the manifest of {path}")]
    Manifest {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// It is another archive than the one that was meant.
    #[error("{path} is {found}, not {expected}")]
    OtherArchive {
        /// The archive.
        path: PathBuf,
        /// The digest of its manifest.
        found: Digest,
        /// The digest that it should have.
        expected: Digest,
    },
    /// A frame does not hold the bytes that the manifest names.
    #[error("frame {frame} of {path} is damaged")]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// The frame's number.
        frame: usize,
    },
    /// What `tar` would see differs from what the manifest says.
    #[error("the tar header of {entry} in {path} is not the manifest's")]
    Header {
        /// The archive.
        path: PathBuf,
        /// The entry.
        entry: Name,
    },
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The monitor said so.
    #[error("reading the archive was cancelled")]
    Cancelled,
    /// There is no such tree in it.
    #[error("{path} has no tree {prefix}")]
    NoTree {
        /// The archive.
        path: PathBuf,
        /// The tree asked for.
        prefix: String,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of files, holes not counted.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// An archive whose manifest was read and checked.
#[derive(Debug)]
pub struct Archive {
    file: File,
    path: PathBuf,
    manifest: Manifest,
    digest: Digest,
    /// Where the first frame after the manifest lies.
    body: u64,
    bytes: u64,
}

impl Archive {
    /// Reads the manifest and checks what it says. Cheap: the rest of the file is only looked at by its length.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, ArchiveError> {
        let read = |source| ArchiveError::Read {
            path: path.to_owned(),
            source,
        };
        // Not blocking, or a fifo of that name would keep us waiting.
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        if !meta.is_file() {
            return Err(ArchiveError::NotAnArchive {
                path: path.to_owned(),
                why: "it is no regular file",
            });
        }
        let front = front::read(&file, path, meta.len(), limits)?;
        let believe = |source| ArchiveError::Manifest {
            path: path.to_owned(),
            source,
        };
        let manifest = Manifest::from_json(front.json()).map_err(believe)?;
        manifest.check(limits).map_err(believe)?;
        if manifest.contents.codec != front.codec {
            return Err(ArchiveError::NotAnArchive {
                path: path.to_owned(),
                why: "its manifest is compressed in another way than it says",
            });
        }
        let frames = manifest.contents.frames.iter();
        let end = frames.fold(front.end, |sum, frame| {
            sum.saturating_add(frame.packed.into())
        });
        if end > meta.len() {
            return Err(ArchiveError::CutOff {
                path: path.to_owned(),
            });
        }
        if end < meta.len() {
            return Err(ArchiveError::TrailingData {
                path: path.to_owned(),
                bytes: meta.len() - end,
            });
        }
        let digest = Digest::of(front.json());
        Ok(Self {
            file,
            path: path.to_owned(),
            manifest,
            digest,
            body: front.end,
            bytes: end,
        })
    }

    /// Refuses the archive unless it is the one with this digest.
    pub fn expect(self, digest: Digest) -> Result<Self, ArchiveError> {
        if self.digest == digest {
            return Ok(self);
        }
        Err(ArchiveError::OtherArchive {
            path: self.path,
            found: self.digest,
            expected: digest,
        })
    }

    /// What the image is and how the job goes on.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The hash of the manifest's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The manifest's text as it stands in the archive, of which the digest was taken.
    #[cfg(feature = "remote")]
    pub(crate) fn manifest_json(&self) -> Result<Vec<u8>, ArchiveError> {
        let limits = Limits::default();
        let front = front::read(&self.file, &self.path, self.bytes, &limits)?;
        Ok(front.json().to_vec())
    }

    /// Refuses an archive whose frames have no names in a store.
    #[cfg(feature = "remote")]
    pub(crate) fn check_names(&self) -> Result<(), ArchiveError> {
        let refused = |source| ArchiveError::Manifest {
            path: self.path.clone(),
            source,
        };
        self.manifest.check_names().map_err(refused)
    }

    /// Each frame and where it lies.
    #[cfg(feature = "remote")]
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u64, Frame)> {
        let frames = self.manifest.contents.frames.iter();
        frames.scan(self.body, |end, frame| {
            let at = *end;
            *end += u64::from(frame.packed);
            Some((at, *frame))
        })
    }

    /// The bytes of the frame at `at`, unverified.
    #[cfg(feature = "remote")]
    pub(crate) fn read_frame(&self, at: u64, into: &mut [u8]) -> Result<(), ArchiveError> {
        self.file
            .read_exact_at(into, at)
            .map_err(|source| ArchiveError::Read {
                path: self.path.clone(),
                source,
            })
    }

    /// Reads every byte and compares it with the manifest.
    pub fn verify(&self, monitor: &dyn Monitor) -> Result<(), ArchiveError> {
        self.each_frame(
            Stage::Verify,
            monitor,
            |_| true,
            || |_: &[Piece], _: &[u8]| Ok(()),
        )
    }

    /// Writes trees out, each to its directory, which is made if it is not there. Trees not named here are not touched.
    ///
    /// After an error the directories hold part of the trees: they are good for nothing then.
    pub fn unpack(
        &self,
        trees: &[(&str, &Path)],
        monitor: &dyn Monitor,
    ) -> Result<Unpacked, ArchiveError> {
        self.unpack_but(trees, |_| false, monitor)
    }

    /// The same, without some files.
    pub fn unpack_but(
        &self,
        trees: &[(&str, &Path)],
        without: impl Fn(&Name) -> bool,
        monitor: &dyn Monitor,
    ) -> Result<Unpacked, ArchiveError> {
        let start = Instant::now();
        let writer = tree::Writer::new(self, trees, without)?;
        let shared = hand::Shared::default();
        writer.begin()?;
        self.each_frame(
            Stage::Unpack,
            monitor,
            |pieces| writer.wants(pieces),
            || {
                let mut hand = hand::Hand::new(&writer, &shared);
                move |pieces: &[Piece], raw: &[u8]| hand.write(pieces, raw)
            },
        )?;
        let unpacked = writer.finish()?;
        tracing::debug!(
            bytes = unpacked.bytes,
            entries = unpacked.entries,
            seconds = start.elapsed().as_secs_f64(),
            "unpacked"
        );
        Ok(unpacked)
    }
}
