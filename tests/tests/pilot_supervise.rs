//! A pilot that the site ends: its jobs leave first, the largest before the others, and all their images arrive.
//!
//! On 25.14 only: under 23.9.6 `condor_vacate` of a slot by its startd's own user was tried, and the jobs were not evicted within
//! a minute. Why is not known yet.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::equipped::{pilot_says, survivor, with_programs};
use tests::job::Job;
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::users::User;
use tests::wait;

const PILOT: &str = "/home/pilot/glide/main/criu-pilot";

/// Megabytes that each job holds, in the order of their submission.
const SIZES: [u32; 3] = [10, 160, 80];

/// Its memory is its own, and it says when it has it.
const HOLDER: &str = "#!/usr/bin/python3
import os, sys, time
held = os.urandom(int(sys.argv[1]) << 20)
open('ready', 'w').write('yes')
while held:
    time.sleep(0.1)
";

#[test]
fn a_pilots_jobs_leave_before_it_25() {
    run(HtCondor::V25);
}

fn run(version: HtCondor) {
    require!(root, namespaces, user_namespaces, roots);
    a_pilots_jobs_leave_before_it(version).unwrap_or_else(|error| panic!("{error:#}"));
}

fn a_pilots_jobs_leave_before_it(version: HtCondor) -> Result<()> {
    let policy = pilot_says(&["configure", "glidein", "--pilot", PILOT])?;
    let pool =
        Pool::up(&Spec::new(version).ep(with_programs(Ep::glidein().slots(3))?.config(policy)))?;
    let host = pool.host("ep1")?;
    let dir = host.condor_dir();
    // As a glidein made by hand has it: the daemons below the process that the site knows.
    host.run(User::Pilot, dir, &["condor_off", "-fast", "-master"])?;
    wait::until(
        "the end of the first master",
        Duration::from_secs(60),
        || {
            let processes = host.run(User::Pilot, dir, &["ps", "-e", "-o", "comm"])?;
            Ok((!processes.contains("condor_master")).then_some(()))
        },
    )?;
    let script = format!(
        "echo $$ >site.pid; exec {PILOT} supervise --grace 150 -- condor_master -f >supervise.log 2>&1"
    );
    let mut supervise = host
        .command(User::Pilot, dir)?
        .args(["setsid", "sh", "-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .context("run nsenter")?;

    let mut jobs = Vec::new();
    for size in SIZES {
        let job = survivor("hold.py", HOLDER, &size.to_string())?.set("request_memory", "512");
        jobs.push(pool.submit(&job)?);
    }
    for job in &jobs {
        job.wait_start(1)?;
        job.wait_scratch(".criu/srv/ready", |text| (text == "yes").then_some(()))?;
    }
    // What the startd knows of their sizes is a few seconds old.
    wait::until(
        "the sizes in the slots' ads",
        Duration::from_secs(60),
        || {
            let ads = pool.ap().run(
                User::Root,
                "/",
                &["condor_status", "-af", "ResidentSetSize"],
            )?;
            let sizes: Vec<u32> = ads
                .lines()
                .filter_map(|line| line.trim().parse().ok())
                .collect();
            Ok((sizes.len() == 3 && sizes.iter().max() > Some(&(150 << 10))).then_some(()))
        },
    )?;
    let pid = host.read(format!("{dir}/site.pid"))?;
    host.run(User::Pilot, dir, &["kill", "-TERM", pid.trim()])?;
    for job in &jobs {
        arrived(job)?;
    }
    let ended = wait::until("the end of the pilot", Duration::from_secs(60), || {
        Ok(supervise.try_wait()?)
    })?;
    let log = host.read(format!("{dir}/supervise.log"))?;
    eprintln!("HTCondor {version}: {ended}\n{log}");
    let asked: Vec<&str> = log
        .lines()
        .filter_map(|line| {
            line.strip_prefix("criu-pilot: ")?
                .split_once(" is asked to leave")
        })
        .map(|(job, _)| job)
        .collect();
    let by_size = [&jobs[1], &jobs[2], &jobs[0]].map(|job| job.id.as_str());
    ensure!(
        asked == by_size,
        "they were asked in the order {asked:?}, not {by_size:?}:\n{log}"
    );
    Ok(())
}

/// Evicted, with an image that the access point has and the job's ad tells of.
fn arrived(job: &Job<'_>) -> Result<()> {
    job.wait_evicted(1)?;
    let generation = job.attribute("ChirpCRIUGeneration")?;
    ensure!(
        generation.as_deref() == Some("1"),
        "job {}: generation {generation:?}",
        job.id
    );
    let sent = job.attribute("SpooledOutputFiles")?.unwrap_or_default();
    ensure!(
        sent.contains("checkpoint.criu"),
        "job {} sent {sent}",
        job.id
    );
    job.remove()
}
