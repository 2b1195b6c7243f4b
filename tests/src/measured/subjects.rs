//! The same process twice: bare, and under our supervisor.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Job, Usage, processes_below, timed, wait_end};
use crate::host::Host;
use crate::users::User;

/// Where the supervisor is on the host.
pub const STARTER: &str = "/usr/local/bin/criu-starter";
/// The job's directory while a supervisor has it, and without one.
const INSIDE: &str = ".criu/srv";
const OUTSIDE: &str = ".";
/// A session of its own, with files that are opened on the host: CRIU finds no others again.
const ALONE: &str = r#"exec setsid "$0" "$@" </dev/null >/root/out 2>/root/err"#;
/// The exit code of a job that was frozen.
const FROZEN: i32 = 85;

/// Processes that stand still, so that another's measurement has the machine for itself.
pub struct Still(Vec<i32>);

impl Still {
    fn new(below: u32, job: &Job<'_>) -> Result<Self> {
        let mut pids = processes_below(below, &[job.comm]);
        ensure!(!pids.is_empty(), "no process called {}", job.comm);
        for pid in &pids {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP)?;
        }
        // nsenter stops itself when what it has started is stopped.
        pids.push(below as i32);
        Ok(Self(pids))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

/// A process of root's, dumped by root's CRIU.
#[derive(Debug)]
pub struct Bare<'h> {
    host: &'h Host,
    /// The job and its directory.
    pub job: Job<'h>,
    child: Option<Child>,
    /// As the host counts.
    pid: String,
}

impl<'h> Bare<'h> {
    /// Starts it; returns when its memory is full.
    pub fn start(host: &'h Host, kind: &str, megabytes: u32) -> Result<Self> {
        let job = Job::new(host, User::Root, &format!("bare-{kind}"), kind, megabytes)?;
        let child = job.start(&["sh", "-c", ALONE], OUTSIDE)?;
        let found = processes_below(child.id(), &[job.comm]);
        let pid = found.first().context("no process of that name")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("NSpid:"));
        let pid = line.and_then(|line| line.split_whitespace().last());
        let pid = pid
            .context("the process has a number on its host")?
            .to_owned();
        Ok(Self {
            host,
            job,
            child: Some(child),
            pid,
        })
    }

    /// Lets it stand still for as long as what this returns is kept.
    pub fn stand_still(&self) -> Result<Still> {
        let child = self.child.as_ref().context("it is no child of ours")?;
        Still::new(child.id(), &self.job)
    }

    /// Runs a script that dumps the process `$PID` into the empty directory `images`; the seconds that it takes.
    pub fn dump(&mut self, script: &str) -> Result<f64> {
        let script = format!(
            "set -o pipefail; rm -rf images; mkdir images; PID={}; {script} || {{ grep Error images/dump.log >&2; exit 1; }}",
            self.pid
        );
        let mut command = self.host.command(User::Root, &self.job.dir)?;
        let seconds = timed(command.args(["bash", "-c", &script]))?;
        Ok(seconds)
    }

    /// The seconds until it counts on.
    pub fn restore(&mut self) -> Result<f64> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        for image in fs::read_dir(self.job.path("images"))? {
            warm(&image?.path())?;
        }
        let begun = Instant::now();
        let mut command = self.host.command(User::Root, &self.job.dir)?;
        let words = "criu restore -d -D images -o restore.log";
        let mut criu = command.args(words.split(' ')).spawn()?;
        self.job.wait_thawed(OUTSIDE, &mut criu)?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(criu.wait()?.success(), "criu restore failed");
        Ok(seconds)
    }

    /// Ends it and removes its images.
    pub fn end(self) -> Result<()> {
        let words = [
            "sh",
            "-c",
            &format!("kill -9 {} && rm -rf images", self.pid),
        ];
        self.host.run(User::Root, &self.job.dir, &words).map(drop)
    }
}

/// Into memory, where an image is that has just come over the network: what the disk does is no part of a restore here.
fn warm(path: &Path) -> Result<()> {
    io::copy(&mut fs::File::open(path)?, &mut io::sink())?;
    Ok(())
}

