//! The outer supervisor: the starter's child, in no namespace of the job's.
//!
//! It decides how the job begins and what a slot that cannot go on with it owes
//! to the queue; `running` has the job's life in between.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow};
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::{attributes, host};
use nix::sys::prctl::set_child_subreaper;

use crate::criu::Criu;
use crate::exit_code::ExitCode;
use crate::job::Job;
use crate::restore::{self, Choice};
use crate::running::{CannotHere, End, Running, Signals, Thawed, announce};
use crate::sandbox::{self, Sandbox};
use crate::vacate;
use crate::{log, sys};

/// A job that was started this often and fails again for a reason of ours ends
/// with our exit code, for a person to see, instead of going round for ever.
const STARTS_IN_VAIN: u32 = 50;

/// Runs the job of this directory or slot, from its image if there is one.
pub(crate) fn run(job: &Job) -> Result<End> {
    let criu = match find_criu() {
        Ok(criu) => Rc::new(criu),
        Err(error) => return without_criu(job, error),
    };
    let slot = slot_fingerprint(job, &criu)?;
    let sandbox = Sandbox::create(&job.scratch)?;
    log::also_into(&sandbox.log());
    tracing::info!(
        stage = "begin",
        scratch = %job.scratch.display(),
        criu = criu.version(),
        kernel = %slot.kernel
    );

    sys::keep_descriptors_from_children().context("cannot list our own descriptors")?;
    let mut signals = Signals::block()?;
    set_child_subreaper(true)?;
    let running = match restore::choose(job, &sandbox, &slot)? {
        Choice::Fresh => Running::fresh(job, &criu, &sandbox, &slot),
        Choice::NotHere(reason) => return not_here(job, &sandbox, &reason),
        Choice::Thaw(manifest) => {
            match Running::thawed(job, &criu, &sandbox, &slot, &manifest, &mut signals)? {
                Thawed::Running(running) => Ok(*running),
                Thawed::Vacated => {
                    sandbox.remove()?;
                    return Ok(End::Ours(ExitCode::Frozen));
                }
                Thawed::Failed(reason) => {
                    match restore::give_up_or(job, &manifest, reason, &sandbox)? {
                        Choice::NotHere(reason) => return not_here(job, &sandbox, &reason),
                        _ => Running::fresh(job, &criu, &sandbox, &slot),
                    }
                }
            }
        }
    };
    match running {
        Ok(running) => running.watch(job, &sandbox, &mut signals),
        Err(error) if error.is::<CannotHere>() => without_criu(job, error),
        Err(error) => Err(error),
    }
}

/// The CRIU beside this program or on the node.
pub(crate) fn find_criu() -> Result<Criu> {
    let exe = env::current_exe().context("cannot tell where this program is")?;
    Ok(Criu::find(exe.parent().unwrap_or(Path::new("/")))?)
}

/// A slot that cannot freeze runs the job as it is, unless there is work to lose.
fn without_criu(job: &Job, error: anyhow::Error) -> Result<End> {
    let archive = job.scratch.join(sandbox::ARCHIVE);
    if !job.is_htcondor() || fs::metadata(archive).is_ok_and(|meta| meta.len() > 0) {
        return Err(error);
    }
    tracing::warn!("the job runs without protection: {error:#}");
    Err(straight_through(&job.command))
}

/// Becomes the job.
pub(crate) fn straight_through(command: &[std::ffi::OsString]) -> anyhow::Error {
    let Some((program, arguments)) = command.split_first() else {
        return anyhow!("no command: criu-starter run -- ./job args");
    };
    let error = Command::new(program).args(arguments).exec();
    anyhow!(error).context(format!("cannot start {}", program.display()))
}

/// Gives the slot back and leaves the image as it is.
fn not_here(job: &Job, sandbox: &Sandbox, reason: &str) -> Result<End> {
    tracing::error!("the image cannot be restored on this slot: {reason}");
    announce(|chirp| vacate::announce_failure(chirp, reason));
    sandbox.remove()?;
    give_the_job_back(job, reason);
    Ok(End::Ours(ExitCode::NotHere))
}

/// Makes the starter give the job back to the queue with nothing transferred, so
/// that the image in SPOOL stays as it is; the reason goes into the event log.
///
/// The starter looks for this file also where no wrapper is configured and no
/// variable names it.
pub(crate) fn give_the_job_back(job: &Job, reason: &str) {
    if !job.is_htcondor() || job.starts() > STARTS_IN_VAIN {
        return;
    }
    let file = env::var_os("_CONDOR_WRAPPER_ERROR_FILE")
        .map_or_else(|| job.scratch.join(".job_wrapper_failure"), PathBuf::from);
    // A starter that runs as root looks with the eyes of condor, who may not enter
    // a directory of the job's user. It is removed a moment later.
    let written = fs::write(&file, format!("criu-starter: {reason}\n"))
        .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o644)))
        .and_then(|()| fs::set_permissions(&job.scratch, Permissions::from_mode(0o711)));
    if let Err(error) = written {
        tracing::error!("cannot give the slot back: {error}");
    }
}

/// What was matched is what gets compared: the slot's ad, else this host.
fn slot_fingerprint(job: &Job, criu: &Criu) -> Result<Fingerprint> {
    if let Some(ad) = &job.machine_ad
        && ad.eval_bool(attributes::HAS_CRIU) == Some(true)
    {
        return Fingerprint::from_slot_ad(ad)
            .context("the slot's ad describes its CPU and CRIU badly");
    }
    let version = criu.version();
    let version = version
        .parse()
        .with_context(|| format!("CRIU calls its version {version:?}"))?;
    host::fingerprint(version, BTreeSet::new()).context("cannot describe this host")
}
