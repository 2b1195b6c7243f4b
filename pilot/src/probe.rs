//! Whether a job can be frozen and thawed on this node, decided by doing it.
//!
//! A tiny job with a thread, a pipe and an open file is run by `criu-starter` as
//! the starter would run it, told to leave, and gone on with in another
//! directory. `criu check` cannot decide this: without privileges it says "Does
//! not look good" where all works.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use file_transfer_plugin::fingerprint::{Fingerprint, Version};
use file_transfer_plugin::host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::specimen;

/// A dump and a restore take 50 ms; a node that needs this long is no good one.
const PATIENCE: Duration = Duration::from_secs(20);

/// criu-starter's code for a complete image.
const FROZEN: i32 = 85;

/// What the node is made of, or why it cannot, for its admin.
pub(crate) fn probe(starter: Option<PathBuf>) -> Result<Fingerprint, String> {
    beside_us(starter)
        .and_then(|starter| freeze_and_thaw(&starter))
        .map_err(|error| format!("{error:#}"))
}

fn beside_us(starter: Option<PathBuf>) -> Result<PathBuf> {
    let starter = match starter {
        Some(path) => path,
        None => env::current_exe()
            .context("cannot tell where criu-pilot is")?
            .with_file_name("criu-starter"),
    };
    if !starter.is_file() {
        bail!("there is no criu-starter at {}", starter.display());
    }
    Ok(starter)
}

fn freeze_and_thaw(starter: &Path) -> Result<Fingerprint> {
    let criu = criu_version(starter)?;

    let place = tempfile::tempdir().context("cannot make a directory for the probe")?;
    let (here, there) = (place.path().join("here"), place.path().join("there"));
    for dir in [&here, &there] {
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let pilot = env::current_exe().context("cannot tell where criu-pilot is")?;
    fs::copy(&pilot, here.join("specimen")).context("cannot copy the probe's job")?;

    let mut first = Run::start(starter, &here)?;
    first.until_ready()?;
    first.signal(Signal::SIGTERM)?;
    let (status, said) = first.end()?;
    if status.code() != Some(FROZEN) {
        bail!(
            "{}",
            said.unwrap_or_else(|| format!("the probe's job was not frozen ({status})"))
        );
    }
    let archive = "checkpoint.criu";
    fs::rename(here.join(archive), there.join(archive)).context("the probe left no image")?;
    let (status, said) = Run::start(starter, &there)?.end()?;
    if status.code() != Some(specimen::CODE) {
        bail!(
            "{}",
            said.unwrap_or_else(|| format!("the probe's job was not thawed ({status})"))
        );
    }
    host::fingerprint(criu, BTreeSet::new()).context("cannot describe this node")
}

fn criu_version(starter: &Path) -> Result<Version> {
    let output = clean(Command::new(starter).args(["criu-version"]))
        .output()
        .with_context(|| format!("cannot run {}", starter.display()))?;
    if !output.status.success() {
        bail!("{}", last_sentence(&output.stderr).unwrap_or_default());
    }
    let version = String::from_utf8_lossy(&output.stdout);
    let version = version.trim();
    version
        .parse()
        .with_context(|| format!("CRIU calls its version {version:?}"))
}

/// A run of the specimen.
struct Run {
    child: Child,
    errors: PathBuf,
    deadline: Instant,
}

impl Run {
    fn start(starter: &Path, dir: &Path) -> Result<Run> {
        let errors = dir.with_extension("stderr");
        let mut command = Command::new(starter);
        let child = clean(&mut command)
            .args(["run", "--", "./specimen", specimen::SUBCOMMAND])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).context("cannot write beside the probe")?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", starter.display()))?;
        Ok(Run {
            child,
            errors,
            deadline: Instant::now() + PATIENCE,
        })
    }

    /// Until the specimen has said that it works, or has ended.
    fn until_ready(&mut self) -> Result<()> {
        let stdout = self
            .child
            .stdout
            .take()
            .context("the probe has no output")?;
        let reader = thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        while !reader.is_finished() && Instant::now() < self.deadline {
            thread::sleep(POLL);
        }
        if !reader.is_finished() {
            bail!(
                "the probe's job did not begin within {} s",
                PATIENCE.as_secs()
            );
        }
        // An end without the line shows in the exit status.
        let _: thread::Result<io::Result<String>> = reader.join();
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a pid")?;
        kill(Pid::from_raw(pid), signal).context("cannot signal the probe's job")
    }

    /// Its end, and the last thing that criu-starter said.
    fn end(mut self) -> Result<(ExitStatus, Option<String>)> {
        while Instant::now() < self.deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, last_sentence(&fs::read(&self.errors)?)));
            }
            thread::sleep(POLL);
        }
        bail!(
            "freezing and thawing took more than {} s",
            PATIENCE.as_secs()
        )
    }
}

const POLL: Duration = Duration::from_millis(1);

impl Drop for Run {
    fn drop(&mut self) {
        // With criu-starter its whole pid namespace goes. It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As by hand, whatever job or daemon we were started by.
fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("_CONDOR_") {
            command.env_remove(name);
        }
    }
    command
}

/// criu-starter's last line that is no progress.
fn last_sentence(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let line = text
        .lines()
        .rfind(|line| !line.contains(" INFO ") && !line.trim().is_empty())?;
    let line = line
        .split_once("ERROR ")
        .map_or(line, |(_, sentence)| sentence);
    let line = line.strip_prefix("criu-starter: ").unwrap_or(line);
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_criu_starters_last_sentence() {
        let log =
            b"2026 INFO stage=\"vacating\"\n2026 ERROR the job could not be frozen: disk full\n";
        let sentence = last_sentence(log).unwrap();
        assert_eq!(sentence, "the job could not be frozen: disk full");
        let sentence = last_sentence(b"criu-starter: no usable CRIU\n").unwrap();
        assert_eq!(sentence, "no usable CRIU");
        assert_eq!(last_sentence(b"2026 INFO a\n"), None);
    }

    #[test]
    fn a_node_without_the_starter_is_an_answer() {
        let probe = probe(Some("/nowhere/criu-starter".into()));
        assert!(
            probe
                .expect_err("there is none")
                .contains("/nowhere/criu-starter")
        );
    }
}
