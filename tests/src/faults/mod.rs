//! The fault table: every stage of a job's way with every fault, on real pools of both versions.
//!
//! | module | takes -> gives |
//! |---|---|
//! | [`stages`] | a stage -> a job that stands still there |
//! | [`injury`] | a fault -> it has happened, and is over |
//! | `ground` | a version -> a pool with pairs of execution points |
//! | [`scene`] | one job, and what can be seen of it from outside |
//! | [`ledger`](self) | the job's own notes -> its runs, work that was lost, second copies |
//! | [`cell`] | a stage, a fault, a lane -> what became of the job |
//! | [`verdict`] | what became of it -> what was promised and not kept |
//! | `markdown` | rows -> `tests/FAULTS.md` |
//!
//! Cells of one pool run one after the other on each pair of hosts; those whose fault all would feel run alone.

pub mod stages;

pub mod injury;

mod ground;

pub mod scene;

pub(crate) mod ledger;

pub mod cell;

pub mod verdict;

mod markdown;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Parser;

use crate::roots::HtCondor;
use cell::{Cell, product};
use ground::{Ground, POINTS};
use markdown::Rows;
use verdict::Row;

/// Walks the product of stages and faults, and writes tests/FAULTS.md.
#[derive(Debug, Parser)]
#[command(name = "faults", version)]
struct Cli {
    /// Decides the order, and which bit flips
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cells whose names begin so: a stage, stage/fault, or stage/fault/lane/slot; /fault for all its stages
    #[arg(long)]
    only: Vec<String>,
    /// One of each kind of fault, on the newer HTCondor
    #[arg(long, conflicts_with_all = ["only", "htcondor"])]
    quick: bool,
    /// One version of HTCondor: 23.9 or 25; both without it
    #[arg(long)]
    htcondor: Vec<HtCondor>,
    /// Each cell on both kinds of execution points, not on one of them by chance
    #[arg(long)]
    all_points: bool,
    /// Name the cells and do nothing
    #[arg(long)]
    list: bool,
    /// Forget what earlier walks have found, instead of going on from there
    #[arg(long)]
    fresh: bool,
    /// Pairs of execution points of each kind
    #[arg(long, default_value_t = 1)]
    pairs: usize,
}

/// Parses the command line and does what it says: 0 if every promise was kept.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One of each kind of fault: those whose promise is most easily broken.
const QUICK: [&str; 7] = [
    "dumping/kill-criu/spool/root",
    "packing/full-scratch/spool/glidein",
    "shipping/kill-shadow/spool/root",
    "committed/bit-flipped/spool/glidein",
    "fetching/network-cut/store/root",
    "restoring/kill-starter/spool/glidein",
    "unpacking/kill-supervisor/spool/root",
];

fn run(cli: &Cli) -> Result<bool> {
    let only = if cli.quick {
        QUICK.map(str::to_owned).to_vec()
    } else {
        cli.only.clone()
    };
    let wanted = |cell: &Cell| {
        let name = cell.to_string();
        let is = |only: &String| match only.strip_prefix('/') {
            Some(fault) => name.split('/').nth(1) == Some(fault),
            None => name.starts_with(only.as_str()),
        };
        only.is_empty() || only.iter().any(is)
    };
    let mut cells: Vec<Cell> = product().into_iter().filter(wanted).collect();
    ensure!(
        !cells.is_empty(),
        "there is no such cell; --list names them"
    );
    let versions = if cli.quick {
        vec![HtCondor::V25]
    } else if cli.htcondor.is_empty() {
        HtCondor::ALL.to_vec()
    } else {
        cli.htcondor.clone()
    };
    if cli.list {
        for cell in &cells {
            println!("{cell}");
        }
        println!(
            "{} cells on each of {} versions",
            cells.len(),
            versions.len()
        );
        return Ok(true);
    }
    cells.sort_by_key(|cell| chance(cli.seed, &cell.to_string()));
    let rows = Mutex::new(Rows::open(cli.fresh)?);
    let walk = |version: HtCondor| {
        let kept = |row: Row| {
            let mut rows = rows.lock().expect("no thread panics");
            rows.add(row).and_then(|()| rows.write())
        };
        let todo = cells.iter().copied().filter(|cell| {
            let rows = rows.lock().expect("no thread panics");
            let wanted = cli.all_points || cell.is_chosen(version, cli.seed);
            !only.is_empty() || wanted && !rows.has(cell, version)
        });
        walk(version, todo.collect(), cli.seed, cli.pairs, &kept)
    };
    let broken = std::thread::scope(|scope| {
        let walks: Vec<_> = versions
            .iter()
            .map(|version| scope.spawn(|| walk(*version)))
            .collect();
        let walks = walks
            .into_iter()
            .map(|walk| walk.join().expect("no thread panics"));
        walks.sum::<Result<usize>>()
    })?;
    println!("{broken} cells in which something was not kept");
    Ok(broken == 0)
}

/// Tries cells on one version, each row as it is made; how many have broken a promise.
pub fn walk(
    version: HtCondor,
    cells: Vec<Cell>,
    seed: u64,
    pairs: usize,
    made: &(dyn Fn(Row) -> Result<()> + Sync),
) -> Result<usize> {
    if cells.is_empty() {
        return Ok(0);
    }
    let workers = pairs * POINTS.len();
    let ground = Ground::up(version, workers)?;
    let begun = Instant::now();
    let count = cells.len();
    let mut queues: Vec<Mutex<VecDeque<Cell>>> = Vec::new();
    for point in 0..POINTS.len() {
        let mine = cells.iter().filter(|cell| cell.point == point);
        queues.push(Mutex::new(mine.copied().collect()));
    }
    let broken = Mutex::new(0);
    let done = Mutex::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|worker| {
                let (ground, queues, broken, done) = (&ground, &queues, &broken, &done);
                scope.spawn(move || -> Result<()> {
                    loop {
                        let next = queues[worker % POINTS.len()].lock();
                        let Some(cell) = next.expect("no thread panics").pop_front() else {
                            return Ok(());
                        };
                        let row = match cell.run(ground, worker, seed) {
                            Ok(row) => Row { seed, ..row },
                            Err(error) => {
                                eprintln!("{version} {cell}: the driver failed: {error:#}");
                                continue;
                            }
                        };
                        let mut done = done.lock().expect("no thread panics");
                        *done += 1;
                        println!("{}", progress(&row, *done, count, begun));
                        if !row.broken.is_empty() {
                            *broken.lock().expect("no thread panics") += 1;
                        }
                        made(row)?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("no thread panics")?;
        }
        Ok(())
    })
    .map(|()| broken.into_inner().expect("no thread panics"))
}

fn progress(row: &Row, done: usize, count: usize, begun: Instant) -> String {
    let verdict = if row.broken.is_empty() {
        "kept".to_owned()
    } else {
        format!("NOT KEPT: {}", row.broken.join("; "))
    };
    format!(
        "[{:5.0} s] {done}/{count} {} {}: {}; {:.1} s lost, clean after {:.1} s, {:.0} s: {verdict}",
        begun.elapsed().as_secs_f64(),
        row.version,
        row.cell,
        row.happened,
        row.lost,
        row.clean,
        row.seconds
    )
}

/// A number that depends on both, and on nothing else (FNV-1a and a last stir).
fn chance(seed: u64, name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 29;
    hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (hash >> 32)
}

fn unix_millis() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis())
}
