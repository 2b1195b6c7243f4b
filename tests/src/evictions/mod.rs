//! The eviction table: every way to lose a slot, on real pools of both versions, measured by the job itself.
//!
//! Rows run side by side, each on an execution point that no other row uses at that time; those that take the access
//! point down run alone.

mod causes;
mod markdown;
mod run;
mod table;

use std::collections::VecDeque;
use std::fmt;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex};

use crate::equipped::equipped;
use crate::host::{Host, Role};
use crate::pool::Pool;
use crate::roots::HtCondor;
use crate::spec::{Ep, Spec};
use crate::store::{Store, TOKEN};
use crate::users::User;
use anyhow::{Context, Result, ensure};
use clap::Parser;

use run::Measured;
use table::{Lane, Outcome, Point, Reach, Row, TABLE};

/// Execution points of each kind that lose their jobs.
const LOSERS: usize = 3;

/// Slots of those, one of each kind, on which the jobs go on.
const REFUGE: u32 = 8;

/// Daemons come back at once, and a peer that is gone is missed in half a minute instead of two hours.
const QUICK: &str = "\
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_CEILING = 2
ALIVE_INTERVAL = 5
TCP_KEEPALIVE_INTERVAL = 5";

/// The same for data on its way to a peer that is gone: the kernel's own limit is a quarter of an hour.
const GIVE_UP_SOON: &str = "echo 7 >/proc/sys/net/ipv4/tcp_retries2";

/// Tries every way to lose a slot, and compares what becomes of the job with tests/EVICTIONS.md.
#[derive(Debug, Parser)]
#[command(name = "evictions", version)]
struct Cli {
    /// Rows by their names, all without it
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// One version of HTCondor: 23.9 or 25; both without it
    #[arg(long)]
    htcondor: Vec<HtCondor>,
    /// Write tests/EVICTIONS.md instead
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

/// Parses the command line and does what it says: 0 if every outcome was the table's.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let versions = if cli.htcondor.is_empty() {
        HtCondor::ALL.to_vec()
    } else {
        cli.htcondor
    };
    for version in versions {
        let walked = walk(version, &cli.only).and_then(|measured| {
            if cli.write {
                markdown::rewrite(version, &measured)
            } else if cli.only.is_empty() {
                markdown::compare(version, &measured)
            } else {
                Ok(())
            }
        });
        if let Err(error) = walked {
            eprintln!("evictions: HTCondor {version}: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One cell of the table.
#[derive(Clone, Copy)]
struct Cell {
    row: &'static Row,
    point: Point,
    lane: Lane,
}

impl Cell {
    /// What has to become of the job.
    fn outcome(&self) -> Outcome {
        let with_store = self.row.with_store.filter(|_| self.lane == Lane::Store);
        with_store.unwrap_or(self.row.outcome)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (point, lane) = (self.point.name(), self.lane.name());
        write!(f, "{} on a {point} by {lane}", self.row.name)
    }
}

/// Tries rows, all if none is named; an error names all that went otherwise than the table says.
fn walk(version: HtCondor, only: &[String]) -> Result<Vec<(Cell, Measured)>> {
    for name in only {
        let known = TABLE.iter().any(|row| row.name == name);
        ensure!(known, "there is no row {name:?} in tests/EVICTIONS.md");
    }
    let wanted = |row: &&Row| only.is_empty() || only.iter().any(|name| name == row.name);
    let cells = TABLE.iter().filter(wanted).flat_map(|row| {
        let places = row
            .points
            .iter()
            .flat_map(|&point| Lane::ALL.map(|lane| (point, lane)));
        places.map(move |(point, lane)| Cell { row, point, lane })
    });
    let results = with_pool(version, cells.collect())?;
    let mut failures = Vec::new();
    let mut measured = Vec::new();
    for (cell, result) in results {
        let name = cell.to_string();
        match result {
            Err(error) => failures.push(format!("{name}: {error:#}")),
            // From an image, and with nothing lost: better than HTCondor owes, which is no failure.
            Ok(found)
                if cell.outcome() == Outcome::FromLastImage && found.outcome == Outcome::GoesOn =>
            {
                let outcome = cell.outcome();
                measured.push((cell, Measured { outcome, ..found }));
            }
            Ok(found) if found.outcome != cell.outcome() => failures.push(format!(
                "{name}: it {}, with {:.1} s lost, and not: it {}",
                found.outcome.words(),
                found.lost,
                cell.outcome().words()
            )),
            Ok(found) => measured.push((cell, found)),
        }
    }
    for (cell, found) in &measured {
        eprintln!(
            "HTCondor {version}: {cell}: {}, {:.1} s lost, {} steps kept, {:.1} s away",
            found.outcome.words(),
            found.lost,
            found.kept,
            found.away
        );
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(measured)
}

type Results = Vec<(Cell, Result<Measured>)>;

fn with_pool(version: HtCondor, cells: Vec<Cell>) -> Result<Results> {
    let with_token = format!("STARTER_JOB_ENVIRONMENT = \"BEARER_TOKEN_FILE={TOKEN}\"");
    let mut spec = Spec::new(version).config(QUICK);
    for kind in [Ep::root, Ep::glidein] {
        for _ in 0..LOSERS {
            spec = spec.ep(equipped(kind())?.config(QUICK).config(&with_token));
        }
        spec = spec.ep(equipped(kind())?.config(&with_token).slots(REFUGE));
    }
    let pool = Pool::up(&spec)?;
    Store::up(&pool)?;
    for host in pool.hosts() {
        host.run(User::Root, "/", &["sh", "-c", GIVE_UP_SOON])?;
    }
    let [roots, glideins] = [Role::Root, Role::Glidein].map(|role| {
        let hosts = pool.eps().iter().filter(|host| host.role == role);
        hosts.collect::<Vec<_>>()
    });
    let stations = [Station::new(&roots)?, Station::new(&glideins)?];
    let results = Mutex::new(Vec::new());
    let (alone, together): (Vec<_>, Vec<_>) = cells
        .into_iter()
        .partition(|cell| cell.row.reach == Reach::AccessPoint);
    let queue = Mutex::new(VecDeque::from(together));
    let try_one = |cell: Cell| {
        let station = &stations[usize::from(cell.point == Point::Glidein)];
        let result = station.lend(&pool, cell);
        results.lock().expect("no row panics").push((cell, result));
    };
    std::thread::scope(|scope| {
        for _ in 0..2 * LOSERS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no row panics").pop_front();
                    let Some(cell) = next else { break };
                    try_one(cell);
                }
            });
        }
    });
    for cell in alone {
        try_one(cell);
    }
    Ok(results.into_inner().expect("no row panics"))
}

