//! The `pool` command.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::host::{Host, Role};
use crate::pool::{self, Pool};
use crate::roots::HtCondor;
use crate::spec::{Ep, Spec};
use crate::state;
use crate::users::User;

/// Names the pool for commands that `pool run` starts.
const POOL_VARIABLE: &str = "CRIU_POOL";

const EXAMPLES: &str = "\
Examples:
  pool up                         one execution point as root, one as a glidein
  pool up --htcondor 23.9 --ep glidein --ep nocriu
  pool status
  pool submit job.sub             as alice; files that it names go along
  pool exec ap condor_q           as root; --user alice for her
  pool run -- pool status         a pool for one command only
  pool shell                      alice on the access point
  pool down";

/// Real pools of HTCondor on this machine: hosts are namespaces, and nothing of them is left when they are down.
#[derive(Parser)]
#[command(name = "pool", version, after_help = EXAMPLES)]
struct Cli {
    /// Which pool.
    #[arg(long, global = true, default_value = "pool", env = POOL_VARIABLE)]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring a pool up; it lives until `down`.
    Up {
        #[command(flatten)]
        what: What,
    },
    /// Bring a pool up for as long as a command on this machine runs; CRIU_POOL in its environment names the pool.
    Run {
        #[command(flatten)]
        what: What,
        /// The command.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// End a pool and whatever is left of it.
    Down,
    /// Run a command on a host and end with its exit code.
    Exec {
        /// ap, ep1, ep2, ...
        host: String,
        /// As whom.
        #[arg(long, value_enum, default_value = "root")]
        user: UserName,
        /// The command.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Submit a job as alice.
    Submit {
        /// A submit description; the executable and the input files that it names beside itself go along.
        file: PathBuf,
    },
    /// A shell on a host.
    Shell {
        /// ap, ep1, ep2, ...
        #[arg(default_value = "ap")]
        host: String,
        /// As whom.
        #[arg(long, value_enum, default_value = "alice")]
        user: UserName,
    },
    /// What is up, its hosts and its slots.
    Status,
}

/// What a pool is made of.
#[derive(Args)]
struct What {
    /// HTCondor's version: 23.9 or 25.
    #[arg(long, default_value = "25")]
    htcondor: HtCondor,
    /// An execution point; may be given several times.
    #[arg(long = "ep", value_enum, default_values = ["root", "glidein"])]
    eps: Vec<EpKind>,
    /// Static slots on each execution point.
    #[arg(long, default_value_t = 1)]
    slots: u32,
    /// A program to put on each execution point, where HTCondor's own lie (a glidein: its main directory).
    #[arg(long, value_name = "FILE")]
    install: Vec<PathBuf>,
    /// A line of HTCondor configuration for each execution point.
    #[arg(long, value_name = "LINE")]
    config: Vec<String>,
}

impl What {
    fn spec(&self) -> Result<Spec> {
        let mut spec = Spec::new(self.htcondor);
        for kind in &self.eps {
            let mut ep = match kind {
                EpKind::Root => Ep::root(),
                EpKind::Glidein => Ep::glidein(),
                EpKind::Nocriu => Ep::root().without_criu(),
            };
            for from in &self.install {
                let name = from
                    .file_name()
                    .with_context(|| format!("{} has no file name", from.display()))?;
                ep = ep.install(from, name);
            }
            spec = spec.ep(self.config.iter().fold(ep.slots(self.slots), Ep::config));
        }
        Ok(spec)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum EpKind {
    /// Daemons as root.
    Root,
    /// Daemons as an ordinary user without capabilities.
    Glidein,
    /// As root, without CRIU.
    Nocriu,
}

#[derive(Clone, Copy, ValueEnum)]
enum UserName {
    Root,
    Alice,
    Bob,
    Pilot,
}

impl From<UserName> for User {
    fn from(name: UserName) -> Self {
        match name {
            UserName::Root => Self::Root,
            UserName::Alice => Self::Alice,
            UserName::Bob => Self::Bob,
            UserName::Pilot => Self::Pilot,
        }
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pool: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("it needs root, for mounts and network namespaces");
    }
    match &cli.action {
        Action::Up { what } => {
            let start = Instant::now();
            let pool = Pool::up_detached(&cli.name, &what.spec()?)?;
            let took = start.elapsed().as_secs_f64();
            say(&format!(
                "pool {} is up after {took:.1} s\n{}",
                pool.name,
                hosts(&pool)
            ));
        }
        Action::Run { what, command } => return run_with_pool(what, command),
        Action::Down => {
            let outcome = if pool::down(&cli.name)? {
                "is down"
            } else {
                "was not up"
            };
            say(&format!("pool {} {outcome}\n", cli.name));
        }
        Action::Exec {
            host,
            user,
            command,
        } => {
            let pool = Pool::attach(&cli.name)?;
            return Err(enter(pool.host(host)?, (*user).into(), "/", command));
        }
        Action::Submit { file } => say(&submit(&Pool::attach(&cli.name)?, file)?),
        Action::Shell { host, user } => {
            let pool = Pool::attach(&cli.name)?;
            let user = User::from(*user);
            return Err(enter(
                pool.host(host)?,
                user,
                &user.home(),
                &["bash".to_owned()],
            ));
        }
        Action::Status => status()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A command on this machine, with a pool for as long as it runs.
fn run_with_pool(what: &What, command: &[String]) -> Result<ExitCode> {
    let pool = Pool::up(&what.spec()?)?;
    let (program, args) = command.split_first().context("no command")?;
    let ended = Command::new(program)
        .args(args)
        .env(POOL_VARIABLE, &pool.name)
        .status();
    pool.down()?;
    let code = ended.with_context(|| format!("run {program}"))?.code();
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

fn status() -> Result<()> {
    for name in state::names(&state::pools_dir())? {
        match Pool::attach(&name) {
            Ok(pool) => {
                let slots = pool.ap().run(User::Root, "/", &["condor_status"])?;
                say(&format!(
                    "pool {name}: HTCondor {}\n{}{slots}",
                    pool.version(),
                    hosts(&pool)
                ));
            }
            Err(error) => say(&format!("pool {name}: {error:#}\n")),
        }
    }
    Ok(())
}

/// Prints what was asked for; whoever has stopped reading has enough.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn hosts(pool: &Pool) -> String {
    let line = |host: &Host| {
        let role = match host.role {
            Role::AccessPoint => "access point",
            Role::Root => "execution point, daemons as root",
            Role::Glidein => "execution point, a glidein",
        };
        format!("  {:5} {:12} {role}\n", host.name, host.address)
    };
    pool.hosts().iter().map(line).collect()
}

/// Becomes a command on a host; returns only with the reason why not.
fn enter(host: &Host, user: User, dir: &str, command: &[String]) -> anyhow::Error {
    match host.command(user, dir) {
        Ok(mut enter) => anyhow::Error::new(enter.args(command).stdin(Stdio::inherit()).exec())
            .context("run nsenter"),
        Err(error) => error,
    }
}

/// Copies a submit description and what it names to a new directory on the access point, and submits it there.
fn submit(pool: &Pool, file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let beside = file.parent().unwrap_or(Path::new(""));
    let dir = pool.job_dir(User::Alice)?;
    for name in named_files(&text) {
        let from = beside.join(name);
        if from.is_file() {
            let bytes = std::fs::read(&from).with_context(|| format!("read {}", from.display()))?;
            pool.ap()
                .write(format!("{dir}/{name}"), bytes, User::Alice, 0o755)?;
        }
    }
    pool.ap()
        .write(format!("{dir}/job.sub"), text, User::Alice, 0o644)?;
    let printed = pool
        .ap()
        .run(User::Alice, &dir, &["condor_submit", "job.sub"])?;
    Ok(format!("{printed}in {dir} on the access point\n"))
}

/// The relative paths in a submit description's executable and input files.
fn named_files(text: &str) -> Vec<&str> {
    let mut files = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let key = key.trim().to_ascii_lowercase();
        if ["executable", "transfer_input_files", "input"].contains(&key.as_str()) {
            files.extend(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.starts_with('/') && !name.contains("..")),
            );
        }
    }
    files
}
