//! `overhead`: what a supervised job pays: pairs of runs, with `criu-starter` and without.
#![forbid(unsafe_code)]

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::host::Host;
use tests::measured::spread;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::Spec;
use tests::users::User;

const DIR: &str = "/home/pilot/overhead";
const STARTER: &str = "/usr/local/bin/criu-starter";

/// System calls, small files and arithmetic; it prints the seconds that they took, and not those of python's start.
const JOB: &str = r#"
import os, time
begun = time.monotonic()
total = 0
for i in range(300):
    with open('file', 'w') as file:
        file.write(str(total))
    for _ in range(2000):
        os.getppid()
    total = sum(k * k % 7 for k in range(6000))
print(time.monotonic() - begun)
"#;

fn main() -> Result<()> {
    let pairs: usize = match std::env::args().nth(1) {
        Some(word) => word.parse().context("the number of pairs")?,
        None => 15,
    };
    let pool = Pool::up(&Spec::bare(HtCondor::V25))?;
    let host = pool.ap();
    host.make_dir(DIR, User::Pilot, 0o755)?;
    let starter = fs::read(binaries::dir()?.join("criu-starter"))?;
    host.write(STARTER, starter, User::Root, 0o755)?;
    let plain = ["python3", "-c", JOB];
    let supervised = [&[STARTER, "run", "--"], &plain[..]].concat();
    let (mut ratios, mut starts) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Whoever is first finds the caches colder.
        let (with, without) = if pair % 2 == 0 {
            let with = run(host, &supervised)?;
            (with, run(host, &plain)?)
        } else {
            let without = run(host, &plain)?;
            (run(host, &supervised)?, without)
        };
        ratios.push(with.job / without.job);
        starts.push((with.around - without.around) * 1000.0);
    }
    println!("{pairs} pairs, the median (and the quartiles)");
    println!("run time, with over without: {}", spread(&mut ratios, 4));
    println!("start and end, more in ms:   {}", spread(&mut starts, 1));
    Ok(())
}

/// Seconds.
struct Run {
    /// As the job itself counts them.
    job: f64,
    /// Before and after.
    around: f64,
}

fn run(host: &Host, words: &[&str]) -> Result<Run> {
    let begun = Instant::now();
    let output = host.command(User::Pilot, DIR)?.args(words).output()?;
    let all = begun.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{output:?}");
    let job: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Run {
        job,
        around: all - job,
    })
}
