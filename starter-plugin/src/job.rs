//! One job as the starter hands it over: ads, environment, files, signal.
//!
//! Without HTCondor (by hand) the same values come from the shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use classad::ClassAd;
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::{Baseline, Fingerprint};
use file_transfer_plugin::manifest::Codec;
use nix::sys::signal::Signal;

use crate::baseline;
use crate::exit_code::ExitCode;
use crate::namespaces::SANDBOX;
use crate::period::Interval;
use crate::sandbox::ARCHIVE;
use crate::store::Lane;

/// An ad of HTCondor's is some ten kilobytes.
pub(crate) const AD_LIMIT: u64 = 4 << 20;

/// Where the starter says that the job's ad is.
const JOB_AD: &str = "_CONDOR_JOB_AD";

/// What the sandbox's inside runs.
#[derive(Debug, Clone)]
pub(crate) struct JobCommand {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// The job and its slot, as far as they are known.
#[derive(Debug)]
pub(crate) struct Job {
    /// The scratch directory: HTCondor's, or where we were started.
    pub(crate) scratch: PathBuf,
    /// The command after `--`.
    pub(crate) command: Vec<OsString>,
    /// HTCondor's job ad.
    pub(crate) job_ad: Option<ClassAd>,
    /// HTCondor's slot ad.
    pub(crate) machine_ad: Option<ClassAd>,
    /// How often a person wants an image while it runs.
    pub(crate) every: Option<Duration>,
    /// Going on is wanted, not beginning.
    pub(crate) only_restore: bool,
    /// The level of instructions that it may see, where that was said by hand.
    pub(crate) baseline: Option<String>,
    /// The version of CRIU that somebody wants.
    pub(crate) criu: Option<String>,
    /// It is root's, and to have what only root can give it.
    pub(crate) as_root: bool,
    /// How its images are compressed.
    pub(crate) codec: Codec,
    /// Whether small images are worth the time that they take, whoever is to carry them.
    pub(crate) small: bool,
    /// The store of its images, where that was said by hand.
    pub(crate) store: Option<String>,
}

impl Job {
    /// Reads what the environment names.
    pub(crate) fn from_environment(command: Vec<OsString>) -> Result<Job> {
        let here = env::current_dir().context("cannot tell the current directory")?;
        let scratch = env::var_os("_CONDOR_SCRATCH_DIR").map_or(here, PathBuf::from);
        Ok(Job {
            scratch: scratch
                .canonicalize()
                .with_context(|| format!("cannot use {}", scratch.display()))?,
            command,
            job_ad: ad_named_by(JOB_AD)?,
            machine_ad: ad_named_by("_CONDOR_MACHINE_AD")?,
            every: None,
            only_restore: false,
            baseline: None,
            criu: None,
            codec: Codec::default(),
            small: false,
            store: None,
            as_root: false,
        })
    }

    /// A job that goes on, and that its image knows better than we do.
    pub(crate) fn to_be_restored() -> Result<Job> {
        Ok(Job {
            only_restore: true,
            ..Job::from_environment(Vec::new())?
        })
    }

    /// Whether HTCondor started us, asked before its ads are read.
    pub(crate) fn is_under_htcondor() -> bool {
        env::var_os(JOB_AD).is_some()
    }

    /// Whether HTCondor started us.
    pub(crate) fn is_htcondor(&self) -> bool {
        self.job_ad.is_some()
    }

    /// By hand, being called says it; in HTCondor the job's line does.
    pub(crate) fn wants_criu(&self) -> bool {
        match &self.job_ad {
            None => true,
            Some(ad) => ad.eval_bool("WantCRIU") == Some(true),
        }
    }

    /// The level of instructions that it may see on this slot, if that is to be less than all.
    pub(crate) fn baseline(&self, slot: &Fingerprint) -> Option<Baseline> {
        let named = |ad: &Option<ClassAd>| ad.as_ref()?.eval_str(baseline::ATTRIBUTE);
        let asked = self.baseline.clone().or_else(|| named(&self.job_ad))?;
        match baseline::asked(&asked, named(&self.machine_ad).as_deref(), slot) {
            Ok(None) => {
                tracing::warn!("this slot has less than any baseline");
                None
            }
            Ok(level) => level,
            // No reason to keep the job from running.
            Err(error) => {
                tracing::warn!("{error}: nothing is hidden");
                None
            }
        }
    }

