//! What is in the store, in memory: which chunks each owner has and how many images name each, and the images of each job.
//!
//! Pure: it is told what happened and says what follows; whoever asks does the reading and writing. It is made anew from the
//! objects at each start, so nothing in it needs saving. A chunk takes 44 bytes here, hence a terabyte of images 50 MB.
//!
//! ```text
//!            PUT                 commit                        image removed
//!   (none) ------> refs 0, since ------> refs 1, 2, ... ------> refs 0 -> removed
//!                    |  an hour unused
//!                    +------> removed
//! ```

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::backend::Place;
use super::owner::Owner;
use super::space::{NoRoom, Quotas};
use crate::manifest::{Digest, Manifest};
use crate::protocol::{Chunk, Image, Job};

/// How many images of a job are kept.
pub(super) const KEPT: usize = 2;
/// What the smallest object counts in a quota, for its place in this index and in a directory: nobody takes the store's
/// memory with a million chunks of a byte.
const LEAST: u64 = 16 << 10;

/// What an object counts in a quota.
pub(super) fn charge(bytes: u64) -> u64 {
    bytes.max(LEAST)
}

/// An image and where it lies.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) image: Image,
    /// The size of its manifest.
    pub(super) manifest: u64,
}

/// A chunk that is there.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Images that name it.
    refs: u32,
    /// Seconds since 1970 when it came, or when somebody last asked for it in vain.
    since: u32,
}

/// One owner's.
#[derive(Debug, Default)]
struct Owned {
    chunks: HashMap<Chunk, Held>,
    /// Newest first.
    jobs: BTreeMap<Job, Vec<Kept>>,
    bytes: u64,
    charged: u64,
    /// On its way.
    reserved: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Index {
    owners: BTreeMap<Owner, Owned>,
    /// Images that are being committed.
    committing: HashSet<(Owner, Job, Digest)>,
    charged: u64,
    reserved: u64,
}

/// Sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) owners: u64,
    pub(super) jobs: u64,
    pub(super) images: u64,
    pub(super) chunks: u64,
    /// Chunks that no image names.
    pub(super) pending: u64,
    /// As kept.
    pub(super) bytes: u64,
    /// Of the images, each by itself.
    pub(super) image_bytes: u64,
    /// Of the images before compression.
    pub(super) raw_bytes: u64,
}

impl Index {
    /// A chunk was found or written. Whether it is new.
    pub(super) fn add_chunk(&mut self, owner: &Owner, chunk: Chunk, now: i64) -> bool {
        let owned = self.owners.entry(owner.clone()).or_default();
        let since = seconds(now);
        match owned.chunks.entry(chunk) {
            Entry::Occupied(mut held) => {
                held.get_mut().since = since;
                false
            }
            Entry::Vacant(free) => {
                free.insert(Held { refs: 0, since });
                owned.bytes += u64::from(chunk.packed);
                owned.charged += charge(chunk.packed.into());
                self.charged += charge(chunk.packed.into());
                true
            }
        }
    }

    /// Whether the owner has a chunk.
    pub(super) fn has(&self, owner: &Owner, chunk: Chunk) -> bool {
        self.owners
            .get(owner)
            .is_some_and(|owned| owned.chunks.contains_key(&chunk))
    }

    /// Those chunks that the owner lacks. The others are wanted, so they stay for a while.
    pub(super) fn missing(&mut self, owner: &Owner, chunks: &[Chunk], now: i64) -> Vec<Chunk> {
        let mut owned = self.owners.get_mut(owner);
        let lacks =
            |chunk: &Chunk| match owned.as_mut().and_then(|owned| owned.chunks.get_mut(chunk)) {
                Some(held) => {
                    held.since = seconds(now);
                    false
                }
                None => true,
            };
        chunks.iter().copied().filter(lacks).collect()
    }

    /// An image names its chunks, from now on; or what it lacks.
    pub(super) fn pin(&mut self, owner: &Owner, chunks: &HashSet<Chunk>) -> Result<(), Vec<Chunk>> {
        let owned = self.owners.entry(owner.clone()).or_default();
        let lacks = |chunk: &&Chunk| !owned.chunks.contains_key(chunk);
        let missing: Vec<Chunk> = chunks.iter().filter(lacks).copied().collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        for chunk in chunks {
            if let Some(held) = owned.chunks.get_mut(chunk) {
                held.refs += 1;
            }
        }
        Ok(())
    }

    /// An image no longer names its chunks. Those that no other image names.
    pub(super) fn unpin(&mut self, owner: &Owner, chunks: &HashSet<Chunk>) -> Vec<Chunk> {
        let Some(owned) = self.owners.get_mut(owner) else {
            return Vec::new();
        };
        let mut free = Vec::new();
        for chunk in chunks {
            if let Some(held) = owned.chunks.get_mut(chunk) {
                held.refs = held.refs.saturating_sub(1);
                if held.refs == 0 {
                    free.push(*chunk);
                }
            }
        }
        free
    }

    /// A chunk goes unless an image names it. Whether it goes.
    pub(super) fn drop_chunk(&mut self, owner: &Owner, chunk: Chunk) -> bool {
        let Some(owned) = self.owners.get_mut(owner) else {
            return false;
        };
        if owned.chunks.get(&chunk).is_none_or(|held| held.refs > 0) {
            return false;
        }
        owned.chunks.remove(&chunk);
        owned.bytes -= u64::from(chunk.packed);
        owned.charged -= charge(chunk.packed.into());
        self.charged -= charge(chunk.packed.into());
        true
    }

