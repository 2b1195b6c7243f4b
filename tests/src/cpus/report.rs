//! What a guest is told, and what it tells: lines of JSON, each followed by the bytes that it announces.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Where a guest finds its plan.
pub(super) const PLAN: &str = "plan.json";

/// Larger than any image of these programs, in bytes.
const IMAGE_LIMIT: u64 = 64 << 20;

/// What a guest is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Where its report goes: a serial line, or a file.
    pub(super) report: PathBuf,
    pub(super) task: Task,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Start these programs and freeze each.
    Freeze(Vec<String>),
    /// Thaw each of these images and see it to its end.
    Thaw(Vec<Origin>),
    /// Run this command as nobody in particular, and tell what it prints.
    Run(Vec<String>),
}

/// Whose image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) cpu: String,
    pub(super) program: String,
}

impl Origin {
    /// The image in the guest's root.
    pub(super) fn image(&self) -> String {
        format!("images/{}/{}.criu", self.cpu, self.program)
    }

    /// An ad that claims to be of a slot like the one where the image was taken.
    pub(super) fn slot_ad(&self) -> String {
        format!("images/{}/slot.ad", self.cpu)
    }
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its CPU has not what it is about.
    Lacks,
    /// It is an image now.
    Frozen,
    /// It went on to its end, and all that it computed was right.
    Ran,
    /// It went on, and computed something wrong.
    Wrong,
    /// It went on, and died of this signal.
    Died(String),
    /// It did not go on, for this reason.
    Refused(String),
}

/// One line of a report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// What became of a program that was started here.
    Frozen {
        program: String,
        outcome: Outcome,
        /// The length of the image, which follows the line.
        bytes: u64,
    },
    /// What became of an image.
    Thawed { origin: Origin, outcome: Outcome },
    /// What a command printed, which ended well.
    Printed(String),
    /// What went wrong in the guest itself.
    Failed(String),
    /// The end of the report.
    Done,
}

impl Line {
    /// Appends this line and the bytes that belong to it.
    pub(super) fn write(&self, image: &[u8], out: &mut dyn Write) -> Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(image);
        out.write_all(&bytes).context("cannot write the report")
    }
}

/// Reads a whole report: each line with its bytes.
pub(super) fn read(mut report: &[u8]) -> Result<Vec<(Line, Vec<u8>)>> {
    let mut lines = Vec::new();
    loop {
        let mut text = String::new();
        report.read_line(&mut text)?;
        let line = serde_json::from_str(&text)
            .with_context(|| format!("the report goes on with {text:?}"))?;
        let mut image = Vec::new();
        match &line {
            Line::Done => return Ok(lines),
            Line::Failed(reason) => anyhow::bail!("in the guest: {reason}"),
            Line::Frozen { bytes, program, .. } => {
                ensure!(*bytes <= IMAGE_LIMIT, "{program}'s image has {bytes} bytes");
                report.by_ref().take(*bytes).read_to_end(&mut image)?;
                ensure!(image.len() as u64 == *bytes, "{program}'s image is cut");
            }
            Line::Thawed { .. } | Line::Printed(_) => {}
        }
        lines.push((line, image));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_a_cut_one_is_refused() {
        let mut report = Vec::new();
        let frozen = Line::Frozen {
            program: "sse2".into(),
            outcome: Outcome::Frozen,
            bytes: 3,
        };
        frozen.write(b"\n{x", &mut report).unwrap();
        let whole = report.len();
        Line::Done.write(&[], &mut report).unwrap();
        let lines = read(&report).unwrap();
        assert_eq!((lines.len(), &lines[0].1[..]), (1, &b"\n{x"[..]));
        assert!(read(&report[..whole]).is_err());
        assert!(read(&report[..whole - 1]).is_err());
    }
}