    /// The version of the CRIU that a job was frozen and thawed with on this slot, as its ad says: a newer one may
    /// have failed at that.
    pub(crate) fn proven_criu(&self) -> Option<String> {
        let slot = self.machine_ad.as_ref()?;
        let proven = slot.eval_bool(attributes::HAS_CRIU) == Some(true);
        slot.eval_str(attributes::VERSION).filter(|_| proven)
    }

    /// The signal by which HTCondor asks for the slot back.
    pub(crate) fn vacate_signal(&self) -> Signal {
        let named = |name| self.job_ad.as_ref()?.eval_str(name);
        named("RemoveKillSig")
            .or_else(|| named("KillSig"))
            .and_then(|name| parse_signal(&name))
            .unwrap_or(Signal::SIGTERM)
    }

    /// The exit code at which the starter, unless it has sent a soft kill, takes our image home and starts us again
    /// here. A job that lists other files for that has images of its own, and its exit code is its own affair.
    pub(crate) fn checkpoint_code(&self) -> Option<i32> {
        let ad = self.job_ad.as_ref()?;
        let is = |name| ad.eval_bool(name) == Some(true);
        let ours = lists_archive(&ad.eval_str("TransferCheckpoint")?);
        // With a signal of its own the starter would wait for this code, and hold the job for any other.
        let plain = is("WantFTOnCheckpoint")
            && !is("SuccessCheckpointExitBySignal")
            && !is("WantCheckpointSignal");
        let code = i32::try_from(ad.eval_int("SuccessCheckpointExitCode")?).ok()?;
        let usable = (1..=255).contains(&code) && !ExitCode::is_ours(code);
        (ours && plain && usable).then_some(code)
    }

    /// How often images are taken of a job that runs on, which somebody takes home or not.
    pub(crate) fn interval(&self, home: bool) -> Interval {
        let Some(ad) = &self.job_ad else {
            return self.every.map_or(Interval::Never, Interval::Chosen);
        };
        let interval = Interval::of(ad, self.machine_ad.as_ref()).unwrap_or_else(|error| {
            tracing::warn!("CRIUInterval: {error}");
            Interval::Never
        });
        match interval {
            // An image that nobody takes home dies with the slot.
            Interval::Measured { .. } if !home => Interval::Never,
            other => other,
        }
    }

    /// Whether the job wants to know in its first minute that it can be frozen.
    pub(crate) fn rehearses(&self) -> bool {
        self.job_ad
            .as_ref()
            .is_some_and(|ad| ad.eval_bool("CRIURehearse") == Some(true))
    }

    /// The digests of the images that the access point may have, as the job's ad names them.
    pub(crate) fn digests(&self) -> Vec<String> {
        let Some(ad) = &self.job_ad else {
            return Vec::new();
        };
        let named = |name| ad.eval_str(name).unwrap_or_default();
        let all = format!(
            "{},{}",
            named(attributes::JOB_DIGEST_BEFORE),
            named(attributes::JOB_DIGEST)
        );
        all.split([',', ' '])
            .filter(|digest| !digest.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// How the newest image went home.
    pub(crate) fn is_in_store(&self) -> bool {
        let lane = self
            .job_ad
            .as_ref()
            .and_then(|ad| ad.eval_str(attributes::JOB_LANE));
        lane.as_deref() == Some(Lane::Store.name())
    }

    /// How many images there had been when the ad was told last; one that is newer may be home without the news of it.
    pub(crate) fn generation(&self) -> u64 {
        self.count(attributes::JOB_GENERATION)
    }

    /// Which start this is after that of the newest image.
    pub(crate) fn starts_since_image(&self) -> u64 {
        let taken = self.count(attributes::JOB_STARTS);
        u64::from(self.starts()).saturating_sub(taken)
    }

    fn count(&self, name: &str) -> u64 {
        let count = self.job_ad.as_ref().and_then(|ad| ad.eval_int(name));
        count
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0)
    }

    /// How often HTCondor has started the job, this time included.
    pub(crate) fn starts(&self) -> u32 {
        // The ad was made before the schedd counted this start.
        u32::try_from(self.count("NumJobStarts")).unwrap_or(0)
    }

    /// The signal that it died of, where HTCondor starts it again after an end of its own. Of a death that was the
    /// thaw's HTCondor hears nothing.
    pub(crate) fn has_died_of(&self) -> Option<Signal> {
        let ad = self.job_ad.as_ref()?;
        let number = ad.eval_int("ExitSignal")?;
        let by_signal = ad.eval_bool("ExitBySignal") == Some(true);
        let number = i32::try_from(number).ok().filter(|_| by_signal)?;
        Signal::try_from(number).ok()
    }

    /// The command with the environment that it finds inside.
    pub(crate) fn inside(&self, kernel: u32) -> Result<JobCommand> {
        let Some((program, arguments)) = self.command.split_first() else {
            bail!("no command: criu-starter run -- ./job args");
        };
        let mut environment = self.environment();
        // A program bound lazily on this CPU and moved to one with a larger
        // xsave area overwrites its own stack at its next first call.
        environment.push(("LD_BIND_NOW".into(), "1".into()));
        if kernel < KERNEL_WITH_RSEQ_CONF {
            baseline::tune(&mut environment, NO_RSEQ);
        }
        Ok(JobCommand {
            program: program.clone(),
            arguments: arguments.to_vec(),
            environment,
        })
    }

    /// Our environment, as it is inside.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        env::vars_os()
            .map(|(name, value)| (name, self.moved(&value)))
            .filter(|(name, _)| name != "LD_BIND_NOW")
            .collect()
    }

