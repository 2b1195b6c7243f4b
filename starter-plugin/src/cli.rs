//! The command line of `criu-starter`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use file_transfer_plugin::manifest::Codec;
use nix::sys::signal::Signal;

use crate::exit_code::{self, ExitCode};
use crate::init::Exit;
use crate::job::Job;
use crate::prepare::prepare;
use crate::running::{End, StartFailed};
use crate::supervise::Unprotected;
use crate::{by_hand, keeper, log, period, supervise, sys};

const EXAMPLES: &str = "\
Examples:
  A job that survives the loss of its slot, in a submit file:
    executable = criu-starter
    arguments  = run -- ./simulate input.dat
    transfer_input_files = simulate, input.dat
    +WantCRIU  = true
    (and the lines that `criu-pilot configure submit` prints)

  By hand: run, send it TERM, and go on elsewhere with the one file it leaves:
    cd D1 && criu-starter run -- ./simulate input.dat
    mv D1/checkpoint.criu D2 && cd D2 && criu-starter run -- ./simulate input.dat

  The same by a store, which `criu-transfer serve` is:
    cd D1 && criu-starter run --store criu://ap.example.org/mine -- ./simulate input.dat
    cd D2 && criu-starter run --store criu://ap.example.org/mine -- ./simulate input.dat

  An image now and then, one at once, and what would prevent it:
    criu-starter run --every 10m -- ./simulate input.dat
    criu-starter dump --keep-running D1
    criu-starter preflight PID";

