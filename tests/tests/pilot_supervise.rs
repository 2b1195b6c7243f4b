//! A pilot that the site ends: its jobs leave first, and all their images arrive. The largest leave before the others where
//! HTCondor can ask one slot: 23.9.6 does not find it by its name, and all are asked at once.

use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tests::equipped::{pilot_says, survivor, with_programs};
use tests::events::{Event, Kind};
use tests::host::Host;
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
fn a_pilots_jobs_leave_before_it_23_9() {
    run(HtCondor::V23_9);
}

#[test]
fn a_pilots_jobs_leave_before_it_25() {
    run(HtCondor::V25);
}

#[test]
fn before_a_pilots_announced_end_its_largest_job_is_asked_first_25() {
    require!(root, namespaces, user_namespaces, roots);
    before_a_pilots_announced_end().unwrap_or_else(|error| panic!("{error:#}"));
}

fn run(version: HtCondor) {
    require!(root, namespaces, user_namespaces, roots);
    a_pilots_jobs_leave_before_it(version).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Seconds before the end at which the startd's own PREEMPT asks everybody.
const LEAD: u64 = 60;

fn before_a_pilots_announced_end() -> Result<()> {
    let policy = pilot_says(&["configure", "glidein", "--pilot", PILOT])?;
    let policy = format!("{policy}\nCRIU_LEAD = {LEAD}\n");
    let pool =
        Pool::up(&Spec::new(HtCondor::V25).ep(with_programs(Ep::glidein())?.config(policy)))?;
    let host = pool.host("ep1")?;
    let job = survivor("hold.py", HOLDER, "160")?.set("request_memory", "512");
    let job = pool.submit(&job)?;
    job.wait_start(1)?;
    job.wait_scratch(".criu/srv/ready", |text| (text == "yes").then_some(()))?;
    // What the startd knows of its size decides how long before the others it has to be asked.
    let dir = host.condor_dir();
    wait::until("the size in the slot's ad", Duration::from_secs(60), || {
        let ad = pool.slot_ad(host)?.unwrap_or_default();
        let size = |line: &str| line.strip_prefix("ResidentSetSize = ")?.parse().ok();
        Ok(ad
            .lines()
            .find_map(size)
            .filter(|size: &u32| *size > 150 << 10))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    host.reconfigure(&format!("GLIDEIN_ToDie = {}", now + LEAD + 20))?;
    let script = format!("exec {PILOT} supervise -- sleep 600 >supervise.log 2>&1");
    let mut supervise = as_site(host, &script)?;
    arrived(&job)?;
    let log = host.read(format!("{dir}/supervise.log"))?;
    ensure!(
        log.contains("this pilot ends in") && log.contains(&format!("{} is asked", job.id)),
        "{log}"
    );
    ensure!(supervise.try_wait()?.is_none(), "it ended itself: {log}");
    host.run(User::Pilot, dir, &["pkill", "-TERM", "criu-pilot"])?;
    supervise.wait()?;
    Ok(())
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
    let mut supervise = as_site(host, &script)?;

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
            let mut sizes: Vec<u32> = ads
                .lines()
                .filter_map(|line| line.trim().parse().ok())
                .collect();
            sizes.sort_unstable();
            let [_, second, first] = sizes[..] else {
                return Ok(None);
            };
            Ok((second > 80 << 10 && first > 160 << 10).then_some(()))
        },
    )?;
    let pid = host.read(format!("{dir}/site.pid"))?;
    host.run(User::Pilot, dir, &["kill", "-TERM", pid.trim()])?;
    let said = || host.read(format!("{dir}/supervise.log"));
    let by_size = [&jobs[1], &jobs[2], &jobs[0]];
    // In the order in which they go, so that each has the whole patience of a wait for itself.
    for job in by_size {
        arrived(job).with_context(|| said().unwrap_or_default())?;
    }
    let ended = wait::until("the end of the pilot", Duration::from_secs(60), || {
        Ok(supervise.try_wait()?)
    })?;
    let log = said()?;
    eprintln!("HTCondor {version}: {ended}\n{log}");
    for job in &jobs {
        let starts = |event: &Event| event.kind == Kind::Started;
        let starts = job.events()?.into_iter().filter(starts).count();
        ensure!(
            starts == 1,
            "job {} went back to the pilot that ends\n{log}",
            job.id
        );
    }
    let asked: Vec<&str> = log
        .lines()
        .filter_map(|line| {
            line.strip_prefix("criu-pilot: ")?
                .split_once(" is asked to leave")
        })
        .map(|(job, _)| job)
        .collect();
    let expected = match version {
        HtCondor::V23_9 => {
            ensure!(log.contains("all jobs are asked to leave at once"), "{log}");
            vec![]
        }
        HtCondor::V25 => by_size.map(|job| job.id.as_str()).to_vec(),
    };
    ensure!(
        asked == expected,
        "they were asked in the order {asked:?}, not {expected:?}:\n{log}"
    );
    Ok(())
}

/// A shell's script, in a session of its own as a site's batch system starts a pilot.
fn as_site(host: &Host, script: &str) -> Result<Child> {
    host.command(User::Pilot, host.condor_dir())?
        .args(["setsid", "sh", "-c", script])
        .stdin(Stdio::null())
        .spawn()
        .context("run nsenter")
}

/// Evicted, with an image that the access point has and the job's ad tells of.
fn arrived(job: &Job<'_>) -> Result<()> {
    job.wait_evicted(1)?;
    // The event is written before the schedd has the job's last ad.
    wait::until("the image in the job's ad", Duration::from_secs(30), || {
        let sent = job.attribute("SpooledOutputFiles")?;
        let generation = job.attribute("ChirpCRIUGeneration")?;
        let is_there = sent.is_some_and(|sent| sent.contains("checkpoint.criu"))
            && generation.as_deref() == Some("1");
        Ok(is_there.then_some(()))
    })
    .with_context(|| tests::logs::of_job(job))?;
    job.remove()
}
