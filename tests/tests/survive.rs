//! The promise: a job with `+WantCRIU = true` loses nothing with its slot.

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::equipped::{equipped, survivor};
use tests::events::Exit;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;

use crate::counting;
use crate::shared::{Shared, on_both_versions};

/// How far the job counts.
const LAST: u32 = 160;

on_both_versions!(
    two_evictions_between_a_sites_own_nodes,
    two_evictions_between_glideins_without_any_capability,
    two_evictions_between_a_site_and_a_glidein,
    a_machine_without_criu_never_matches_and_the_analysis_says_why,
    a_job_that_did_not_ask_is_left_alone,
    a_slot_that_cannot_restore_gives_the_job_back_with_its_image,
);

fn spec(version: HtCondor) -> Result<Spec> {
    Ok(Spec::new(version)
        .ep(equipped(Ep::root())?)
        .ep(equipped(Ep::root())?)
        .ep(equipped(Ep::glidein())?)
        .ep(equipped(Ep::glidein())?)
        .ep(equipped(Ep::root().without_criu())?)
        .ep(equipped(Ep::root())?))
}

static POOLS: Shared = Shared::new(|version| Pool::up(&spec(version)?));

fn on_shared_pool(version: HtCondor, test: fn(&Pool) -> Result<()>) {
    POOLS.on(version, test);
}

/// The counting job, on these hosts only.
fn counting_job(hosts: [&str; 2]) -> Result<Submit> {
    let here = hosts.map(|host| format!("TARGET.Machine == \"{host}.pool\""));
    Ok(survivor(counting::NAME, counting::program(LAST), "")?.requiring(&here.join(" || ")))
}

fn two_evictions_between_a_sites_own_nodes(pool: &Pool) -> Result<()> {
    two_evictions(pool, ["ep1", "ep2"])
}

fn two_evictions_between_glideins_without_any_capability(pool: &Pool) -> Result<()> {
    two_evictions(pool, ["ep3", "ep4"])
}

fn two_evictions_between_a_site_and_a_glidein(pool: &Pool) -> Result<()> {
    two_evictions(pool, ["ep2", "ep4"])
}

fn two_evictions(pool: &Pool, hosts: [&str; 2]) -> Result<()> {
    let job = pool.submit(&counting_job(hosts)?)?;
    let mut visited = Vec::new();
    for (start, enough) in [(1, LAST / 6), (2, LAST / 2)] {
        visited.push(job.wait_start(start)?);
        counting::wait(&job, enough)?;
        job.vacate()?;
        job.wait_evicted(start)?;
        let generation = job.attribute("ChirpCRIUGeneration")?;
        ensure!(
            generation == Some(start.to_string()),
            "after eviction {start} the job's ad has generation {generation:?} and reason {:?}",
            job.attribute("ChirpCRIUReason")?
        );
    }
    visited.push(job.wait_start(3)?);
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Code(7),
        "it ended with {exit:?}, reason {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    for pair in visited.windows(2) {
        ensure!(
            pair[0] != pair[1],
            "it came back to {}: {visited:?}",
            pair[0]
        );
    }
    counting::is_whole(&job, LAST)
}

fn a_machine_without_criu_never_matches_and_the_analysis_says_why(pool: &Pool) -> Result<()> {
    let job = pool.submit(&counting_job(["ep5", "ep5"])?)?;
    let analysis = job.analyze()?;
    ensure!(
        analysis.contains("HasCRIU"),
        "the analysis names no HasCRIU:\n{analysis}"
    );
    let status = job.attribute("JobStatus")?;
    ensure!(status.as_deref() == Some("1"), "it is not idle: {status:?}");
    job.remove()
}

fn a_job_that_did_not_ask_is_left_alone(pool: &Pool) -> Result<()> {
    let submit = Submit::new("criu-starter")
        .program(
            "criu-starter",
            std::fs::read(binaries::dir()?.join("criu-starter"))?,
        )
        .program("who.sh", "#!/bin/sh\necho $$\npwd\n")
        .set("transfer_input_files", "who.sh")
        .arguments("run -- ./who.sh")
        .on_host("ep1");
    let job = pool.submit(&submit)?;
    ensure!(
        job.wait_end()? == Exit::Code(0),
        "it failed: {}",
        job.error()?
    );
    let output = job.output()?;
    let mut words = output.split_whitespace();
    let pid: u32 = words.next().context("no pid")?.parse()?;
    ensure!(pid > 2, "it has a pid namespace of its own: {output}");
    let dir = words.next().context("no directory")?;
    ensure!(dir != "/srv", "it was moved: {output}");
    Ok(())
}

fn a_slot_that_cannot_restore_gives_the_job_back_with_its_image(pool: &Pool) -> Result<()> {
    let broken = pool.host("ep6")?;
    pool.wait_slot(broken, "ep6 to be probed", |ad| {
        ad.contains("HasCRIU = true").then_some(())
    })?;
    let criu = "#!/bin/sh\n[ \"$1\" = --version ] && echo Version: 9.9.9\nexit 1\n";
    broken.write("/usr/sbin/criu", criu, User::Root, 0o755)?;
    // First on the good one, then on the broken one, then back.
    let job = pool.submit(
        &counting_job(["ep1", "ep6"])?
            .requiring("TARGET.Machine == \"ep1.pool\" || NumJobStarts > 0"),
    )?;
    ensure!(job.wait_start(1)? == "ep1");
    job.wait_scratch(".criu/srv/numbers", |text| {
        (text.lines().count() > 20).then_some(())
    })?;
    job.vacate()?;
    ensure!(job.wait_start(2)? == "ep6");
    ensure!(job.wait_start(3)? == "ep1");
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
    counting::is_whole(&job, LAST)
}
