//! The load: many jobs on one access point, all that run evicted at once, until each was evicted three times.
//!
//! Every job notes its steps outside of its sandbox, as those of [`crate::faults`] do: whether one has begun again, or done
//! a step twice, is seen there, and how many images it had in its ad.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::equipped::{equipped, survivor};
use crate::events::{self, Exit, Kind};
use crate::faults::ledger::{Ledger, life};
use crate::job::Job;
use crate::pool::Pool;
use crate::roots::HtCondor;
use crate::spec::{Ep, Spec};
use crate::users::User;
use crate::{machine, wait};

/// What it has is on its disk: so many bytes that nothing makes fewer.
const COUNT: &str = r#"#!/bin/sh
[ -e ballast ] || head -c $2 /dev/urandom >ballast
i=0 sum=0
while [ ! -e /shared/load-$1/stop ]; do
    i=$((i + 1)) sum=$(((sum * 31 + i) % 1000003))
    read -r host </etc/hostname
    : >/shared/load-$1/$i-$(date +%s.%N)-$host
    echo "$i $sum" >>numbers
    sleep 0.5
done
rm -f ballast
exit 7
"#;

/// Hosts, among which the slots are shared out.
const HOSTS: u32 = 4;

/// Steps of each job before it loses its slot.
const ENOUGH: u32 = 3;

/// For a wave of images to come home.
const LIMIT: Duration = Duration::from_secs(1200);

/// What is sent to measure the link.
const PROBE: u64 = 256 << 20;

