//! The command line of `criu-pilot`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};
use file_transfer_plugin::inspect;

use crate::{
    advertise, configure, explain, glidein, pages, probe, report, specimen, status, supervise,
    whereabouts,
};

const EXAMPLES: &str = "\
Examples:
  criu-pilot probe                      can this node freeze and thaw a job, as slot attributes
  criu-pilot configure ep > /etc/condor/config.d/60-criu.conf
  criu-pilot configure ap > /etc/condor/config.d/60-criu.conf      on an access point
  criu-pilot configure submit           the lines that a job needs without that
  criu-pilot configure --check          what of this node's configuration is in the way
  criu-pilot status                     what your jobs have saved, and what they risk
  criu-pilot explain 12.0               what stands against freezing that job
  criu-pilot where 12.0                 which slots can go on with that job, and why not the others
  criu-pilot report --html jobs.html *.log      what became of the jobs' time
  criu-pilot inspect checkpoint.criu    what is in an image
  criu-pilot supervise -- condor_master -f      as a pilot, so that jobs leave in time
  criu-pilot glidein glidein_config client      as glideinWMS calls a custom script";

const INSPECT_EXAMPLES: &str = "\
Examples:
  condor_transfer_data 12.0; criu-pilot inspect checkpoint.criu
  criu-pilot inspect --json checkpoint.criu | jq .found.processes
  criu-pilot inspect /var/lib/condor/spool/12/0/cluster12.proc0.subproc0/checkpoint.criu";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  criu-pilot completions bash > /usr/share/bash-completion/completions/criu-pilot
  criu-pilot completions zsh > /usr/share/zsh/vendor-completions/_criu-pilot";

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
        /// The site's name: criu-exceptions.csv (site,block_percent,reason) beside
        /// criu-pilot can switch CRIU off for it
        #[arg(long, value_name = "NAME")]
        site: Option<String>,
        /// Print JSON instead of ClassAd attributes
        #[arg(long)]
        json: bool,
    },
    /// Print HTCondor configuration, commented, or check the one that is there
    #[command(arg_required_else_help = true)]
    Configure {
        /// Say what of a startd's configuration would defeat a checkpoint, and why:
        /// of FILE, written by `condor_config_val -dump`, or of this node. Exits 1 if
        /// there is something
        #[arg(long, value_name = "FILE")]
        check: Option<Option<PathBuf>>,
        /// What to configure
        #[command(subcommand)]
        place: Option<Place>,
    },
    /// Publish this node's abilities as a glideinWMS custom script
    ///
    /// List criu-pilot in the frontend with after_entry="True", executable="True",
    /// period="1800" and prefix="NOPREFIX", after additional-htcondor-config;
    /// `criu-pilot GLIDEIN_CONFIG ID` is the same, as glideinWMS calls it;
    /// criu-starter, a CRIU and, to switch it off for sites, criu-exceptions.csv
    /// (site,block_percent,reason) go beside it. Exits 0 also when the node cannot.
    Glidein {
        /// The glidein's configuration, as glideinWMS names it
        config: PathBuf,
        /// The list of files that named this script
        #[arg(default_value = "client")]
        id: String,
        /// The criu-starter to try; the one beside criu-pilot if not given
        #[arg(long, value_name = "PATH")]
        starter: Option<PathBuf>,
    },
    /// Each job with WantCRIU: its last image, work at risk, evictions survived, hours saved
    Status(status::Options),
    /// What stands against freezing a job, what failed last, and what to do
    Explain(explain::Sources),
    /// Run condor_master, and let the jobs out before the pilot ends, the largest first
    ///
    /// Stands where the site's signal arrives. On TERM, INT or QUIT the jobs with
    /// WantCRIU are asked to leave by condor_vacate; when they are out, or the grace is
    /// over, the daemons are told to end. The same is done before GLIDEIN_ToDie, without
    /// ending anything. A second signal ends the waiting. Exits as the command does.
    Supervise(supervise::Options),
    /// How many slots can go on with a job, and what refuses it on the others
    Where(whereabouts::Sources),
    /// What became of the jobs' time: finished, saved, lost, spent on checkpoints
    ///
    /// Every second of computing is counted once. Saved is what was computed on a
    /// slot that was lost and that an image kept; lost is what has to be done again.
    Report(report::Options),
    /// What is in an image: processes, memory by kind, files, libraries, what it needs of a slot
    ///
    /// Only CRIU's description of the job is read and verified; its memory is not, and
    /// nothing is unpacked.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// The archive, a job's checkpoint.criu
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the manual page, or write those of all subcommands into a directory
    Man {
        /// Where to write criu-pilot.1 and the others
        dir: Option<PathBuf>,
    },
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which
        shell: clap_complete::Shell,
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
    /// An execution point: what its slots say of themselves, and when they let go
    Ep {
        /// Where criu-pilot will be on that node; here if not given
        #[arg(long, value_name = "PATH")]
        pilot: Option<PathBuf>,
    },
    /// A glidein, where criu-pilot is no custom script of it
    Glidein {
        /// Where criu-pilot will be on that node; here if not given
        #[arg(long, value_name = "PATH")]
        pilot: Option<PathBuf>,
    },
    /// OSPool's container execution point: a Dockerfile for an image made from it
    Container,
    /// An access point: one line in a job is then enough
    Ap {
        /// Where jobs' images go, unless a job says otherwise: criu://HOST[:PORT] of a `criu-transfer serve`
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
    /// A job's submit file
    Submit {
        /// Where its images go: criu://HOST[:PORT] of a `criu-transfer serve`
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
}

/// Parses the command line and does it.
pub fn main() -> std::process::ExitCode {
    match run(Cli::parse_from(arguments(env::args_os().collect())).command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("criu-pilot: {error:#}");
            1.into()
        }
    }
}

