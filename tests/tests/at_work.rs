//! What people and HTCondor do with jobs at work, and what becomes of it where the jobs are ours.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tests::equipped::{equipped, survivor};
use tests::events::{Exit, Kind};
use tests::host::Host;
use tests::job::{Job, LIMIT};
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::scratch::Scratch;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;
use tests::wait;

use crate::shared::{Shared, on_both_versions};

/// Counts until `go` is there.
const COUNT: &str = r#"#!/bin/bash
for ((i = 1; ; i++)); do
    echo "$i" >>numbers
    echo "line $i"
    [ -e go ] && break
    sleep 0.05
done
exit 7
"#;

/// A CRIU that says it is the newest, and cannot freeze anything.
const BROKEN_CRIU: &str =
    "#!/bin/sh\n[ \"$1\" = --version ] && echo Version: 9.9.9 && exit\nexit 1\n";

on_both_versions!(
    condor_tail_shows_what_the_job_prints,
    condor_ssh_to_job_leads_to_the_job_and_holds_up_no_freeze,
    streamed_output_arrives_while_the_job_runs_and_once,
    a_rehearsal_is_heard_of_at_the_access_point,
    without_time_for_a_new_image_the_last_one_leaves,
    a_dump_for_which_the_time_is_too_short_is_given_up_and_the_job_lives,
    a_job_that_has_died_so_by_itself_is_believed_when_it_does_so_after_a_thaw,
    an_older_criu_that_works_is_used_where_a_newer_one_does_not,
);

static POOLS: Shared = Shared::new(up);

fn on_shared_pool(version: HtCondor, test: fn(&Pool) -> Result<()>) {
    POOLS.on(version, test);
}

/// Two ordinary nodes, one that gives a job a second to leave (the time is taken when a job looks), and one with a
/// newer CRIU that is broken.
fn up(version: HtCondor) -> Result<Pool> {
    let no_time =
        "CRIU_LEAD = 0\nGLIDEIN_ToDie = time() + 1\nSTARTD_ATTRS = $(STARTD_ATTRS) GLIDEIN_ToDie\n";
    let broken = Scratch::new("criu")?;
    let criu = broken.path().join("criu");
    fs::write(&criu, BROKEN_CRIU)?;
    Pool::up(
        &Spec::new(version)
            .ep(equipped(Ep::root())?.slots(3))
            .ep(equipped(Ep::glidein())?.slots(3))
            .ep(equipped(Ep::root())?.slots(2).config(no_time))
            .ep(equipped(Ep::root())?.install(criu, "/usr/local/sbin/criu")),
    )
}

/// First on a host of that name, then on one of the ordinary ones.
fn first_on(host: &str, name: &str, program: &str) -> Result<Submit> {
    let first = format!("NumJobStarts == 0 && TARGET.Machine == \"{host}.pool\"");
    let then =
        "NumJobStarts > 0 && (TARGET.Machine == \"ep1.pool\" || TARGET.Machine == \"ep2.pool\")";
    let submit = survivor(name, program, "")?.set("+CRIUInterval", "0");
    Ok(submit.requiring(&format!("({first}) || ({then})")))
}

/// Waits until a running job has counted so far.
fn counted(job: &Job<'_>, so_far: usize) -> Result<()> {
    job.wait_scratch(".criu/srv/numbers", |text| {
        (text.lines().count() >= so_far).then_some(())
    })
}

/// Lets a running job end, and looks at what comes home.
fn ended_whole(job: &Job<'_>) -> Result<()> {
    job.wait_scratch(".criu/log", |log| {
        log.contains("stage=\"running\"").then_some(())
    })?;
    // It may be on its way to yet another slot.
    wait::until("the job's directory", LIMIT, || {
        let (host, scratch) = whereabouts(job)?;
        let go = format!("{scratch}/.criu/srv/go");
        Ok(host.write(go, "", User::Alice, 0o644).ok())
    })?;
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Code(7),
        "it ended with {exit:?}, reason {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    let numbers = job.file("numbers")?;
    let last = numbers.lines().count();
    ensure!(
        numbers.lines().eq((1..=last).map(|i| i.to_string())),
        "numbers:\n{numbers}"
    );
    let output = job.output()?;
    ensure!(
        output.lines().eq((1..=last).map(|i| format!("line {i}"))),
        "stdout:\n{output}"
    );
    Ok(())
}

/// The host of a running job, and the job's directory there.
fn whereabouts<'p>(job: &Job<'p>) -> Result<(&'p Host, String)> {
    let events = job.events()?;
    let start = events.iter().rfind(|event| event.kind == Kind::Started);
    let start = start.context("it never started")?;
    let host = job.pool().host(start.host().context("no host")?)?;
    let scratch = start.scratch_dir().context("no directory")?;
    Ok((host, scratch.to_owned()))
}

