//! Where a job can go on: its ad against those of all slots, and what refuses it.
//!
//! A large pool has 100 MB of slots' ads: they are read once, by as many threads as there are cores, and slots that say the
//! same of themselves are judged once.

mod lines;
mod tally;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use classad::ClassAd;
use file_transfer_plugin::fingerprint::{Baseline, Fingerprint};

use crate::ads;
use tally::{Judge, Tally};

/// More reasons than this are noise.
const REASONS: usize = 12;

/// The job and the slots.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sources {
    #[command(flatten)]
    job: ads::Job,
    #[command(flatten)]
    slots: Slots,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  criu-pilot where 12.0
  criu-pilot where --json 12.0 | jq .reasons
  condor_q -long 12.0 > job; condor_status -long > slots
  criu-pilot where --job-ad job --slots slots      the same, elsewhere or later";

/// Where the slots' ads come from.
#[derive(Debug, clap::Args)]
pub(crate) struct Slots {
    /// The slots' ads, as `condor_status -long` prints them, instead of asking the
    /// collector
    #[arg(long, value_name = "FILE")]
    slots: Option<PathBuf>,
}

impl Slots {
    /// The text of all of them.
    pub(crate) fn text(&self) -> Result<Vec<u8>> {
        match &self.slots {
            Some(file) => ads::read(file),
            None => ads::ask("condor_status", &["-long"]),
        }
    }
}

/// The answer, for a person or a script.
pub(crate) fn answer(sources: &Sources) -> Result<String> {
    let (job, slots) = (sources.job.ad()?, sources.slots.text()?);
    if sources.json {
        return json(&job, &slots);
    }
    summary(&job, &slots)
}

/// How many slots can go on with the job, and what refuses it on the others.
pub(crate) fn summary(job: &ClassAd, slots: &[u8]) -> Result<String> {
    let (has_image, tally) = judged(job, slots)?;
    let mut text = String::new();
    let begun = if has_image {
        "go on from its image"
    } else {
        "be protected from its first start on; it has no image yet"
    };
    let Tally {
        all,
        can,
        matching,
        free,
        ..
    } = tally;
    writeln!(
        text,
        "{can} of {all} slots are such that the job can {begun}"
    )?;
    writeln!(
        text,
        "{matching} of these match it in all else, {free} of which are unclaimed"
    )?;
    let mut reasons: Vec<_> = tally.reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (reason, count) in reasons.iter().take(REASONS) {
        writeln!(text, "{count:8}  {reason}")?;
    }
    if let Some(more) = reasons.len().checked_sub(REASONS).filter(|more| *more > 0) {
        writeln!(text, "          and {more} rarer reasons")?;
    }
    // From the level with most instructions on: the lower ones are worth a word where they open more.
    let mut most = can;
    for (baseline, would) in Baseline::ALL.iter().zip(tally.baselines).rev() {
        if would > most {
            most = would;
            writeln!(
                text,
                "{would:8}  could, had the job begun with +CRIUBaseline = \"{}\"",
                baseline.name()
            )?;
        }
    }
    Ok(text)
}

fn json(job: &ClassAd, slots: &[u8]) -> Result<String> {
    let (has_image, tally) = judged(job, slots)?;
    let baselines: BTreeMap<_, _> = Baseline::ALL
        .iter()
        .zip(tally.baselines)
        .map(|(baseline, would)| (baseline.name(), would))
        .collect();
    let reasons: BTreeMap<_, _> = tally.reasons.into_iter().collect();
    let answer = serde_json::json!({
        "image": has_image,
        "slots": tally.all,
        "can": tally.can,
        "matching": tally.matching,
        "unclaimed": tally.free,
        "reasons": reasons,
        "could_with_baseline": baselines,
    });
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}

/// Whether the job has an image, and what becomes of it on these slots.
fn judged(job: &ClassAd, slots: &[u8]) -> Result<(bool, Tally)> {
    let image = Fingerprint::from_job_ad(job).context("the job's ad describes its image badly")?;
    let tally = count(job, image.as_ref(), slots)?;
    Ok((image.is_some(), tally))
}

fn count(job: &ClassAd, image: Option<&Fingerprint>, slots: &[u8]) -> Result<Tally> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let judge = Judge::new(job, image);
    thread::scope(|scope| {
        let parts: Vec<_> = parts(slots, threads)
            .into_iter()
            .map(|part| {
                let judge = &judge;
                scope.spawn(move || judge.all(ads::blocks(part)))
            })
            .collect();
        let mut sum = Tally::default();
        for part in parts {
            sum.add(part.join().expect("a panic has said why itself")?);
        }
        Ok(sum)
    })
}

/// About equal parts, cut between ads.
fn parts(mut text: &[u8], count: usize) -> Vec<&[u8]> {
    let mut parts = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let about = text.len() / left;
        let cut = match memchr::memmem::find(&text[about..], b"\n\n") {
            Some(at) if left > 1 => about + at,
            _ => text.len(),
        };
        let (part, rest) = text.split_at(cut);
        parts.push(part);
        text = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use file_transfer_plugin::attributes;
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
        let said = summary(&job(), text.as_bytes()).unwrap();
        assert_eq!(
            said,
            "2 of 5 slots are such that the job can go on from its image\n\
             1 of these match it in all else, 1 of which are unclaimed\n       \
             2  no CRIU on this slot: the sysctl user.max_user_namespaces is 0\n       \
             1  this slot lacks avx2, which the job may have used\n       \
             1  this slot's Requirements refuses: false\n       \
             3  could, had the job begun with +CRIUBaseline = \"x86-64-v2\"\n"
        );
    }

    #[test]
    fn a_script_finds_the_same_numbers() {
        let text = [slot(Some(&print("avx,avx2,fma")), true), slot(None, true)].join("\n");
        let said: serde_json::Value =
            serde_json::from_str(&json(&job(), text.as_bytes()).unwrap()).unwrap();
        assert_eq!((&said["slots"], &said["can"]), (&2.into(), &1.into()));
        let reason = "no CRIU on this slot: the sysctl user.max_user_namespaces is 0";
        assert_eq!(said["reasons"][reason], 1);
        assert_eq!(said["could_with_baseline"]["x86-64-v2"], 1);
    }

    #[test]
    fn a_slot_without_the_memory_is_told_so() {
        let mut job = job();
        job.insert("RequestMemory", 4096_i64);
        let both = format!("{} && TARGET.Memory >= RequestMemory", requirements());
        job.insert_parsed("Requirements", &both).unwrap();
        let mut small = slot(Some(&print("avx,avx2")), true);
        small += "Memory = 1024\nNote = \"Requirements = Memory\"\n";
        let said = summary(&job, small.as_bytes()).unwrap();
        assert!(
            said.contains("1  not enough memory: the job asks for 4096 MB\n"),
            "{said}"
        );
    }

    #[test]
    fn every_slot_is_in_one_part() {
        let text: String = (0..100).map(|number| format!("A = {number}\n\n")).collect();
        for count in 1..9 {
            let parts = parts(text.as_bytes(), count);
            let found: usize = parts.iter().map(|part| ads::blocks(part).count()).sum();
            assert_eq!((parts.len(), found), (count, 100));
        }
    }

    #[test]
    fn a_job_without_an_image_needs_no_more_than_criu() {
        let mut job = ClassAd::new();
        job.insert_parsed("Requirements", &requirements()).unwrap();
        let said = summary(&job, slot(Some(&print("avx")), true).as_bytes()).unwrap();
        assert!(said.starts_with("1 of 1 slots"), "{said}");
        assert!(said.contains("no image yet"), "{said}");
    }
}