/// glideinWMS calls a custom script with the glidein's configuration and an id,
/// and nothing that could say which subcommand this is.
fn arguments(mut given: Vec<OsString>) -> Vec<OsString> {
    let config = given.get(1).map(Path::new);
    if config.is_some_and(|path| path.file_name() == Some(OsStr::new("glidein_config"))) {
        given.insert(1, "glidein".into());
    }
    given
}

fn run(command: Command) -> Result<std::process::ExitCode> {
    match command {
        Command::Probe {
            starter,
            dir,
            site,
            json,
        } => {
            let options = probe::Options { starter, dir, site };
            let ad = advertise::slot_ad(&probe::probe(&options)?);
            if json {
                say(&format!("{}\n", ad.to_json()))?;
            } else {
                // The dash ends the ad, as STARTD_CRON has it.
                say(&format!("{}-\n", ad.to_old()))?;
            }
        }
        Command::Configure {
            check: Some(file),
            place: None,
        } => {
            let dump = configure::read_configuration(file.as_deref())?;
            let found = configure::check(&dump);
            for sentence in &found {
                println!("- {sentence}");
            }
            if !found.is_empty() {
                return Ok(1.into());
            }
            println!("nothing of it defeats a checkpoint");
        }
        Command::Configure {
            check: None,
            place: Some(place),
        } => say(&configuration(place)?)?,
        Command::Configure { .. } => {
            bail!("either --check or one of ep, glidein, container, ap and submit")
        }
        Command::Glidein {
            config,
            id,
            starter,
        } => {
            // The glidein is not to suffer for what only jobs with WantCRIU need.
            if let Err(error) = glidein::run(&config, &id, starter) {
                eprintln!("criu-pilot: {error:#}");
            }
        }
        Command::Supervise(options) => return supervise::supervise(&options),
        Command::Status(options) => status::show(&options)?,
        Command::Explain(sources) => {
            let (text, good) = explain::answer(&sources)?;
            say(&text)?;
            return Ok(u8::from(!good).into());
        }
        Command::Where(sources) => say(&whereabouts::answer(&sources)?)?,
        Command::Report(options) => say(&report::report(&options)?)?,
        Command::Inspect { file, json } => {
            let (archive, found) = inspect::inspect(&file)?;
            say(&if json {
                found.json(&archive) + "\n"
            } else {
                found.text(&archive)
            })?;
        }
        Command::Man { dir: None } => say(&pages::manual(Cli::command())?)?,
        Command::Man { dir: Some(dir) } => pages::manuals(Cli::command(), &dir)?,
        Command::Completions { shell } => say(&pages::completions(Cli::command(), shell)?)?,
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

/// To a reader who may have heard enough.
fn say(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn configuration(place: Place) -> Result<String> {
    let here = |pilot: Option<PathBuf>| match pilot {
        Some(path) => Ok(path),
        None => env::current_exe().context("cannot tell where criu-pilot is"),
    };
    Ok(match place {
        Place::Ep { pilot } => configure::execution_point(&here(pilot)?),
        Place::Glidein { pilot } => configure::glidein(&here(pilot)?),
        Place::Container => configure::container(),
        Place::Ap { store } => configure::access_point(store.as_deref()),
        Place::Submit { store } => configure::submit(store.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_scripts_arguments_are_understood() {
        let given = |words: &str| arguments(words.split(' ').map(Into::into).collect());
        for words in [
            "criu-pilot glidein_config client",
            "criu-pilot /a/glidein_config main",
        ] {
            let cli = Cli::try_parse_from(given(words)).unwrap();
            assert!(matches!(cli.command, Command::Glidein { .. }), "{words}");
        }
        assert_eq!(given("criu-pilot probe").len(), 2);
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
