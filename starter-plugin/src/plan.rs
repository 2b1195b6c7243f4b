//! What fits into the time that a slot still has: decided before the job is frozen, because a dump that is cut off
//! in its middle has cost the job its last seconds and saved nothing.
//!
//! ```text
//!   rung       what it does                                          dropped to when
//!   Full       dump, pack well, send by the store where there is one   –
//!   Fast       the same, packed quicker (`Packing`)                   packing is what takes too long, or is worth less
//!                                                                     than the time that it takes
//!   Spool      no upload of ours: HTCondor's transfer alone           the store's way takes too long
//!   KeepLast   no freeze; the last image leaves                       nothing above fits
//! ```
//!
//! The last rung needs an image of this slot's that the access point does not have yet. Without one, a freeze that may
//! be too late is worth more than none: it is given up in time, and can lose nothing that would not be lost anyway.
//!
//! All of it is arithmetic; `budget` and `measure` find the numbers.

use serde::{Deserialize, Serialize};

/// The part of the time that is planned with. Estimates are made from the past, and disks are shared.
const PLANNED: f64 = 0.8;

/// CRIU's start, the parasite's way in and out, and the end of HTCondor's own bookkeeping.
const OVERHEAD: f64 = 0.5;

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// CRIU into its images.
    pub(crate) dump: f64,
    /// Images and sandbox into the archive.
    pub(crate) pack: f64,
    /// The archive to the access point, by HTCondor.
    pub(crate) spool: f64,
    /// The archive to the store; zero where there is none.
    pub(crate) store: f64,
    /// Archive bytes for one byte of the job's.
    pub(crate) ratio: f64,
}

impl Default for Rates {
    /// For a job that was never frozen. The dump is what a shared disk did at its worst (4 GB at 0.3 GB/s); the way to
    /// the access point a link of 100 Mbit/s, as the slots' policy has it; and memory that does not compress at all.
    fn default() -> Rates {
        Rates {
            dump: 300e6,
            pack: 200e6,
            spool: 12.5e6,
            store: 0.0,
            ratio: 1.0,
        }
    }
}

impl Rates {
    /// What one image tells.
    pub(crate) fn learn(&mut self, cost: Cost, archive: u64, dump_seconds: f64, pack_seconds: f64) {
        let all = cost.memory + cost.files;
        if cost.memory > TELLING && dump_seconds > 0.0 {
            self.dump = cost.memory as f64 / dump_seconds;
        }
        if all > TELLING && pack_seconds > 0.0 {
            self.pack = all as f64 / pack_seconds;
            self.ratio = (archive as f64 / all as f64).min(1.0);
        }
    }

    /// What one image's way to the store tells: with what it had of it before, as the next will find it.
    pub(crate) fn stored(&mut self, archive: u64, seconds: f64) {
        if archive > TELLING && seconds > 0.0 {
            self.store = archive as f64 / seconds;
        }
    }
}

/// A small image is all overhead, and tells nothing.
const TELLING: u64 = 32 << 20;

/// What is to be saved.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Memory that a dump writes: resident, and in no file.
    pub(crate) memory: u64,
    /// The sandbox.
    pub(crate) files: u64,
}

/// What there is to fall back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// No image, or only the one that the access point gave us.
    None,
    /// One of this slot's, which leaves with us.
    Here,
}

/// How the job leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    Full,
    Fast,
    Spool,
    KeepLast,
}

/// What was decided, and what it is expected to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) rung: Rung,
    pub(crate) seconds: f64,
}

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// So that it is small.
    Well,
    /// In less time.
    Quickly,
    /// As fast as the disk takes it: the way home is quicker than that.
    ForDisk,
}

impl Packing {
    /// The same where the disk has `free` bytes: what is not compressed must not fill it, or there is no image at all.
    pub(crate) fn within(self, free: Option<u64>, cost: Cost) -> Packing {
        // The libraries come on top, and others write, too.
        let needs = (cost.memory + cost.files).saturating_mul(2);
        let roomy = free.is_some_and(|free| free >= needs);
        if self == Packing::ForDisk && !roomy {
            Packing::Quickly
        } else {
            self
        }
    }
}

