//! Many jobs' lives -> what all their seconds were spent on, by user and by site.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bytes;
use super::timeline::{Doing, Timeline};

/// Sums over jobs, runs or both.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Sums {
    pub(crate) runs: u32,
    /// Slots that were lost.
    pub(crate) evictions: u32,
    /// Images that arrived, and their size.
    pub(crate) images: u32,
    pub(crate) image_bytes: i64,
    /// By what they were spent on.
    pub(crate) seconds: BTreeMap<Doing, f64>,
}

/// The whole.
#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    pub(crate) jobs: usize,
    pub(crate) all: Sums,
    pub(crate) by_user: BTreeMap<String, Sums>,
    /// `GLIDEIN_Site` where the log has it, else the host.
    pub(crate) by_site: BTreeMap<String, Sums>,
}

impl Sums {
    pub(crate) fn of(&self, doing: Doing) -> f64 {
        self.seconds.get(&doing).copied().unwrap_or(0.0)
    }

    /// What checkpoints cost: freezing, packing and moving them and the job's output.
    pub(crate) fn spent(&self) -> f64 {
        self.of(Doing::Freezing) + self.of(Doing::Shipping)
    }
}

impl Totals {
    /// `1 job, 3 starts, 2 slots lost, 2 images of 61.0 MB in all`
    pub(crate) fn in_short(&self) -> String {
        let count = |count: usize, what: &str| {
            let s = if count == 1 { "" } else { "s" };
            format!("{count} {what}{s}")
        };
        let all = &self.all;
        format!(
            "{}, {}, {} lost, {} of {} in all",
            count(self.jobs, "job"),
            count(all.runs as usize, "start"),
            count(all.evictions as usize, "slot"),
            count(all.images as usize, "image"),
            bytes(all.image_bytes)
        )
    }

    pub(crate) fn of(timelines: &[Timeline]) -> Totals {
        let mut totals = Totals {
            jobs: timelines.len(),
            all: Sums::default(),
            by_user: BTreeMap::new(),
            by_site: BTreeMap::new(),
        };
        for timeline in timelines {
            let user = timeline.owner.as_deref().unwrap_or("unknown").to_owned();
            let user = totals.by_user.entry(user).or_default();
            for sums in [&mut totals.all, &mut *user] {
                sums.evictions += timeline.evictions;
            }
            for (index, run) in timeline.runs.iter().enumerate() {
                let site = run.site.as_ref().unwrap_or(&run.host).clone();
                let site = totals.by_site.entry(site).or_default();
                // All runs but the last ended in the loss of the slot, and the last if nothing else ended it.
                let lost = index < timeline.evictions as usize;
                site.evictions += u32::from(lost);
                for sums in [&mut totals.all, &mut *user, &mut *site] {
                    sums.runs += 1;
                    if let Some(bytes) = run.image_bytes {
                        sums.images += 1;
                        sums.image_bytes = sums.image_bytes.saturating_add(bytes);
                    }
                }
            }
            for span in &timeline.spans {
                let seconds = span.to - span.from;
                let add = |sums: &mut Sums| *sums.seconds.entry(span.doing).or_default() += seconds;
                add(&mut totals.all);
                add(user);
                if let Some(run) = span.run.and_then(|index| timeline.runs.get(index)) {
                    let site = run.site.as_ref().unwrap_or(&run.host);
                    totals.by_site.get_mut(site).into_iter().for_each(add);
                }
            }
        }
        totals
    }
}
