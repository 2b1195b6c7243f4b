//! `speed`: what an image costs beside bare CRIU on the same disk, in pairs.
//!
//! A dump counts from the signal until all that it wrote has reached the disk, a restore until the job counts on.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::binaries;
use tests::host::Host;
use tests::measured::{self, Job, KINDS, Peak, spread};
use tests::pool::Pool;
use tests::roots::{HtCondor, Root};
use tests::spec::Spec;
use tests::users::User;

const STARTER: &str = "/usr/local/bin/criu-starter";
/// The job's directory while a supervisor has it, and without one.
const INSIDE: &str = ".criu/srv";
const OUTSIDE: &str = ".";
/// A session of its own, with files that are opened on the host: CRIU finds no others again.
const ALONE: &str = r#"exec setsid "$0" "$@" </dev/null >/root/out 2>/root/err"#;
/// The exit code of a job that was frozen.
const FROZEN: i32 = 85;

/// What an image costs beside bare CRIU on the same disk.
#[derive(Parser)]
struct Args {
    /// How much memory the job has
    #[arg(default_value_t = 1024)]
    megabytes: u32,
    /// How often each is dumped and restored
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// What is in its memory; all kinds if none is named
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// The program to measure, instead of the one that is built here
    #[arg(long, value_name = "PATH")]
    starter: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (megabytes, pairs) = (args.megabytes, args.pairs);
    let kinds = match args.kinds {
        none if none.is_empty() => KINDS.map(str::to_owned).to_vec(),
        named => named,
    };
    let starter = match args.starter {
        Some(path) => path,
        None => binaries::dir()?.join("criu-starter"),
    };
    let pool = Pool::up(&Spec::bare(HtCondor::V23_9).root(Root::Languages))?;
    let host = pool.ap();
    host.write(STARTER, fs::read(starter)?, User::Root, 0o755)?;
    println!(
        "{megabytes} MB, {pairs} pairs: the median (and the quartiles) of ours over bare CRIU's in each pair"
    );
    for kind in kinds {
        let mut bare = Bare::start(host, &kind, megabytes)?;
        let mut ours = Ours::start(host, &kind, megabytes)?;
        let mut rows = Rows::default();
        for pair in 0..pairs {
            rows.pair(&mut bare, &mut ours, pair % 2 == 0)?;
        }
        rows.print(&kind, &ours);
        bare.end()?;
        ours.end()?;
    }
    Ok(())
}

/// Seconds and ratios.
#[derive(Default)]
struct Rows {
    dumps: [Vec<f64>; 3],
    restores: [Vec<f64>; 3],
}

impl Rows {
    /// Whoever is second finds the disk busier, and the memory warmer.
    fn pair(&mut self, bare: &mut Bare, ours: &mut Ours, bare_first: bool) -> Result<()> {
        let add = |rows: &mut [Vec<f64>; 3], bare: f64, ours: f64| {
            for (row, value) in rows.iter_mut().zip([bare, ours, ours / bare]) {
                row.push(value);
            }
        };
        if bare_first {
            let dumped = bare.dump()?;
            add(&mut self.dumps, dumped, ours.dump()?);
            let restored = bare.restore()?;
            add(&mut self.restores, restored, ours.restore()?);
        } else {
            let dumped = ours.dump()?;
            add(&mut self.dumps, bare.dump()?, dumped);
            let restored = ours.restore()?;
            add(&mut self.restores, bare.restore()?, restored);
        }
        Ok(())
    }

    fn print(&mut self, kind: &str, ours: &Ours) {
        for (what, rows) in [("dump", &mut self.dumps), ("restore", &mut self.restores)] {
            let [bare, of_ours, ratio] = rows;
            println!(
                "{kind:>10} {what:8} bare {} s, ours {} s, ratio {}",
                spread(bare, 2),
                spread(of_ours, 2),
                spread(ratio, 2)
            );
        }
        println!(
            "{kind:>10} the archive has {} MB; our processes' largest memory: dump {} MB, restore {} MB",
            ours.archive >> 20,
            ours.dumping,
            ours.thawing
        );
    }
}

