//! The table for people, `tests/EVICTIONS.md`: one section per version.

use std::fmt::Write;
use std::fs;

use crate::machine;
use crate::markdown::anchor;
use crate::roots::HtCondor;
use anyhow::{Context, Result, bail, ensure};

use super::Cell;
use super::run::Measured;
use super::table::{Outcome, TABLE};

const HEAD: &str = "\
# Ways to lose a slot

Each on real HTCondor and CRIU, with a job that notes each of its steps and the time. *Lost* is work that was done before
the loss and had to be done again, in seconds of the job's own steps; *away* is the time from its last step before to its
first one after. A job *goes on* at the step where it stopped; *from its last image* where HTCondor gives no signal or no
time: here it takes one every 3 s, and has run for 6 s before the loss. It *begins again* where it has no image, here because
one of 512 MB does not fit and none was taken before. It *runs on* where it did not lose its slot at all. The *lane* is how
images go home: HTCondor's own transfer to SPOOL, or the supervisor's to a store on the access point; after each row it is seen
that they are there and not in the other place.
One run each: an outcome has been seen, and a figure is of that run alone.

    cargo run -p tests --bin evictions -- --write               # makes this file
    cargo run -p tests --bin evictions                          # tries every row, and fails where an outcome is another one
    cargo run -p tests --bin evictions -- --only condor_vacate  # one row
";

fn heading(version: HtCondor) -> String {
    format!("\n## HTCondor {version}\n\n")
}

fn section(version: HtCondor, measured: &[(Cell, Measured)]) -> String {
    let mut text = heading(version);
    text += "| the slot is lost by | | execution point | lane | the job | lost (s) | away (s) |\n";
    text += "|---|---|---|---|---|---|---|\n";
    for row in TABLE {
        let of_row = measured
            .iter()
            .filter(|(cell, _)| cell.row.name == row.name);
        let mut of_row: Vec<_> = of_row.collect();
        of_row.sort_by_key(|(cell, _)| (cell.lane.name(), cell.point.name()));
        for (cell, found) in of_row {
            let _ = write!(text, "{}", key(version, cell));
            let away = match found.outcome {
                Outcome::RunsOn | Outcome::LeavesNothing => String::new(),
                _ => format!("{:.1}", found.away),
            };
            let _ = writeln!(
                text,
                " {} | {:.1} | {away} |",
                found.outcome.words(),
                found.lost
            );
        }
    }
    text
}

/// What a line begins with.
fn key(version: HtCondor, cell: &Cell) -> String {
    let (name, point, lane) = (cell.row.name, cell.point.name(), cell.lane.name());
    let anchor = anchor(&format!("{version} {name} {point} {lane}"));
    format!("| {anchor}{name} | {} | {point} | {lane} |", cell.row.what)
}

fn read() -> Result<String> {
    let path = machine::workspace().join("tests/EVICTIONS.md");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Puts what was measured into the committed table.
pub(super) fn rewrite(version: HtCondor, measured: &[(Cell, Measured)]) -> Result<()> {
    let old = read().unwrap_or_default();
    let mut text = HEAD.to_owned();
    for each in HtCondor::ALL {
        if each == version {
            text += &section(version, measured);
        } else if let Some(section) = old_section(&old, each) {
            text += &section;
        }
    }
    fs::write(machine::workspace().join("tests/EVICTIONS.md"), text).context("cannot write it")
}

/// From its heading to the next one.
fn old_section(text: &str, version: HtCondor) -> Option<String> {
    let start = text.find(&heading(version))?;
    let rest = &text[start + 1..];
    let end = rest.find("\n## ").unwrap_or(rest.len());
    Some(format!("\n{}", &rest[..end]))
}

/// Fails if the committed table has other outcomes; figures may differ.
pub(super) fn compare(version: HtCondor, measured: &[(Cell, Measured)]) -> Result<()> {
    let text = read()?;
    let section = old_section(&text, version).context("it has no such version")?;
    let rows = section.lines().filter(|line| line.starts_with("| "));
    // The heading's is one of them.
    ensure!(
        rows.count() == measured.len() + 1,
        "it has other rows than HTCondor {version} was tried on"
    );
    for (cell, found) in measured {
        let expected = format!("{} {} |", key(version, cell), found.outcome.words());
        if !section.lines().any(|line| line.starts_with(&expected)) {
            bail!("it has no line that begins with {expected}");
        }
    }
    Ok(())
}
