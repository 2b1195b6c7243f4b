//! What nobody will ever ask for again, and why.
//!
//! | what | goes when |
//! |---|---|
//! | an image of a job that left the queue | the schedd was asked, answered, and the image is an hour old |
//! | an image that is old | its age is more than allowed |
//! | an image that is not whole | at once: nobody can see it |
//! | a chunk that no image names | nobody asked for it since a day |
//! | what a process that was killed left | at once |
//!
//! A store that runs collects by itself; `criu-transfer gc` does it for one that does not, and explains either.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::backend::{Backend, Place};
use super::error::{Chain, StoreError};
use super::index::{Index, Kept};
use super::keep::{Store, UNNAMED, now, to_its_end};
use super::load::load;
use super::owner::Owner;
use super::queue::Queue;
use super::space::Quotas;
use crate::protocol::{Chunk, Job};
use crate::workers::lock;

/// How old an image is before it is asked whether its job is in the queue: a job may be on its way from one to another.
const SETTLED: i64 = 3600;
/// How often a store that runs collects.
const EVERY: std::time::Duration = std::time::Duration::from_secs(600);

/// Which images go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Those that were committed more seconds ago, if any.
    pub age: Option<i64>,
    /// Those whose jobs left the queue of this host's schedd.
    pub ask_schedd: bool,
}

/// Why an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    LeftTheQueue,
    Old { days: i64 },
    NotWhole(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftTheQueue => f.write_str("its job left the queue"),
            Self::Old { days } => write!(f, "it was committed {days} days ago"),
            Self::NotWhole(why) => write!(f, "it is not whole: {why}"),
        }
    }
}

/// Why an image goes, if it does.
fn judge(policy: &Policy, queue: Option<&Queue>, kept: &Kept, now: i64) -> Option<Why> {
    let age = now.saturating_sub(kept.image.committed);
    if policy.age.is_some_and(|most| age > most) {
        let days = age / 86_400;
        return Some(Why::Old { days });
    }
    let gone = queue.is_some_and(|queue| queue.lacks(&kept.image.job));
    (gone && age > SETTLED).then_some(Why::LeftTheQueue)
}

fn doomed(index: &Index, policy: &Policy, queue: Option<&Queue>) -> Vec<(Owner, Kept, Why)> {
    let now = now();
    let judged = index.all().filter_map(|(owner, kept)| {
        let why = judge(policy, queue, kept, now)?;
        Some((owner.clone(), kept.clone(), why))
    });
    judged.collect()
}

/// Something that goes, as a line for a person.
#[derive(Debug)]
pub struct Item(String);

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn image_line(owner: &Owner, job: &Job, place: &Place, bytes: u64, why: &Why) -> Item {
    let digest = place.digest;
    Item(format!(
        "image {digest} of {owner}'s job {job}, {bytes} bytes: {why}"
    ))
}

/// Collects in a directory that nobody serves, or only says what would go. `tell` is told each thing before it goes.
pub fn collect(
    dir: &std::path::Path,
    policy: &Policy,
    dry_run: bool,
    tell: &mut dyn FnMut(Item),
) -> Result<(), StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StoreError::Open {
            what: "a runtime".into(),
            source,
        })?;
    runtime.block_on(async {
        let backend = if dry_run {
            Backend::look(dir)?
        } else {
            Backend::directory(dir)?
        };
        let queue = if policy.ask_schedd {
            Some(Queue::ask().await?)
        } else {
            None
        };
        let leftovers: Vec<PathBuf> = backend.leftovers()?;
        let found = load(&backend).await?;
        for path in leftovers {
            tell(Item(format!(
                "{}: a write that was cut off",
                path.display()
            )));
        }
        for (owner, chunk) in found.cut {
            tell(Item(format!(
                "chunk {chunk} of {owner}: it has another length"
            )));
        }
        for (owner, job, place, why) in &found.damaged {
            let why = Why::NotWhole(why.clone());
            tell(image_line(owner, job, place, 0, &why));
        }
        for (owner, kept, why) in doomed(&found.index, policy, queue.as_ref()) {
            let (job, bytes) = (&kept.image.job, kept.image.bytes);
            tell(image_line(&owner, job, &kept.place, bytes, &why));
        }
        for (owner, chunk) in found.index.unnamed(None, now() - UNNAMED) {
            let why = "no image names it, and nobody asked for it since a day";
            tell(Item(format!("chunk {chunk} of {owner}: {why}")));
        }
        if dry_run {
            return Ok(());
        }
        for (owner, job, place, _) in &found.damaged {
            backend.remove_manifest(owner, job, place).await?;
        }
        let everything = Quotas {
            owner: u64::MAX,
            all: u64::MAX,
            low_water: 0,
        };
        let store = Store::open(backend, everything).await?;
        store.collect(policy, queue.as_ref()).await;
        Ok(())
    })
}

