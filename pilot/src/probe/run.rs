//! One run of `criu-starter`, that ends with us at the latest.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::patience::Patience;

/// How the probe calls itself to become a `criu-starter` that dies with it.
pub(crate) const SUBCOMMAND: &str = "starter";

/// What a child prints is read up to here; `criu-starter` says far less.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// A child with its output in files, so that none can block it or us.
pub(crate) struct Run {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a run ended.
pub(crate) struct Ended {
    status: ExitStatus,
    pub(crate) printed: String,
    /// The last thing that criu-starter said.
    pub(crate) said: Option<String>,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Why it ended otherwise than it should.
    pub(crate) fn sentence(self, otherwise: &str) -> String {
        let status = self.status;
        self.said
            .unwrap_or_else(|| format!("{otherwise} ({status})"))
    }
}

impl Run {
    /// Starts it in `dir`; its output goes beside that.
    pub(crate) fn start(starter: &Path, dir: &Path, arguments: &[&str]) -> Result<Run> {
        let (stdout, stderr) = (with(dir, "stdout"), with(dir, "stderr"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let pilot = env::current_exe().context("cannot tell where criu-pilot is")?;
        let mut command = Command::new(pilot);
        // As by hand, whatever job or daemon we were started by.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("_CONDOR_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args([SUBCOMMAND, &std::process::id().to_string()])
            .arg(starter)
            .arg("--")
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(create(&stdout)?)
            .stderr(create(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", starter.display()))?;
        Ok(Run {
            child,
            stdout,
            stderr,
        })
    }

    /// Until it has printed that line, or has ended: then its status tells.
    pub(crate) fn until_printed(&mut self, line: &str, patience: &mut Patience) -> Result<()> {
        while !read(&self.stdout)?.lines().any(|printed| printed == line)
            && self.child.try_wait()?.is_none()
        {
            patience.wait().context("the probe's job did not begin")?;
        }
        Ok(())
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        // Not yet waited for, so the pid is no other's.
        if self.child.try_wait()?.is_none() {
            let pid = i32::try_from(self.child.id()).context("a pid")?;
            kill(Pid::from_raw(pid), signal).context("cannot signal the probe's job")?;
        }
        Ok(())
    }

    /// Its end.
    pub(crate) fn end(mut self, patience: &mut Patience) -> Result<Ended> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended {
                    status,
                    printed: read(&self.stdout)?,
                    said: last_sentence(&read(&self.stderr)?),
                });
            }
            if let Err(error) = patience.wait() {
                let said = last_sentence(&read(&self.stderr)?);
                return Err(match said {
                    Some(said) if !error.is::<super::Stopped>() => error.context(said),
                    _ => error,
                });
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // With criu-starter its whole pid namespace goes, and with its group what
        // it started outside, as a CRIU that hangs. It may have ended.
        if let (Ok(None), Ok(group)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Becomes `criu-starter`, to be killed by the kernel when `parent` is gone.
pub(crate) fn become_starter(parent: u32, starter: &Path, arguments: &[String]) -> anyhow::Error {
    if let Err(errno) = set_pdeathsig(Signal::SIGKILL) {
        return anyhow!("cannot tie criu-starter to the probe: {errno}");
    }
    // It may be gone already; then the kernel would have nobody to wait for.
    if parent_id() != parent {
        return anyhow!("the probe is gone");
    }
    let error = Command::new(starter).args(arguments).exec();
    anyhow!("cannot run {}: {error}", starter.display())
}

fn with(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    // Not in the directory itself, which is to hold one file after a freeze.
    dir.parent().unwrap_or(dir).join(name)
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(OUTPUT_LIMIT).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// criu-starter's last line that is no progress.
fn last_sentence(text: &str) -> Option<String> {
    let line = text
        .lines()
        .rfind(|line| !line.contains(" INFO ") && !line.trim().is_empty())?;
    let line = line
        .split_once("ERROR ")
        .map_or(line, |(_, sentence)| sentence);
    for prefix in ["criu-starter: ", "criu-pilot: "] {
        if let Some(sentence) = line.strip_prefix(prefix) {
            return Some(sentence.to_owned());
        }
    }
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_criu_starters_last_sentence() {
        let log =
            "2026 INFO stage=\"vacating\"\n2026 ERROR the job could not be frozen: disk full\n";
        let sentence = last_sentence(log).unwrap();
        assert_eq!(sentence, "the job could not be frozen: disk full");
        let sentence = last_sentence("criu-starter: no usable CRIU\n").unwrap();
        assert_eq!(sentence, "no usable CRIU");
        assert_eq!(last_sentence("2026 INFO a\n"), None);
    }
}
