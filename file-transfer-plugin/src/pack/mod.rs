//! Trees -> chunks -> `checkpoint.criu`.
//!
//! ```text
//!   scan    names, sizes, holes                     -> entries, and from them every frame's size
//!   hole    the manifest's largest possible size    -> room at the front
//!   frames  read, compress, hash on all cores       -> body, in order
//!   commit  manifest into the hole, fsync, rename   -> the archive exists
//! ```
//!
//! The manifest must be first in the listing and can only be written last. Its size is known in bounds before, though:
//! all of it but the hashes and the packed sizes. What it does not fill of its hole becomes a frame that stands for nothing.
//!
//! Until the rename there is only a temporary file, which goes away with any error: an older archive stays as it was.

mod files;
mod flush;
mod pipe;
mod scan;
mod stream;
mod word;
mod write;

pub use stream::Stream;
pub use word::{BadWord, Word};

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::frame::{self, Skip};
use crate::layout;
use crate::manifest::{
    Codec, Contents, Digest, FORMAT, Frame, Head, LeftOut, Manifest, ManifestError,
};
use crate::monitor::{Monitor, Paced, Progress, Stage};

/// A directory that goes into the archive.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The first part of its paths there.
    pub prefix: &'a str,
    /// Where it lies.
    pub dir: &'a Path,
}

/// How to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How it is compressed.
    pub codec: Codec,
    /// zstd's level, or gzip's, which are 1 to 9.
    pub level: i32,
    /// The size of a chunk.
    pub chunk: u32,
    /// Threads; 0 stands for one and a half per core. Each holds about four chunks in memory.
    pub threads: usize,
    /// Whether the archive is forced to disk before it takes its name. Without it a host that loses power may keep half an
    /// archive under that name, which its reader would refuse.
    pub sync: bool,
    /// Whether chunks are left as they are while the disk, with `sync`, would wait for what is compressed. The archive is
    /// there sooner, and larger.
    pub keep_disk_busy: bool,
}

impl Default for Options {
    /// Level 1 keeps up with a disk on two cores; 1 MiB chunks cost 0.01 % of names.
    fn default() -> Self {
        Self {
            codec: Codec::default(),
            level: 1,
            chunk: 1 << 20,
            threads: 0,
            sync: true,
            keep_disk_busy: false,
        }
    }
}

/// An archive that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its size.
    pub bytes: u64,
    /// The size of what is in it.
    pub raw_bytes: u64,
    /// The hash of its manifest, which commits to all of it.
    pub digest: Digest,
    /// What was there and is not in it.
    pub left_out: Vec<LeftOut>,
}