impl Store {
    /// Removes what a policy condemns, and chunks that nobody wants.
    async fn collect(self: &Arc<Self>, policy: &Policy, queue: Option<&Queue>) {
        let doomed = doomed(&lock(&self.index), policy, queue);
        for (owner, kept, why) in doomed {
            let (job, digest) = (&kept.image.job, kept.place.digest);
            tracing::info!(%owner, %job, %digest, %why, "an image is removed");
            if let Err(error) = self.remove(&owner, &kept).await {
                tracing::warn!(%owner, %job, %digest, error = %Chain(&error), "cannot remove an image");
            }
        }
        let removed: Vec<(Owner, Chunk)> = lock(&self.index).unnamed(None, now() - UNNAMED);
        if !removed.is_empty() {
            let chunks = self.remove_unnamed(None, now() - UNNAMED).await;
            tracing::info!(chunks, "chunks that no image names are removed");
        }
    }

    /// Collects now and then, for ever.
    pub(super) async fn collect_for_ever(self: Arc<Self>, policy: Policy) {
        let mut every = tokio::time::interval(EVERY);
        loop {
            every.tick().await;
            let store = Arc::clone(&self);
            let round = to_its_end(async move {
                let queue = match policy.ask_schedd {
                    true => Some(Queue::ask().await?),
                    false => None,
                };
                store.collect(&policy, queue.as_ref()).await;
                Ok(())
            });
            if let Err(error) = round.await {
                // A schedd that does not answer has not forgotten its jobs.
                tracing::warn!(error = %Chain(&error), "nothing is collected");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Digest;
    use crate::protocol::Image;

    fn kept(job: &str, committed: i64) -> Kept {
        let digest = Digest::of(job.as_bytes());
        let image = Image {
            job: job.parse().unwrap(),
            generation: 1,
            digest,
            bytes: 1,
            raw_bytes: 1,
            created: 0,
            committed,
        };
        let place = Place { number: 1, digest };
        Kept {
            place,
            image,
            manifest: 1,
        }
    }

    #[test]
    fn an_image_goes_with_its_job_or_with_its_age_and_not_before() {
        let now = 1_790_000_000;
        let queue = Queue::of("12 0 ap#12.0#1789000000\n");
        let policy = Policy {
            age: Some(30 * 86_400),
            ask_schedd: true,
        };
        let judge = |job: &str, age, queue| judge(&policy, queue, &kept(job, now - age), now);
        let (hour, month) = (3601, 31 * 86_400);
        assert_eq!(judge("12.0", hour, Some(&queue)), None);
        assert_eq!(judge("12.1", hour, Some(&queue)), Some(Why::LeftTheQueue));
        assert_eq!(
            judge("12.1", 3000, Some(&queue)),
            None,
            "it may be on its way"
        );
        assert_eq!(
            judge("mine", hour, Some(&queue)),
            None,
            "no job of a schedd"
        );
        assert_eq!(judge("12.1", hour, None), None, "nobody asked");
        assert_eq!(
            judge("12.0", month, Some(&queue)),
            Some(Why::Old { days: 31 })
        );
    }
}
