//! How long the slot will wait for an image, as the ads say it.
//!
//! - `MachineMaxVacateTime` is the startd's pledge, an expression that may look at the job.
//! - `JobMaxVacateTime`, or else `KillSigTimeout`, can only shorten it: it could lengthen it where retirement time
//!   is left, which the ads do not say.
//! - A starter before 24.0 arms its own `SHUTDOWN_GRACEFUL_TIMEOUT` at the soft kill. That is no attribute; its
//!   default is longer than any pledge, but glideinWMS makes it 120 s where nobody says otherwise, and a slot whose
//!   pledge is longer for jobs that ask for it is one where somebody did.
//! - `GLIDEIN_ToDie` is the end of everything, in seconds since 1970.

use classad::{ClassAd, Expr};

/// When the pilot's own end comes.
pub(crate) const TO_DIE: &str = "GLIDEIN_ToDie";

/// HTCondor's default for `MachineMaxVacateTime`.
const DEFAULT_PLEDGE: f64 = 600.0;

/// glideinWMS's `SHUTDOWN_GRACEFUL_TIMEOUT`.
const GLIDEIN_SHUTDOWN: f64 = 120.0;

/// Seconds from the soft kill on; `None` where nobody counts.
pub(crate) fn seconds(job: Option<&ClassAd>, slot: Option<&ClassAd>, now: i64) -> Option<f64> {
    let job = job?;
    let pledge = slot.and_then(|slot| pledge(slot, job));
    let mut budget = pledge.unwrap_or(DEFAULT_PLEDGE);
    let own = ["JobMaxVacateTime", "KillSigTimeout"];
    if let Some(wish) = own.iter().find_map(|name| job.eval_int(name)) {
        budget = budget.min(wish as f64);
    }
    if let Some(slot) = slot {
        if starter_counts(slot) && slot.contains(TO_DIE) && budget <= DEFAULT_PLEDGE {
            budget = budget.min(GLIDEIN_SHUTDOWN);
        }
        if let Some(end) = end(slot) {
            budget = budget.min((end - now) as f64);
        }
    }
    Some(budget.max(0.0))
}

/// The slot's announced end.
pub(crate) fn end(slot: &ClassAd) -> Option<i64> {
    slot.eval_int(TO_DIE)
}

/// What the startd promised this job. The matchmaker's `rank` is what evaluates one ad's expression with the other in
/// sight.
fn pledge(slot: &ClassAd, job: &ClassAd) -> Option<f64> {
    const NAME: &str = "MachineMaxVacateTime";
    slot.get(NAME)?;
    let mut asking = slot.clone();
    asking.insert("Rank", Expr::parse(NAME).ok()?);
    let pledge = classad::rank(&asking, job);
    // An expression that comes to nothing ranks 0; the startd then kills at once.
    Some(pledge.max(0.0))
}

/// Whether the starter itself ends the job by a timer of its own.
fn starter_counts(slot: &ClassAd) -> bool {
    let version = slot.eval_str("CondorVersion").unwrap_or_default();
    // "$CondorVersion: 23.9.6 2024-08-08 ... $"
    let major = version
        .strip_prefix("$CondorVersion:")
        .and_then(|rest| rest.trim_start().split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major < 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(text: &str) -> ClassAd {
        ClassAd::parse_old(text).unwrap()
    }

    fn of(job: &str, slot: &str) -> Option<f64> {
        seconds(Some(&ad(job)), Some(&ad(slot)), 1_000)
    }

    #[test]
    fn by_hand_nobody_counts() {
        assert_eq!(seconds(None, None, 0), None);
        assert_eq!(seconds(None, Some(&ad("GLIDEIN_ToDie = 7")), 0), None);
    }

    #[test]
    fn the_pledge_may_look_at_the_job() {
        let slot = "MachineMaxVacateTime = ifThenElse(TARGET.WantCRIU =?= true, 1800, 600)";
        assert_eq!(of("WantCRIU = true", slot), Some(1800.0));
        assert_eq!(of("A = 1", slot), Some(600.0));
        assert_eq!(of("WantCRIU = true", "B = 1"), Some(600.0));
        assert_eq!(of("A = 1", "MachineMaxVacateTime = undefined"), Some(0.0));
    }

    #[test]
    fn a_job_can_only_shorten_it() {
        let slot = "MachineMaxVacateTime = 600";
        assert_eq!(of("JobMaxVacateTime = 60", slot), Some(60.0));
        assert_eq!(of("JobMaxVacateTime = 6000", slot), Some(600.0));
        assert_eq!(of("KillSigTimeout = 30", slot), Some(30.0));
        assert_eq!(
            of("JobMaxVacateTime = 90\nKillSigTimeout = 30", slot),
            Some(90.0)
        );
    }

    #[test]
    fn the_pilots_end_is_the_end() {
        let slot = "MachineMaxVacateTime = 600\nGLIDEIN_ToDie = 1045";
        assert_eq!(of("A = 1", slot), Some(45.0));
        let over = "MachineMaxVacateTime = 600\nGLIDEIN_ToDie = 900";
        assert_eq!(of("A = 1", over), Some(0.0));
    }

    #[test]
    fn an_old_starter_in_a_glidein_nobody_configured_has_two_minutes() {
        let old =
            "CondorVersion = \"$CondorVersion: 23.9.6 2024-08-08 $\"\nGLIDEIN_ToDie = 90000\n";
        let new =
            "CondorVersion = \"$CondorVersion: 25.14.1 2026-01-01 $\"\nGLIDEIN_ToDie = 90000\n";
        let plain = "MachineMaxVacateTime = 600";
        assert_eq!(of("A = 1", &format!("{old}{plain}")), Some(120.0));
        assert_eq!(of("A = 1", &format!("{new}{plain}")), Some(600.0));
        let ours = "MachineMaxVacateTime = 1800";
        assert_eq!(of("A = 1", &format!("{old}{ours}")), Some(1800.0));
        let site = "CondorVersion = \"$CondorVersion: 23.9.6 2024-08-08 $\"\n";
        assert_eq!(of("A = 1", &format!("{site}{plain}")), Some(600.0));
    }
}
