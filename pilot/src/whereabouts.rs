//! Where a job can go on: its ad against those of all slots, and what refuses it.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use classad::ClassAd;
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::Fingerprint;

/// More reasons than this are noise.
const REASONS: usize = 12;

/// Where the ads come from: files, or the schedd and collector that HTCondor's
/// own tools find.
#[derive(Debug, clap::Args)]
pub(crate) struct Sources {
    /// The job, as CLUSTER.PROC
    #[arg(required_unless_present = "job_ad")]
    job: Option<String>,
    /// Its ad, as `condor_q -long` prints it, instead of asking the schedd
    #[arg(long, value_name = "FILE")]
    job_ad: Option<PathBuf>,
    /// The slots' ads, as `condor_status -long` prints them, instead of asking the
    /// collector
    #[arg(long, value_name = "FILE")]
    slots: Option<PathBuf>,
}

/// The answer, for a person.
pub(crate) fn answer(sources: &Sources) -> Result<String> {
    let job = match (&sources.job_ad, &sources.job) {
        (Some(file), _) => read(file)?,
        (None, Some(job)) => ask("condor_q", &["-long", job])?,
        (None, None) => bail!("no job: give its number, or --job-ad FILE"),
    };
    let job = ads(&job)
        .next()
        .context("there is no such job in the queue")?
        .context("cannot read the job's ad")?;
    let slots = match &sources.slots {
        Some(file) => read(file)?,
        None => ask("condor_status", &["-long"])?,
    };
    summary(&job, ads(&slots))
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text(bytes))
}

fn ask(tool: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {tool}; give files with --job-ad and --slots"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{tool} ended with {}: {}", output.status, said.trim());
    }
    Ok(text(output.stdout))
}

/// A large pool's ads are 50 MB, not to be copied for nothing.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Ads in the old syntax with empty lines between.
fn ads(text: &str) -> impl Iterator<Item = Result<ClassAd, classad::ParseError>> {
    text.split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty())
        .map(ClassAd::parse_old)
}

fn summary(
    job: &ClassAd,
    slots: impl Iterator<Item = Result<ClassAd, classad::ParseError>>,
) -> Result<String> {
    let image = Fingerprint::from_job_ad(job).context("the job's ad describes its image badly")?;
    let (mut all, mut can, mut matching, mut free) = (0_u32, 0_u32, 0_u32, 0_u32);
    let mut reasons: HashMap<String, u32> = HashMap::new();
    for slot in slots {
        let slot = slot.context("cannot read a slot's ad")?;
        // Where the collector tells of daemons beside slots, these are none.
        if slot.eval_str("State").is_none() {
            continue;
        }
        all += 1;
        let refused = refusals(&slot, image.as_ref());
        if refused.is_empty() {
            can += 1;
            if classad::matches(job, &slot).symmetric {
                matching += 1;
                free += u32::from(slot.eval_str("State").as_deref() == Some("Unclaimed"));
            } else {
                let rest = "this slot's START, or another condition of the job's, refuses";
                *reasons.entry(rest.to_owned()).or_default() += 1;
            }
        }
        for reason in refused {
            *reasons.entry(reason).or_default() += 1;
        }
    }

    let mut text = String::new();
    let begun = if image.is_some() {
        "go on from its image"
    } else {
        "be protected from its first start on; it has no image yet"
    };
    writeln!(
        text,
        "{can} of {all} slots are such that the job can {begun}"
    )?;
    writeln!(
        text,
        "{matching} of these match it in all else, {free} of which are unclaimed"
    )?;
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (reason, count) in reasons.iter().take(REASONS) {
        writeln!(text, "{count:8}  {reason}")?;
    }
    if let Some(more) = reasons.len().checked_sub(REASONS).filter(|more| *more > 0) {
        writeln!(text, "          and {more} rarer reasons")?;
    }
    Ok(text)
}

/// Why a slot cannot go on with the image, in sentences that are the same for
/// slots of the same kind.
fn refusals(slot: &ClassAd, image: Option<&Fingerprint>) -> Vec<String> {
    if slot.eval_bool(attributes::HAS_CRIU) != Some(true) {
        return vec![match slot.eval_str(attributes::REASON) {
            Some(reason) => format!("no CRIU on this slot: {reason}"),
            None => "no CRIU on this slot: it was not probed, and criu-pilot may be missing".into(),
        }];
    }
    let Some(image) = image else {
        return Vec::new();
    };
    match Fingerprint::from_slot_ad(slot) {
        Err(error) => vec![format!("this slot's ad says too little: {error}")],
        Ok(slot) => match slot.admits(image) {
            Ok(()) => Vec::new(),
            Err(mismatches) => mismatches.iter().map(ToString::to_string).collect(),
        },
    }
}

#[cfg(test)]
mod tests {

    use file_transfer_plugin::fingerprint::{Kernel, Version, requirements};

    use super::*;

    fn print(features: &str) -> Fingerprint {
        Fingerprint {
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: features.split(',').map(str::to_owned).collect(),
            xcr0: 7,
            xsave_size: 832,
            kernel: Kernel(60_118),
            criu: Version::new(4, 2, 0),
            abilities: std::collections::BTreeSet::new(),
        }
    }

    fn slot(print: Option<&Fingerprint>, start: bool) -> String {
        let mut ad = print.map(Fingerprint::to_slot_ad).unwrap_or_default();
        ad.insert(attributes::HAS_CRIU, print.is_some());
        if print.is_none() {
            ad.insert(
                attributes::REASON,
                "the sysctl user.max_user_namespaces is 0",
            );
        }
        ad.insert("State", "Unclaimed");
        ad.insert("Requirements", start);
        ad.to_old()
    }

    fn job() -> ClassAd {
        let mut job = print("avx,avx2").to_job_ad();
        job.insert_parsed("Requirements", &requirements()).unwrap();
        job
    }

    #[test]
    fn slots_are_counted_by_what_refuses_the_job() {
        let (rich, poor) = (print("avx,avx2,fma"), print("avx"));
        let text = [
            slot(Some(&rich), true),
            slot(Some(&rich), false),
            slot(Some(&poor), true),
            slot(None, true),
            slot(None, true),
            "MyType = \"StartDaemon\"\n".to_owned(),
        ]
        .join("\n");
        let said = summary(&job(), ads(&text)).unwrap();
        assert_eq!(
            said,
            "2 of 5 slots are such that the job can go on from its image\n\
             1 of these match it in all else, 1 of which are unclaimed\n       \
             2  no CRIU on this slot: the sysctl user.max_user_namespaces is 0\n       \
             1  this slot lacks avx2, which the job may have used\n       \
             1  this slot's START, or another condition of the job's, refuses\n"
        );
    }

    #[test]
    fn a_job_without_an_image_needs_no_more_than_criu() {
        let mut job = ClassAd::new();
        job.insert_parsed("Requirements", &requirements()).unwrap();
        let said = summary(&job, ads(&slot(Some(&print("avx")), true))).unwrap();
        assert!(said.starts_with("1 of 1 slots"), "{said}");
        assert!(said.contains("no image yet"), "{said}");
    }
}
