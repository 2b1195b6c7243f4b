//! Programs that go on under another distribution's userland: their libraries travel with them.
//!
//! Each is frozen on Debian 12, 13 or sid and thawed on another of them, where its interpreter has another version, or
//! another size, or does not exist, and so has its libc.

use std::sync::OnceLock;

use anyhow::Result;
use tests::binaries;
use tests::pool::Pool;
use tests::require;
use tests::roots::{HtCondor, Root};
use tests::spec::Spec;

use super::run::{self, Stop};
use super::table::{Outcome, Row, TABLE};

/// Debian 12, 13 and sid, each with the same CRIU beside our program: none of theirs is asked.
const USERLANDS: [Root; 3] = [
    Root::Bookworm,
    Root::HtCondor(HtCondor::V23_9),
    Root::HtCondor(HtCondor::V25),
];

/// What they all have an interpreter for, each one's own.
const PROGRAMS: [&str; 3] = ["python-threads.py", "perl.pl", "bash.sh"];

fn hosts() -> &'static [Pool] {
    static HOSTS: OnceLock<Result<Vec<Pool>, String>> = OnceLock::new();
    let up = || -> Result<Vec<Pool>> {
        let built = binaries::dir()?;
        binaries::bundle_criu(built)?;
        let mut hosts = Vec::new();
        for root in USERLANDS {
            let pool = Pool::up(&Spec::bare(HtCondor::V25).root(root))?;
            super::bring(pool.ap(), built)?;
            hosts.push(pool);
        }
        Ok(hosts)
    };
    let hosts = HOSTS.get_or_init(|| up().map_err(|error| format!("{error:#}")));
    match hosts {
        Ok(hosts) => hosts,
        Err(error) => panic!("{error}"),
    }
}

/// Tries some rows on a route, and says what went otherwise.
fn go(rows: &[&str], route: &[Stop<'_>]) -> Vec<String> {
    let rows: Vec<&Row> = TABLE
        .iter()
        .filter(|row| rows.contains(&row.name()))
        .collect();
    assert!(!rows.is_empty());
    let tried = rows.iter().map(|row| {
        let result = run::check(row, Outcome::GoesOn, route, "");
        result.map_err(|error| format!("{} over {} hosts: {error:#}", row.name(), route.len()))
    });
    tried.filter_map(Result::err).collect()
}

/// From one userland to each of the others, and over that to the third: what was laid over a slot's files is frozen too.
fn from(first: usize) {
    require!(root, namespaces, roots);
    let hosts = hosts();
    let stop = |index: usize| Stop::at(hosts[index % 3].ap());
    let failures: Vec<String> = std::thread::scope(|scope| {
        let routes = [[first, first + 1, first + 2], [first, first + 2, first + 1]];
        let tried = routes.map(|route| scope.spawn(move || go(&PROGRAMS, &route.map(stop))));
        tried
            .into_iter()
            .flat_map(|tried| tried.join().expect("a route does not panic"))
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn from_debian_12() {
    from(0);
}

#[test]
fn from_debian_13() {
    from(1);
}

#[test]
fn from_debian_sid() {
    from(2);
}

#[test]
fn the_nodes_own_criu_is_kept_from_the_images_libraries() {
    require!(root, namespaces, roots);
    let hosts = hosts();
    // Frozen by the bundle, thawed, frozen and thawed again by sid's own CRIU under Debian 12's libc.
    let alone = Stop {
        bin: super::ALONE,
        ..Stop::at(hosts[2].ap())
    };
    let failures = go(&PROGRAMS[1..], &[Stop::at(hosts[0].ap()), alone, alone]);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
