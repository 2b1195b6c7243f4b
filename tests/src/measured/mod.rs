//! What the measurements have in common: processes full of memory, and figures taken in pairs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::users::User;
use crate::wait;

/// Kinds of memory that [`Job`] knows.
pub const KINDS: [&str; 5] = ["noise", "half", "sines", "particles", "objects"];

const PROGRAM: (&str, &str) = ("memory.py", include_str!("memory.py"));

/// To fill a gigabyte with python's objects on a busy machine.
const FILLING: Duration = Duration::from_secs(600);

/// Far above what a restore takes.
const THAWING: Duration = Duration::from_secs(300);

/// A process with a given amount of one kind of memory, in a directory of its own.
#[derive(Debug)]
pub struct Job<'h> {
    host: &'h Host,
    user: User,
    /// On the host.
    pub dir: String,
    words: [String; 4],
}

impl<'h> Job<'h> {
    /// In the directory `name`, which is made.
    pub fn new(host: &'h Host, user: User, name: &str, kind: &str, megabytes: u32) -> Result<Self> {
        ensure!(KINDS.contains(&kind), "no such kind of memory: {kind}");
        let dir = format!("{}/{name}", user.home());
        host.make_dir(&dir, user, 0o755)?;
        host.write(format!("{dir}/{}", PROGRAM.0), PROGRAM.1, user, 0o644)?;
        let words = ["/usr/bin/python3", PROGRAM.0, kind, &megabytes.to_string()];
        Ok(Self {
            host,
            user,
            dir,
            words: words.map(str::to_owned),
        })
    }

    /// Starts it, behind the words of whatever is to start it; returns when its memory is full.
    pub fn start(&self, before: &[&str], beats: &str) -> Result<Child> {
        let stream = |what: &str| fs::File::create(self.path(what));
        let mut child = self
            .host
            .command(self.user, &self.dir)?
            .args(before)
            .args(&self.words)
            .stdout(stream("../out")?)
            .stderr(stream("../err")?)
            .spawn()?;
        self.wait_beat(beats, "", FILLING, &mut child)?;
        Ok(child)
    }

    /// A path of its directory, seen from the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.host.path(format!("{}/{name}", self.dir))
    }

    /// How far it has counted; `beats` is the directory in which it does.
    pub fn beat(&self, beats: &str) -> String {
        fs::read_to_string(self.path(beats).join("beat")).unwrap_or_default()
    }

    /// Waits, closely, until it has counted on from `before`, or until `by` has failed.
    pub fn wait_beat(
        &self,
        beats: &str,
        before: &str,
        limit: Duration,
        by: &mut Child,
    ) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            let beat = self.beat(beats);
            if !beat.is_empty() && beat.as_str() != before {
                return Ok(());
            }
            let ended = by.try_wait()?.filter(|status| !status.success());
            if ended.is_some() || Instant::now() > until {
                let said = fs::read_to_string(self.path("../err")).unwrap_or_default();
                bail!("the job does not run ({ended:?}): {said}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The same after a restore.
    pub fn wait_thawed(&self, beats: &str, before: &str, by: &mut Child) -> Result<()> {
        self.wait_beat(beats, before, THAWING, by)
    }
}

/// A command on a host, to its end; the seconds that it took.
pub fn timed(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(seconds)
}

/// The processes that are called `name` below a child of ours, with those further below them by the same name.
pub fn processes_below(child: &Child, name: &str) -> Vec<i32> {
    let mut found = Vec::new();
    let mut left = vec![child.id() as i32];
    while let Some(pid) = left.pop() {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim() == name {
            found.push(pid);
        }
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.unwrap_or_default();
        left.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    found
}

/// The largest memory that processes have had so far, in all, in MB; looked at until the child has ended.
#[derive(Debug, Default)]
pub struct Peak(BTreeMap<i32, u64>);

impl Peak {
    /// Looks at them once.
    pub fn look(&mut self, pids: &[i32]) {
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
            let most = self.0.entry(*pid).or_default();
            *most = (*most).max(kilobytes.unwrap_or(0));
        }
    }

    /// In MB.
    pub fn megabytes(&self) -> u64 {
        self.0.values().sum::<u64>() / 1024
    }
}

/// Waits for a child's end.
pub fn wait_end(child: &mut Child, mut meanwhile: impl FnMut()) -> Result<Option<i32>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a process that is no child of ours, and waits until it is gone.
pub fn end(pid: i32) -> Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGKILL).context("kill the job")?;
    wait::until("the job's end", Duration::from_secs(60), || {
        Ok((!PathBuf::from(format!("/proc/{pid}/stat")).exists()).then_some(()))
    })
}

/// The middle of values and how far half of them are around it.
pub fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        at(2),
        at(1),
        at(3)
    )
}