/// The same under `criu-starter`, an ordinary user's.
#[derive(Debug)]
pub struct Ours<'h> {
    /// The job and its directory.
    pub job: Job<'h>,
    store: Option<&'static str>,
    child: Child,
    /// The size of the last archive, where it stays here.
    pub archive: u64,
    /// The largest memory of our processes in a dump, in MB.
    pub dumping: u64,
    /// That of `criu-transfer`, where images go to a store.
    pub sending: u64,
    /// The same in a restore.
    pub thawing: u64,
    /// What the last dump took of the CPU, CRIU and our processes, in seconds.
    pub cpu: f64,
}

impl<'h> Ours<'h> {
    /// Starts it; returns when its memory is full. Its images go to a `store`, or stay in its directory.
    pub fn start(
        host: &'h Host,
        kind: &str,
        megabytes: u32,
        store: Option<&'static str>,
    ) -> Result<Self> {
        let job = Job::new(host, User::Pilot, &format!("ours-{kind}"), kind, megabytes)?;
        let child = job.start(&starter(store), INSIDE)?;
        Ok(Self {
            job,
            store,
            child,
            archive: 0,
            dumping: 0,
            sending: 0,
            thawing: 0,
            cpu: 0.0,
        })
    }

    /// Lets it stand still for as long as what this returns is kept.
    pub fn stand_still(&self) -> Result<Still> {
        Still::new(self.child.id(), &self.job)
    }

    /// Freezes it, to an archive that is on the disk or at the store; the seconds that it takes.
    pub fn dump(&mut self) -> Result<f64> {
        let pids = processes_below(self.child.id(), &["criu-starter"]);
        let supervisor = *pids.first().context("no supervisor")?;
        let (mut usage, mut sending) = (Usage::default(), Usage::default());
        let begun = Instant::now();
        kill(Pid::from_raw(supervisor), Signal::SIGTERM)?;
        let code = {
            let id = self.child.id();
            let look = || {
                usage.look(&processes_below(id, &["criu-starter", "criu"]));
                sending.look(&processes_below(id, &["criu-transfer"]));
            };
            wait_end(&mut self.child, look)?
        };
        let seconds = begun.elapsed().as_secs_f64();
        let said = || fs::read_to_string(self.job.path("../err")).unwrap_or_default();
        ensure!(code == Some(FROZEN), "it ended with {code:?}: {}", said());
        if self.store.is_none() {
            self.archive = fs::metadata(self.archive())?.len();
        }
        self.dumping = self.dumping.max(usage.megabytes());
        self.sending = self.sending.max(sending.megabytes());
        self.cpu = usage.cpu() + sending.cpu();
        Ok(seconds)
    }

    /// The seconds until it counts on.
    pub fn restore(&mut self) -> Result<f64> {
        if self.store.is_none() {
            warm(&self.archive())?;
        }
        let begun = Instant::now();
        self.child = self.job.start(&starter(self.store), INSIDE)?;
        self.job.wait_thawed(INSIDE, &mut self.child)?;
        let seconds = begun.elapsed().as_secs_f64();
        let mut usage = Usage::default();
        usage.look(&processes_below(self.child.id(), &["criu-starter"]));
        self.thawing = self.thawing.max(usage.megabytes());
        Ok(seconds)
    }

    /// Ends it and removes its images.
    pub fn end(mut self) -> Result<()> {
        let pids = processes_below(self.child.id(), &["criu-starter"]);
        kill(
            Pid::from_raw(*pids.first().context("no supervisor")?),
            Signal::SIGKILL,
        )?;
        self.child.wait()?;
        let archive = self.archive();
        if archive.exists() {
            fs::remove_file(archive)?;
        }
        Ok(())
    }

    fn archive(&self) -> PathBuf {
        self.job.path("checkpoint.criu")
    }
}

fn starter(store: Option<&'static str>) -> Vec<&'static str> {
    let mut words = vec![STARTER, "run"];
    words.extend(store.into_iter().flat_map(|url| ["--store", url]));
    words.push("--");
    words
}
