//! The command line of `criu-starter`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::exit_code::{self, ExitCode};
use crate::init::Exit;
use crate::job::Job;
use crate::running::{End, StartFailed};
use crate::supervise;
use crate::{log, sys};

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
    mv D1/checkpoint.criu D2 && cd D2 && criu-starter run -- ./simulate input.dat";

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
    #[command(after_help = exit_code::HELP)]
    Run {
        /// Take an image every so often while the job runs, in seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        every: Option<Duration>,
        /// The job and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print the version of the CRIU that `run` would use
    CriuVersion,
}

/// The whole of `criu-starter`.
pub fn main() -> std::process::ExitCode {
    if let Some(code) = crate::criu::called_by_criu() {
        return code;
    }
    let (every, command) = match Cli::parse().command {
        Command::Run { every, command } => (every, command),
        Command::CriuVersion => return criu_version(),
    };
    log::begin();
    let job = Job::from_environment(command).map(|job| Job { every, ..job });
    let error = match job {
        Err(error) => error,
        Ok(job) if !job.wants_criu() => supervise::straight_through(&job.command),
        Ok(job) => match supervise::run(&job) {
            Ok(end) => return finish(end),
            Err(error) => {
                // What went wrong is ours and not the job's, unless it is no program.
                if !error.is::<StartFailed>() {
                    supervise::give_the_job_back(&job, &format!("{error:#}"));
                }
                error
            }
        },
    };
    eprintln!("criu-starter: {error:#}");
    match error.downcast_ref::<StartFailed>() {
        Some(failed) => std::process::exit(failed.code),
        None => ExitCode::Failed.into(),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|every| !every.is_zero())
        .ok_or_else(|| "a number of seconds above 0 is expected".to_owned())
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
    }
}

fn criu_version() -> std::process::ExitCode {
    match supervise::find_criu() {
        Ok(criu) => {
            println!("{}", criu.version());
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("criu-starter: {error:#}");
            ExitCode::Failed.into()
        }
    }
}
