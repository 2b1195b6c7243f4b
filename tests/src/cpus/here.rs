//! A guest that is no guest: the same root and the same plan on this machine's own CPU and kernel.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::report::{self, Line, PLAN, Plan, Task};

/// Where the report is for those who are in the root.
pub(super) const REPORT: &str = "/report";

/// What a command prints that has `root` for its whole world and runs as an ordinary user.
pub fn run_in(root: &Path, command: &[&str]) -> Result<String> {
    let task = Task::Run(command.iter().map(|word| (*word).to_owned()).collect());
    let plan = Plan {
        report: REPORT.into(),
        task,
    };
    fs::write(root.join(PLAN), serde_json::to_vec(&plan)?)?;
    match run(root)?.pop() {
        Some((Line::Printed(text), _)) => Ok(text),
        other => bail!("no answer, but {other:?}"),
    }
}

/// Runs the plan that lies in `root`, which is left with what the programs wrote.
pub(super) fn run(root: &Path) -> Result<Vec<(Line, Vec<u8>)>> {
    let ended = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child"])
        .args(["--propagation", "private", "--"])
        .arg(root.join("init"))
        .arg(root)
        .stdin(Stdio::null())
        .output()
        .context("cannot run unshare")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{}: {said}", ended.status);
    let report = root.join(REPORT.trim_start_matches('/'));
    report::read(&fs::read(report)?).with_context(|| said.into_owned())
}