/// Runs a job so that it can be frozen and thawed with nothing but its own user
#[derive(Debug, Parser)]
#[command(name = "criu-starter", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a job, from ./checkpoint.criu if there is one
    ///
    /// The job sees this directory as /srv. On the signal by which HTCondor takes
    /// a slot back (TERM, or what the job's ad names) it is frozen into
    /// ./checkpoint.criu. A job whose ad lacks `WantCRIU = true` is run as it is.
    ///
    /// Standard input is kept when it is a file; from a pipe or a terminal the job
    /// reads an end of file.
    ///
    /// A thawed job's environment is that of its first start. Where it needs the
    /// present values (_CONDOR_*, TMPDIR and the like; chirp's port among them), they are
    /// in /srv/.criu/environment, in the shell's words.
    #[command(after_help = exit_code::HELP)]
    Run {
        #[command(flatten)]
        images: Images,
        /// Hide newer instructions from the job, so that its images fit more machines: x86-64-v2, x86-64-v3 or auto
        #[arg(long, value_name = "LEVEL")]
        baseline: Option<String>,
        /// The job and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Go on from ./checkpoint.criu, and fail if there is none
    #[command(after_help = exit_code::HELP)]
    Restore {
        #[command(flatten)]
        images: Images,
    },
    /// Freeze the job that `run` or `restore` has in a directory
    ///
    /// Its ./checkpoint.criu is complete when this ends.
    Dump {
        /// Let the job run on
        #[arg(long)]
        keep_running: bool,
        /// Where it was started; a process of the job or its supervisor will do
        #[arg(default_value = ".", value_name = "DIRECTORY|PID")]
        job: OsString,
    },
    /// Say what would prevent a process and its children from being frozen
    ///
    /// Ends with 0 where nothing does, with 1 where something may. A job of ours is
    /// looked at from its inside, with the process numbers of its own; of any
    /// other process what /proc shows to this user.
    Preflight {
        /// The process; of a job of ours any, or its supervisor
        pid: i32,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// The starter's prepare-job hook: put `run` before a job with WantCRIU
    ///
    /// Reads the job's ad and prints what is to be changed in it; nothing for a
    /// job without `WantCRIU = true`. `criu-pilot configure ep` prints the lines
    /// of HTCondor's configuration that name it.
    Prepare {
        /// The slot's own hook, which is run before with the same ad
        #[arg(long, value_name = "HOOK")]
        then: Option<PathBuf>,
    },
    /// Print the version of the CRIU that `run` would use
    CriuVersion {
        /// All that it could use, the newest first
        #[arg(long)]
        all: bool,
    },
}

/// What `run` and `restore` share.
#[derive(Debug, Args)]
struct Images {
    /// Take an image every so often while the job runs: seconds, or 10m, or 1h30m
    ///
    /// In HTCondor it is the job's ad that says so: `+CRIUInterval = "10m"`.
    #[arg(long, value_name = "INTERVAL", value_parser = period::parse)]
    every: Option<Duration>,
    /// Use the CRIU of that version
    ///
    /// Without it the one that the slot's ad names is used: the newest that the
    /// probe has frozen and thawed a job with; by hand the newest.
    #[arg(long, value_name = "VERSION")]
    criu: Option<String>,
    /// How images are compressed: zstd, or gzip where no zstd is at hand to read them
    #[arg(long, value_name = "CODEC", default_value = "zstd")]
    codec: Codec,
    /// Pack the last image well, too, for one that goes over a network
    ///
    /// Without it, by hand, it is there as soon as the disk can take it. In
    /// HTCondor the way home decides.
    #[arg(long)]
    small: bool,
    /// Send images to a store, criu://HOST[:PORT]/JOB, and go on from its newest
    ///
    /// An image that is there is not left here. In HTCondor it is the job's ad that
    /// says so: `+CRIUStore`.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Run the job as root, which you must be
    ///
    /// By hand only. Then memfds, System V objects and programs with a seccomp
    /// filter of their own can be frozen, too; the image is for root alone.
    #[arg(long)]
    as_root: bool,
}

/// The whole of `criu-starter`.
pub fn main() -> std::process::ExitCode {
    if let Some(code) = crate::criu::called_by_criu() {
        return code;
    }
    match Cli::parse().command {
        Command::Run {
            images,
            baseline,
            command,
        } => supervised(images, || {
            let job = Job::from_environment(command)?;
            Ok(Job { baseline, ..job })
        }),
        Command::Restore { images } => supervised(images, Job::to_be_restored),
        Command::Dump { keep_running, job } => by_hand::dump(&job, keep_running),
        Command::Preflight { pid, json } => by_hand::preflight(pid, json),
        Command::Prepare { then } => prepare(then.as_deref()),
        Command::CriuVersion { all } => criu_version(all),
    }
}

/// A job's supervisor, to the job's end.
fn supervised(images: Images, job: impl FnOnce() -> Result<Job>) -> std::process::ExitCode {
    log::begin();
    let every = images.every.filter(|every| !every.is_zero());
    let Images {
        criu,
        codec,
        small,
        store,
        as_root,
        ..
    } = images;
    let with = |job| Job {
        every,
        criu,
        codec,
        small,
        store,
        as_root,
        ..job
    };
    let error = match job().map(with) {
        Err(error) => error,
        Ok(job) if !job.wants_criu() => supervise::straight_through(&job.command),
        Ok(job) => match kept(&job) {
            Ok(end) => return finish(end),
            Err(error) if error.is::<Unprotected>() => {
                tracing::warn!("{error:#}");
                supervise::straight_through(&job.command)
            }
            Err(error) => error,
        },
    };
    eprintln!("criu-starter: {error:#}");
    match error.downcast_ref::<StartFailed>() {
        Some(failed) => std::process::exit(failed.code),
        None => ExitCode::Failed.into(),
    }
}

/// Supervised, and with a keeper. What comes after this the keeper takes for the job's end.
fn kept(job: &Job) -> Result<End> {
    let (ended, farewell) = match keeper::keep(job) {
        Ok(farewell) => (supervise::run(job), Some(farewell)),
        Err(error) => (Err(error), None),
    };
    // What went wrong is ours and not the job's, unless it is no program or has not begun.
    if let Err(error) = &ended
        && !error.is::<StartFailed>()
        && !error.is::<Unprotected>()
    {
        supervise::give_the_job_back(job, &format!("{error:#}"));
    }
    if let Some(farewell) = farewell {
        farewell.say();
    }
    ended
}

/// Ends as the job did.
fn finish(end: End) -> std::process::ExitCode {
    match end {
        End::Job(Exit::Code(code)) => std::process::exit(code),
        End::Job(Exit::Signal(number)) => match Signal::try_from(number) {
            Ok(signal) => sys::die_of(signal),
            // A real-time signal, which `nix` has no name for.
            Err(_) => std::process::exit(128 + number),
        },
        End::Ours(code) => code.into(),
        End::Checkpoint(code) => std::process::exit(code),
    }
}

fn criu_version(all: bool) -> std::process::ExitCode {
    match supervise::all_criu() {
        Ok(found) => {
            for criu in found.iter().take(if all { usize::MAX } else { 1 }) {
                println!("{}", criu.version());
            }
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("criu-starter: {error:#}");
            ExitCode::Failed.into()
        }
    }
}