/// The execution points of one kind.
struct Station<'p> {
    free: Mutex<Vec<(&'p Host, String)>>,
    back: Condvar,
    refuge: &'p Host,
}

impl<'p> Station<'p> {
    fn new(hosts: &[&'p Host]) -> Result<Station<'p>> {
        let (refuge, losers) = hosts.split_last().context("no hosts")?;
        let with_configuration = |host: &&'p Host| Ok((*host, host.configuration()?));
        Ok(Station {
            free: Mutex::new(
                losers
                    .iter()
                    .map(with_configuration)
                    .collect::<Result<_>>()?,
            ),
            back: Condvar::new(),
            refuge,
        })
    }

    /// Runs a row on one that is free, and puts that up anew where the row has broken it.
    fn lend(&self, pool: &Pool, cell: Cell) -> Result<Measured> {
        let mut free = self.free.lock().expect("no row panics");
        let (host, configuration) = loop {
            match free.pop() {
                Some(taken) => break taken,
                None => free = self.back.wait(free).expect("no row panics"),
            }
        };
        drop(free);
        let begun = match cell.row.config {
            "" => Ok(()),
            lines => host.power_cycle(pool.version(), &format!("{configuration}{lines}\n")),
        };
        let result =
            begun.and_then(|()| run::measure(cell.row, cell.lane, pool, host, self.refuge));
        let repaired = if cell.row.reach == Reach::Host || result.is_err() {
            host.power_cycle(pool.version(), &configuration)
        } else {
            Ok(())
        };
        let mut free = self.free.lock().expect("no row panics");
        free.push((host, configuration));
        self.back.notify_one();
        drop(free);
        result.and_then(|found| repaired.map(|()| found))
    }
}