/// What could not be done. There is no new archive then, and an older one is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something in a tree could not be read.
    #[error("cannot read {path:?}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file grew or shrank: the job was not frozen.
    #[error("{path:?} changed while it was packed")]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The archive could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No reader would take the archive.
    #[error("cannot describe the archive")]
    Manifest(#[from] ManifestError),
    /// The monitor said so.
    #[error("packing was cancelled")]
    Cancelled,
    /// Compression failed.
    #[error("cannot compress")]
    Compress(#[source] io::Error),
    /// The hole was too small. A mistake in this program, named rather than hidden.
    #[error("the manifest takes {needed} bytes, foreseen were {foreseen}")]
    Hole {
        /// What it takes.
        needed: usize,
        /// What it may take.
        foreseen: usize,
    },
}

/// Packs trees into the archive `out`.
pub fn pack(
    trees: &[Tree<'_>],
    head: Head,
    out: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Packed, PackError> {
    let start = Instant::now();
    let chunk = options.chunk.clamp(
        layout::OWN_FRAME as u32,
        crate::manifest::Limits::default().frame,
    );
    let scan = scan::scan(trees)?;
    let frames = layout::cut(&scan.entries, chunk);
    let raw_bytes = frames.iter().map(|len| u64::from(*len)).sum();

    let mut manifest = Manifest {
        format: FORMAT,
        head,
        contents: Contents {
            entries: scan.entries,
            left_out: scan.left_out,
            codec: options.codec,
            frames: Vec::new(),
        },
    };
    manifest.contents.frames = frames.iter().map(|raw| foreseen(*raw)).collect();
    let room = room(&manifest)?;
    manifest.check(&limits())?;

    let temp = Temp::create(out)?;
    let write = |source| PackError::Write {
        path: out.to_owned(),
        source,
    };
    let flusher = if options.sync {
        Some(flush::Flusher::start(&temp.file).map_err(write)?)
    } else {
        None
    };
    let paced = Paced::new(monitor, Stage::Pack, raw_bytes);
    let sink = write::Sink {
        options: &Options { chunk, ..*options },
        file: &temp.file,
        flusher: flusher.as_ref(),
        out,
        paced: &paced,
        told: None,
    };
    let entries = &manifest.contents.entries;
    let plan = layout::split(entries, frames.iter().copied());
    let files = files::Files::new(entries, &scan.sources, plan);
    let (done, end) = sink.run(&files, frames.len(), room as u64)?;
    manifest.contents.frames = done;

    let json = manifest.to_json();
    let front = front(options.codec, &json, manifest.head.created, room)?;
    temp.file.write_all_at(&front, 0).map_err(write)?;
    commit(temp, flusher, out, end, monitor)?;
    let packed = Packed {
        bytes: end,
        raw_bytes,
        digest: Digest::of(&json),
        left_out: manifest.contents.left_out,
    };
    tracing::debug!(
        bytes = packed.bytes,
        raw_bytes,
        entries = manifest.contents.entries.len(),
        seconds = start.elapsed().as_secs_f64(),
        "packed"
    );
    Ok(packed)
}

/// What was written becomes the archive.
fn commit(
    temp: Temp,
    flusher: Option<flush::Flusher>,
    out: &Path,
    bytes: u64,
    monitor: &dyn Monitor,
) -> Result<(), PackError> {
    let write = |source| PackError::Write {
        path: out.to_owned(),
        source,
    };
    let sync = flusher.is_some();
    if let Some(flusher) = flusher {
        let stage = |done| Progress {
            stage: Stage::Sync,
            done,
            total: bytes,
        };
        monitor.progress(stage(0));
        flusher.finish().map_err(write)?;
        monitor.progress(stage(bytes));
    }
    // The last moment at which the caller can know that what was packed has stood still.
    if monitor.cancelled() {
        return Err(PackError::Cancelled);
    }
    temp.commit(out).map_err(write)?;
    if sync {
        sync_name(out);
    }
    Ok(())
}

/// What we write must be what we would read, but for the amount: that is the reader's to judge.
fn limits() -> crate::manifest::Limits {
    crate::manifest::Limits {
        bytes: u64::MAX,
        entries: u64::MAX,
        ..Default::default()
    }
}

/// The longest description that a frame can get.
fn foreseen(raw: u32) -> Frame {
    Frame {
        hash: Digest::of(b""),
        raw,
        packed: frame::bound(raw as usize) as u32,
    }
}

/// How much room the manifest can need at most, as a frame beside one that stands for nothing.
fn room(foreseen: &Manifest) -> Result<usize, PackError> {
    let json = foreseen.to_json();
    let limit = limits().manifest;
    if json.len() as u64 > limit {
        let found = json.len() as u64;
        return Err(ManifestError::TooMuch {
            what: "bytes of manifest",
            found,
            allowed: limit,
        }
        .into());
    }
    let gap = Skip::of(foreseen.contents.codec).least();
    Ok(frame::bound(layout::manifest(&json, 0).len()) + gap)
}

/// The manifest's frame and what fills the room.
fn front(codec: Codec, json: &[u8], created: i64, room: usize) -> Result<Vec<u8>, PackError> {
    let tar = layout::manifest(json, created);
    let mut front = Vec::with_capacity(frame::bound(tar.len()));
    frame::pack_manifest(codec, &tar, &mut front).map_err(PackError::Compress)?;
    let needed = front.len() + Skip::of(codec).least();
    if needed > room {
        return Err(PackError::Hole {
            needed,
            foreseen: room,
        });
    }
    front.extend(frame::skips(codec, room - front.len()));
    Ok(front)
}

/// Where an archive is before it has its name.
pub fn unfinished(out: &Path) -> PathBuf {
    beside(out, ".tmp")
}

/// In the same directory, because only there a rename can put it in its place.
fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The archive before it has its name. Dropped, it is gone.
struct Temp {
    file: File,
    path: Option<PathBuf>,
}

impl Temp {
    fn create(out: &Path) -> Result<Self, PackError> {
        Self::create_as(out, unfinished(out))
    }

    fn create_as(out: &Path, path: PathBuf) -> Result<Self, PackError> {
        let error = |source| PackError::Write {
            path: out.to_owned(),
            source,
        };
        if out.file_name().is_none() {
            return Err(error(io::ErrorKind::IsADirectory.into()));
        }
        // A leftover of a process that was killed. Memory is private, so is its image.
        match fs::remove_file(&path) {
            Err(gone) if gone.kind() != io::ErrorKind::NotFound => return Err(error(gone)),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(error)?;
        Ok(Self {
            file,
            path: Some(path),
        })
    }

    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    fn commit(mut self, out: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, out)?;
        }
        self.path = None;
        Ok(())
    }
}

/// Forces the new name to disk. The archive is there and whole by now: that some file systems cannot do this for a directory
/// is no reason to say that it is not.
fn sync_name(out: &Path) {
    let dir = out
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        tracing::debug!(?dir, %error, "cannot sync the directory");
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing is left to be done about it here, and the error that led here is the one that counts.
            let _ = fs::remove_file(path);
        }
    }
}
