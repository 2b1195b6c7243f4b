//! The pilot's own startd, through HTCondor's tools.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use classad::ClassAd;

use super::plan::Slot;
use crate::ads;

/// A setting of this pilot's, if it has it.
pub(super) fn configured(name: &str) -> Option<String> {
    let output = Command::new("condor_config_val")
        .args(["-subsystem", "STARTD", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn address() -> Result<String> {
    let file =
        configured("STARTD_ADDRESS_FILE").context("HTCondor does not say where its startd is")?;
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Its slots with a job that wants to be frozen.
pub(super) fn slots() -> Result<Vec<Slot>> {
    // Not the collector, which would tell of five minutes ago.
    let ads = ads::ask("condor_status", &["-direct", &address()?, "-long"])?;
    ads::blocks(&ads)
        .map(|block| ClassAd::parse_old_bytes(block).context("cannot read a slot's ad"))
        .filter_map(|ad| ad.map(|ad| leaver(&ad)).transpose())
        .collect()
}

/// Its name if a job is there that wants it. `WantCRIU` is in the slot's ad by `STARTD_JOB_ATTRS`.
fn leaver(slot: &ClassAd) -> Option<Slot> {
    let state = slot.eval_str("State")?;
    let is_busy = state == "Claimed" || state == "Preempting";
    if !is_busy || slot.eval_bool("WantCRIU") != Some(true) {
        return None;
    }
    let kilobytes = ["ResidentSetSize", "ImageSize"]
        .iter()
        .find_map(|name| slot.eval_int(name).filter(|size| *size > 0));
    Some(Slot {
        name: slot.eval_str("Name")?,
        job: slot.eval_str("JobId")?,
        bytes: u64::try_from(kilobytes.unwrap_or(0))
            .unwrap_or(0)
            .saturating_mul(1024),
    })
}

/// What our policy includes where it exists.
const LEAVING: &str = "CRIU_LEAVING";

/// No slot takes a job any more.
pub(super) fn close() -> Result<()> {
    let file = configured(LEAVING).context("CRIU_LEAVING is not configured")?;
    fs::write(&file, "START = False\n").with_context(|| format!("cannot write {file}"))?;
    ads::ask("condor_reconfig", &["-addr", &address()?]).map(drop)
}

/// What an earlier life in this place has closed is open again.
pub(super) fn open() {
    if let Some(file) = configured(LEAVING) {
        let _ = fs::remove_file(file);
    }
}

/// Asks its job to leave.
///
/// HTCondor 23.9's tool looks for an ad of that name among those of startds, where 25's finds the slot's.
pub(super) fn vacate(slot: &str) -> Result<()> {
    ads::ask("condor_vacate", &[slot]).map(drop)
}

/// Asks every job of this pilot to leave. By its address: pilots of one machine share that machine's name.
pub(super) fn vacate_all() -> Result<()> {
    ads::ask("condor_vacate", &["-addr", &address()?]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_counts_while_its_job_is_there_and_wants_it() {
        let slot = |text: &str| leaver(&ClassAd::parse_old(text).unwrap());
        let busy = "Name = \"slot1@x\"\nState = \"Claimed\"\nJobId = \"3.1\"\nImageSize = 2048\n";
        assert_eq!(slot(busy), None);
        let wants = format!("{busy}WantCRIU = true\n");
        assert_eq!(
            slot(&wants).map(|slot| (slot.job, slot.bytes)),
            Some(("3.1".into(), 2 << 20))
        );
        let resident = format!("{wants}ResidentSetSize = 1024");
        assert_eq!(slot(&resident).map(|slot| slot.bytes), Some(1 << 20));
        assert!(slot(&wants.replace("Claimed", "Preempting")).is_some());
        assert_eq!(slot(&wants.replace("Claimed", "Unclaimed")), None);
        assert_eq!(
            slot("Name = \"slot1@x\"\nState = \"Claimed\"\nWantCRIU = true"),
            None
        );
    }
}
