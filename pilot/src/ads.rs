//! Where ads come from: files, or the daemons that HTCondor's own tools find.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use classad::ClassAd;
use memchr::memmem;

/// What a job is called in the queue, and where its ad is if not there.
#[derive(Debug, clap::Args)]
pub(crate) struct Job {
    /// The job, as CLUSTER.PROC
    #[arg(required_unless_present = "job_ad")]
    job: Option<String>,
    /// Its ad, as `condor_q -long` prints it, instead of asking the schedd
    #[arg(long, value_name = "FILE")]
    job_ad: Option<std::path::PathBuf>,
}

impl Job {
    /// Its ad: from the file, else from the queue, else from the history.
    pub(crate) fn ad(&self) -> Result<ClassAd> {
        let text = match (&self.job_ad, &self.job) {
            (Some(file), _) => read(file)?,
            (None, Some(job)) => {
                let queued = ask("condor_q", &["-long", job])?;
                if queued.trim_ascii().is_empty() {
                    ask("condor_history", &["-long", "-limit", "1", job])?
                } else {
                    queued
                }
            }
            (None, None) => bail!("no job: give its number, or --job-ad FILE"),
        };
        let ad = blocks(&text)
            .next()
            .context("there is no such job in the queue, nor in the history")?;
        ClassAd::parse_old_bytes(ad).context("cannot read the job's ad")
    }
}

/// All of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What a tool of HTCondor's prints.
pub(crate) fn ask(tool: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| {
            format!("cannot run {tool}; run this on an access point, or give it files (--help)")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{tool} ended with {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// Ads in the old syntax, with empty lines between.
pub(crate) fn blocks(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memmem::find(rest, b"\n\n").unwrap_or(rest.len());
            let block = rest[..end].trim_ascii();
            rest = &rest[(end + 2).min(rest.len())..];
            if !block.is_empty() {
                return Some(block);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ads_are_told_apart_by_empty_lines() {
        let all = |text: &str| {
            blocks(text.as_bytes())
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            all("\n\nA = 1\nB = 2\n\n\nC = 3"),
            [&b"A = 1\nB = 2"[..], b"C = 3"]
        );
        assert!(all("\n \n\n").is_empty());
    }
}
