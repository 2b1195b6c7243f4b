//! Will this job survive the loss of its slot? What stands against it, in the order in which it would show.

mod job;
mod slots;

use std::fmt::Write;

use anyhow::Result;
use classad::ClassAd;
use file_transfer_plugin::attributes;

use crate::units::line;
use crate::{ads, whereabouts};

const EXAMPLES: &str = "\
Examples:
  criu-pilot explain 12.0
  condor_q -long 12.0 > job; condor_status -long > slots
  criu-pilot explain --job-ad job --slots slots      the same, elsewhere or later

Exit codes: 0 nothing is known against it, 1 it will lose its work, or nobody can tell";

/// The job and the slots.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sources {
    #[command(flatten)]
    job: ads::Job,
    #[command(flatten)]
    slots: whereabouts::Slots,
}

/// What somebody should know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// With it, the loss of the slot is a loss of work.
    fatal: bool,
    sentence: String,
}

impl Finding {
    fn fatal(sentence: impl Into<String>) -> Finding {
        Finding {
            fatal: true,
            sentence: sentence.into(),
        }
    }

    fn note(sentence: impl Into<String>) -> Finding {
        Finding {
            fatal: false,
            sentence: sentence.into(),
        }
    }
}

/// The answer for a person, and whether it is good news.
pub(crate) fn answer(sources: &Sources) -> Result<(String, bool)> {
    let job = sources.job.ad()?;
    let slots = sources.slots.text()?;
    let mut findings = state(&job);
    findings.extend(job::policies(&job));
    findings.extend(slots::policies(&job, &slots)?);
    let (mut text, good) = verdict(&job, &findings);
    text += "\nWhere it can go:\n";
    text += &whereabouts::summary(&job, &slots)?;
    Ok((text, good))
}

fn verdict(job: &ClassAd, findings: &[Finding]) -> (String, bool) {
    let number = |name| job.eval_int(name).unwrap_or(0);
    let mut text = format!("{}.{}: ", number("ClusterId"), number("ProcId"));
    let fatal = findings.iter().filter(|finding| finding.fatal).count();
    text += match (fatal, number(attributes::JOB_GENERATION)) {
        (0, 0) => "nothing is known that would keep this job from being frozen",
        (0, _) => {
            "this job was frozen before, and nothing is known that would keep it from being frozen again"
        }
        _ => "this job will lose work with its slot",
    };
    text.push('\n');
    let (fatal_ones, notes): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.fatal);
    for finding in fatal_ones.into_iter().chain(notes) {
        let mark = if finding.fatal { '!' } else { '-' };
        let _ = writeln!(text, "{mark} {}", line(&finding.sentence));
    }
    (text, fatal == 0)
}

/// What the job's last slot said of it.
fn state(job: &ClassAd) -> Vec<Finding> {
    let said = |name| job.eval_str(name).filter(|text| !text.trim().is_empty());
    let mut findings = Vec::new();
    for blocker in said(attributes::JOB_BLOCKERS)
        .unwrap_or_default()
        .split(['\n', ';'])
        .map(str::trim)
    {
        if !blocker.is_empty() {
            findings.push(Finding::fatal(format!(
                "as it runs now it cannot be frozen: {blocker}"
            )));
        }
    }
    if let Some(reason) = said(attributes::JOB_REASON) {
        findings.push(failure(
            &reason,
            job.eval_int(attributes::JOB_GENERATION).unwrap_or(0),
        ));
    }
    findings
}

/// The last failure. criu-starter's own sentences end with what to do; CRIU's do not.
fn failure(reason: &str, generation: i64) -> Finding {
    let kept = match generation {
        0 => "it has no image, and begins again",
        _ => "its older image is untouched, and it goes on from that one",
    };
    let unknown = reason.starts_with("CRIU: ") || reason.contains("without naming an error");
    let advice = if unknown {
        "; nobody has seen this one yet: report it with this line, the program's name and `criu-pilot probe` of the slot"
    } else {
        ""
    };
    Finding::fatal(format!(
        "the last attempt failed, so that {kept}: {reason}{advice}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(text: &str) -> ClassAd {
        ClassAd::parse_old(text).unwrap()
    }

    #[test]
    fn the_fatal_comes_first_and_decides() {
        let job = ad("ClusterId = 1\nProcId = 2");
        let findings = [
            Finding::note("a \"quoted\" hint"),
            Finding::fatal("a fault"),
        ];
        assert_eq!(
            verdict(&job, &findings),
            (
                "1.2: this job will lose work with its slot\n! a fault\n- a \"quoted\" hint\n"
                    .to_owned(),
                false
            )
        );
        assert!(verdict(&job, &findings[..1]).1);
    }

    #[test]
    fn a_failure_says_what_is_left_and_what_to_do() {
        let job = ad("ChirpCRIUReason = \"CRIU: (criu/new.c:1): what\"\nChirpCRIUGeneration = 2");
        let sentence = &state(&job)[0].sentence;
        assert!(
            sentence.contains("older image is untouched") && sentence.contains("report it"),
            "{sentence}"
        );
        let job = ad("ChirpCRIUReason = \"the job uses io_uring; switch it off\"");
        let sentence = &state(&job)[0].sentence;
        assert!(
            sentence.contains("begins again") && sentence.ends_with("switch it off"),
            "{sentence}"
        );
        assert!(state(&ad("ChirpCRIUReason = undefined")).is_empty());
    }

    #[test]
    fn each_blocker_is_a_finding() {
        let job = ad("ChirpCRIUBlockers = \"process 3 uses io_uring; process 4 is traced\"");
        assert_eq!(state(&job).len(), 2);
    }
}
