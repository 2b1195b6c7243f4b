//! The store itself: chunks come, manifests commit, old images go.
//!
//! | promise | kept by |
//! |---|---|
//! | a reader sees whole images only | a manifest is written when all that it names is there, durable first |
//! | an image stays whole | chunks that an image names are counted and not removed |
//! | a request that ends early leaves nothing half done | what changes both objects and index runs in a task of its own |
//! | a chunk that goes and comes at once is there or not, as the index says | its owner's gate: many write, or one removes |
//! | no owner learns of another's | everything, chunks too, lies below its owner |

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::GetResult;
use tokio::sync::RwLock;

use super::backend::{Backend, Found, Listed, Place};
use super::error::StoreError;
use super::index::{Index, Kept, Sums, charge, chunks_of};
use super::owner::Owner;
use super::space::{Disk, NoRoom, Quotas};
use super::verify::Verifiers;
use crate::manifest::{Digest, Limits, Manifest};
use crate::protocol::{Chunk, Image, Job};
use crate::workers::lock;

/// How long a chunk that no image names waits for its manifest.
pub(super) const UNNAMED: i64 = 24 * 3600;
/// And where its owner's quota has no room.
const UNNAMED_UNDER_PRESSURE: i64 = 600;
/// How many chunks are removed before those who write may go on.
const REMOVED_AT_ONCE: usize = 64;

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Committed {
    /// The image is there now.
    Now,
    /// It was there before.
    Before,
}

/// The store.
pub(super) struct Store {
    backend: Backend,
    index: Mutex<Index>,
    gates: Mutex<HashMap<Owner, Arc<RwLock<()>>>>,
    disk: Disk,
    quotas: Quotas,
    verifiers: Arc<Verifiers>,
    next: AtomicU64,
}

/// Room that was set aside; dropped, it is free again.
pub(super) struct Reserved {
    store: Arc<Store>,
    owner: Owner,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        lock(&self.store.index).release(&self.owner, self.bytes);
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

impl Store {
    /// Reads what is there.
    pub(super) async fn open(backend: Backend, quotas: Quotas) -> Result<Arc<Self>, StoreError> {
        let mut index = Index::default();
        let mut next = 1;
        let mut images = Vec::new();
        {
            let mut objects = std::pin::pin!(backend.list());
            while let Some(Listed {
                found,
                bytes,
                written,
                ..
            }) = objects.try_next().await?
            {
                match found {
                    // A machine that went down may leave a file without its end.
                    Found::Chunk(owner, chunk) if bytes == u64::from(chunk.packed) => {
                        index.add_chunk(&owner, chunk, written);
                    }
                    Found::Manifest(owner, job, place) => {
                        next = next.max(place.number + 1);
                        images.push((owner, job, place, written));
                    }
                    Found::Chunk(..) | Found::Other => {}
                }
            }
        }
        let disk = Disk::of(backend.path().map(ToOwned::to_owned));
        let after_a_boot = backend.is_after_a_boot();
        let store = Arc::new(Self {
            backend,
            index: Mutex::new(index),
            gates: Mutex::default(),
            disk,
            quotas,
            verifiers: Arc::new(Verifiers::new()),
            next: AtomicU64::new(next),
        });
        for (owner, job, place, written) in images {
            store.load(&owner, &job, &place, written).await?;
        }
        if after_a_boot {
            // Whether they reached the disk whole nobody knows; those of an image did.
            store.remove_unnamed(None, i64::MAX).await;
        }
        store.backend.serves_in_this_boot()?;
        // A process that was killed between a commit and what it superseded.
        let all: HashSet<(Owner, Job)> = lock(&store.index)
            .all()
            .map(|(owner, kept)| (owner.clone(), kept.image.job.clone()))
            .collect();
        for (owner, job) in all {
            store.supersede(&owner, &job).await;
        }
        Ok(store)
    }