/// How a rung packs.
pub(crate) fn packing(rung: Rung, rates: &Rates) -> Packing {
    match rung {
        Rung::Full | Rung::KeepLast => Packing::Well,
        // A store has chunks of the last image, compressed.
        Rung::Fast if rates.store > 0.0 => Packing::Quickly,
        _ if rates.spool >= rates.dump => Packing::ForDisk,
        _ => Packing::Quickly,
    }
}

/// zstd's fastest levels take two and a half times the bytes of level 1 in the same time, and leave a fifth more.
const FASTER: f64 = 2.5;
const LARGER: f64 = 1.2;

/// What must be left of the time for a larger image to be worth it: it takes room, too.
const SOONER: f64 = 0.9;

/// Seconds that a rung takes.
pub(crate) fn seconds(rung: Rung, cost: Cost, rates: &Rates) -> f64 {
    let memory = cost.memory as f64;
    let all = memory + cost.files as f64;
    let packed = all * rates.ratio;
    let larger = match packing(rung, rates) {
        Packing::ForDisk => all,
        _ => (packed * LARGER).min(all),
    };
    let spool = |bytes: f64| bytes / rates.spool;
    let frozen = OVERHEAD + memory / rates.dump;
    let well = frozen + all / rates.pack;
    let quickly = frozen + all / (rates.pack * FASTER);
    // A store gets it while it is packed.
    let store = |bytes: f64| OVERHEAD + bytes / rates.store;
    match rung {
        Rung::Full if rates.store > 0.0 => well.max(store(packed)),
        Rung::Full => well + spool(packed),
        Rung::Fast if rates.store > 0.0 => quickly.max(store(larger)),
        Rung::Fast | Rung::Spool => quickly + spool(larger),
        Rung::KeepLast => 0.0,
    }
}

/// How long the store may be tried with an archive of `bytes` when `left` seconds are left: HTCondor's transfer must still
/// fit in behind it. Where that would not fit anyway, the store is the only hope.
pub(crate) fn store_seconds(left: f64, bytes: u64, rates: &Rates) -> Option<f64> {
    /// Less is no try.
    const LEAST: f64 = 1.0;
    let planned = left * PLANNED;
    let spool = OVERHEAD + bytes as f64 / rates.spool;
    let seconds = if spool < planned {
        planned - spool
    } else {
        planned
    };
    (seconds >= LEAST).then_some(seconds)
}

