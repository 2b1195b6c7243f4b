//! The command line of `criu-pilot`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{advertise, configure, probe, specimen};

const EXAMPLES: &str = "\
Examples:
  criu-pilot probe                      can this node freeze and thaw a job, as slot attributes
  criu-pilot configure ep >> /etc/condor/config.d/60-criu.conf
  criu-pilot configure submit           the lines that a job needs";

/// What this worker node can do for jobs that survive the loss of their slot
#[derive(Debug, Parser)]
#[command(name = "criu-pilot", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Freeze and thaw a tiny job here and print the slot's attributes
    ///
    /// Exits 0 also when the node cannot: then HasCRIU is false and CRIUReason
    /// says why, in words that its admin can act on.
    Probe {
        /// The criu-starter to try; the one beside criu-pilot if not given
        #[arg(long, value_name = "PATH")]
        starter: Option<PathBuf>,
        /// Where to try it, at most 20 MB; TMPDIR or /tmp if not given. Best is
        /// where jobs run: HTCondor's EXECUTE
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Print JSON instead of ClassAd attributes
        #[arg(long)]
        json: bool,
    },
    /// Print HTCondor configuration, commented
    Configure {
        /// What to configure
        #[command(subcommand)]
        place: Place,
    },
    #[command(hide = true, name = specimen::SUBCOMMAND)]
    Specimen { arguments: Vec<String> },
    #[command(hide = true, name = probe::RUN)]
    Starter {
        parent: u32,
        starter: PathBuf,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Place {
    /// An execution point: what its slots say of themselves
    Ep {
        /// Where criu-pilot will be on that node; here if not given
        #[arg(long, value_name = "PATH")]
        pilot: Option<PathBuf>,
    },
    /// A job's submit file
    Submit,
}

/// Parses the command line and does it.
pub fn main() -> std::process::ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("criu-pilot: {error:#}");
            1.into()
        }
    }
}

fn run(command: Command) -> Result<std::process::ExitCode> {
    match command {
        Command::Probe { starter, dir, json } => {
            let ad = advertise::slot_ad(&probe::probe(&probe::Options { starter, dir })?);
            if json {
                println!("{}", ad.to_json());
            } else {
                // The dash ends the ad, as STARTD_CRON has it.
                println!("{}-", ad.to_old());
            }
        }
        Command::Configure { place } => {
            let text = match place {
                Place::Ep { pilot: Some(path) } => configure::execution_point(&path),
                Place::Ep { pilot: None } => configure::execution_point(
                    &env::current_exe().context("cannot tell where criu-pilot is")?,
                ),
                Place::Submit => configure::submit(),
            };
            print!("{text}");
        }
        Command::Specimen { arguments } => {
            let code = specimen::run(&arguments)?;
            return Ok(u8::try_from(code).unwrap_or(1).into());
        }
        Command::Starter {
            parent,
            starter,
            arguments,
        } => return Err(probe::become_starter(parent, &starter, &arguments)),
    }
    Ok(0.into())
}
