//! The outer supervisor: the starter's child, in no namespace of the job's.
//!
//! It decides how the job begins and what a slot that cannot go on with it owes
//! to the queue; `running` and `watch` have the job's life in between.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::{attributes, host};
use nix::sys::prctl::set_child_subreaper;

use crate::again::Notes;
use crate::criu::Criu;
use crate::exit_code::ExitCode;
use crate::job::Job;
use crate::restore::{Choice, Ladder, may_wait_for_store};
use crate::running::{CannotHere, End, Running, StartFailed, announce};
use crate::sandbox::{self, Sandbox};
use crate::signals::Signals;
use crate::store::{Asked, Asking, Store};
use crate::thaw::{self, Thawed};
use crate::vacate;
use crate::watch::Watched;
use crate::{as_root, log, outputs, sys};

/// A job that was started this often and fails again for a reason of ours ends
/// with our exit code, for a person to see, instead of going round for ever.
const STARTS_IN_VAIN: u32 = 50;

/// Runs the job of this directory or slot, from its image if there is one.
pub(crate) fn run(job: &Job) -> Result<End> {
    if job.as_root && (job.is_htcondor() || !as_root::may()) {
        bail!("--as-root is for root, by hand and outside of a user namespace");
    }
    outputs::take_image(job)?;
    let criu = match find_criu(job) {
        Ok(criu) => Rc::new(criu),
        Err(error) => return without_criu(job, error),
    };
    let fingerprint = slot_fingerprint(job, &criu)?;
    let again = Notes::take(&job.scratch);
    let mut sandbox = Sandbox::create(&job.scratch)?;
    log::also_into(&sandbox.log());
    tracing::info!(
        stage = "begin",
        scratch = %job.scratch.display(),
        criu = criu.version(),
        kernel = %fingerprint.kernel
    );

    sys::keep_descriptors_from_children().context("cannot list our own descriptors")?;
    let signals = Signals::block(job.vacate_signal())?;
    set_child_subreaper(true)?;
    let store = Store::of(job);
    if job.store.is_some() && store.is_none() {
        sandbox.remove()?;
        bail!("--store cannot be used, and the job may have an image there");
    }
    if let Some(store) = &store {
        sandbox.leave_outside(store.program());
    }
    let slot = Slot {
        job,
        criu,
        sandbox,
        fingerprint,
        store,
    };
    slot.go_on(again, &signals)
}

/// Where a job begins or goes on.
struct Slot<'a> {
    job: &'a Job,
    criu: Rc<Criu>,
    sandbox: Sandbox,
    fingerprint: Fingerprint,
    store: Option<Store>,
}

impl Slot<'_> {
    /// Down the ladder of images until one runs.
    fn go_on(&self, mut again: Option<Notes>, signals: &Signals) -> Result<End> {
        let Slot {
            job,
            criu,
            sandbox,
            fingerprint,
            store,
        } = self;
        let in_place = again.is_some();
        let mut ladder = Ladder::of(sandbox, job, again.as_ref());
        // In place we know better than the store and the ad, which is that of the first start here.
        let ended = (!in_place).then(|| self.look_into_store(&mut ladder, signals));
        let mut choice = match ended.flatten() {
            Some(choice) => choice,
            None => ladder.next(job, sandbox, fingerprint)?,
        };
        loop {
            let image = match choice {
                Choice::Fresh => return self.begin(in_place, &ladder, signals),
                Choice::NotHere(reason) => return self.not_here(&reason),
                Choice::Vacated => return self.vacated(),
                Choice::Thaw(image) => image,
            };
            let notes = again.take();
            let failed =
                match thaw::thawed(job, criu, sandbox, fingerprint, &image, notes, signals)? {
                    Thawed::Running(mut running) => {
                        running.has_store(store.as_ref(), job, &ladder);
                        match running.watch(job, sandbox, signals)? {
                            Watched::End(end) => return Ok(end),
                            Watched::Crashed(reason) => reason,
                        }
                    }
                    Thawed::Vacated => return self.vacated(),
                    Thawed::Damaged(reason) => {
                        tracing::warn!("not from this image: {reason}");
                        choice = ladder.without(reason, job, sandbox, fingerprint)?;
                        continue;
                    }
                    Thawed::Failed(reason) => reason,
                };
            choice = ladder.failed(&image, failed, job, sandbox, fingerprint)?;
        }
    }

    /// Adds the store's images to what HTCondor has brought; or an end, where they cannot be asked for.
    fn look_into_store<'a>(
        &'a self,
        ladder: &mut Ladder<'a>,
        signals: &'a Signals,
    ) -> Option<Choice> {
        let job = self.job;
        // It has none before the first start, which by hand is not known.
        if job.is_htcondor() && job.starts() == 0 {
            return None;
        }
        let why = match &self.store {
            None if job.is_in_store() => {
                "the newest image is in the store, which this slot has no way to".to_owned()
            }
            None => return None,
            Some(store) => {
                let asking = Asking {
                    store,
                    signals,
                    vacate: job.vacate_signal(),
                };
                match asking.list() {
                    Asked::Got(images) => {
                        ladder.and_stored(images, asking);
                        return None;
                    }
                    Asked::Vacated => return Some(Choice::Vacated),
                    Asked::Not(why) => why.to_string(),
                }
            }
        };
        // What is here may be older, and nothing that HTCondor has brought is nothing to lose by.
        let worth_waiting = job.is_in_store() || ladder.is_empty();
        if worth_waiting && may_wait_for_store(job) {
            return Some(Choice::NotHere(why));
        }
        tracing::warn!("without the store: {why}");
        None
    }

    /// Nothing runs yet, and the image is as good as it was.
    fn vacated(&self) -> Result<End> {
        outputs::leave_image(self.job, &self.sandbox)?;
        self.sandbox.remove()?;
        Ok(End::Ours(ExitCode::Frozen))
    }

    /// From the command.
    fn begin(&self, in_place: bool, ladder: &Ladder, signals: &Signals) -> Result<End> {
        let Slot { job, sandbox, .. } = self;
        if in_place {
            // Its inputs were here at its first start and went into the image.
            let why = ladder.refusals().unwrap_or_else(|| "it is gone".to_owned());
            return self.not_here(&format!("the image that was taken here: {why}"));
        }
        if job.only_restore {
            sandbox.remove()?;
            bail!("there is no checkpoint.criu to go on from");
        }
        if let Some(reason) = ladder.refusals() {
            announce(|chirp| {
                vacate::announce_failure(
                    chirp,
                    &format!("begun again, without its image: {reason}"),
                )
            });
        }
        match Running::fresh(job, &self.criu, sandbox, &self.fingerprint) {
            Ok(mut running) => {
                running.has_store(self.store.as_ref(), job, ladder);
                match running.watch(job, sandbox, signals)? {
                    Watched::End(end) => Ok(end),
                    Watched::Crashed(reason) => bail!("a fresh job cannot fail to thaw: {reason}"),
                }
            }
            Err(error) if error.is::<CannotHere>() => without_criu(job, error),
            Err(error) => Err(error),
        }
    }

    /// Gives the slot back and leaves the image as it is.
    fn not_here(&self, reason: &str) -> Result<End> {
        tracing::error!("the image cannot be restored on this slot: {reason}");
        announce(|chirp| vacate::announce_failure(chirp, reason));
        self.sandbox.remove()?;
        give_the_job_back(self.job, reason);
        Ok(End::Ours(ExitCode::NotHere))
    }
}

