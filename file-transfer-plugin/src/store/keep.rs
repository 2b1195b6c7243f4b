//! The store itself: chunks come, manifests commit, old images go.
//!
//! | promise | kept by |
//! |---|---|
//! | a reader sees whole images only | a manifest is written when all that it names is there, durable first |
//! | an image stays whole | chunks that an image names are counted and not removed |
//! | a request that ends early leaves nothing half done | what changes both objects and index runs in a task of its own |
//! | a chunk that goes and comes at once is there or not, as the index says | its owner's gate: many write, or one removes |
//! | no owner learns of another's | everything, chunks too, lies below its owner |

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::GetResult;
use tokio::sync::RwLock;

use super::auth::Caller;
use super::backend::{Backend, Place};
use super::error::StoreError;
use super::index::{Index, Kept, Sums, charge, chunks_of};
use super::load::{describe, read};
use super::metrics::Metrics;
use super::owner::Owner;
use super::space::{Disk, NoRoom, Quotas};
use crate::manifest::Digest;
use crate::protocol::{Chunk, Image, Job};
use crate::workers::lock;

/// How long a chunk that no image names waits for its manifest.
pub(super) const UNNAMED: i64 = 24 * 3600;
/// And where its owner's quota has no room.
const UNNAMED_UNDER_PRESSURE: i64 = 600;
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
    pub(super) backend: Backend,
    pub(super) index: Mutex<Index>,
    gates: Mutex<HashMap<Owner, Arc<RwLock<()>>>>,
    disk: Disk,
    quotas: Quotas,
    next: AtomicU64,
    pub(super) metrics: Metrics,
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
    /// A store of what was found.
    pub(super) fn new(backend: Backend, index: Index, next: u64, quotas: Quotas) -> Self {
        Self {
            disk: Disk::of(backend.path().map(ToOwned::to_owned)),
            backend,
            index: Mutex::new(index),
            gates: Mutex::default(),
            quotas,
            next: AtomicU64::new(next),
            metrics: Metrics::new(),
        }
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
            self.disk.forget();
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
        frame: Bytes,
        reserved: Reserved,
    ) -> Result<(), StoreError> {
        let of_thread = frame.clone();
        let hash = tokio::task::spawn_blocking(move || Digest::of(&of_thread));
        if hash.await.map_err(|_| StoreError::Task)? != chunk.hash {
            return Err(StoreError::NotTheChunk);
        }
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
        tracing::info!(
            %owner,
            %job,
            generation = kept.image.generation,
            %digest,
            bytes = kept.image.bytes,
            "committed"
        );
        self.metrics.commits.inc();
        lock(&self.index).add_image(owner, kept);
        self.supersede(owner, job).await;
        Ok(Committed::Now)
    }

    pub(super) fn gate(&self, owner: &Owner) -> Arc<RwLock<()>> {
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

    /// What a caller gets to see on a page, newest first.
    pub(super) fn rows(&self, caller: &Caller, most: usize) -> Vec<(Owner, Image)> {
        let index = lock(&self.index);
        let sees = |(owner, kept): &(&Owner, &Kept)| {
            caller.operator || (**owner == caller.owner && caller.read.job(&kept.image.job))
        };
        let mut rows: Vec<_> = index.all().filter(sees).collect();
        rows.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.place.number));
        rows.truncate(most);
        rows.into_iter()
            .map(|(owner, kept)| (owner.clone(), kept.image.clone()))
            .collect()
    }

    /// Bytes that are free.
    pub(super) fn free(&self) -> Option<u64> {
        self.disk.free()
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

/// Runs to its end also where nobody waits for it any more.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.map_err(|_| StoreError::Task)?
}
