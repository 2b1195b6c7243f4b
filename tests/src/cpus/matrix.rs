//! What was measured, and what [`Fingerprint::admits`] says to it.
//!
//! A fingerprint stands for all that a job *could* have used of the CPU where it began, so one pair of CPUs is judged by all
//! programs together, of which one uses everything that the CPU shows:
//!
//! - a pair that the rule admits must be one where every program ran to its end and was right;
//! - a pair that the rule refuses must be one where at least one program did not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use file_transfer_plugin::fingerprint::{Fingerprint, Mismatch};
use serde::{Deserialize, Serialize};

use super::programs::PROGRAMS;
use crate::machine;

pub use super::report::Outcome;

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// The CPUs.
    pub cpus: Vec<Cpu>,
    /// Each pair of them.
    pub thaws: Vec<Thaw>,
}

/// A CPU, and what could be frozen there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its name in the matrix.
    pub name: String,
    /// How QEMU was told to be it; none for the machine itself.
    pub qemu: Option<String>,
    /// What was seen of it.
    pub fingerprint: Fingerprint,
    /// The programs: an image, or none.
    pub programs: BTreeMap<String, Outcome>,
}

/// What became of the images of one CPU on one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thaw {
    /// Where the images were taken.
    pub from: String,
    /// Where they were thawed.
    pub to: String,
    /// By program.
    pub outcomes: BTreeMap<String, Outcome>,
}

impl Matrix {
    /// Where the whole, measured once, is kept.
    pub fn committed() -> PathBuf {
        machine::workspace().join("tests/cpus.json")
    }

    /// Reads a matrix.
    pub fn load(path: &Path) -> Result<Matrix> {
        let what = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(path).with_context(what)?;
        serde_json::from_str(&text).with_context(what)
    }

    /// Writes a matrix.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the rule says to a pair.
    ///
    /// # Panics
    ///
    /// Where a pair names a CPU that is not in the matrix.
    pub fn verdict(&self, thaw: &Thaw) -> Result<(), Vec<Mismatch>> {
        let print = |name: &str| {
            let cpu = self.cpus.iter().find(|cpu| cpu.name == name);
            &cpu.expect("a matrix names its CPUs").fingerprint
        };
        print(&thaw.to).admits(print(&thaw.from))
    }

    /// Where the rule and what happened disagree, each in a sentence.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for thaw in &self.thaws {
            let (from, to) = (&thaw.from, &thaw.to);
            let bad = |(_, outcome): &(&String, &Outcome)| **outcome != Outcome::Ran;
            let bad = thaw.outcomes.iter().find(bad);
            match (self.verdict(thaw), bad) {
                (Ok(()), Some((program, outcome))) => {
                    found.push(format!("{to} admits {from}: {program}: {outcome:?}"));
                }
                (Err(why), None) => {
                    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                    let why = why.join("; ");
                    found.push(format!("{to} refuses {from}, and every program ran: {why}"));
                }
                _ => {}
            }
        }
        found
    }

    /// The matrix for people: a row for each CPU where images were taken.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| frozen on |");
        for cpu in &self.cpus {
            let _ = write!(text, " {} |", cpu.name);
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(self.cpus.len()));
        for from in &self.cpus {
            let _ = write!(text, "| **{}** |", from.name);
            for to in &self.cpus {
                let of = |thaw: &&Thaw| thaw.from == from.name && thaw.to == to.name;
                let thaw = self.thaws.iter().find(of);
                let cell = thaw.map_or_else(|| "not tried".to_owned(), |thaw| self.cell(thaw));
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }

    fn cell(&self, thaw: &Thaw) -> String {
        let mut cell = match self.verdict(thaw) {
            Ok(()) => "admitted".to_owned(),
            Err(_) => "refused".to_owned(),
        };
        let mut all = true;
        for program in &PROGRAMS {
            let name = program.name;
            let word = match thaw.outcomes.get(name) {
                None | Some(Outcome::Ran) => continue,
                Some(Outcome::Died(signal)) => signal,
                Some(Outcome::Wrong) => "wrong",
                Some(_) => "no restore",
            };
            all = false;
            let _ = write!(cell, "; {name}: {word}");
        }
        if all {
            cell += "; all ran";
        }
        cell
    }
}
