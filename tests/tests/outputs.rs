//! What becomes of a job's outputs and of its images: outputs arrive as they would without us, and images go with the job.

use anyhow::{Context, Result, ensure};
use tests::equipped::{equipped, survivor};
use tests::events::{Exit, Kind};
use tests::job::{Job, LIMIT};
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;
use tests::wait;

use crate::shared::{Shared, on_both_versions};

on_both_versions!(
    named_outputs_arrive_whole_and_at_the_end_alone,
    a_held_job_goes_on_from_its_image_and_leaves_none,
    a_removed_job_leaves_nothing,
    a_job_that_cannot_be_frozen_is_not_held_for_outputs_that_it_has_not_made,
);

/// Writes its outputs bit by bit, so that a half of each is there when it is evicted.
const WORK: &str = "#!/bin/sh
mkdir -p plots/deep
date +%s%N >begun
i=0
while [ $i -lt 120 ]; do
    i=$((i + 1))
    echo $i >>results
    echo $i >>plots/deep/all
    echo $i >>scrap
    [ $i -lt 100 ] || echo $i >>late.txt
    sleep 0.05
done
cat state >>results
echo ended >state
exit 7
";

fn up(version: HtCondor) -> Result<Pool> {
    let eps = [Ep::root(), Ep::root(), Ep::glidein(), Ep::glidein()];
    let spec = eps.into_iter().try_fold(Spec::new(version), |spec, ep| {
        anyhow::Ok(spec.ep(equipped(ep)?))
    })?;
    Pool::up(&spec)
}

static POOLS: Shared = Shared::new(up);

fn on_shared_pool(version: HtCondor, test: fn(&Pool) -> Result<()>) {
    POOLS.on(version, test);
}

fn worker(program: &str) -> Result<Submit> {
    Ok(survivor("work.sh", program, "")?
        .file("state", "begun\n")
        .set("transfer_input_files", "work.sh, state"))
}

fn has_lines(job: &Job<'_>, file: &str, enough: usize) -> Result<()> {
    job.wait_scratch(&format!(".criu/srv/{file}"), |text| {
        (text.lines().count() >= enough).then_some(())
    })
}

fn files(job: &Job<'_>) -> Result<Vec<String>> {
    let listed = job
        .pool()
        .ap()
        .run(User::Root, &job.dir, &["find", ".", "-type", "f"])?;
    let mut files: Vec<String> = listed.lines().map(|line| line[2..].to_owned()).collect();
    files.sort();
    Ok(files)
}

/// What of the job is in the access point's SPOOL.
fn spooled(job: &Job<'_>) -> Result<Vec<String>> {
    let ap = job.pool().ap();
    let (cluster, process) = job.id.split_once('.').context("a job's id")?;
    let dir = format!("*cluster{cluster}.proc{process}.subproc0*");
    let spool = format!("{}/spool", ap.condor_dir());
    let found = ap.run(User::Root, "/", &["find", &spool, "-path", &dir])?;
    Ok(found.lines().map(str::to_owned).collect())
}

