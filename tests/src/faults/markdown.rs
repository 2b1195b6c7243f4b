//! The table for people, `tests/FAULTS.md`, and the rows that it is made of, which outlive an interrupted walk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::cell::Cell;
use super::ground::POINTS;
use super::verdict::Row;
use crate::machine;
use crate::markdown::anchor;
use crate::roots::HtCondor;

const HEAD: &str = "\
# Faults at every stage

A job of 4 MB counts and notes each of its steps, with the time, in a place outside of its sandbox. It is evicted once
undisturbed; then a fault strikes it at one stage of its next eviction (freezing to shipping) or of its next start (fetching
to running again). Each on real HTCondor and CRIU. Our programs are those that are shipped, built with a feature that makes
them stand still at a stage until the fault has happened; HTCondor's own transfer is slowed down instead. The clock is that
of our supervisor alone, for hosts of one machine share theirs.

After each cell the job must have ended with the right result and each line of output once, without a hold but one of
HTCondor's own for a failed transfer, which `criu-pilot configure` has released after a minute, never two copies at once, no
step repeated that a good image had, and nothing left on the hosts a minute later. *Lost* is work done again, in seconds of
the job's own steps; *clean* is the time after the job's end until nothing of it was left. What was not
kept is said in the last column. One run each.

One thing SPOOL cannot keep: an image that is damaged on the slot's disk, after it was packed and before HTCondor reads it, takes
the place of the one before. HTCondor has one file of a name and does not look into it. A store hashes each chunk, refuses
such an image and keeps the one before.

    cargo run -p tests --bin faults -- --seed 1                      # goes on where it was interrupted, writes this file
    cargo run -p tests --bin faults -- --only shipping/kill-shadow   # one stage and fault
    cargo run -p tests --bin faults -- --quick                       # one of each kind of fault, on the newer HTCondor
";

/// Rows that were made so far.
#[derive(Debug)]
pub(super) struct Rows {
    rows: BTreeMap<(Cell, String), Row>,
    file: File,
}

fn path() -> PathBuf {
    machine::target_dir().join("faults.jsonl")
}

impl Rows {
    /// What earlier walks have found; `fresh` forgets it.
    pub(super) fn open(fresh: bool) -> Result<Rows> {
        let path = path();
        if fresh {
            let _ = fs::remove_file(&path);
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let rows = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Row>(line).ok())
            .map(|row| (key(&row.cell, row.version), row))
            .collect();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Rows { rows, file })
    }

    pub(super) fn has(&self, cell: &Cell, version: HtCondor) -> bool {
        self.rows.contains_key(&key(cell, version))
    }

    pub(super) fn add(&mut self, row: Row) -> Result<()> {
        let line = serde_json::to_string(&row)? + "\n";
        self.file.write_all(line.as_bytes())?;
        self.rows.insert(key(&row.cell, row.version), row);
        Ok(())
    }

    /// The table of all rows.
    pub(super) fn write(&self) -> Result<()> {
        let path = machine::workspace().join("tests/FAULTS.md");
        fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> String {
        let failed = self.rows.values().filter(|row| !row.broken.is_empty());
        let mut text = HEAD.to_owned();
        let _ = writeln!(
            text,
            "\n{} cells; in {} of them something was not kept.\n",
            self.rows.len(),
            failed.count()
        );
        text += "| stage | fault | lane | slot | HTCondor | after it | lost (s) | clean (s) | not kept |\n";
        text += "|---|---|---|---|---|---|---|---|---|\n";
        for row in self.rows.values() {
            let cell = &row.cell;
            let _ = writeln!(
                text,
                "| {}{} | {} | {} | {} | {} | {} | {:.1} | {:.0} | {} |",
                anchor(&format!("{cell} {}", row.version)),
                cell.stage.name(),
                cell.fault.names().1,
                cell.lane.name(),
                POINTS[cell.point],
                row.version,
                row.happened,
                row.lost,
                row.clean,
                plain(&row.broken.join("; "))
            );
        }
        text
    }
}

fn key(cell: &Cell, version: HtCondor) -> (Cell, String) {
    (*cell, version.to_string())
}

/// On one line of a table, and not for ever.
fn plain(text: &str) -> String {
    let text = text.replace(['\n', '|'], " ");
    text.chars().take(300).collect()
}
