//! Whether a job can be frozen and thawed on this node, decided by doing it.
//!
//! ```text
//! Place (one directory, gone afterwards)
//!   └─ the job with all its parts: run ──TERM──> image ──> run elsewhere ──> CRIUAbilities
//!        └─ failed: the job alone decides HasCRIU, and then each part for itself
//!             └─ failed: all of it once more with the next older CRIU, where there is one
//! ```
//!
//! `CRIUVersion` is that of the CRIU with which it succeeded, and jobs are frozen with that one.
//!
//! `criu-starter` runs it as the starter would. `criu check` cannot decide this:
//! without privileges it says "Does not look good" where all works.
//!
//! Killed at any moment, the probe takes its job along; the directory that it
//! leaves then is removed by the next probe.

mod patience;
mod place;
mod reason;
mod run;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use file_transfer_plugin::fingerprint::{Fingerprint, Version};
use file_transfer_plugin::host;
use nix::sys::signal::Signal;

use crate::exceptions;
use crate::specimen::{self, parts};
use patience::{PART, Patience, SLOW, TRIAL};
use place::Place;
use run::Run;

pub(crate) use patience::Stopped;
pub(crate) use run::{SUBCOMMAND as RUN, become_starter};

/// criu-starter's code for a complete image.
const FROZEN: i32 = 85;

/// criu-starter's name for it.
const ARCHIVE: &str = "checkpoint.criu";

/// What to try, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The criu-starter to try; the one beside us if not given.
    pub(crate) starter: Option<PathBuf>,
    /// Where to make the probe's directory; where jobs run is best.
    pub(crate) dir: Option<PathBuf>,
    /// Which site this is, where a site can have it switched off.
    pub(crate) site: Option<String>,
}

/// What the node is made of, or why it cannot, for its admin.
///
/// An error is no answer: the probe itself was told to stop.
pub(crate) fn probe(options: &Options) -> Result<Result<Fingerprint, String>> {
    let dir = options.dir.clone().unwrap_or_else(env::temp_dir);
    if let Some(site) = &options.site
        && let Some(reason) = exceptions::blocked(site, &this_pilot(&dir), [])
    {
        return Ok(Err(reason));
    }
    let mut patience = Patience::begin()?;
    match attempt(options.starter.clone(), &dir, &mut patience) {
        Ok(fingerprint) => Ok(Ok(fingerprint)),
        Err(error) if error.is::<Stopped>() => Err(error),
        Err(error) => Ok(Err(reason::explain(&format!("{error:#}"), &dir))),
    }
}

/// Pilots of one machine work in different directories, and those of one image on different hosts.
fn this_pilot(dir: &Path) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}{}", host.trim(), dir.display())
}

fn attempt(starter: Option<PathBuf>, dir: &Path, patience: &mut Patience) -> Result<Fingerprint> {
    let starter = beside_us(starter)?;
    let place = Place::create(dir)?;
    let mut newest_failed = None;
    for criu in criu_versions(&starter, &place, patience)? {
        let trial = Trial {
            starter: &starter,
            place: &place,
            criu,
        };
        match trial.abilities(patience) {
            Ok(abilities) => {
                return host::fingerprint(criu, abilities).context("cannot describe this node");
            }
            Err(error) if error.is::<Stopped>() => return Err(error),
            Err(error) => {
                newest_failed.get_or_insert(error);
            }
        }
    }
    Err(newest_failed.context("there is no usable CRIU")?)
}

fn beside_us(starter: Option<PathBuf>) -> Result<PathBuf> {
    let starter = match starter {
        Some(path) => path,
        None => env::current_exe()
            .context("cannot tell where criu-pilot is")?
            .with_file_name("criu-starter"),
    };
    if !starter.is_file() {
        bail!(
            "there is no criu-starter at {}; put it beside criu-pilot",
            starter.display()
        );
    }
    starter
        .canonicalize()
        .with_context(|| format!("cannot find {}", starter.display()))
}