fn condor_ssh_to_job_leads_to_the_job_and_holds_up_no_freeze(pool: &Pool) -> Result<()> {
    let job = pool.submit(&first_on("ep1", "count.sh", COUNT)?)?;
    job.wait_start(1)?;
    counted(&job, 20)?;
    let home = &User::Alice.home();
    let there = |words: &str| {
        // A shadow that is new may not know its starter yet.
        let args = ["condor_ssh_to_job", "-auto-retry", &job.id, words];
        let said = pool.ap().run(User::Alice, home, &args);
        said.with_context(|| tests::logs::of_job(&job))
    };
    let last = there("tail -n 1 .criu/srv/numbers")?;
    ensure!(last.trim().parse::<usize>()? >= 20, "{last:?}");

    // Somebody who stays is no part of the job.
    let mut guest = pool
        .ap()
        .command(User::Alice, home)?
        .args(["condor_ssh_to_job", &job.id, "touch here; exec sleep 600"])
        .spawn()?;
    job.wait_scratch("here", |_| Some(()))?;
    job.vacate()?;
    job.wait_evicted(1)?;
    wait::until("the guest's end", LIMIT, || Ok(guest.try_wait()?))?;
    job.wait_start(2)?;
    let (host, _) = whereabouts(&job)?;
    counted(&job, last.trim().parse::<usize>()? + 20)?;
    let name = there("hostname")?;
    ensure!(host.full_name().starts_with(name.trim()), "{name:?}");
    ended_whole(&job)
}

fn condor_tail_shows_what_the_job_prints(pool: &Pool) -> Result<()> {
    // It shows the last lines; while a starter begins it finds none, and says so by failing.
    let tail = |job: &Job<'_>, at_least: usize| {
        wait::until("a line by condor_tail", LIMIT, || {
            let shown = pool.ap().run(User::Alice, "/", &["condor_tail", &job.id]);
            let shown = shown.unwrap_or_default();
            let lines = shown.lines().filter_map(|line| line.strip_prefix("line "));
            let last = lines.filter_map(|line| line.parse::<usize>().ok()).max();
            Ok(last.filter(|last| *last >= at_least))
        })
        .with_context(|| tests::logs::of_job(job))
    };
    let job = pool.submit(&first_on("ep1", "count.sh", COUNT)?)?;
    job.wait_start(1)?;
    let seen = tail(&job, 20)?;
    job.vacate()?;
    job.wait_start(2)?;
    tail(&job, seen + 20)?;
    ended_whole(&job)
}

fn streamed_output_arrives_while_the_job_runs_and_once(pool: &Pool) -> Result<()> {
    let job = first_on("ep1", "count.sh", COUNT)?.set("stream_output", "true");
    let job = pool.submit(&job)?;
    let arrived = |line: usize| {
        wait::until("a line that is streamed", LIMIT, || {
            let line = format!("line {line}");
            let output = job.output().unwrap_or_default();
            Ok(output.lines().any(|there| there == line).then_some(()))
        })
        .with_context(|| tests::logs::of_job(&job))
    };
    job.wait_start(1)?;
    arrived(20)?;
    job.vacate()?;
    job.wait_start(2)?;
    arrived(100)?;
    ended_whole(&job)
}

fn a_rehearsal_is_heard_of_at_the_access_point(pool: &Pool) -> Result<()> {
    let job = first_on("ep2", "count.sh", COUNT)?.set("+CRIURehearse", "true");
    let job = pool.submit(&job)?;
    job.wait_start(1)?;
    job.wait_scratch(".criu/log", |log| {
        log.contains("stage=\"rehearsed\"").then_some(())
    })?;
    let frozen = wait::until("how long it stood still", LIMIT, || {
        job.attribute("ChirpCRIUFrozenSeconds")
    })?;
    let frozen: f64 = frozen.parse()?;
    ensure!(frozen > 0.0 && frozen < 30.0, "{frozen} s");
    // It runs on, in its first start.
    let numbers = job.scratch(".criu/srv/numbers")?.lines().count();
    counted(&job, numbers + 10)?;
    let starts = |kind| -> Result<usize> {
        Ok(job
            .events()?
            .iter()
            .filter(|event| event.kind == kind)
            .count())
    };
    ensure!(starts(Kind::Started)? == 1 && starts(Kind::Evicted)? == 0);
    job.remove()
}

/// Keeps so much memory that a second is too short for it, as any plan says.
fn with_memory(mebibytes: usize) -> String {
    format!(
        r#"#!/usr/bin/python3
import os, signal, time
block = os.urandom(1 << 20)
memory = block * {mebibytes}
def whole():
    return all(memory[i << 20:i + 1 << 20] == block for i in range({mebibytes}))
def told(*_):
    open('told', 'w').write('whole' if whole() else 'other bytes')
    raise SystemExit(3)
signal.signal(signal.SIGTERM, told)
i = 0
while not os.path.exists('go'):
    i += 1
    with open('numbers', 'a') as numbers:
        print(i, file=numbers)
    print('line', i, flush=True)
    time.sleep(0.05)
raise SystemExit(7 if whole() else 1)
"#
    )
}