/// A process of root's, dumped by root's CRIU.
struct Bare<'h> {
    host: &'h Host,
    job: Job<'h>,
    child: Option<Child>,
    /// As the host counts.
    pid: String,
}

impl<'h> Bare<'h> {
    fn start(host: &'h Host, kind: &str, megabytes: u32) -> Result<Self> {
        let job = Job::new(host, User::Root, &format!("bare-{kind}"), kind, megabytes)?;
        let child = job.start(&["sh", "-c", ALONE], OUTSIDE)?;
        let found = measured::processes_below(&child, "python3");
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

    fn dump(&mut self) -> Result<f64> {
        let script = format!(
            "rm -rf images && mkdir images && {{ criu dump -t {} -D images -o dump.log || \
             {{ grep Error images/dump.log >&2; exit 1; }}; }} && sync images/* images",
            self.pid
        );
        let mut command = self.host.command(User::Root, &self.job.dir)?;
        let seconds = measured::timed(command.args(["sh", "-c", &script]))?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(seconds)
    }

    fn restore(&mut self) -> Result<f64> {
        let before = self.job.beat(OUTSIDE);
        let begun = Instant::now();
        let mut command = self.host.command(User::Root, &self.job.dir)?;
        let words = "criu restore -d -D images -o restore.log";
        let mut criu = command.args(words.split(' ')).spawn()?;
        self.job.wait_thawed(OUTSIDE, &before, &mut criu)?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(criu.wait()?.success(), "criu restore failed");
        Ok(seconds)
    }

    fn end(self) -> Result<()> {
        let words = [
            "sh",
            "-c",
            &format!("kill -9 {} && rm -rf images", self.pid),
        ];
        self.host.run(User::Root, &self.job.dir, &words).map(drop)
    }
}

/// The same under `criu-starter`, an ordinary user's.
struct Ours<'h> {
    job: Job<'h>,
    child: Child,
    archive: u64,
    /// The largest memory of our processes in either, in MB.
    dumping: u64,
    thawing: u64,
}

impl<'h> Ours<'h> {
    fn start(host: &'h Host, kind: &str, megabytes: u32) -> Result<Self> {
        let job = Job::new(host, User::Pilot, &format!("ours-{kind}"), kind, megabytes)?;
        let child = job.start(&[STARTER, "run", "--"], INSIDE)?;
        Ok(Self {
            job,
            child,
            archive: 0,
            dumping: 0,
            thawing: 0,
        })
    }

    fn dump(&mut self) -> Result<f64> {
        let pids = measured::processes_below(&self.child, "criu-starter");
        let supervisor = *pids.first().context("no supervisor")?;
        let mut peak = Peak::default();
        let begun = Instant::now();
        kill(Pid::from_raw(supervisor), Signal::SIGTERM)?;
        let code = measured::wait_end(&mut self.child, || peak.look(&pids))?;
        let seconds = begun.elapsed().as_secs_f64();
        let said = || fs::read_to_string(self.job.path("../err")).unwrap_or_default();
        ensure!(code == Some(FROZEN), "it ended with {code:?}: {}", said());
        self.archive = fs::metadata(self.job.path("checkpoint.criu"))?.len();
        self.dumping = self.dumping.max(peak.megabytes());
        Ok(seconds)
    }

    fn restore(&mut self) -> Result<f64> {
        let begun = Instant::now();
        self.child = self.job.start(&[STARTER, "run", "--"], INSIDE)?;
        // What is there at first came out of the image.
        let before = self.job.beat(INSIDE);
        self.job.wait_thawed(INSIDE, &before, &mut self.child)?;
        let seconds = begun.elapsed().as_secs_f64();
        let mut peak = Peak::default();
        peak.look(&measured::processes_below(&self.child, "criu-starter"));
        self.thawing = self.thawing.max(peak.megabytes());
        Ok(seconds)
    }

    fn end(mut self) -> Result<()> {
        let pids = measured::processes_below(&self.child, "criu-starter");
        kill(
            Pid::from_raw(*pids.first().context("no supervisor")?),
            Signal::SIGKILL,
        )?;
        self.child.wait()?;
        let archive = self.job.path("checkpoint.criu");
        if archive.exists() {
            fs::remove_file(archive)?;
        }
        Ok(())
    }
}