/// Evicts many jobs of one access point at once, three times each, and writes tests/LOAD.md.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
struct Cli {
    /// Jobs
    #[arg(long, default_value_t = 100)]
    jobs: u32,
    /// Slots, on four hosts
    #[arg(long, default_value_t = 24)]
    slots: u32,
    /// Megabytes in each image
    #[arg(long, default_value_t = 50)]
    megabytes: u64,
    /// Evictions of each job
    #[arg(long, default_value_t = 3)]
    evictions: usize,
    /// The access point's network, each way, as tc writes it
    #[arg(long, default_value = "1gbit")]
    link: String,
    /// HTCondor's version: 23.9 or 25
    #[arg(long, default_value = "25")]
    htcondor: HtCondor,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One time that all running jobs lost their slots.
struct Wave {
    jobs: usize,
    /// Seconds until the last was told to go.
    told: f64,
    /// Seconds until the last was evicted, its image at home.
    safe: f64,
    bytes: u64,
}

fn run(cli: &Cli) -> Result<()> {
    let mut spec = Spec::new(cli.htcondor);
    for _ in 0..HOSTS {
        spec = spec.ep(equipped(Ep::root())?.slots(cli.slots.div_ceil(HOSTS)));
    }
    let pool = Pool::up(&spec)?;
    pool.ap().throttle(Some(&cli.link))?;
    pool.ap().throttle_arrivals(Some(&cli.link))?;
    let rate = measure(&pool)?;
    println!("the link: {:.0} MB/s", rate / 1e6);
    let ledgers: Vec<Ledger> = (0..cli.jobs)
        .map(|number| Ledger::make(&pool.shared().join(format!("load-{number}"))))
        .collect::<Result<_>>()?;
    let submit = survivor(
        "count.sh",
        COUNT,
        &format!("$(ProcId) {}", cli.megabytes * 1_000_000),
    )?;
    let submit = submit
        .set("output", "out.$(ProcId)")
        .set("error", "err.$(ProcId)")
        .set("transfer_output_remaps", "\"numbers = numbers.$(ProcId)\"")
        .set("request_disk", (cli.megabytes * 3000).to_string())
        .count(cli.jobs);
    let begun = Instant::now();
    let job = pool.submit(&submit)?;
    let mut waves = Vec::new();
    let mut kept = vec![0; ledgers.len()];
    while let Some(wave) = next_wave(cli, &pool, &job, &ledgers, &mut kept)? {
        println!(
            "[{:5.0} s] {} jobs told within {:.2} s, safe after {:.1} s, {:.0} MB",
            begun.elapsed().as_secs_f64(),
            wave.jobs,
            wave.told,
            wave.safe,
            wave.bytes as f64 / 1e6
        );
        waves.push(wave);
    }
    wait::until("all to end", LIMIT, || {
        let ended = count(&job, Kind::Ended)?;
        Ok((ended.len() == cli.jobs as usize).then_some(()))
    })?;
    check(cli, &pool, &job, &ledgers)?;
    let took = begun.elapsed().as_secs_f64();
    let text = table(cli, rate, &waves, took);
    print!("{text}");
    let path = machine::workspace().join("tests/LOAD.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Bytes a second from an execution point to the access point, by one connection that only sends.
fn measure(pool: &Pool) -> Result<f64> {
    let listen = "import socket;s=socket.create_server(('',9000));print(1,flush=True);c=s.accept()[0]\n\
                  while c.recv(1<<20): pass";
    let ap = pool.ap();
    let mut server = ap.command(User::Root, "/")?;
    let server = server.args(["python3", "-c", listen]);
    let mut server = server.stdout(std::process::Stdio::piped()).spawn()?;
    // It has printed that it listens before anything is sent.
    let mut line = [0];
    let out = server.stdout.as_mut().context("a pipe")?;
    std::io::Read::read_exact(out, &mut line)?;
    let send = format!(
        "import socket;c=socket.create_connection(('{}',9000));b=b'x'*(1<<20)\n\
         for i in range({}): c.sendall(b)",
        ap.address,
        PROBE >> 20
    );
    let begun = Instant::now();
    let sender = pool.eps().first().context("no execution point")?;
    sender.run(User::Root, "/", &["python3", "-c", &send])?;
    server.wait()?;
    Ok(PROBE as f64 / begun.elapsed().as_secs_f64())
}

/// How often each job has come to that.
fn count(job: &Job<'_>, kind: Kind) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for event in events::parse(&job.file("job.log")?) {
        ensure!(event.kind != Kind::Held, "held: {event}");
        if event.kind == kind {
            *counts.entry(event.job).or_default() += 1;
        }
    }
    Ok(counts)
}

/// When as many run as can, with steps behind those that are `kept` already: all of them lose their slots. None when each job
/// has lost its slot often enough.
fn next_wave(
    cli: &Cli,
    pool: &Pool,
    job: &Job<'_>,
    ledgers: &[Ledger],
    kept: &mut [u32],
) -> Result<Option<Wave>> {
    let cluster = job.id.split('.').next().context("a job's id")?;
    let id = |number: usize| format!("{cluster}.{number}");
    let evicted = count(job, Kind::Evicted)?;
    let due = |number: &usize| evicted.get(&id(*number)).copied().unwrap_or(0) < cli.evictions;
    let due: Vec<usize> = (0..ledgers.len()).filter(due).collect();
    if due.is_empty() {
        return Ok(None);
    }
    let wanted = due.len().min(cli.slots as usize);
    let running = wait::until("jobs in all slots", LIMIT, || {
        let started = count(job, Kind::Started)?;
        let runs = |number: &&usize| {
            let id = id(**number);
            let starts = started.get(&id).copied().unwrap_or(0);
            starts > evicted.get(&id).copied().unwrap_or(0)
                && newest(&ledgers[**number]) >= kept[**number] + ENOUGH
        };
        let running: Vec<usize> = due.iter().filter(runs).copied().collect();
        Ok((running.len() >= wanted).then_some(running))
    })?;
    let begun = Instant::now();
    let ids: Vec<String> = running.iter().map(|number| id(*number)).collect();
    let mut vacate = vec!["condor_vacate_job"];
    vacate.extend(ids.iter().map(String::as_str));
    pool.ap().run(User::Alice, &job.dir, &vacate)?;
    let told = begun.elapsed().as_secs_f64();
    wait::until("all to be safe", LIMIT, || {
        let now = count(job, Kind::Evicted)?;
        let safe = |id: &&String| now.get(*id) > evicted.get(*id);
        Ok(ids.iter().all(|id| safe(&id)).then_some(()))
    })?;
    let safe = begun.elapsed().as_secs_f64();
    let mut bytes = 0;
    let query = ["condor_q", "-af:j", "ChirpCRIUBytes"];
    for line in pool.ap().run(User::Alice, &job.dir, &query)?.lines() {
        let (which, size) = line.split_once(' ').context("a job and its bytes")?;
        if ids.iter().any(|id| id == which) {
            bytes += size
                .trim()
                .parse::<u64>()
                .with_context(|| line.to_owned())?;
        }
    }
    for number in &running {
        kept[*number] = newest(&ledgers[*number]);
    }
    let enough =
        |number: &&usize| evicted.get(&id(**number)).copied().unwrap_or(0) + 1 >= cli.evictions;
    for number in running.iter().filter(enough) {
        ledgers[*number].stop()?;
    }
    Ok(Some(Wave {
        jobs: ids.len(),
        told,
        safe,
        bytes,
    }))
}

/// The newest step of all, whichever run it was in.
fn newest(ledger: &Ledger) -> u32 {
    ledger
        .steps()
        .iter()
        .map(|step| step.number)
        .max()
        .unwrap_or(0)
}

/// Each goes on from each of its images, and ends with the right result.
fn check(cli: &Cli, pool: &Pool, job: &Job<'_>, ledgers: &[Ledger]) -> Result<()> {
    for event in events::parse(&job.file("job.log")?) {
        let exit = event.exit();
        ensure!(
            exit.is_none() || exit == Some(Exit::Code(7)),
            "an end with {exit:?}"
        );
    }
    for (number, ledger) in ledgers.iter().enumerate() {
        let life = life(&ledger.steps());
        ensure!(
            life.resumed.iter().all(|(from, last)| *from == last + 1),
            "job {number} did steps again: {:?}",
            life.resumed
        );
        ensure!(life.twice.is_none(), "job {number}: {:?}", life.twice);
        let mut sum = 0;
        let numbers = job.file(&format!("numbers.{number}"))?;
        for (line, i) in numbers.lines().zip(1_u64..) {
            sum = (sum * 31 + i) % 1_000_003;
            ensure!(line == format!("{i} {sum}"), "job {number}: {line}");
        }
    }
    let query = ["condor_history", "-af", "ProcId", "ChirpCRIUGeneration"];
    let said = pool.ap().run(User::Root, "/", &query)?;
    for line in said.lines() {
        let generation = line.split(' ').nth(1).unwrap_or_default();
        ensure!(
            generation == cli.evictions.to_string(),
            "a job with another number of images: {line}"
        );
    }
    ensure!(said.lines().count() == ledgers.len(), "jobs are missing");
    Ok(())
}

fn table(cli: &Cli, rate: f64, waves: &[Wave], took: f64) -> String {
    let mut text = format!(
        "\
# Many jobs at once

{} jobs of {} MB that nothing makes smaller, on one access point with a network of {} each way, and {} slots on {HOSTS}
hosts; HTCondor {}, spool lane, all on one machine with {} cores. Whenever all slots had jobs with work to lose, all of them
were told to leave by one `condor_vacate_job`, until each job had lost its slot {} times. Each went on from each of its
images: no step was done again, {} images each, every result right. *The link alone* is the sum of the images' bytes by the
rate of one connection that only sends, measured before: {:.0} MB/s. All of it took {:.0} s.

    cargo run -p tests --bin load

| jobs | told within (s) | all safe after (s) | images (MB) | the link alone (s) |
|---|---|---|---|---|
",
        cli.jobs,
        cli.megabytes,
        cli.link,
        cli.slots,
        cli.htcondor,
        std::thread::available_parallelism().map_or(0, usize::from),
        cli.evictions,
        cli.evictions,
        rate / 1e6,
        took
    );
    for wave in waves {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.1} | {:.0} | {:.1} |",
            wave.jobs,
            wave.told,
            wave.safe,
            wave.bytes as f64 / 1e6,
            wave.bytes as f64 / rate
        );
    }
    text
}
