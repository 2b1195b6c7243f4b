//! The command line of `criu-transfer`.

mod gc;
mod progress;
mod remote;
mod serve;
mod unit;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::manifest::Limits;
use crate::monitor::Log;
use crate::plugin;
use crate::remote::Error;
use crate::unpack::Archive;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It was done.
    Done = 0,
    /// It could not be done; why is on stderr.
    Failed = 1,
    /// The command line was not understood. clap's own choice.
    Usage = 2,
    /// The job has no image in that store.
    NoImage = 4,
    /// It could not be done, but it may work a little later.
    Again = 11,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

const EXAMPLES: &str = "\
Examples:
  criu-transfer inspect checkpoint.criu
  criu-transfer inspect --json checkpoint.criu | jq .head.fingerprint
  criu-transfer verify checkpoint.criu && echo whole
  tar --zstd -tvf checkpoint.criu      (tar -tzvf one of gzip members)
  criu-transfer push checkpoint.criu criu://ap.example.org/12.0
  criu-transfer pull criu://ap.example.org/12.0 checkpoint.criu
  criu-transfer ls criu://ap.example.org/ --json | jq '.[].job'
  criu-transfer verify criu://ap.example.org/12.0

HTCondor runs it as a file-transfer plugin: FILETRANSFER_PLUGINS = $(FILETRANSFER_PLUGINS), /path/criu-transfer
  criu-transfer -classad
  criu-transfer -infile FILE -outfile FILE [-upload]

Exit codes:
  0   done
  1   could not be done
  2   wrong usage
  3   the results for HTCondor could not be written
  4   no image of that job in the store
  11  could not be done now, but may be a little later";

const SERVE_EXAMPLES: &str = "\
Examples:
  To try it, on one machine:
    criu-transfer serve --dir images --anonymous
    criu-transfer push checkpoint.criu 'criu://127.0.0.1/12.0?tls=no'
  For jobs that say use_oauth_services = scitokens, with the access point's own credmon:
    criu-transfer serve --dir /var/lib/criu-images --listen 0.0.0.0:9622 \\
        --certificate host.pem --key host.key --audience criu://ap.example.org \\
        --issuer https://ap.example.org=/etc/condor/scitokens.pem
  and in HTCondor's configuration:
    LOCAL_CREDMON_ISSUER         = https://ap.example.org
    LOCAL_CREDMON_TOKEN_AUDIENCE = criu://ap.example.org
    LOCAL_CREDMON_AUTHZ_TEMPLATE = storage.read:/{username} storage.modify:/{username}
  As a service, with the options that it is to have:
    criu-transfer serve --dir /var/lib/criu-images --tokens /etc/criu/tokens --print-unit";

/// Looks at the image of a frozen job, and moves it to a store and back.
#[derive(Debug, Parser)]
#[command(name = "criu-transfer", version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what an archive is: processes, memory, files; memory itself is not read
    Inspect {
        /// The archive
        file: PathBuf,
        /// Prints the manifest itself
        #[arg(long)]
        json: bool,
    },
    /// Reads all of an archive, here or in a store, and compares it with its manifest
    Verify {
        /// The archive, or criu://HOST[:PORT]/JOB[?digest=HEX]
        #[arg(value_name = "FILE|URL")]
        what: String,
        #[command(flatten)]
        terms: remote::Terms,
    },
    /// Sends an archive to a store: only what that lacks
    Push {
        /// The archive
        file: PathBuf,
        /// Begins while it is being written, by criu-starter, which says on standard input what is there
        #[arg(long)]
        along: bool,
        #[command(flatten)]
        way: remote::Way,
    },
    /// Gets a job's newest image, or the one that the URL names
    Pull {
        #[command(flatten)]
        way: remote::Way,
        /// Where it goes
        #[arg(default_value = "checkpoint.criu")]
        file: PathBuf,
    },
    /// Lists a job's images, or all of yours
    Ls {
        #[command(flatten)]
        way: remote::Way,
    },
    /// Removes an image, or all of a job's
    Rm {
        #[command(flatten)]
        way: remote::Way,
    },
    /// Serves the images of many jobs, on an access point
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<serve::Serve>),
    /// Removes what nobody will ask for again from a store's directory
    Gc(gc::Gc),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if plugin::is_meant(&arguments) {
        return as_plugin(&arguments);
    }
    let args = Args::parse();
    log(if matches!(args.command, Command::Serve(_)) {
        For::Service
    } else {
        For::Person
    });
    match run(&args) {
        Ok(code) => code.into(),
        Err(error) => {
            // If stderr is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "criu-transfer: {error:#}");
            let again = error
                .downcast_ref::<Error>()
                .is_some_and(Error::is_transient);
            let code = if again { Code::Again } else { Code::Failed };
            code.into()
        }
    }
}