/// The highest rung that fits into `budget` seconds, `None` for as long as it takes.
pub(crate) fn plan(budget: Option<f64>, cost: Cost, rates: &Rates, last: Last) -> Plan {
    let at = |rung| Plan {
        rung,
        seconds: seconds(rung, cost, rates),
    };
    let tries = [Rung::Full, Rung::Fast, Rung::Spool].map(at);
    let [full, fast, _] = tries;
    // A network that is quick, or nobody who carries it away. A store has chunks of the last image, and wants the same.
    let best = if rates.store == 0.0 && fast.seconds < full.seconds * SOONER {
        fast
    } else {
        full
    };
    let Some(budget) = budget else {
        return best;
    };
    let fits = tries
        .iter()
        .find(|plan| plan.seconds <= budget.max(0.0) * PLANNED);
    match (fits, last) {
        (Some(plan), _) if plan.rung == Rung::Full => best,
        (Some(plan), _) => *plan,
        (None, Last::Here) => at(Rung::KeepLast),
        // Nothing can be lost by trying what is quickest.
        (None, Last::None) => tries
            .into_iter()
            .min_by(|a, b| a.seconds.total_cmp(&b.seconds))
            .unwrap_or_else(|| at(Rung::Spool)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn cost(memory: u64) -> Cost {
        Cost { memory, files: 0 }
    }

    #[test]
    fn without_an_end_in_sight_everything_is_done_well() {
        let plan = plan(None, cost(1 << 50), &Rates::default(), Last::Here);
        assert_eq!(plan.rung, Rung::Full);
    }

    #[test]
    fn a_large_image_teaches_and_a_small_one_does_not() {
        let mut rates = Rates::default();
        rates.learn(cost(1 << 20), 1 << 19, 0.5, 0.5);
        assert_eq!(rates, Rates::default());
        rates.learn(cost(GIB), GIB / 4, 2.0, 4.0);
        assert_eq!(rates.dump, GIB as f64 / 2.0);
        assert_eq!(rates.pack, GIB as f64 / 4.0);
        assert_eq!(rates.ratio, 0.25);
    }

    #[test]
    fn a_small_job_fits_into_htcondors_default_of_ten_minutes() {
        let plan = plan(Some(600.0), cost(2 * GIB), &Rates::default(), Last::None);
        assert_eq!(plan.rung, Rung::Full);
        assert!((180.0..200.0).contains(&plan.seconds), "{plan:?}");
    }

    #[test]
    fn what_takes_too_long_to_pack_is_packed_faster() {
        // A quick network and a slow CPU: 8 GiB at 50 MB/s are 172 s.
        let rates = Rates {
            pack: 50e6,
            spool: 1e9,
            ratio: 0.3,
            ..Rates::default()
        };
        let decided = plan(Some(200.0), cost(8 * GIB), &rates, Last::Here);
        assert_eq!(decided.rung, Rung::Fast);
        assert!(decided.seconds <= 200.0 * PLANNED);
    }

    #[test]
    fn a_store_that_is_too_slow_is_left_out() {
        let rates = Rates {
            store: 1e6,
            spool: 100e6,
            ..Rates::default()
        };
        assert_eq!(
            plan(Some(120.0), cost(GIB), &rates, Last::Here).rung,
            Rung::Spool
        );
        let quick = Rates {
            store: 1e9,
            ..rates
        };
        assert_eq!(
            plan(Some(120.0), cost(GIB), &quick, Last::Here).rung,
            Rung::Full
        );
    }

    #[test]
    fn what_goes_home_slower_than_to_the_disk_is_compressed() {
        let way = |spool, store| Rates {
            spool,
            store,
            ..Rates::default()
        };
        let (slow, quick) = (12.5e6, 1e9);
        assert_eq!(
            packing(Rung::Fast, &way(f64::INFINITY, 0.0)),
            Packing::ForDisk
        );
        assert_eq!(packing(Rung::Fast, &way(slow, 0.0)), Packing::Quickly);
        assert_eq!(packing(Rung::Fast, &way(quick, slow)), Packing::Quickly);
        assert_eq!(packing(Rung::Spool, &way(slow, quick)), Packing::Quickly);
        assert_eq!(packing(Rung::Full, &way(quick, quick)), Packing::Well);
    }

    #[test]
    fn a_disk_that_is_nearly_full_gets_less() {
        let within = |free| Packing::ForDisk.within(free, cost(GIB));
        assert_eq!(within(Some(2 * GIB)), Packing::ForDisk);
        assert_eq!(within(Some(2 * GIB - 1)), Packing::Quickly);
        assert_eq!(within(None), Packing::Quickly);
        assert_eq!(Packing::Well.within(Some(0), cost(GIB)), Packing::Well);
    }

    #[test]
    fn packing_well_is_for_slow_networks() {
        let over = |spool| {
            let rates = Rates {
                ratio: 0.25,
                spool,
                ..Rates::default()
            };
            let unlimited = plan(None, cost(GIB), &rates, Last::None).rung;
            assert_eq!(
                unlimited,
                plan(Some(600.0), cost(GIB), &rates, Last::None).rung
            );
            unlimited
        };
        assert_eq!(over(12.5e6), Rung::Full);
        assert_eq!(over(1e9), Rung::Fast);
        assert_eq!(over(f64::INFINITY), Rung::Fast);
    }

    #[test]
    fn a_store_gets_an_image_while_it_is_packed() {
        let rates = Rates::default();
        let to_store = Rates {
            store: rates.spool,
            ..rates
        };
        let saved =
            seconds(Rung::Full, cost(GIB), &rates) - seconds(Rung::Full, cost(GIB), &to_store);
        // To write and to pack it take 3.6 and 5.4 s.
        assert!((8.5..9.5).contains(&saved), "{saved}");
        let quick = Rates {
            store: 1e12,
            ..rates
        };
        assert!(seconds(Rung::Full, cost(GIB), &quick) > 9.0);
    }

    #[test]
    fn behind_the_store_there_is_time_for_htcondors_way() {
        let rates = Rates::default();
        // 8 s by spool at 12.5 MB/s.
        let tried = store_seconds(100.0, 100_000_000, &rates).unwrap();
        assert_eq!(tried, 80.0 - 8.5);
        // 80 s would not fit into what is left, so all of that is the store's.
        assert_eq!(store_seconds(50.0, 1_000_000_000, &rates), Some(40.0));
        assert_eq!(store_seconds(1.0, 1, &rates), None);
        assert_eq!(store_seconds(-5.0, 1, &rates), None);
    }

    #[test]
    fn when_nothing_fits_the_last_image_of_this_slot_leaves() {
        let decided = plan(Some(10.0), cost(8 * GIB), &Rates::default(), Last::Here);
        assert_eq!(
            decided,
            Plan {
                rung: Rung::KeepLast,
                seconds: 0.0
            }
        );
    }

    #[test]
    fn without_an_image_the_quickest_way_is_tried_all_the_same() {
        let rates = Rates {
            store: 1e9,
            ..Rates::default()
        };
        let decided = plan(Some(1.0), cost(8 * GIB), &rates, Last::None);
        assert_eq!(decided.rung, Rung::Fast);
    }

    #[test]
    fn every_plan_fits_or_says_that_there_is_nothing_better() {
        let speeds = [1e6, 12.5e6, 300e6, 2e9];
        let sizes = [0, 1 << 20, GIB, 64 * GIB, 1 << 45];
        let budgets = [-5.0, 0.0, 1.0, 30.0, 120.0, 600.0, 1800.0, 1e6];
        let stores = [0.0, 1e6, 1e9];
        for (dump, pack, spool) in speeds
            .iter()
            .flat_map(|a| speeds.iter().map(move |b| (a, b)))
            .flat_map(|(a, b)| speeds.iter().map(move |c| (*a, *b, *c)))
        {
            for (memory, files) in sizes.iter().flat_map(|a| sizes.iter().map(move |b| (a, b))) {
                for (budget, store) in budgets
                    .iter()
                    .flat_map(|a| stores.iter().map(move |b| (*a, *b)))
                {
                    let rates = Rates {
                        dump,
                        pack,
                        spool,
                        store,
                        ratio: 0.5,
                    };
                    let cost = Cost {
                        memory: *memory,
                        files: *files,
                    };
                    let kept = plan(Some(budget), cost, &rates, Last::Here);
                    let tried = plan(Some(budget), cost, &rates, Last::None);
                    assert!(kept.seconds.is_finite() && kept.seconds >= 0.0);
                    assert!(kept.seconds <= budget.max(0.0), "{kept:?} in {budget}");
                    assert_ne!(tried.rung, Rung::KeepLast);
                    if kept.rung != Rung::KeepLast {
                        assert_eq!(kept, tried);
                    }
                    // More time never means a lower rung.
                    let order = [Rung::Full, Rung::Fast, Rung::Spool, Rung::KeepLast];
                    let place = |plan: Plan| order.iter().position(|rung| *rung == plan.rung);
                    let longer = plan(Some(budget * 2.0 + 1.0), cost, &rates, Last::Here);
                    assert!(place(longer) <= place(kept), "{longer:?} after {kept:?}");
                }
            }
        }
    }
}
