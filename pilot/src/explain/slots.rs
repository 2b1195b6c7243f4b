//! What in the slots' ads would defeat a checkpoint of this job.

use anyhow::{Context, Result};
use classad::{ClassAd, Scope};
use file_transfer_plugin::attributes;

use super::{Finding, job};
use crate::ads;

/// A startd's own, where its ad does not say.
const VACATE_TIME: i64 = 600;

/// How many slots that have CRIU, and what of them is in the way.
pub(super) fn policies(job: &ClassAd, slots: &[u8]) -> Result<Vec<Finding>> {
    let needed = job::seconds_needed(job);
    let own = job.evaluate("MaxJobRetirementTime").as_int();
    let (mut all, mut retiring, mut short, mut bound) = (0_u32, 0_u32, 0_u32, i64::MAX);
    for block in ads::blocks(slots) {
        let slot = ClassAd::parse_old_bytes(block).context("cannot read a slot's ad")?;
        if slot.eval_bool(attributes::HAS_CRIU) != Some(true) {
            continue;
        }
        all += 1;
        let seconds = |name: &str, default| {
            let value = slot
                .get(name)
                .map(|expr| Scope::new(&slot).target(job).evaluate_expr(&expr.to_expr()));
            value.and_then(|value| value.as_int()).unwrap_or(default)
        };
        // The startd takes the lesser of both.
        let retirement = seconds("MaxJobRetirementTime", 0);
        retiring += u32::from(own.map_or(retirement, |own| own.min(retirement)) > 0);
        let pledged = seconds("MachineMaxVacateTime", VACATE_TIME);
        if needed.is_some_and(|needed| pledged < needed) {
            short += 1;
            bound = bound.min(pledged);
        }
    }
    let mut findings = Vec::new();
    if all == 0 {
        findings.push(Finding::fatal(
            "no slot says that it has CRIU: ask the admins of the pool for what `criu-pilot configure ep` or `configure glidein` prints",
        ));
    }
    if retiring > 0 {
        findings.push(Finding::note(format!(
            "on {retiring} of {all} slots with CRIU a retirement comes before the signal, and a pilot may end before that: \
             add `max_job_retirement_time = 0` to the job"
        )));
    }
    if let (true, Some(needed)) = (short > 0, needed) {
        let sentence = format!(
            "{short} of {all} slots with CRIU leave as little as {bound} s (MachineMaxVacateTime), and its last image took about {needed} s \
             to freeze, pack and send: they need the policy that `criu-pilot configure ep` prints"
        );
        findings.push(Finding {
            fatal: short == all,
            sentence,
        });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(job: &str, slots: &str) -> Vec<Finding> {
        policies(&ClassAd::parse_old(job).unwrap(), slots.as_bytes()).unwrap()
    }

    #[test]
    fn a_policy_is_evaluated_for_this_job() {
        let slot = "HasCRIU = true\nMaxJobRetirementTime = ifThenElse(TARGET.WantCRIU =?= true, 0, 100)\n\
                    MachineMaxVacateTime = ifThenElse(TARGET.WantCRIU =?= true, 1800, 10)";
        let job = "WantCRIU = true\nChirpCRIUBytes = 1250000000";
        assert_eq!(found(job, slot), []);
        let other = found("ChirpCRIUBytes = 1250000000", slot);
        assert_eq!(other.len(), 2);
        assert!(
            other[1].fatal && other[1].sentence.contains("as little as 10 s"),
            "{other:?}"
        );
        assert_eq!(found("MaxJobRetirementTime = 0", slot), []);
    }

    #[test]
    fn a_pool_without_criu_is_told() {
        assert!(
            found(
                "WantCRIU = true",
                "HasCRIU = false\n\nState = \"Unclaimed\""
            )[0]
            .fatal
        );
    }
}
