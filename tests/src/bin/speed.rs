//! `speed`: what an image costs beside bare CRIU on the same disk, in pairs.
//!
//! A dump counts from the signal until all that it wrote has reached the disk, a restore until the job counts on.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use tests::binaries;
use tests::measured::{Bare, KINDS, Ours, STARTER, spread};
use tests::pool::Pool;
use tests::roots::{HtCondor, Root};
use tests::spec::Spec;
use tests::users::User;

/// Into files, and those to the disk, as an archive is.
const DUMP: &str = "criu dump -t $PID -D images -o dump.log && sync images/* images";

/// What an image costs beside bare CRIU on the same disk.
#[derive(Parser)]
struct Args {
    /// How much memory the job has
    #[arg(default_value_t = 1024)]
    megabytes: u32,
    /// How often each is dumped and restored
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// What is in its memory; all kinds if none is named
    #[arg(long = "kind", value_name = "KIND", value_parser = KINDS)]
    kinds: Vec<String>,
    /// The program to measure, instead of the one that is built here
    #[arg(long, value_name = "PATH")]
    starter: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (megabytes, pairs) = (args.megabytes, args.pairs);
    let kinds = match args.kinds {
        none if none.is_empty() => KINDS.map(str::to_owned).to_vec(),
        named => named,
    };
    let starter = match args.starter {
        Some(path) => path,
        None => binaries::dir()?.join("criu-starter"),
    };
    let pool = Pool::up(&Spec::bare(HtCondor::V23_9).root(Root::Languages))?;
    let host = pool.ap();
    host.write(STARTER, fs::read(starter)?, User::Root, 0o755)?;
    println!(
        "{megabytes} MB, {pairs} pairs: the median (and the quartiles) of ours over bare CRIU's in each pair"
    );
    for kind in kinds {
        let mut bare = Bare::start(host, &kind, megabytes)?;
        let mut ours = Ours::start(host, &kind, megabytes, None)?;
        let mut rows = Rows::default();
        for pair in 0..pairs {
            rows.pair(&mut bare, &mut ours, pair % 2 == 0)?;
        }
        rows.print(&kind, &ours);
        bare.end()?;
        ours.end()?;
    }
    Ok(())
}

/// Seconds and ratios.
#[derive(Default)]
struct Rows {
    dumps: [Vec<f64>; 3],
    restores: [Vec<f64>; 3],
}

impl Rows {
    /// Whoever is second finds the disk busier, and the memory warmer.
    fn pair(&mut self, bare: &mut Bare, ours: &mut Ours, bare_first: bool) -> Result<()> {
        let add = |rows: &mut [Vec<f64>; 3], bare: f64, ours: f64| {
            for (row, value) in rows.iter_mut().zip([bare, ours, ours / bare]) {
                row.push(value);
            }
        };
        if bare_first {
            let dumped = bare.dump(DUMP)?;
            add(&mut self.dumps, dumped, ours.dump()?);
            let restored = bare.restore()?;
            add(&mut self.restores, restored, ours.restore()?);
        } else {
            let dumped = ours.dump()?;
            add(&mut self.dumps, bare.dump(DUMP)?, dumped);
            let restored = ours.restore()?;
            add(&mut self.restores, bare.restore()?, restored);
        }
        Ok(())
    }

    fn print(&mut self, kind: &str, ours: &Ours) {
        for (what, rows) in [("dump", &mut self.dumps), ("restore", &mut self.restores)] {
            let [bare, of_ours, ratio] = rows;
            println!(
                "{kind:>10} {what:8} bare {} s, ours {} s, ratio {}",
                spread(bare, 2),
                spread(of_ours, 2),
                spread(ratio, 2)
            );
        }
        println!(
            "{kind:>10} the archive has {} MB; our processes' largest memory: dump {} MB, restore {} MB",
            ours.archive >> 20,
            ours.dumping,
            ours.thawing
        );
    }
}
