//! Matchmaking stays cheap: what we add to jobs splits no autoclusters, and claims are used again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::equipped::{equipped, pilot_says};
use tests::host::Host;
use tests::job::Job;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;
use tests::{logs, require, wait};

/// One user's submit.
const JOBS: u32 = 500;

const LIMIT: Duration = Duration::from_secs(120);

/// What of an image is in Requirements.
const FINGERPRINT: &str = "ChirpCRIUCpuFeatures ChirpCRIUCpuVendor ChirpCRIUXcr0 ChirpCRIUXsaveSize \
    ChirpCRIUKernel ChirpCRIUVersion ChirpCRIUAbilities";

#[test]
fn jobs_of_one_submit_are_one_autocluster_and_one_more_per_fingerprint_23_9() {
    on(HtCondor::V23_9);
}

#[test]
fn jobs_of_one_submit_are_one_autocluster_and_one_more_per_fingerprint_25() {
    on(HtCondor::V25);
}

fn on(version: HtCondor) {
    require!(root, namespaces, user_namespaces, roots);
    test(version).unwrap_or_else(|error| panic!("{error:#}"));
}

fn test(version: HtCondor) -> Result<()> {
    let spec = Spec::new(version)
        .config(pilot_says(&["configure", "ap"])?)
        .ep(equipped(Ep::root())?.slots(3))
        .ep(equipped(Ep::root())?);
    let pool = Pool::up(&spec)?;
    claims_are_used_again(&pool)?;
    let script = Submit::script("while sleep 0.1; do echo; done >>out").count(JOBS);
    let plain = pool.submit(&script.clone().on_host("ap"))?;
    let without = autoclusters(&pool, &plain)?;
    pool.ap()
        .run(User::Alice, "/", &["condor_rm", cluster(&plain)?])?;
    let asking = script
        .set("+WantCRIU", "true")
        .requiring("TARGET.Machine == \"ep1.pool\"");
    let job = pool.submit(&asking)?;
    let before = autoclusters(&pool, &job)?;
    ensure!(
        before.len() == without.len(),
        "{} autoclusters with one line, {} without it",
        before.len(),
        without.len()
    );

    let mine = format!("ClusterId == {}", cluster(&job)?);
    let running = format!("{mine} && JobStatus == 2");
    let frozen = format!("{mine} && ChirpCRIUGeneration =?= 1");
    let ids = |constraint: &str| query(&pool, constraint, "ClusterId ProcId");
    wait::until("three running jobs", LIMIT, || {
        Ok((ids(&running)?.len() == 3).then_some(()))
    })?;
    // Running is what the schedd calls it before the job has begun.
    let host = pool.host("ep1")?;
    wait::until("three jobs at work", LIMIT, || {
        Ok((at_work(host)? == 3).then_some(()))
    })?;
    pool.ap().run(
        User::Alice,
        "/",
        &["condor_vacate_job", "-constraint", &running],
    )?;
    wait::until("three images", LIMIT, || {
        Ok((ids(&frozen)?.len() >= 3).then_some(()))
    })
    .with_context(|| logs::of_job(&job))?;
    let after = wait::until("autoclusters for the images", LIMIT, || {
        let fingerprints = query(&pool, &frozen, FINGERPRINT)?;
        let fingerprints: BTreeSet<_> = fingerprints.into_iter().collect();
        let now = autoclusters(&pool, &job)?;
        Ok((now.len() == before.len() + fingerprints.len()).then_some(now))
    })?;
    eprintln!("HTCondor {version}: {before:?} before the images, {after:?} with them");
    pool.ap().run(User::Root, "/", &["condor_rm", "-all"])?;
    Ok(())
}

/// Four short jobs, one after the other, on one slot that is claimed once.
fn claims_are_used_again(pool: &Pool) -> Result<()> {
    let submit = Submit::script("sleep 0.2")
        .set("+WantCRIU", "true")
        .requiring("TARGET.Machine == \"ep2.pool\"")
        .count(4);
    let job = pool.submit(&submit)?;
    let mine = format!("ClusterId == {}", cluster(&job)?);
    wait::until("four ends", LIMIT, || {
        Ok(query(pool, &mine, "ProcId")?.is_empty().then_some(()))
    })
    .with_context(|| logs::of_job(&job))?;
    let host = pool.host("ep2")?;
    let log = host.read(format!("{}/log/StartLog", host.condor_dir()))?;
    let claims = log.matches("Request accepted").count();
    ensure!(claims == 1, "four jobs took {claims} claims");
    Ok(())
}

/// Jobs that have written something.
fn at_work(host: &Host) -> Result<usize> {
    let find = "find /var/lib/condor/pool/execute -path '*/.criu/srv/out' -size +0 | wc -l";
    let found = host.run(User::Root, "/", &["sh", "-c", find])?;
    Ok(found.trim().parse()?)
}

fn cluster<'j>(job: &'j Job<'_>) -> Result<&'j str> {
    job.id.split('.').next().context("a job's id")
}

/// The autoclusters of all jobs of a submit, once each job is in one.
fn autoclusters(pool: &Pool, job: &Job<'_>) -> Result<BTreeSet<String>> {
    let mine = format!("ClusterId == {}", cluster(job)?);
    let ids = wait::until("an autocluster for each job", LIMIT, || {
        let ids = query(pool, &mine, "AutoClusterId")?;
        let known = ids.len() == JOBS as usize && ids.iter().all(|id| id != "undefined");
        Ok(known.then_some(ids))
    })
    .with_context(|| logs::of_job(job))?;
    Ok(ids.into_iter().collect())
}

fn query(pool: &Pool, constraint: &str, attributes: &str) -> Result<Vec<String>> {
    let mut args = vec!["condor_q", "-allusers", "-constraint", constraint, "-af"];
    args.extend(attributes.split_whitespace());
    let printed = pool.ap().run(User::Root, "/", &args)?;
    Ok(printed.lines().map(str::to_owned).collect())
}
