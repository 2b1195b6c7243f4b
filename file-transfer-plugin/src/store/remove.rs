//! Images and chunks go: because newer ones came, because somebody said so, or because nothing names them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::{Chain, StoreError};
use super::index::{Kept, chunks_of};
use super::keep::{Store, to_its_end};
use super::load::read;
use super::owner::Owner;
use crate::manifest::Digest;
use crate::protocol::{Chunk, Job};
use crate::workers::lock;

/// How many chunks are removed before those who write may go on.
const REMOVED_AT_ONCE: usize = 64;

impl Store {
    /// Removes what newer images of a job have made superfluous.
    pub(super) async fn supersede(&self, owner: &Owner, job: &Job) {
        let superseded = lock(&self.index).superseded(owner, job);
        for kept in superseded {
            self.metrics.superseded.inc();
            if let Err(error) = self.remove(owner, &kept).await {
                // The new image is committed all the same; the next commit or start tries again.
                tracing::warn!(%owner, %job, error = %Chain(&error), "cannot remove a superseded image");
            }
        }
    }

    /// Removes an image and the chunks that no other names. A task of its own is the caller's to make.
    pub(super) async fn remove(&self, owner: &Owner, kept: &Kept) -> Result<(), StoreError> {
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

    /// Removes all images of a job but the newest.
    pub(super) async fn give_up_older(
        self: &Arc<Self>,
        owner: &Owner,
        job: &Job,
    ) -> Result<(), StoreError> {
        let older: Vec<Kept> = lock(&self.index)
            .of_job(owner, job)
            .iter()
            .skip(1)
            .cloned()
            .collect();
        let (store, owner) = (Arc::clone(self), owner.clone());
        to_its_end(async move {
            for kept in older {
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
}
