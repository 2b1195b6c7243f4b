//! Where the bytes lie: a directory or an object store, through one interface.
//!
//! ```text
//! OWNER/chunks/5f/5f3c...-1048600          a frame
//! OWNER/jobs/JOB/000000000007-DIGEST.json  a manifest; its number orders the job's images
//! ```
//!
//! Each object appears whole or not at all. A chunk need not be on the disk when its PUT is answered; [`Backend::commit`]
//! brings all chunks there before the manifest, and the manifest before it returns.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, PutPayload};
use rustix::fs::FlockOperation;

use super::error::StoreError;
use super::owner::Owner;
use crate::manifest::Digest;
use crate::protocol::{Chunk, Job};

/// The version of the layout, and the directory or prefix that all objects lie in.
const LAYOUT: &str = "v1";
/// Held by the process that serves a directory.
const LOCK: &str = "lock";
/// Which boot of the machine the directory was last served in.
const BOOT: &str = "boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How much of chunks is written before it is brought to the disk, so that a commit has little left to wait for.
const PORTION: u64 = 64 << 20;

/// A job's image by its place in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Grows with each commit of the job.
    pub(crate) number: u64,
    pub(crate) digest: Digest,
}

/// An object that was found.
#[derive(Debug)]
pub(crate) enum Found {
    Chunk(Owner, Chunk),
    Manifest(Owner, Job, Place),
    /// Nothing of ours.
    Other,
}

/// An object with what is known of it without reading it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) found: Found,
    pub(crate) bytes: u64,
    /// In seconds since 1970.
    pub(crate) written: i64,
}

/// The bytes.
#[derive(Debug)]
pub(crate) struct Backend {
    chunks: Arc<dyn ObjectStore>,
    manifests: Arc<dyn ObjectStore>,
    dir: Option<Dir>,
}

/// A directory that is ours alone.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    handle: Arc<File>,
    /// Without it the directory is only looked at.
    _lock: Option<File>,
    ahead: Ahead,
}

/// What is brought to the disk before anybody waits for it.
#[derive(Debug)]
struct Ahead {
    /// Opened by itself: the kernel tells of a failed write once for each, and the one who has to know is a commit.
    handle: Arc<File>,
    written: AtomicU64,
    at_it: Arc<AtomicBool>,
}

impl Ahead {
    fn wrote(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written < PORTION || self.at_it.swap(true, Ordering::Relaxed) {
            return;
        }
        self.written.store(0, Ordering::Relaxed);
        let (handle, at_it) = (Arc::clone(&self.handle), Arc::clone(&self.at_it));
        tokio::task::spawn_blocking(move || {
            let _ = rustix::fs::syncfs(&*handle);
            at_it.store(false, Ordering::Relaxed);
        });
    }
}