/// The CRIU of those beside this program or on the node with which this job is frozen.
fn find_criu(job: &Job) -> Result<Criu> {
    let wanted = job.criu.clone().or_else(|| job.proven_criu());
    let found = Criu::find(&beside_us()?, wanted.as_deref())?;
    match &job.criu {
        Some(version) if !found.is(version) => bail!(
            "there is no CRIU {version} here, the newest is {}",
            found.version()
        ),
        _ => Ok(found),
    }
}

/// All that could be taken, the newest first.
pub(crate) fn all_criu() -> Result<Vec<Criu>> {
    Ok(Criu::all(&beside_us()?)?)
}

fn beside_us() -> Result<PathBuf> {
    let exe = env::current_exe().context("cannot tell where this program is")?;
    Ok(exe.parent().unwrap_or(Path::new("/")).to_owned())
}

/// This slot cannot freeze, and the job has nothing to lose: it is to be run as it is.
#[derive(Debug, thiserror::Error)]
#[error("the job runs without protection: {0:#}")]
pub(crate) struct Unprotected(anyhow::Error);

/// A slot that cannot freeze runs the job as it is, unless there is work to lose.
fn without_criu(job: &Job, error: anyhow::Error) -> Result<End> {
    let archive = job.scratch.join(sandbox::ARCHIVE);
    let has_image = fs::metadata(archive).is_ok_and(|meta| meta.len() > 0) || job.is_in_store();
    if !job.is_htcondor() || has_image {
        return Err(error);
    }
    Err(Unprotected(error).into())
}

/// Becomes the job.
pub(crate) fn straight_through(command: &[std::ffi::OsString]) -> anyhow::Error {
    let Some((program, arguments)) = command.split_first() else {
        return anyhow!("no command: criu-starter run -- ./job args");
    };
    let error = Command::new(program).args(arguments).exec();
    StartFailed::of(program, &error).into()
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
    let made = File::create(&file).and_then(|made| {
        made.set_permissions(Permissions::from_mode(0o644))?;
        fs::set_permissions(&job.scratch, Permissions::from_mode(0o711))?;
        Ok(made)
    });
    // A full disk has room for the name, which is what counts, and not for the reason.
    let written = made.and_then(|mut file| writeln!(file, "criu-starter: {reason}"));
    if let Err(error) = written {
        tracing::error!("cannot give the slot back, or not say why: {error}");
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
    let ability = job.as_root.then(|| as_root::ABILITY.to_owned());
    host::fingerprint(version, ability.into_iter().collect()).context("cannot describe this host")
}

#[cfg(test)]
mod tests {
    use classad::ClassAd;

    use super::*;

    #[test]
    fn a_job_that_was_started_in_vain_for_long_is_left_to_a_person() {
        for (starts, given_back) in [(STARTS_IN_VAIN, true), (STARTS_IN_VAIN + 1, false)] {
            let scratch = tempfile::tempdir().unwrap();
            let ad = format!("NumJobStarts = {starts}");
            let job = Job {
                scratch: scratch.path().to_owned(),
                command: vec!["./job".into()],
                job_ad: Some(ClassAd::parse_old(&ad).unwrap()),
                machine_ad: None,
                every: None,
                only_restore: false,
                baseline: None,
                criu: None,
                codec: Default::default(),
                small: false,
                store: None,
                as_root: false,
            };
            give_the_job_back(&job, "the disk is full");
            let said = fs::read_to_string(scratch.path().join(".job_wrapper_failure")).ok();
            let reason = "criu-starter: the disk is full\n";
            assert_eq!(said.as_deref(), given_back.then_some(reason));
        }
    }
}
