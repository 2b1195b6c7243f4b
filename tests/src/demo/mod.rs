//! The demo: a computation is evicted twice and goes on elsewhere, from the step at which it was.
//!
//! | module | takes -> gives |
//! |---|---|
//! | [`sieve`] | a range -> progress, a count, and whether it is right: the job |
//! | [`stage`] | logs -> where the job is in its round |
//! | [`in_pool`] | a pool of HTCondor -> looks at the job there, and its eviction |
//! | [`no_pool`] | two directories -> the same with `criu-starter` alone |
//! | [`watch`] | looks -> evictions when they are due, and what they cost |
//! | [`screen`] | looks -> what a person sees |
//! | [`table`] | costs -> the table, and JSON |

pub mod sieve;

pub mod stage;

pub mod in_pool;

pub mod no_pool;

pub mod watch;

pub mod screen;

pub mod table;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::machine;
use crate::roots::HtCondor;
use in_pool::InPool;
use no_pool::NoPool;
use screen::Screen;
use sieve::Work;
use table::{Report, Total};
use watch::World;

const EXAMPLES: &str = "\
Examples:
  cargo demo                        a pool on this machine, as root; under 3 minutes
  cargo demo -- --htcondor 23.9     with the oldest HTCondor that is supported
  cargo demo -- --no-pool           no HTCondor and no root: freeze here, thaw there
  cargo demo -- --quick --json      a smaller sieve, the table as JSON

The first run also builds the programs and unpacks a Debian with HTCondor and CRIU, some minutes once.
It ends with 0 only if the job's result is right, it moved twice, and no step was lost. At the second eviction an older
node is free first, which the job does not match: it waits for one that can go on with it.";

/// A computation loses its slot twice and goes on elsewhere, from the step at which it was.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", version, after_help = EXAMPLES)]
struct Cli {
    /// HTCondor's version: 23.9 or 25.
    #[arg(long, default_value = "25", conflicts_with = "no_pool")]
    htcondor: HtCondor,
    /// Without HTCondor: criu-starter by hand, between two hosts made of namespaces.
    #[arg(long)]
    no_pool: bool,
    /// A computation of seconds instead of a minute.
    #[arg(long)]
    quick: bool,
    /// Print the final table as JSON.
    #[arg(long)]
    json: bool,
    /// Where to write a page with a picture of the job's life over its slots.
    #[arg(long, value_name = "FILE", conflicts_with = "no_pool")]
    html: Option<PathBuf>,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    // The alias ends with `--` already, and `cargo demo -- --quick` is what fingers know: cargo then hands the second one on.
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    let cli = Cli::parse_from(arguments);
    match run(&cli) {
        Ok(report) => match print(&cli, &report) {
            Ok(()) if report.ok => ExitCode::SUCCESS,
            Ok(()) => ExitCode::FAILURE,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("demo: {error:#}");
    ExitCode::FAILURE
}

fn run(cli: &Cli) -> Result<Report> {
    let begun = Instant::now();
    let work = if cli.quick { Work::QUICK } else { Work::FULL };
    if cli.no_pool {
        let mut world = NoPool::start(work)?;
        return tell(&mut world, work, begun, "criu-starter alone", "");
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a pool needs root, for mounts and network namespaces; `cargo demo -- --no-pool` does not"
        );
    }
    eprintln!(
        "building what is not up to date, and bringing up a pool with HTCondor {}",
        cli.htcondor
    );
    let pool = in_pool::up(cli.htcondor)?;
    let up = format!(
        "a pool is up: an access point and three execution points, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let mut world = InPool::submit(&pool, work)?;
    let name = format!("HTCondor {}", cli.htcondor);
    let report = tell(&mut world, work, begun, &name, &up)?;
    let page = cli.html.clone();
    let page = page.unwrap_or_else(|| machine::target_dir().join("demo.html"));
    in_pool::picture(&world, &page)?;
    eprintln!("its life as a picture: {}", page.display());
    drop(world);
    pool.down().context("end the pool")?;
    Ok(report)
}

/// The job's story in a world, from its start to its end.
fn tell(
    world: &mut dyn World,
    work: Work,
    begun: Instant,
    name: &str,
    first_note: &str,
) -> Result<Report> {
    let title = format!("primes below {}, evicted twice, with {name}", work.to);
    let mut screen = Screen::new(title, begun);
    if !first_note.is_empty() {
        screen.note(first_note);
    }
    let seen = match watch::watch(world, &mut screen, work) {
        Ok(seen) => seen,
        Err(error) => {
            let logs = world.logs();
            return Err(error.context(format!("it went wrong\n{logs}")));
        }
    };
    if !seen.problems.is_empty() {
        eprintln!("{}", world.logs());
    }
    Ok(Report {
        world: name.to_owned(),
        ok: seen.problems.is_empty(),
        problems: seen.problems,
        steps: work.steps(),
        result: seen.result,
        total: Total::of(&seen.evictions),
        evictions: seen.evictions,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn print(cli: &Cli, report: &Report) -> Result<()> {
    if cli.json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("\n{}", table::text(report));
    }
    for problem in &report.problems {
        eprintln!("demo: {problem}");
    }
    Ok(())
}
