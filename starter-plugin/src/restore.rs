//! Which image to go on from, and whether it may be tried here.
//!
//! ```text
//! no archive ─────────────────────────────> Fresh
//! archive verifies, is admitted ──────────> Thaw
//! archive verifies, is not admitted here ─> NotHere: the slot goes back, the image stays
//! archive is damaged ─────────────────────> by hand an error; in HTCondor from the beginning
//! ```

use std::fs;

use anyhow::{Context, Result};
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::manifest::{Limits, Manifest};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::unpack::Archive;

use crate::job::Job;
use crate::sandbox::{Sandbox, TREES};

/// Slots that may fail to restore an image before the job begins again.
const ATTEMPTS: u32 = 3;

/// How the job begins.
pub(crate) enum Choice {
    /// From its command.
    Fresh,
    /// From the image that is now unpacked in the sandbox.
    Thaw(Box<Manifest>),
    /// Elsewhere: this slot cannot, and the sentence says why.
    NotHere(String),
}

/// Verifies and unpacks the newest image, if there is one.
pub(crate) fn choose(job: &Job, sandbox: &Sandbox, slot: &Fingerprint) -> Result<Choice> {
    let path = sandbox.archive();
    match fs::metadata(&path) {
        Ok(meta) if meta.len() > 0 => {}
        // HTCondor wants a listed file to exist, so an empty one is none.
        _ => return Ok(Choice::Fresh),
    }
    let begun = std::time::Instant::now();
    let unpacked = Archive::open(&path, &Limits::default()).and_then(|archive| {
        if slot.admits(&archive.manifest().head.fingerprint).is_ok() {
            let dirs = TREES.map(|name| (name, sandbox.tree(name)));
            let trees: Vec<_> = dirs
                .iter()
                .map(|(name, dir)| (*name, dir.as_path()))
                .collect();
            archive.unpack(&trees, &Silent)?;
        }
        Ok(archive)
    });
    let archive = match unpacked {
        Ok(archive) => archive,
        Err(error) if job.is_htcondor() => {
            tracing::warn!(
                "the image is refused, the job begins again: {:#}",
                anyhow::Error::from(error)
            );
            sandbox.clear(&TREES)?;
            return Ok(Choice::Fresh);
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!("{} is refused; take it away to begin again", path.display())
            });
        }
    };
    let manifest = archive.manifest().clone();
    if let Err(mismatches) = slot.admits(&manifest.head.fingerprint) {
        let reasons: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
        return give_up_or(job, &manifest, reasons.join("; "), sandbox);
    }
    tracing::info!(
        stage = "unpacked",
        generation = manifest.head.generation,
        seconds = begun.elapsed().as_secs_f64()
    );
    Ok(Choice::Thaw(Box::new(manifest)))
}

/// After an image could not be restored here: another slot, while there is hope.
pub(crate) fn give_up_or(
    job: &Job,
    manifest: &Manifest,
    reason: String,
    sandbox: &Sandbox,
) -> Result<Choice> {
    let attempts = job.starts().saturating_sub(manifest.head.resume.job_starts);
    if job.is_htcondor() && attempts > ATTEMPTS {
        tracing::warn!("given up on the image after {attempts} slots: {reason}");
        sandbox.clear(&TREES)?;
        return Ok(Choice::Fresh);
    }
    Ok(Choice::NotHere(reason))
}