/// What HTCondor's own arguments ask for.
fn as_plugin(arguments: &[OsString]) -> ExitCode {
    // Before any log: HTCondor reads stderr, too, and drops a plugin that says anything else.
    if arguments.iter().any(|argument| argument == "-classad") {
        return match plugin::describe(&mut io::stdout()) {
            Ok(()) => Code::Done.into(),
            Err(_) => Code::Failed.into(),
        };
    }
    log(For::HtCondor);
    let code = plugin::run(arguments, &plugin::Store::from_environment());
    ExitCode::from(code as u8)
}

/// Whose a log is.
#[derive(PartialEq)]
enum For {
    /// It is read by programs and says what is done.
    Service,
    /// He sees the result.
    Person,
    /// Its last 16 KB go into the starter's.
    HtCondor,
}

fn log(whose: For) {
    let usual = match whose {
        For::Service | For::HtCondor => "info",
        For::Person => "warn",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CRIU_TRANSFER_LOG")
        .unwrap_or_else(|_| usual.into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    if whose == For::Service {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
}

fn run(args: &Args) -> anyhow::Result<Code> {
    let mut out = io::stdout().lock();
    let found = |found| if found { Code::Done } else { Code::NoImage };
    let done = match &args.command {
        Command::Inspect { file, json } => inspect(file, *json, &mut out).map(|()| Code::Done),
        Command::Verify { what, terms } if what.contains("://") => {
            remote::verify_url(what, terms, &mut out).map(found)
        }
        Command::Verify { what, .. } => verify(what.as_ref(), &mut out).map(|()| Code::Done),
        Command::Push { file, along, way } => {
            remote::push(way, file, *along, &mut out).map(|()| Code::Done)
        }
        Command::Pull { way, file } => remote::pull(way, file, &mut out).map(found),
        Command::Ls { way } => remote::ls(way, &mut out).map(|()| Code::Done),
        Command::Rm { way } => remote::rm(way).map(|()| Code::Done),
        Command::Gc(args) => gc::gc(args, &mut out).map(|()| Code::Done),
        Command::Serve(args) => {
            drop(out);
            return serve::serve(args).map(|()| Code::Done);
        }
    };
    let flush = |code| {
        out.flush()
            .context("cannot write the result")
            .map(|()| code)
    };
    match done.and_then(flush) {
        // `criu-transfer inspect | head` has got what it wanted.
        Err(error) if is_closed_pipe(&error) => Ok(Code::Done),
        done => done,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn inspect(file: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        let archive = Archive::open(file, &Limits::default())?;
        serde_json::to_writer_pretty(&mut *out, archive.manifest())?;
        return Ok(writeln!(out)?);
    }
    let (archive, found) = crate::inspect::inspect(file)?;
    Ok(out.write_all(found.text(&archive).as_bytes())?)
}

fn verify(file: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let archive = Archive::open(file, &Limits::default())?;
    archive.verify(&Log)?;
    Ok(writeln!(
        out,
        "{} whole {}",
        archive.digest(),
        file.display()
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_help_has_examples_and_exit_codes() {
        let mut command = Args::command();
        command.clone().debug_assert();
        let help = command.render_help().to_string();
        assert!(help.contains("Examples:") && help.contains("Exit codes:"));
    }

    #[test]
    fn each_example_is_understood() {
        let examples = [EXAMPLES, SERVE_EXAMPLES].join("\n").replace("\\\n", " ");
        let mut understood = 0;
        for line in examples.lines().map(str::trim) {
            let command = line.split(['|', '&', '(']).next().unwrap();
            let words = command
                .split_whitespace()
                .map(|word| word.trim_matches('\''));
            // Not as HTCondor calls it: those words are not ours.
            if line.starts_with("criu-transfer ") && !line.starts_with("criu-transfer -") {
                let parsed = Args::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                understood += 1;
            }
        }
        assert_eq!(understood, 11);
    }
}