/// The newest first.
fn criu_versions(starter: &Path, place: &Place, patience: &mut Patience) -> Result<Vec<Version>> {
    let dir = place.dir("version")?;
    let ended = Run::start(starter, &dir, &["criu-version", "--all"])?
        .end(patience)
        .context("CRIU does not tell its version")?;
    if ended.code() != Some(0) {
        bail!(
            "{}",
            ended
                .said
                .unwrap_or_else(|| "there is no usable CRIU".to_owned())
        );
    }
    let version = |line: &str| {
        line.parse::<Version>()
            .with_context(|| format!("CRIU calls its version {line:?}"))
    };
    let mut versions = ended
        .printed
        .lines()
        .map(version)
        .collect::<Result<Vec<_>>>()?;
    versions.dedup();
    Ok(versions)
}

/// What all attempts of a probe have in common.
struct Trial<'a> {
    starter: &'a Path,
    place: &'a Place,
    criu: Version,
}

impl Trial<'_> {
    /// What a job may have, to be frozen and thawed here.
    fn abilities(&self, patience: &mut Patience) -> Result<BTreeSet<String>> {
        let all: Vec<_> = parts::names().collect();
        patience.allow(TRIAL);
        match self.freeze_and_thaw(&all, patience) {
            Ok(abilities) => return Ok(abilities),
            Err(error) if error.is::<Stopped>() => return Err(error),
            Err(_) => patience.allow(TRIAL),
        }
        let begun = Instant::now();
        let mut abilities = self.freeze_and_thaw(&[], patience)?;
        if begun.elapsed() > SLOW {
            // It may have been the node's other work. One by one they would take more time than there is.
            patience.allow(TRIAL);
            match self.freeze_and_thaw(&all, patience) {
                Ok(abilities) => return Ok(abilities),
                Err(error) if error.is::<Stopped>() => return Err(error),
                Err(_) => {}
            }
        }
        for name in all {
            patience.allow(PART);
            match self.freeze_and_thaw(&[name], patience) {
                Ok(found) => abilities.extend(found),
                Err(error) if error.is::<Stopped>() => return Err(error),
                // It is no ability of this node's, and nothing worse.
                Err(_) => {}
            }
        }
        Ok(abilities)
    }

    /// The specimen's whole life, with these parts; those that it kept.
    fn freeze_and_thaw(
        &self,
        wanted: &[&str],
        patience: &mut Patience,
    ) -> Result<BTreeSet<String>> {
        let (here, there) = (self.place.dir("here")?, self.place.dir("there")?);
        let pilot = env::current_exe().context("cannot tell where criu-pilot is")?;
        // A job sees nothing of /srv and /tmp but its own, so it brings its program.
        fs::copy(&pilot, here.join("specimen")).context("cannot copy the probe's job")?;

        let outer_time = parts::time_namespace().unwrap_or_default();
        let parts = wanted.join(",");
        let criu = self.criu.to_string();
        let run = ["run", "--criu", &criu, "--"];
        let job = [&run[..], &["./specimen", specimen::SUBCOMMAND, "--"]].concat();
        let first = [&job[..], &[&parts, &outer_time]].concat();
        let mut run = Run::start(self.starter, &here, &first)?;
        run.until_printed(specimen::READY, patience)?;
        run.signal(Signal::SIGTERM)?;
        let ended = run.end(patience)?;
        if ended.code() != Some(FROZEN) {
            bail!("{}", ended.sentence("the probe's job was not frozen"));
        }

        fs::rename(here.join(ARCHIVE), there.join(ARCHIVE)).context("the probe left no image")?;
        let second = [&job[..], &[specimen::THAWED]].concat();
        let ended = Run::start(self.starter, &there, &second)?.end(patience)?;
        if ended.code() != Some(specimen::CODE) {
            bail!("{}", ended.sentence("the probe's job was not thawed"));
        }
        let kept = |line: &str| line.strip_prefix(specimen::KEPT).map(str::to_owned);
        Ok(ended.printed.lines().filter_map(kept).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_the_starter_is_an_answer() {
        let options = Options {
            starter: Some("/nowhere/criu-starter".into()),
            dir: None,
            site: None,
        };
        let answer = probe(&options).expect("nobody stopped it");
        let reason = answer.expect_err("there is none");
        assert!(reason.contains("/nowhere/criu-starter"), "{reason}");
    }
}
