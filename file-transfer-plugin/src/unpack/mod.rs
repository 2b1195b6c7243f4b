//! `checkpoint.criu` -> verified chunks -> trees.
//!
//! [`Archive::open`] reads the manifest only and checks what it claims. Afterwards each frame is believed exactly when its
//! bytes have the hash that the manifest names, and only then does any of them reach a file. The order does not matter, so
//! all cores work at once, each with the two buffers of its frame.

mod front;
mod tree;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::frame;
use crate::layout::{self, Piece, What};
use crate::manifest::{Digest, Frame, Limits, Manifest, ManifestError, Name};
use crate::monitor::{Monitor, Paced, Stage};
use crate::pack::threads;

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
    #[error("cannot write {path}")]
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
        let file = File::open(path).map_err(read)?;
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
        manifest.contents.check(limits).map_err(believe)?;
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
        let start = Instant::now();
        let writer = tree::Writer::new(self, trees)?;
        writer.begin()?;
        self.each_frame(
            Stage::Unpack,
            monitor,
            |pieces| writer.wants(pieces),
            || {
                let mut hand = writer.hand();
                move |pieces: &[Piece], raw: &[u8]| hand.write(pieces, raw)
            },
        )?;
        let unpacked = writer.finish()?;
        tracing::info!(
            bytes = unpacked.bytes,
            entries = unpacked.entries,
            seconds = start.elapsed().as_secs_f64(),
            "unpacked"
        );
        Ok(unpacked)
    }

    /// Hands the bytes of each wanted frame, once they are known to be right, to one of several hands.
    fn each_frame<H>(
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
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut hand = hand();
                    let mut work = || -> Result<(), ArchiveError> {
                        let mut opener = Opener::new(self)?;
                        while !failed.load(Ordering::Relaxed) {
                            if paced.cancelled() {
                                return Err(ArchiveError::Cancelled);
                            }
                            let next = jobs
                                .lock()
                                .unwrap_or_else(|poisoned| poisoned.into_inner())
                                .next();
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
                        error
                            .lock()
                            .unwrap_or_else(|poisoned| poisoned.into_inner())
                            .get_or_insert(first);
                    }
                });
            }
        });
        error
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .map_or(Ok(()), Err)
    }
}

/// Reads frames and believes none that has another hash.
struct Opener<'a> {
    archive: &'a Archive,
    zstd: zstd::bulk::Decompressor<'static>,
    packed: Vec<u8>,
    raw: Vec<u8>,
}

impl<'a> Opener<'a> {
    fn new(archive: &'a Archive) -> Result<Self, ArchiveError> {
        let error = |source| ArchiveError::Read {
            path: archive.path.clone(),
            source,
        };
        let zstd = zstd::bulk::Decompressor::new().map_err(error)?;
        Ok(Self {
            archive,
            zstd,
            packed: Vec::new(),
            raw: Vec::new(),
        })
    }

    /// The bytes of frame `index`, which lies at `at`.
    fn open(&mut self, index: usize, at: u64, pieces: &[Piece]) -> Result<&[u8], ArchiveError> {
        let archive = self.archive;
        let Frame { hash, raw, packed } = archive.manifest.contents.frames[index];
        let damaged = || ArchiveError::Damaged {
            path: archive.path.clone(),
            frame: index,
        };
        self.packed.resize(packed as usize, 0);
        archive
            .file
            .read_exact_at(&mut self.packed, at)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => ArchiveError::CutOff {
                    path: archive.path.clone(),
                },
                _ => ArchiveError::Read {
                    path: archive.path.clone(),
                    source,
                },
            })?;
        self.raw.clear();
        self.raw.reserve_exact(raw as usize);
        self.zstd
            .decompress_to_buffer(&self.packed, &mut self.raw)
            .map_err(|_| damaged())?;
        if self.raw.len() != raw as usize || Digest::of(&self.raw) != hash {
            return Err(damaged());
        }
        self.check_heads(pieces)?;
        Ok(&self.raw)
    }

    /// What lies between the contents is what follows from the manifest, so that `tar` and we see the same archive.
    fn check_heads(&self, pieces: &[Piece]) -> Result<(), ArchiveError> {
        let entries = &self.archive.manifest.contents.entries;
        let mut rest = self.raw.as_slice();
        for piece in pieces {
            let (bytes, after) = rest.split_at(piece.len as usize);
            rest = after;
            let same = match piece.what {
                What::Head(at) => {
                    layout::head(&entries[piece.entry])[at as usize..].starts_with(bytes)
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
