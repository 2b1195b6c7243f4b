//! Images that go home while the job runs, by HTCondor's own way: what a slot that dies without a signal costs, and
//! what becomes of jobs that cannot be frozen.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tests::equipped::{equipped, survivor};
use tests::events::Exit;
use tests::job::{Job, LIMIT};
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::wait;

use crate::shared::{Shared, on_both_versions};

/// How far the job counts: twenty seconds and more.
const LAST: usize = 400;

/// Seconds between two images.
const INTERVAL: f64 = 3.0;

/// An image's way home and the start after it, on two busy cores; far more than either takes.
const ON_THE_WAY: f64 = 10.0;

/// Each line says where the job is and when.
const COUNT: &str = r#"#!/bin/bash
for ((i = 1; i <= 400; i++)); do
    echo "$i $EPOCHREALTIME" >>numbers
    echo "line $i"
    sleep 0.05
done
exit 7
"#;

on_both_versions!(
    a_slot_that_is_killed_without_a_signal_costs_an_interval_at_most,
    before_a_slots_announced_end_the_job_goes_on_elsewhere,
    a_job_that_ends_with_the_code_of_images_ends,
    a_job_that_cannot_be_frozen_gets_its_signal_and_its_ad_says_why,
);

static POOLS: Shared = Shared::new(up);

fn on_shared_pool(version: HtCondor, test: fn(&Pool) -> Result<()>) {
    POOLS.on(version, test);
}

/// Three ordinary nodes, and one that always ends soon: the time is taken when a job looks.
fn up(version: HtCondor) -> Result<Pool> {
    let ends_soon = "CRIU_LEAD = 60\nGLIDEIN_ToDie = time() + 190\n\
                     STARTD_ATTRS = $(STARTD_ATTRS) GLIDEIN_ToDie\n";
    Pool::up(
        &Spec::new(version)
            .ep(equipped(Ep::root())?)
            .ep(equipped(Ep::glidein())?)
            .ep(equipped(Ep::root())?.config(ends_soon))
            .ep(equipped(Ep::root())?),
    )
}