    /// A path in the scratch directory is one in /srv for the job.
    fn moved(&self, value: &OsStr) -> OsString {
        let path = Path::new(value);
        match path.strip_prefix(&self.scratch) {
            Ok(rest) if rest.as_os_str().is_empty() => SANDBOX.into(),
            Ok(rest) if !crate::sandbox::is_htcondors(first(rest)) => {
                Path::new(SANDBOX).join(rest).into_os_string()
            }
            _ => value.to_owned(),
        }
    }
}

/// Whether a list of files, as submit files have it, names our archive.
fn lists_archive(list: &str) -> bool {
    list.split([',', ' ']).any(|file| file == ARCHIVE)
}

/// PTRACE_GET_RSEQ_CONFIGURATION came with 5.13; without it CRIU refuses a
/// program whose glibc has registered rseq.
const KERNEL_WITH_RSEQ_CONF: u32 = 51_300;

const NO_RSEQ: &str = "glibc.pthread.rseq=0";

fn first(path: &Path) -> &OsStr {
    path.iter().next().unwrap_or_default()
}

/// HTCondor writes "SIGTERM", and users "TERM" or "15".
fn parse_signal(name: &str) -> Option<Signal> {
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let full = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    full.parse().ok()
}

fn ad_named_by(variable: &str) -> Result<Option<ClassAd>> {
    let Some(path) = env::var_os(variable) else {
        return Ok(None);
    };
    let mut text = String::new();
    let path = Path::new(&path);
    let what = || format!("cannot read the ad {}", path.display());
    fs::File::open(path)
        .with_context(what)?
        .take(AD_LIMIT)
        .read_to_string(&mut text)
        .with_context(what)?;
    let ad = ClassAd::parse_old(&text).with_context(what)?;
    Ok(Some(ad))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(ad: &str) -> Job {
        Job {
            scratch: "/execute/dir_7".into(),
            command: vec!["./job".into(), "9".into()],
            job_ad: Some(ClassAd::parse_old(ad).unwrap()),
            machine_ad: None,
            every: None,
            only_restore: false,
            baseline: None,
            criu: None,
            codec: Codec::default(),
            small: false,
            store: None,
            as_root: false,
        }
    }

    #[test]
    fn the_vacate_signal_is_the_one_that_the_starter_sends() {
        assert_eq!(job("A = 1").vacate_signal(), Signal::SIGTERM);
        assert_eq!(
            job("KillSig = \"SIGUSR1\"").vacate_signal(),
            Signal::SIGUSR1
        );
        let both = "KillSig = \"SIGUSR1\"\nRemoveKillSig = \"int\"";
        assert_eq!(job(both).vacate_signal(), Signal::SIGINT);
        assert_eq!(job("KillSig = \"10\"").vacate_signal(), Signal::SIGUSR1);
    }

    #[test]
    fn a_death_of_its_own_is_in_the_ad_of_a_job_that_is_started_again() {
        assert_eq!(job("A = 1").has_died_of(), None);
        let of = |by_signal: bool| {
            job(&format!("ExitBySignal = {by_signal}\nExitSignal = 11")).has_died_of()
        };
        assert_eq!(of(true), Some(Signal::SIGSEGV));
        assert_eq!(of(false), None);
    }

    #[test]
    fn the_criu_of_a_slot_is_the_one_that_was_tried_there() {
        let on = |slot: &str| {
            let machine_ad = Some(ClassAd::parse_old(slot).unwrap());
            let job = Job {
                machine_ad,
                ..job("A = 1")
            };
            job.proven_criu()
        };
        assert_eq!(
            on("HasCRIU = true\nCRIUVersion = \"4.1.1\"").as_deref(),
            Some("4.1.1")
        );
        assert_eq!(on("HasCRIU = false\nCRIUVersion = \"4.1.1\""), None);
        assert_eq!(on("HasCRIU = true"), None);
    }

    #[test]
    fn images_go_home_by_an_exit_code_only_where_they_would_arrive() {
        let good = "WantFTOnCheckpoint = true\nSuccessCheckpointExitCode = 213\n";
        let code = |more: &str| job(&format!("{good}{more}")).checkpoint_code();
        let listed = "TransferCheckpoint = \"checkpoint.criu\"\n";
        let with = |more: &str| code(&format!("{listed}{more}"));
        assert_eq!(code(""), None);
        assert_eq!(with(""), Some(213));
        assert_eq!(
            code("TransferCheckpoint = \"a, checkpoint.criu\""),
            Some(213)
        );
        assert_eq!(code("TransferCheckpoint = \"its-own-state\""), None);
        assert_eq!(with("WantCheckpointSignal = true"), None);
        assert_eq!(with("SuccessCheckpointExitBySignal = true"), None);
        assert_eq!(with("WantFTOnCheckpoint = false"), None);
        // A code of ours would be taken for it.
        assert_eq!(with("SuccessCheckpointExitCode = 87"), None);
    }

    #[test]
    fn without_a_way_home_images_are_taken_only_when_they_are_asked_for() {
        assert_eq!(job("A = 1").interval(false), Interval::Never);
        let chosen = Interval::Chosen(Duration::from_secs(600));
        assert_eq!(job("CRIUInterval = \"10m\"").interval(false), chosen);
        let home = job("A = 1").interval(true);
        assert!(matches!(home, Interval::Measured { .. }));
    }

    #[test]
    fn every_digest_that_the_ad_names_is_known() {
        let ad = "ChirpCRIUDigest = \"c\"\nChirpCRIUDigestBefore = \"a,b\"";
        assert_eq!(job(ad).digests(), ["a", "b", "c"]);
        assert!(job("A = 1").digests().is_empty());
    }

    #[test]
    fn only_a_job_that_says_so_is_supervised() {
        assert!(job("WantCRIU = true").wants_criu());
        assert!(!job("WantCRIU = false").wants_criu());
        assert!(!job("Other = 1").wants_criu());
    }

    #[test]
    fn paths_in_scratch_are_paths_in_the_sandbox() {
        let job = job("A = 1");
        let moved = |value: &str| job.moved(OsStr::new(value));
        assert_eq!(moved("/execute/dir_7"), "/srv");
        assert_eq!(moved("/execute/dir_7/proxy"), "/srv/proxy");
        assert_eq!(moved("/execute/dir_7/.job.ad"), "/execute/dir_7/.job.ad");
        assert_eq!(moved("/execute/dir_77/x"), "/execute/dir_77/x");
    }

    #[test]
    fn an_old_kernel_gets_no_rseq_and_keeps_other_tunables() {
        let mut environment = vec![("GLIBC_TUNABLES".into(), "glibc.malloc.perturb=1".into())];
        baseline::tune(&mut environment, NO_RSEQ);
        assert_eq!(environment.len(), 1);
        assert_eq!(
            environment[0].1,
            "glibc.pthread.rseq=0:glibc.malloc.perturb=1"
        );
    }
}
