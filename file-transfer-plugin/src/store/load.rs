//! What is there at a start, and what a process that was killed left.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::TryStreamExt;

use super::backend::{Backend, Found, Listed, Place};
use super::error::StoreError;
use super::index::{Index, Kept, chunks_of};
use super::keep::Store;
use super::owner::Owner;
use super::space::Quotas;
use crate::manifest::{Digest, Limits, Manifest};
use crate::protocol::{Chunk, Image, Job};
use crate::workers::lock;

/// What was found.
pub(super) struct Loaded {
    pub(super) index: Index,
    /// The number of the next image.
    pub(super) next: u64,
    /// Images that are not shown, and why.
    pub(super) damaged: Vec<(Owner, Job, Place, String)>,
    /// Chunks without their end, as a machine that goes down leaves them.
    pub(super) cut: Vec<(Owner, Chunk)>,
}

/// Reads what is there and changes nothing.
pub(super) async fn load(backend: &Backend) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded {
        index: Index::default(),
        next: 1,
        damaged: Vec::new(),
        cut: Vec::new(),
    };
    let mut images = Vec::new();
    let mut objects = std::pin::pin!(backend.list());
    while let Some(object) = objects.try_next().await? {
        let Listed {
            found,
            bytes,
            written,
        } = object;
        match found {
            Found::Chunk(owner, chunk) if bytes == u64::from(chunk.packed) => {
                loaded.index.add_chunk(&owner, chunk, written);
            }
            Found::Chunk(owner, chunk) => loaded.cut.push((owner, chunk)),
            Found::Manifest(owner, job, place) => {
                loaded.next = loaded.next.max(place.number + 1);
                images.push((owner, job, place, written));
            }
            Found::Other => {}
        }
    }
    for (owner, job, place, written) in images {
        let bytes = match backend.get_manifest(&owner, &job, &place).await {
            // Removed since it was listed.
            Err(StoreError::NotFound { .. }) => continue,
            bytes => bytes?,
        };
        let taken = read(&bytes, place.digest).map(|manifest| {
            let kept = describe(&job, &place, &manifest, bytes.len() as u64, written);
            loaded.take(&owner, kept, &manifest)
        });
        let why = match taken {
            Ok(Ok(())) => continue,
            Ok(Err(missing)) => format!("{missing} of its chunks are missing"),
            Err(error) => error.to_string(),
        };
        loaded.damaged.push((owner, job, place, why));
    }
    Ok(loaded)
}

impl Loaded {
    /// Takes an image into the index, or says how many of its chunks are missing.
    fn take(&mut self, owner: &Owner, kept: Kept, manifest: &Manifest) -> Result<(), usize> {
        let pinned = self.index.pin(owner, &chunks_of(manifest));
        pinned.map_err(|missing| missing.len())?;
        self.index.add_image(owner, kept);
        Ok(())
    }
}

impl Store {
    /// Reads what is there, and removes what was left half done.
    pub(super) async fn open(backend: Backend, quotas: Quotas) -> Result<Arc<Self>, StoreError> {
        backend.remove_leftovers()?;
        let loaded = load(&backend).await?;
        for (owner, job, Place { digest, .. }, why) in loaded.damaged {
            tracing::warn!(%owner, %job, %digest, why, "an image is not shown, it is damaged");
        }
        for (owner, chunk) in loaded.cut {
            backend.remove_chunk(&owner, chunk).await?;
        }
        let after_a_boot = backend.is_after_a_boot();
        let store = Arc::new(Self::new(backend, loaded.index, loaded.next, quotas));
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
}

/// A manifest that is what its name says and that every reader would take.
pub(super) fn read(bytes: &[u8], digest: Digest) -> Result<Manifest, StoreError> {
    if Digest::of(bytes) != digest {
        return Err(StoreError::NotTheImage);
    }
    let manifest = Manifest::from_json(bytes)?;
    manifest.check_names()?;
    manifest.check(&Limits::default())?;
    Ok(manifest)
}

pub(super) fn describe(
    job: &Job,
    place: &Place,
    manifest: &Manifest,
    bytes: u64,
    committed: i64,
) -> Kept {
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
