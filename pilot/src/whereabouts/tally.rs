//! One slot after the other, judged and counted.

use std::collections::HashMap;

use anyhow::{Context, Result};
use classad::{ClassAd, Failure, Side};
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::{Baseline, Fingerprint};

use super::lines::{self, Wanted};

/// A clause longer than this is told by its beginning.
const CLAUSE: usize = 100;

/// What decides whether a slot can go on with an image, and nothing else does.
const DECISIVE: [&str; 9] = [
    attributes::HAS_CRIU,
    attributes::REASON,
    attributes::CPU_FEATURES,
    attributes::CPU_VENDOR,
    attributes::XCR0,
    attributes::XSAVE_SIZE,
    attributes::KERNEL,
    attributes::VERSION,
    attributes::ABILITIES,
];

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) all: u32,
    pub(super) can: u32,
    pub(super) matching: u32,
    pub(super) free: u32,
    pub(super) reasons: HashMap<String, u32>,
    /// How many could go on, had the job been held to that level.
    pub(super) baselines: [u32; Baseline::ALL.len()],
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.all += other.all;
        self.can += other.can;
        self.matching += other.matching;
        self.free += other.free;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        for (sum, count) in self.baselines.iter_mut().zip(other.baselines) {
            *sum += count;
        }
    }

    fn refused(&mut self, reason: &str) {
        match self.reasons.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                self.reasons.insert(reason.to_owned(), 1);
            }
        }
    }
}

/// What is asked of each slot.
pub(super) struct Judge<'j> {
    job: &'j ClassAd,
    image: Option<&'j Fingerprint>,
    held_to: Vec<Fingerprint>,
    /// What the job's own conditions may look at in a slot.
    named: Vec<String>,
}

/// What slots that say the same of themselves have in common.
struct Verdict {
    refused: Vec<String>,
    baselines: [bool; Baseline::ALL.len()],
}

impl<'j> Judge<'j> {
    pub(super) fn new(job: &'j ClassAd, image: Option<&'j Fingerprint>) -> Judge<'j> {
        let held_to = image.map(|image| Baseline::ALL.map(|level| level.of(image)).into());
        let text = job.get("Requirements").map(|expr| expr.to_old());
        // Also what the names of the job's in it stand for; a value is no name.
        let others = job.iter().filter(|(_, expr)| expr.literal().is_none());
        let words = others.map(|(_, expr)| expr.to_old()).chain(text);
        let named = words
            .flat_map(|text| words_of(&text).map(str::to_owned).collect::<Vec<_>>())
            .collect();
        Judge {
            job,
            image,
            held_to: held_to.unwrap_or_default(),
            named,
        }
    }

    pub(super) fn all<'a>(&self, slots: impl Iterator<Item = &'a [u8]>) -> Result<Tally> {
        let ours = DECISIVE.into_iter().chain(["State", "Requirements"]);
        let mut wanted = Wanted::new(ours.chain(self.named.iter().map(String::as_str)));
        let mut tally = Tally::default();
        let mut verdicts: HashMap<Vec<u8>, Verdict> = HashMap::new();
        let (mut found, mut key) = (Vec::new(), Vec::new());
        for slot in slots {
            wanted.lines(slot, &mut found);
            let value = |name: &str| {
                let is = |line: &&(&[u8], &[u8])| line.0.eq_ignore_ascii_case(name.as_bytes());
                found.iter().find(is).map(|line| line.1)
            };
            // Where the collector tells of daemons beside slots, these are none.
            let Some(state) = value("State") else {
                continue;
            };
            key.clear();
            for name in DECISIVE {
                key.extend_from_slice(value(name).unwrap_or_default());
                key.push(b'\n');
            }
            let parse = || lines::parse(&found).context("cannot read a slot's ad");
            if !verdicts.contains_key(&key) {
                verdicts.insert(key.clone(), self.verdict(&parse()?));
            }
            tally.all += 1;
            let verdict = &verdicts[&key];
            for (count, could) in tally.baselines.iter_mut().zip(verdict.baselines) {
                *count += u32::from(could);
            }
            if !verdict.refused.is_empty() {
                verdict
                    .refused
                    .iter()
                    .for_each(|reason| tally.refused(reason));
                continue;
            }
            tally.can += 1;
            let slot = parse()?;
            if classad::is_match(self.job, &slot) {
                tally.matching += 1;
                tally.free += u32::from(state == b"\"Unclaimed\"");
            } else {
                for failure in classad::explain(self.job, &slot) {
                    tally.refused(&sentence(&failure));
                }
            }
        }
        Ok(tally)
    }

    fn verdict(&self, slot: &ClassAd) -> Verdict {
        let print = Fingerprint::from_slot_ad(slot);
        let refused = self.refusals(slot, &print);
        let has = slot.eval_bool(attributes::HAS_CRIU) == Some(true);
        let mut baselines = [false; Baseline::ALL.len()];
        if let (true, Ok(print)) = (has, &print) {
            for (could, image) in baselines.iter_mut().zip(&self.held_to) {
                *could = print.admits(image).is_ok();
            }
        }
        Verdict { refused, baselines }
    }

    /// Why a slot cannot go on with the image, in sentences that are the same for slots of the same kind.
    fn refusals<E: std::fmt::Display>(
        &self,
        slot: &ClassAd,
        print: &Result<Fingerprint, E>,
    ) -> Vec<String> {
        if slot.eval_bool(attributes::HAS_CRIU) != Some(true) {
            return vec![match slot.eval_str(attributes::REASON) {
                Some(reason) => format!("no CRIU on this slot: {reason}"),
                None => {
                    "no CRIU on this slot: it was not probed, and criu-pilot may be missing".into()
                }
            }];
        }
        let Some(image) = self.image else {
            return Vec::new();
        };
        match print {
            Err(error) => vec![format!("this slot's ad says too little: {error}")],
            Ok(print) => match print.admits(image) {
                Ok(()) => Vec::new(),
                Err(mismatches) => mismatches.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

/// A clause that is not true, the same for all slots on which it is not.
fn sentence(failure: &Failure) -> String {
    let asked = |name: &str| {
        let is = |seen: &&(String, classad::Value)| seen.0.rsplit('.').next() == Some(name);
        failure.seen.iter().find(is).map(|seen| &seen.1)
    };
    for (name, unit, what) in [
        ("RequestMemory", " MB", "memory"),
        ("RequestDisk", " KB", "disk"),
        ("RequestCpus", "", "cores"),
        ("RequestGPUs", "", "GPUs"),
    ] {
        if let Some(value) = asked(name) {
            return format!("not enough {what}: the job asks for {value}{unit}");
        }
    }
    let mut clause: String = failure.clause.chars().take(CLAUSE).collect();
    if clause.len() < failure.clause.len() {
        clause.push_str(" ...");
    }
    match failure.side {
        Side::Left => format!("the job's own condition refuses: {clause}"),
        // Its policy has many names, START among them.
        Side::Right => {
            let name = failure.path.last().map_or("Requirements", String::as_str);
            format!("this slot's {name} refuses: {clause}")
        }
    }
}

fn words_of(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}