    /// Chunks that no image names and that nobody asked for since a moment, of one owner or of all.
    pub(super) fn unnamed(&self, of: Option<&Owner>, before: i64) -> Vec<(Owner, Chunk)> {
        let owners = self
            .owners
            .iter()
            .filter(|(owner, _)| of.is_none_or(|of| of == *owner));
        owners
            .flat_map(|(owner, owned)| {
                let old = owned
                    .chunks
                    .iter()
                    .filter(|(_, held)| held.refs == 0 && i64::from(held.since) < before);
                old.map(|(chunk, _)| (owner.clone(), *chunk))
            })
            .collect()
    }

    /// An image is about to be committed. False where somebody else is at the same one.
    pub(super) fn begin_commit(&mut self, owner: &Owner, job: &Job, digest: Digest) -> bool {
        let image = (owner.clone(), job.clone(), digest);
        self.committing.insert(image)
    }

    /// It was, or was not.
    pub(super) fn end_commit(&mut self, owner: &Owner, job: &Job, digest: Digest) {
        let image = (owner.clone(), job.clone(), digest);
        self.committing.remove(&image);
    }

    /// An image is there, and its chunks are pinned.
    pub(super) fn add_image(&mut self, owner: &Owner, kept: Kept) {
        let owned = self.owners.entry(owner.clone()).or_default();
        owned.bytes += kept.manifest;
        owned.charged += charge(kept.manifest);
        self.charged += charge(kept.manifest);
        let images = owned.jobs.entry(kept.image.job.clone()).or_default();
        images.push(kept);
        images.sort_by(|a, b| b.place.cmp(&a.place));
    }

    /// Images of a job that give way to newer ones.
    pub(super) fn superseded(&self, owner: &Owner, job: &Job) -> Vec<Kept> {
        self.of_job(owner, job).iter().skip(KEPT).cloned().collect()
    }

    /// An image is no longer there. Whether it was.
    pub(super) fn drop_image(&mut self, owner: &Owner, kept: &Kept) -> bool {
        let Some(owned) = self.owners.get_mut(owner) else {
            return false;
        };
        let Some(images) = owned.jobs.get_mut(&kept.image.job) else {
            return false;
        };
        let before = images.len();
        images.retain(|other| other.place != kept.place);
        let dropped = images.len() < before;
        if images.is_empty() {
            owned.jobs.remove(&kept.image.job);
        }
        if dropped {
            owned.bytes -= kept.manifest;
            owned.charged -= charge(kept.manifest);
            self.charged -= charge(kept.manifest);
        }
        dropped
    }

    /// A job's images, newest first.
    pub(super) fn of_job(&self, owner: &Owner, job: &Job) -> &[Kept] {
        let owned = self.owners.get(owner);
        owned
            .and_then(|owned| owned.jobs.get(job))
            .map_or(&[], Vec::as_slice)
    }

    /// An owner's images, by job and newest first.
    pub(super) fn of_owner(&self, owner: &Owner) -> impl Iterator<Item = &Kept> {
        let owned = self.owners.get(owner).into_iter();
        owned.flat_map(|owned| owned.jobs.values().flatten())
    }

    /// All images.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Owner, &Kept)> {
        self.owners
            .iter()
            .flat_map(|(owner, owned)| owned.jobs.values().flatten().map(move |kept| (owner, kept)))
    }

    /// Sets room aside, or says why there is none. `promised` is what others were promised: of this owner, and in all.
    pub(super) fn reserve(
        &mut self,
        owner: &Owner,
        bytes: u64,
        quotas: &Quotas,
        free: Option<u64>,
        promised: (u64, u64),
    ) -> Result<(), NoRoom> {
        let owned = self.owners.entry(owner.clone()).or_default();
        let used = owned.charged + owned.reserved + promised.0;
        if used.saturating_add(bytes) > quotas.owner {
            let quota = quotas.owner;
            return Err(NoRoom::Owner { quota, used, bytes });
        }
        let coming = self.reserved + promised.1;
        if (self.charged + coming).saturating_add(bytes) > quotas.all {
            return Err(NoRoom::All { bytes });
        }
        let needed = coming
            .saturating_add(bytes)
            .saturating_add(quotas.low_water);
        if free.is_some_and(|free| free < needed) {
            return Err(NoRoom::Disk { bytes });
        }
        owned.reserved += bytes;
        self.reserved += bytes;
        Ok(())
    }

    /// Gives back room that was set aside.
    pub(super) fn release(&mut self, owner: &Owner, bytes: u64) {
        if let Some(owned) = self.owners.get_mut(owner) {
            owned.reserved -= bytes;
            self.reserved -= bytes;
        }
    }

    /// Sums of one owner, or of all.
    pub(super) fn sums(&self, of: Option<&Owner>) -> Sums {
        let mut sums = Sums::default();
        for (owner, owned) in &self.owners {
            if of.is_some_and(|of| of != owner) || owned.chunks.is_empty() {
                continue;
            }
            sums.owners += 1;
            sums.jobs += owned.jobs.len() as u64;
            sums.chunks += owned.chunks.len() as u64;
            sums.pending += owned.chunks.values().filter(|held| held.refs == 0).count() as u64;
            sums.bytes += owned.bytes;
            for kept in owned.jobs.values().flatten() {
                sums.images += 1;
                sums.image_bytes += kept.image.bytes;
                sums.raw_bytes += kept.image.raw_bytes;
            }
        }
        sums
    }
}

/// Seconds since 1970 in four bytes, good until 2106.
fn seconds(now: i64) -> u32 {
    u32::try_from(now).unwrap_or(0)
}

/// The chunks that a manifest names, each once.
pub(super) fn chunks_of(manifest: &Manifest) -> HashSet<Chunk> {
    let frames = manifest.contents.frames.iter();
    frames.map(|frame| Chunk::from(*frame)).collect()
}
