//! The eviction table: every way to lose a slot, on real pools of both versions, measured by the job itself.
//!
//! Rows run side by side, each on an execution point that no other row uses at that time; those that take the access
//! point down run alone.

mod causes;
mod markdown;
mod run;
mod table;

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use anyhow::{Context, Result};
use tests::equipped::equipped;
use tests::host::{Host, Role};
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::users::User;

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

#[test]
#[ignore = "many minutes: tests/EVICTIONS.md has the command"]
fn every_way_to_lose_a_slot_23_9() {
    walk(HtCondor::V23_9);
}

#[test]
#[ignore = "many minutes: tests/EVICTIONS.md has the command"]
fn every_way_to_lose_a_slot_25() {
    walk(HtCondor::V25);
}

/// One cell of the table.
#[derive(Clone, Copy)]
struct Cell {
    row: &'static Row,
    point: Point,
    lane: Lane,
}

/// Tries all cells, and names all that went otherwise than the table says.
fn walk(version: HtCondor) {
    require!(root, namespaces, user_namespaces, roots);
    // ROW=name tries one row alone.
    let only = std::env::var("ROW").ok();
    let rows = TABLE
        .iter()
        .filter(|row| only.as_deref().is_none_or(|only| only == row.name));
    let cells = rows.flat_map(|row| {
        row.points.iter().map(move |&point| Cell {
            row,
            point,
            lane: Lane::Spool,
        })
    });
    let results = with_pool(version, cells.collect()).unwrap_or_else(|error| panic!("{error:#}"));
    let mut failures = Vec::new();
    let mut measured = Vec::new();
    for (cell, result) in results {
        let name = format!("{} on a {}", cell.row.name, cell.point.name());
        match result {
            Err(error) => failures.push(format!("{name}: {error:#}")),
            // From an image, and with nothing lost: better than HTCondor owes, which is no failure.
            Ok(found)
                if cell.row.outcome == Outcome::FromLastImage
                    && found.outcome == Outcome::GoesOn =>
            {
                let outcome = cell.row.outcome;
                measured.push((cell, Measured { outcome, ..found }));
            }
            Ok(found) if found.outcome != cell.row.outcome => failures.push(format!(
                "{name}: it {}, with {:.1} s lost, and not: it {}",
                found.outcome.words(),
                found.lost,
                cell.row.outcome.words()
            )),
            Ok(found) => measured.push((cell, found)),
        }
    }
    if only.is_none() && failures.is_empty() {
        failures.extend(markdown::compare_or_write(version, &measured).err());
    }
    for (cell, found) in &measured {
        eprintln!(
            "HTCondor {version}: {} on a {}: {}, {:.1} s lost, {} steps kept, {:.1} s away",
            cell.row.name,
            cell.point.name(),
            found.outcome.words(),
            found.lost,
            found.kept,
            found.away
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

type Results = Vec<(Cell, Result<Measured>)>;

fn with_pool(version: HtCondor, cells: Vec<Cell>) -> Result<Results> {
    let mut spec = Spec::new(version).config(QUICK);
    for kind in [Ep::root, Ep::glidein] {
        for _ in 0..LOSERS {
            spec = spec.ep(equipped(kind())?.config(QUICK));
        }
        spec = spec.ep(equipped(kind())?.slots(REFUGE));
    }
    let pool = Pool::up(&spec)?;
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