fn wait_unspooled(job: &Job<'_>) -> Result<()> {
    let mut left = Vec::new();
    wait::until("its directory in SPOOL to go", LIMIT, || {
        left = spooled(job)?;
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| left.join("\n"))
}

/// Files, a directory, a file that exists late, one that goes elsewhere, and one that is an input too; and nothing else.
fn named_outputs_arrive_whole_and_at_the_end_alone(pool: &Pool) -> Result<()> {
    let submit = worker(WORK)?
        .set(
            "transfer_output_files",
            "results, plots/deep, late.txt, state",
        )
        .set("transfer_output_remaps", "\"late.txt=elsewhere/l.txt\"");
    let job = pool.submit(&submit)?;
    pool.ap()
        .make_dir(format!("{}/elsewhere", job.dir), User::Alice, 0o755)?;
    let before = {
        let mut before = files(&job)?;
        // Written when it first runs.
        before.retain(|name| !name.starts_with("job.o") && !name.starts_with("job.e"));
        before
    };
    for (eviction, lines) in [(1, 20), (2, 60)] {
        job.wait_start(eviction)?;
        has_lines(&job, "results", lines)?;
        job.vacate()?;
        job.wait_evicted(eviction)?;
        let generation = job.attribute("ChirpCRIUGeneration")?;
        ensure!(
            generation == Some(eviction.to_string()),
            "generation {generation:?}, reason {:?}",
            job.attribute("ChirpCRIUReason")?
        );
        let mut now = files(&job)?;
        now.retain(|name| !name.starts_with("job.o") && !name.starts_with("job.e"));
        ensure!(
            now == before,
            "{now:?} is in the submit directory after an eviction"
        );
        ensure!(job.file("state")? == "begun\n", "half an output came home");
    }
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
    let numbers = |from: u32| (from..=120).map(|i| format!("{i}\n")).collect::<String>();
    let expected = [
        ("results", numbers(1) + "begun\n"),
        ("deep/all", numbers(1)),
        ("elsewhere/l.txt", numbers(100)),
        ("state", "ended\n".to_owned()),
    ];
    for (name, expected) in &expected {
        let found = job
            .file(name)
            .with_context(|| format!("{:?}", files(&job)))?;
        ensure!(&found == expected, "{name}:\n{found}");
    }
    let mut others = files(&job)?;
    others.retain(|name| !expected.iter().any(|(known, _)| known == name));
    let submitted = [
        "criu-starter",
        "job.err",
        "job.log",
        "job.out",
        "job.sub",
        "work.sh",
    ];
    ensure!(others == submitted, "more came home: {others:?}");
    wait_unspooled(&job)
}

fn a_held_job_goes_on_from_its_image_and_leaves_none(pool: &Pool) -> Result<()> {
    let job = pool.submit(&worker(WORK)?)?;
    job.wait_start(1)?;
    has_lines(&job, "results", 30)?;
    let begun = job.scratch(".criu/srv/begun")?;
    job.hold()?;
    job.wait_held()?;
    let image = |names: &[String]| names.iter().any(|name| name.ends_with("/checkpoint.criu"));
    wait::until("the image in SPOOL", LIMIT, || {
        Ok(image(&spooled(&job)?).then_some(()))
    })?;
    job.release()?;
    job.wait_start(2)?;
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
    // From the beginning, it would have begun again.
    ensure!(
        job.file("begun")? == begun,
        "it did not go on from its image"
    );
    let generation = job.attribute("ChirpCRIUGeneration")?;
    ensure!(
        generation.as_deref() == Some("1"),
        "generation {generation:?}"
    );
    wait_unspooled(&job)
}

fn a_removed_job_leaves_nothing(pool: &Pool) -> Result<()> {
    let running = pool.submit(&worker(WORK)?)?;
    let host = running.wait_start(1)?;
    let first = scratch(&running)?;
    has_lines(&running, "results", 10)?;
    running.vacate()?;
    running.wait_evicted(1)?;
    ensure!(!spooled(&running)?.is_empty(), "it has no image");
    let again = running.wait_start(2)?;
    let second = scratch(&running)?;
    has_lines(&running, "results", 20)?;
    running.remove()?;
    running.wait("its removal", LIMIT, |events| {
        events
            .iter()
            .find(|event| event.kind == Kind::Removed)
            .cloned()
    })?;
    wait_unspooled(&running)?;
    for (host, dir) in [(host, first), (again, second)] {
        let host = pool.host(&host)?;
        wait::until(&format!("{dir} on {} to go", host.name), LIMIT, || {
            let gone = std::fs::symlink_metadata(host.path(&dir)).is_err();
            // Those that had their files open below it.
            let look = format!(
                "ls -l /proc/[0-9]*/cwd /proc/[0-9]*/exe 2>/dev/null | grep -c {dir} || true"
            );
            let used = host.run(User::Root, "/", &["sh", "-c", &look])?;
            Ok((gone && used.trim() == "0").then_some(()))
        })?;
    }
    ensure!(
        running.file("checkpoint.criu").is_err(),
        "its image came home"
    );
    Ok(())
}

fn scratch(job: &Job<'_>) -> Result<String> {
    let events = job.events()?;
    let start = events.iter().rfind(|event| event.kind == Kind::Started);
    let dir = start
        .and_then(|start| start.scratch_dir())
        .context("no scratch directory")?;
    Ok(dir.to_owned())
}

/// A memfd that is mapped: CRIU would restore it wrongly, so it is not frozen, and ends by the signal.
fn a_job_that_cannot_be_frozen_is_not_held_for_outputs_that_it_has_not_made(
    pool: &Pool,
) -> Result<()> {
    let program = "#!/usr/bin/python3
import mmap, os, time
fd = os.memfd_create('ring')
os.ftruncate(fd, 4096)
ring = mmap.mmap(fd, 4096)
for i in range(600):
    with open('results', 'a') as results: print(i, file=results)
    time.sleep(0.05)
";
    let job = pool.submit(&worker(program)?.set("transfer_output_files", "late, results"))?;
    job.wait_start(1)?;
    has_lines(&job, "results", 5)?;
    job.vacate()?;
    job.wait_evicted(1)?;
    let reason = job.attribute("ChirpCRIUReason")?.unwrap_or_default();
    ensure!(reason.contains("memfd"), "the reason is {reason}");
    // From the beginning, and nothing of what stood for its outputs is in its way.
    job.wait_start(2)?;
    has_lines(&job, "results", 1)?;
    ensure!(
        job.scratch(".criu/srv/late").is_err(),
        "an empty output came back"
    );
    job.remove()
}