fn without_time_for_a_new_image_the_last_one_leaves(pool: &Pool) -> Result<()> {
    // With a way home while it runs there would be no last image here.
    let job = first_on("ep3", "heavy.py", &with_memory(24))?
        .without("checkpoint_exit_code")
        .without("transfer_checkpoint_files");
    let job = pool.submit(&job)?;
    ensure!(job.wait_start(1)? == "ep3");
    counted(&job, 10)?;
    let (host, scratch) = whereabouts(&job)?;
    let starter = format!("{}/criu-starter", host.libexec());
    let dump = [starter.as_str(), "dump", "--keep-running", &scratch];
    host.run(User::Alice, "/", &dump)?;
    let at_image = job.scratch(".criu/srv/numbers")?.lines().count();
    counted(&job, at_image + 40)?;
    let vacated = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    job.vacate()?;
    job.wait_evicted(1)?;
    let of_ad = |name: &str| -> Result<u64> {
        let value = job.attribute(name)?;
        let value = value.with_context(|| format!("no {name}: {}", tests::logs::of_job(&job)))?;
        Ok(value.parse()?)
    };
    ensure!(of_ad("ChirpCRIUGeneration")? == 1);
    ensure!(of_ad("ChirpCRIUTime")? < vacated, "a new image was taken");
    job.wait_start(2)?;
    // What it had printed since its image it has to count again, before it may end.
    counted(&job, at_image + 100)?;
    ended_whole(&job)
}

fn a_dump_for_which_the_time_is_too_short_is_given_up_and_the_job_lives(pool: &Pool) -> Result<()> {
    let job = pool.submit(&first_on("ep3", "heavier.py", &with_memory(768))?)?;
    ensure!(job.wait_start(1)? == "ep3");
    counted(&job, 10)?;
    job.vacate()?;
    job.wait_evicted(1)?;
    let reason = job.attribute("ChirpCRIUReason")?.unwrap_or_default();
    ensure!(
        reason.contains("the time for it was up"),
        "the reason is {reason}: {}",
        tests::logs::of_job(&job)
    );
    // It got its signal, found its memory whole, and what it left when it was told to go went with it.
    job.wait_start(2)?;
    job.wait_scratch(".criu/srv/told", |told| (told == "whole").then_some(()))?;
    job.remove()
}

/// What makes the job die, on the hosts: HTCondor gives jobs a /var/tmp of their own.
const CRASH: &str = "/opt/crash";

const CRASHES: &str = r#"#!/bin/bash
for ((i = 1; ; i++)); do
    echo "$i" >>numbers
    echo "line $i"
    [ -e /opt/crash ] && kill -SEGV $$
    sleep 0.05
done
"#;

fn a_job_that_has_died_so_by_itself_is_believed_when_it_does_so_after_a_thaw(
    pool: &Pool,
) -> Result<()> {
    let job = first_on("ep1", "crashes.sh", CRASHES)?.set("max_retries", "1");
    let job = pool.submit(&job)?;
    job.wait_start(1)?;
    counted(&job, 10)?;
    job.vacate()?;
    job.wait_start(2)?;
    job.wait_scratch(".criu/log", |log| {
        log.contains("from=\"image\"").then_some(())
    })?;
    // Beyond its first seconds a death is its own.
    let numbers = job.scratch(".criu/srv/numbers")?.lines().count();
    counted(&job, numbers + 120)?;
    for host in pool.eps() {
        host.write(CRASH, "", User::Root, 0o644)?;
    }
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Signal(11),
        "it ended with {exit:?}: {}",
        tests::logs::of_job(&job)
    );
    let events = job.events()?;
    let starts = events.iter().filter(|event| event.kind == Kind::Started);
    let starts = starts.count();
    ensure!(
        starts == 3,
        "{starts} starts: {}",
        tests::logs::of_job(&job)
    );
    Ok(())
}

fn an_older_criu_that_works_is_used_where_a_newer_one_does_not(pool: &Pool) -> Result<()> {
    let version = pool.wait_slot(pool.host("ep4")?, "a slot with CRIU", |ad| {
        let line = ad.lines().find(|line| line.starts_with("CRIUVersion = "))?;
        ad.contains("HasCRIU = true").then(|| line.to_owned())
    })?;
    ensure!(version.contains("\"4."), "{version}");
    let job = pool.submit(&first_on("ep4", "count.sh", COUNT)?)?;
    ensure!(job.wait_start(1)? == "ep4");
    counted(&job, 20)?;
    job.vacate()?;
    job.wait_start(2)?;
    let generation = job.attribute("ChirpCRIUGeneration")?;
    ensure!(generation.as_deref() == Some("1"), "images: {generation:?}");
    ended_whole(&job)
}