impl Backend {
    /// A directory, made if it is not there; refused when another process serves it.
    pub(crate) fn directory(path: &std::path::Path) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open {
            what: path.display().to_string(),
            source,
        };
        fs::create_dir_all(path.join(LAYOUT)).map_err(cannot)?;
        let lock = File::create(path.join(LOCK)).map_err(cannot)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match error {
                rustix::io::Errno::WOULDBLOCK => StoreError::Served {
                    path: path.to_owned(),
                },
                other => cannot(other.into()),
            }
        })?;
        Self::in_directory(path, Some(lock))
    }

    /// A directory that is only looked at, whoever serves it.
    pub(crate) fn look(path: &std::path::Path) -> Result<Self, StoreError> {
        Self::in_directory(path, None)
    }

    fn in_directory(path: &std::path::Path, lock: Option<File>) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open {
            what: path.display().to_string(),
            source,
        };
        let root = path.join(LAYOUT);
        let open = || File::open(&root).map(Arc::new).map_err(cannot);
        let (handle, ahead) = (open()?, open()?);
        let local = || {
            LocalFileSystem::new_with_prefix(&root).map_err(|error| cannot(io::Error::other(error)))
        };
        Ok(Self {
            chunks: Arc::new(local()?),
            manifests: Arc::new(local()?.with_fsync(true)),
            dir: Some(Dir {
                path: path.to_owned(),
                handle,
                _lock: lock,
                ahead: Ahead {
                    handle: ahead,
                    written: AtomicU64::new(0),
                    at_it: Arc::default(),
                },
            }),
        })
    }

    /// What a process that was killed had not written to its end: object_store calls it `NAME#1` until it is whole.
    pub(crate) fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = Vec::new();
        if let Some(dir) = &self.dir {
            find_leftovers(&dir.path.join(LAYOUT), &mut found).map_err(|source| {
                StoreError::Open {
                    what: dir.path.display().to_string(),
                    source,
                }
            })?;
        }
        Ok(found)
    }

    /// Removes it.
    pub(crate) fn remove_leftovers(&self) -> Result<(), StoreError> {
        for path in self.leftovers()? {
            fs::remove_file(&path).map_err(|source| StoreError::Open {
                what: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }

    /// An object store, whose objects are durable when they are there.
    pub(crate) fn objects(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let prefix = Path::from(prefix).join(LAYOUT);
        let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(objects, prefix));
        Self {
            chunks: Arc::clone(&objects),
            manifests: objects,
            dir: None,
        }
    }

    /// The directory, where it is one.
    pub(crate) fn path(&self) -> Option<&std::path::Path> {
        self.dir.as_ref().map(|dir| dir.path.as_path())
    }

    /// Whether the machine went down since the directory was last served. What no manifest names may be damaged then.
    pub(crate) fn is_after_a_boot(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| {
            let last = fs::read(dir.path.join(BOOT)).unwrap_or_default();
            !last.is_empty() && fs::read(BOOT_ID).is_ok_and(|now| now != last)
        })
    }

    /// What could be damaged is gone.
    pub(crate) fn serves_in_this_boot(&self) -> Result<(), StoreError> {
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        fs::read(BOOT_ID)
            .and_then(|now| fs::write(dir.path.join(BOOT), now))
            .map_err(|source| StoreError::Open {
                what: dir.path.display().to_string(),
                source,
            })
    }

    /// All objects.
    pub(crate) fn list(&self) -> impl Stream<Item = Result<Listed, StoreError>> + '_ {
        let all = self.manifests.list(None);
        all.map_err(|source| StoreError::backend("list", &Path::from(""), source))
            .map_ok(|meta| Listed {
                found: parse(&meta.location),
                bytes: meta.size,
                written: meta.last_modified.timestamp(),
            })
    }

    /// Keeps a frame.
    pub(crate) async fn put_chunk(
        &self,
        owner: &Owner,
        chunk: Chunk,
        frame: Bytes,
    ) -> Result<(), StoreError> {
        let path = chunk_path(owner, chunk);
        let put = self.chunks.put(&path, PutPayload::from_bytes(frame));
        put.await
            .map_err(|source| StoreError::backend("write", &path, source))?;
        if let Some(dir) = &self.dir {
            dir.ahead.wrote(chunk.packed.into());
        }
        Ok(())
    }

    /// A frame.
    pub(crate) async fn get_chunk(
        &self,
        owner: &Owner,
        chunk: Chunk,
    ) -> Result<GetResult, StoreError> {
        let path = chunk_path(owner, chunk);
        self.chunks
            .get(&path)
            .await
            .map_err(|source| StoreError::backend("read", &path, source))
    }

    /// Gives up a frame.
    pub(crate) async fn remove_chunk(&self, owner: &Owner, chunk: Chunk) -> Result<(), StoreError> {
        remove(&*self.chunks, &chunk_path(owner, chunk)).await
    }

    /// Makes an image be there: all that was written before is durable first.
    pub(crate) async fn commit(
        &self,
        owner: &Owner,
        job: &Job,
        place: &Place,
        manifest: Bytes,
    ) -> Result<(), StoreError> {
        let path = manifest_path(owner, job, place);
        if let Some(dir) = &self.dir {
            // One system call for all chunks of the image and of those that are committed beside it. A call for each chunk
            // costs a turn of the journal each.
            let handle = Arc::clone(&dir.handle);
            tokio::task::spawn_blocking(move || rustix::fs::syncfs(&*handle))
                .await
                .map_err(io::Error::other)
                .and_then(|synced| Ok(synced?))
                .map_err(|source| StoreError::Sync { source })?;
        }
        self.manifests
            .put(&path, PutPayload::from_bytes(manifest))
            .await
            .map(|_| ())
            .map_err(|source| StoreError::backend("write", &path, source))
    }

    /// A manifest's bytes.
    pub(crate) async fn get_manifest(
        &self,
        owner: &Owner,
        job: &Job,
        place: &Place,
    ) -> Result<Bytes, StoreError> {
        let path = manifest_path(owner, job, place);
        let cannot = |source| StoreError::backend("read", &path, source);
        let got = self.manifests.get(&path).await.map_err(cannot)?;
        got.bytes().await.map_err(cannot)
    }

    /// Gives up an image; its chunks stay.
    pub(crate) async fn remove_manifest(
        &self,
        owner: &Owner,
        job: &Job,
        place: &Place,
    ) -> Result<(), StoreError> {
        remove(&*self.manifests, &manifest_path(owner, job, place)).await
    }
}