fn on_hosts(name: &str, program: &str, hosts: &[&str]) -> Result<Submit> {
    let here: Vec<_> = hosts
        .iter()
        .map(|host| format!("TARGET.Machine == \"{host}.pool\""))
        .collect();
    Ok(survivor(name, program, "")?.requiring(&here.join(" || ")))
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

fn a_slot_that_is_killed_without_a_signal_costs_an_interval_at_most(pool: &Pool) -> Result<()> {
    let job =
        on_hosts("count.sh", COUNT, &["ep1", "ep2"])?.set("+CRIUInterval", INTERVAL.to_string());
    let job = pool.submit(&job)?;
    job.wait_start(1)?;
    // Two images are home: the second was taken by a job that was started again in its place.
    wait::until("two images at home", LIMIT, || {
        let generation = job.attribute("ChirpCRIUGeneration")?;
        let generation = generation.and_then(|number| number.parse::<u32>().ok());
        Ok(generation.filter(|number| *number >= 2))
    })
    .with_context(|| tests::logs::of_job(&job))?;
    let frozen = job.attribute("ChirpCRIUFrozenSeconds")?;
    ensure!(frozen.is_some(), "nobody said how long it stood still");
    // Into an interval, so that there is work to lose.
    let counted = |text: &str| text.lines().count();
    let so_far = job.wait_scratch(".criu/srv/numbers", |text| Some(counted(text)))?;
    job.wait_scratch(".criu/srv/numbers", |text| {
        (counted(text) > so_far + 20).then_some(())
    })?;
    let killed = now()?;
    job.vacate_fast()?;
    job.wait_start(2)?;
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Code(7),
        "it ended with {exit:?}, reason {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    is_whole(&job)?;

    // Where it went on: the last line before the kill that was not counted again.
    let numbers = job.file("numbers")?;
    let kept = numbers
        .lines()
        .filter_map(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
        .filter(|time| *time < killed)
        .fold(0.0, f64::max);
    let lost = killed - kept;
    ensure!(
        lost < INTERVAL + ON_THE_WAY,
        "{lost} s of work were lost at the kill, of an interval of {INTERVAL} s"
    );
    eprintln!("the kill cost {lost:.1} s of work; images are {INTERVAL} s apart");
    Ok(())
}

/// Every line once and in order, and the image gone.
fn is_whole(job: &Job<'_>) -> Result<()> {
    let numbers = job.file("numbers")?;
    let counted = numbers
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default());
    ensure!(
        counted.eq((1..=LAST).map(|i| i.to_string()).collect::<Vec<_>>()),
        "numbers:\n{numbers}"
    );
    let output = job.output()?;
    ensure!(
        output.lines().eq((1..=LAST).map(|i| format!("line {i}"))),
        "stdout:\n{output}"
    );
    ensure!(
        job.file("checkpoint.criu").is_err(),
        "the image came home with the results"
    );
    Ok(())
}

fn before_a_slots_announced_end_the_job_goes_on_elsewhere(pool: &Pool) -> Result<()> {
    // The first start is on the slot that ends, the next is not.
    let job = on_hosts("count.sh", COUNT, &["ep3", "ep4"])?
        .requiring("(TARGET.Machine == \"ep3.pool\") == (NumJobStarts == 0)")
        .set("+CRIUInterval", "0");
    let job = pool.submit(&job)?;
    ensure!(job.wait_start(1)? == "ep3");
    wait::until("an image at home", LIMIT, || {
        job.attribute("ChirpCRIUGeneration")
    })
    .with_context(|| tests::logs::of_job(&job))?;
    // The end comes without a signal, as a glidein's does.
    job.vacate_fast()?;
    ensure!(job.wait_start(2)? == "ep4");
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Code(7),
        "it ended with {exit:?}, reason {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    let generation = job.attribute("ChirpCRIUGeneration")?;
    ensure!(generation.as_deref() == Some("1"), "images: {generation:?}");
    is_whole(&job)
}

fn a_job_that_ends_with_the_code_of_images_ends(pool: &Pool) -> Result<()> {
    let program = "#!/bin/sh\necho once\nexit 213\n";
    let job = pool.submit(&on_hosts("ends.sh", program, &["ep1", "ep2"])?)?;
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(88), "it ended with {exit:?}");
    ensure!(job.output()? == "once\n", "it said {:?}", job.output()?);
    let reason = job.attribute("ChirpCRIUReason")?.unwrap_or_default();
    ensure!(reason.contains("213"), "the reason is {reason:?}");
    Ok(())
}

const BLOCKED: &str = r#"#!/usr/bin/python3
import mmap, os, signal, time
memfd = os.memfd_create('ring')
os.truncate(memfd, 4096)
shared = mmap.mmap(memfd, 4096)
def told(*_):
    open('told', 'w').close()
    raise SystemExit(3)
signal.signal(signal.SIGTERM, told)
open('ready', 'w').close()
while True:
    time.sleep(0.05)
"#;

fn a_job_that_cannot_be_frozen_gets_its_signal_and_its_ad_says_why(pool: &Pool) -> Result<()> {
    let job = pool.submit(&on_hosts("blocked.py", BLOCKED, &["ep1", "ep2"])?)?;
    job.wait_start(1)?;
    job.wait_scratch(".criu/srv/ready", |_| Some(()))?;
    job.wait_scratch(".criu/log", |log| {
        log.contains("cannot be frozen: process 2").then_some(())
    })?;
    job.vacate()?;
    job.wait_evicted(1)?;
    for name in ["ChirpCRIUReason", "ChirpCRIUBlockers"] {
        let said = job.attribute(name)?.unwrap_or_default();
        ensure!(said.contains("memfd"), "{name} is {said:?}");
    }
    // What it left when it was told to go went with it.
    job.wait_start(2)?;
    job.wait_scratch(".criu/srv/told", |_| Some(()))?;
    job.remove()
}
