//! The command line of `criu-starter`.

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::exit_code::{self, ExitCode};
use crate::init::Exit;
use crate::job::Job;
use crate::supervise::{self, End, StartFailed};
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
    #[command(after_help = exit_code::HELP)]
    Run {
        /// The job and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print the version of the CRIU that `run` would use
    CriuVersion,
}

/// Parses the command line, runs, and ends as the job did.
pub fn main() -> std::process::ExitCode {
    let command = match Cli::parse().command {
        Command::Run { command } => command,
        Command::CriuVersion => return criu_version(),
    };
    log::begin();
    let end = Job::from_environment(command).and_then(|job| {
        if job.wants_criu() {
            supervise::run(&job)
        } else {
            Err(supervise::straight_through(&job.command))
        }
    });
    match end {
        Ok(End::Job(Exit::Code(code))) => std::process::exit(code),
        Ok(End::Job(Exit::Signal(number))) => match Signal::try_from(number) {
            Ok(signal) => sys::die_of(signal),
            // A real-time signal, which `nix` has no name for.
            Err(_) => std::process::exit(128 + number),
        },
        Ok(End::Ours(code)) => code.into(),
        Err(error) => {
            eprintln!("criu-starter: {error:#}");
            match error.downcast_ref::<StartFailed>() {
                Some(failed) => std::process::exit(failed.code),
                None => ExitCode::Failed.into(),
            }
        }
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