fn find_leftovers(dir: &std::path::Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find_leftovers(&entry.path(), found)?;
        } else if entry.file_name().as_encoded_bytes().contains(&b'#') {
            found.push(entry.path());
        }
    }
    Ok(())
}

async fn remove(objects: &dyn ObjectStore, path: &Path) -> Result<(), StoreError> {
    match objects.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(StoreError::backend("remove", path, source)),
    }
}

fn chunk_path(owner: &Owner, chunk: Chunk) -> Path {
    let name = chunk.to_string();
    Path::from_iter([escape(owner.as_str()).as_str(), "chunks", &name[..2], &name])
}

fn manifest_path(owner: &Owner, job: &Job, place: &Place) -> Path {
    let name = format!("{:012}-{}.json", place.number, place.digest);
    Path::from_iter([
        &escape(owner.as_str()),
        "jobs",
        &escape(job.as_str()),
        &name,
    ])
}

fn parse(path: &Path) -> Found {
    let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let found = match parts[..] {
        [owner, "chunks", _, name] => owner_of(owner)
            .zip(name.parse().ok())
            .map(|(owner, chunk)| Found::Chunk(owner, chunk)),
        [owner, "jobs", job, name] => manifest_of(owner, job, name),
        _ => None,
    };
    found.unwrap_or(Found::Other)
}

fn owner_of(escaped: &str) -> Option<Owner> {
    unescape(escaped)?.parse().ok()
}

fn manifest_of(owner: &str, job: &str, name: &str) -> Option<Found> {
    let (number, digest) = name.strip_suffix(".json")?.split_once('-')?;
    let place = Place {
        number: number.parse().ok()?,
        digest: digest.parse().ok()?,
    };
    Some(Found::Manifest(
        owner_of(owner)?,
        unescape(job)?.parse().ok()?,
        place,
    ))
}

/// A name as one part of a path: what file systems and object stores take as it is stays, but for a dot in front; `#`,
/// which every GlobalJobId has twice, becomes a comma; the rest `=2F`.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain =
            byte.is_ascii_alphanumeric() || b"_-@:+".contains(&byte) || (byte == b'.' && at > 0);
        if plain {
            out.push(byte.into());
        } else if byte == b'#' {
            out.push(',');
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
    }
    out
}

/// What [`escape`] made of it, if it did.
fn unescape(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'=' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(if *first == b',' { b'#' } else { *first });
            rest = after;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (escape(&name) == part).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_becomes_one_part_of_a_path_and_comes_back(name in "\\PC{1,40}") {
            let part = escape(&name);
            prop_assert!(!part.contains('/') && !part.starts_with('.'));
            let path = Path::from(part.as_str());
            prop_assert_eq!(path.as_ref(), part.as_str());
            prop_assert_eq!(unescape(&part), Some(name));
        }
    }

    #[test]
    fn what_is_written_is_found_again_and_what_is_not_ours_is_left_alone() {
        let owner: Owner = "alice@ap.example".parse().unwrap();
        let job: Job = "ap#12.0#1790000000".parse().unwrap();
        let digest = Digest::of(b"x");
        let chunk = Chunk {
            hash: digest,
            packed: 5,
        };
        let place = Place { number: 7, digest };
        assert!(
            matches!(parse(&chunk_path(&owner, chunk)), Found::Chunk(o, c) if o == owner && c == chunk)
        );
        assert!(
            matches!(parse(&manifest_path(&owner, &job, &place)), Found::Manifest(o, j, p) if o == owner && j == job && p == place)
        );
        for other in [
            "",
            "lost+found/x",
            "a/chunks/00/no-chunk",
            "a/jobs/j/7.json",
            "a/jobs/j",
        ] {
            assert!(matches!(parse(&Path::from(other)), Found::Other), "{other}");
        }
    }
}