    /// Takes an image that lies there into the index.
    async fn load(
        &self,
        owner: &Owner,
        job: &Job,
        place: &Place,
        written: i64,
    ) -> Result<(), StoreError> {
        let bytes = match self.backend.get_manifest(owner, job, place).await {
            // Removed since it was listed, by hand.
            Err(StoreError::NotFound { .. }) => return Ok(()),
            bytes => bytes?,
        };
        let manifest = match read(&bytes, place.digest) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::warn!(%owner, %job, digest = %place.digest, %error, "an image is not shown, its manifest is damaged");
                return Ok(());
            }
        };
        let kept = describe(job, place, &manifest, bytes.len() as u64, written);
        let mut index = lock(&self.index);
        match index.pin(owner, &chunks_of(&manifest)) {
            Ok(()) => index.add_image(owner, kept),
            Err(chunks) => {
                tracing::warn!(%owner, %job, digest = %place.digest, missing = chunks.len(), "an image is not shown, it is not whole");
            }
        }
        Ok(())
    }

    /// Those of the chunks that the owner lacks.
    pub(super) fn missing(&self, owner: &Owner, chunks: &[Chunk]) -> Vec<Chunk> {
        lock(&self.index).missing(owner, chunks, now())
    }

    /// Whether the owner has a chunk.
    pub(super) fn has(&self, owner: &Owner, chunk: Chunk) -> bool {
        lock(&self.index).has(owner, chunk)
    }

    /// Sets room aside for `bytes`, beside what was promised to others.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        owner: &Owner,
        bytes: u64,
        promised: (u64, u64),
    ) -> Result<Reserved, NoRoom> {
        let bytes = charge(bytes);
        let attempt = || {
            let free = self.disk.free();
            lock(&self.index).reserve(owner, bytes, &self.quotas, free, promised)
        };
        if let Err(refused) = attempt() {
            let whose = match refused {
                NoRoom::Owner { .. } => Some(owner),
                NoRoom::All { .. } | NoRoom::Disk { .. } => None,
            };
            // What uploads left that never came to an end.
            self.remove_unnamed(whose, now() - UNNAMED_UNDER_PRESSURE)
                .await;
            attempt()?;
        }
        Ok(Reserved {
            store: Arc::clone(self),
            owner: owner.clone(),
            bytes,
        })
    }

    /// Keeps a frame that is the chunk it is said to be, and no other.
    pub(super) async fn put_chunk(
        self: &Arc<Self>,
        owner: &Owner,
        chunk: Chunk,
        raw: u32,
        frame: Bytes,
        reserved: Reserved,
    ) -> Result<(), StoreError> {
        self.verifiers.verify(chunk, raw, frame.clone()).await?;
        let (store, owner) = (Arc::clone(self), owner.clone());
        to_its_end(async move {
            let gate = store.gate(&owner);
            let _many = gate.read().await;
            store.backend.put_chunk(&owner, chunk, frame).await?;
            store.disk.wrote(chunk.packed.into());
            // In this order, or the room would be counted twice for a moment.
            drop(reserved);
            lock(&store.index).add_chunk(&owner, chunk, now());
            Ok(())
        })
        .await
    }

    /// Commits an image.
    pub(super) async fn commit(
        self: &Arc<Self>,
        owner: &Owner,
        job: &Job,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<Committed, StoreError> {
        let reserved = self.reserve(owner, bytes.len() as u64, (0, 0)).await?;
        let (store, owner, job) = (Arc::clone(self), owner.clone(), job.clone());
        to_its_end(async move {
            if !lock(&store.index).begin_commit(&owner, &job, digest) {
                return Err(StoreError::Busy);
            }
            let done = store
                .commit_alone(&owner, &job, digest, bytes, reserved)
                .await;
            lock(&store.index).end_commit(&owner, &job, digest);
            done
        })
        .await
    }

    async fn commit_alone(
        self: &Arc<Self>,
        owner: &Owner,
        job: &Job,
        digest: Digest,
        bytes: Bytes,
        reserved: Reserved,
    ) -> Result<Committed, StoreError> {
        let of_thread = bytes.clone();
        let read = tokio::task::spawn_blocking(move || {
            let manifest = read(&of_thread, digest)?;
            Ok::<_, StoreError>((chunks_of(&manifest), manifest))
        });
        let (chunks, manifest) = read.await.map_err(|_| StoreError::Task)??;
        {
            let mut index = lock(&self.index);
            if index
                .of_job(owner, job)
                .iter()
                .any(|kept| kept.place.digest == digest)
            {
                return Ok(Committed::Before);
            }
            index
                .pin(owner, &chunks)
                .map_err(|chunks| StoreError::Missing { chunks })?;
        }
        let place = Place {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            digest,
        };
        let kept = describe(job, &place, &manifest, bytes.len() as u64, now());
        drop(manifest);
        if let Err(error) = self.backend.commit(owner, job, &place, bytes).await {
            lock(&self.index).unpin(owner, &chunks);
            return Err(error);
        }
        drop(reserved);
        lock(&self.index).add_image(owner, kept);
        self.supersede(owner, job).await;
        Ok(Committed::Now)
    }

    /// Removes what newer images of a job have made superfluous.
    async fn supersede(&self, owner: &Owner, job: &Job) {
        let superseded = lock(&self.index).superseded(owner, job);
        for kept in superseded {
            if let Err(error) = self.remove(owner, &kept).await {
                // The new image is committed all the same; the next commit or start tries again.
                tracing::warn!(%owner, %job, error = %Chain(&error), "cannot remove a superseded image");
            }
        }
    }

    /// Removes an image and the chunks that no other names. A task of its own is the caller's to make.
    async fn remove(&self, owner: &Owner, kept: &Kept) -> Result<(), StoreError> {
        let job = &kept.image.job;
        let chunks = match self.backend.get_manifest(owner, job, &kept.place).await {
            Ok(bytes) => chunks_of(&read(&bytes, kept.place.digest)?),
            Err(StoreError::NotFound { .. }) => HashSet::new(),
            Err(error) => return Err(error),
        };
        self.backend
            .remove_manifest(owner, job, &kept.place)
            .await?;
        let free = {
            let mut index = lock(&self.index);
            // Somebody else may have been quicker; chunks are given back once.
            if !index.drop_image(owner, kept) {
                return Ok(());
            }
            index.unpin(owner, &chunks)
        };
        self.remove_chunks(owner, &free).await;
        Ok(())
    }

    /// Removes images of a job: one, or all.
    pub(super) async fn remove_images(
        self: &Arc<Self>,
        owner: &Owner,
        job: &Job,
        digest: Option<Digest>,
    ) -> Result<(), StoreError> {
        let wanted = |kept: &&Kept| digest.is_none_or(|digest| kept.place.digest == digest);
        let images: Vec<Kept> = lock(&self.index)
            .of_job(owner, job)
            .iter()
            .filter(wanted)
            .cloned()
            .collect();
        let (store, owner) = (Arc::clone(self), owner.clone());
        to_its_end(async move {
            for kept in images {
                store.remove(&owner, &kept).await?;
            }
            Ok(())
        })
        .await
    }

    /// Removes chunks that no image names and nobody asked for since a moment.
    pub(super) async fn remove_unnamed(&self, of: Option<&Owner>, before: i64) -> usize {
        let mut by_owner: HashMap<Owner, Vec<Chunk>> = HashMap::new();
        for (owner, chunk) in lock(&self.index).unnamed(of, before) {
            by_owner.entry(owner).or_default().push(chunk);
        }
        let mut removed = 0;
        for (owner, chunks) in by_owner {
            removed += self.remove_chunks(&owner, &chunks).await;
        }
        removed
    }

    async fn remove_chunks(&self, owner: &Owner, chunks: &[Chunk]) -> usize {
        let gate = self.gate(owner);
        let mut removed = 0;
        for some in chunks.chunks(REMOVED_AT_ONCE) {
            let _alone = gate.write().await;
            for chunk in some {
                if !lock(&self.index).drop_chunk(owner, *chunk) {
                    continue;
                }
                removed += 1;
                if let Err(error) = self.backend.remove_chunk(owner, *chunk).await {
                    // It takes room until the next start finds it.
                    tracing::warn!(%owner, %chunk, error = %Chain(&error), "cannot remove a chunk");
                }
            }
        }
        removed
    }

    fn gate(&self, owner: &Owner) -> Arc<RwLock<()>> {
        Arc::clone(lock(&self.gates).entry(owner.clone()).or_default())
    }

    /// An owner's images, by job and newest first.
    pub(super) fn images(&self, owner: &Owner) -> Vec<Image> {
        let index = lock(&self.index);
        index
            .of_owner(owner)
            .map(|kept| kept.image.clone())
            .collect()
    }

    /// A job's images, newest first.
    pub(super) fn images_of(&self, owner: &Owner, job: &Job) -> Vec<Image> {
        let index = lock(&self.index);
        let images = index.of_job(owner, job).iter();
        images.map(|kept| kept.image.clone()).collect()
    }

    /// Sums of an owner, or of all.
    pub(super) fn sums(&self, of: Option<&Owner>) -> Sums {
        lock(&self.index).sums(of)
    }

    /// The manifest of a job's image: the one of this digest, or the newest.
    pub(super) async fn manifest(
        &self,
        owner: &Owner,
        job: &Job,
        digest: Option<Digest>,
    ) -> Result<Bytes, StoreError> {
        let not_found = StoreError::NotFound { what: "image" };
        let place = {
            let index = lock(&self.index);
            let mut images = index.of_job(owner, job).iter();
            let found = images.find(|kept| digest.is_none_or(|digest| kept.place.digest == digest));
            found.ok_or(not_found)?.place.clone()
        };
        self.backend.get_manifest(owner, job, &place).await
    }

    /// A frame.
    pub(super) async fn chunk(&self, owner: &Owner, chunk: Chunk) -> Result<GetResult, StoreError> {
        if !self.has(owner, chunk) {
            return Err(StoreError::NotFound { what: "chunk" });
        }
        self.backend.get_chunk(owner, chunk).await
    }
}

/// A manifest that is what its name says and that every reader would take.
fn read(bytes: &[u8], digest: Digest) -> Result<Manifest, StoreError> {
    if Digest::of(bytes) != digest {
        return Err(StoreError::NotTheImage);
    }
    let manifest = Manifest::from_json(bytes)?;
    manifest.check(&Limits::default())?;
    Ok(manifest)
}

fn describe(job: &Job, place: &Place, manifest: &Manifest, bytes: u64, committed: i64) -> Kept {
    let frames = &manifest.contents.frames;
    Kept {
        place: place.clone(),
        image: Image {
            job: job.clone(),
            generation: manifest.head.generation,
            digest: place.digest,
            bytes: frames.iter().map(|frame| u64::from(frame.packed)).sum(),
            raw_bytes: frames.iter().map(|frame| u64::from(frame.raw)).sum(),
            created: manifest.head.created,
            committed,
        },
        manifest: bytes,
    }
}

/// Runs to its end also where nobody waits for it any more.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.map_err(|_| StoreError::Task)?
}

/// An error with all of its causes, for a log line.
pub(super) struct Chain<'a>(pub(super) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}
