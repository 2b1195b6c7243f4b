//! What `criu-pilot configure glidein` is for: a pilot with glideinWMS's own defaults asks no job to leave, one with it does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::equipped::{pilot_says, survivor, with_programs};
use tests::events::{Event, Exit, Kind};
use tests::job::{Job, LIMIT};
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::users::User;

const LAST: u32 = 400;

const COUNT: &str = "#!/bin/sh
i=0
while [ $i -lt 400 ]; do i=$((i + 1)); echo $i $$ >>numbers; sleep 0.05; done
exit 7
";

const PILOT: &str = "/home/pilot/glide/main/criu-pilot";

/// `ep1` has the attributes alone, `ep2` and `ep3` the policy too.
fn pool(version: HtCondor) -> Result<Pool> {
    let all = pilot_says(&["configure", "glidein", "--pilot", PILOT])?;
    let attributes: String = all
        .lines()
        .filter(|line| line.starts_with("STARTD_CRON"))
        .map(|line| format!("{line}\n"))
        .collect();
    Pool::up(
        &Spec::new(version)
            .ep(with_programs(Ep::glidein())?.config(attributes))
            .ep(with_programs(Ep::glidein())?.config(all.clone()))
            .ep(with_programs(Ep::glidein())?.config(all)),
    )
}

/// What a job needs by itself, without the line that would ask glideins for no retirement: that is to be the policy's doing.
fn job<'p>(pool: &'p Pool, hosts: &[&str]) -> Result<Job<'p>> {
    let here: Vec<_> = hosts
        .iter()
        .map(|host| format!("TARGET.Machine == \"{host}.pool\""))
        .collect();
    let submit = survivor("count.sh", COUNT, "")?
        .without("max_job_retirement_time")
        .requiring(&here.join(" || "));
    pool.submit(&submit)
}

fn counts(job: &Job<'_>, enough: usize) -> Result<()> {
    job.wait_scratch(".criu/srv/numbers", |text| {
        (text.lines().count() >= enough).then_some(())
    })
}

fn generation(job: &Job<'_>) -> Result<Option<String>> {
    job.attribute("ChirpCRIUGeneration")
}

fn test(version: HtCondor) -> Result<()> {
    let pool = pool(version)?;
    let survivor = job(&pool, &["ep2", "ep3"])?;
    let victim = job(&pool, &["ep1"])?;

    // What is in the way is said beforehand.
    let check = |host: &str| -> Result<String> {
        let script = format!("{PILOT} configure --check || true");
        pool.host(host)?
            .run(User::Pilot, "/", &["sh", "-c", &script])
    };
    let found = check("ep1")?;
    for word in [
        "MaxJobRetirementTime is 10000000 s",
        "KILL ends",
        "PREEMPT asks no job",
    ] {
        ensure!(found.contains(word), "no {word:?} in {found}");
    }
    let found = check("ep2")?;
    ensure!(found.contains("nothing of it defeats"), "{found}");

    // condor_vacate: one job is asked and goes on elsewhere, the other one is not.
    victim.wait_start(1)?;
    let first = survivor.wait_start(1)?;
    counts(&victim, 1)?;
    counts(&survivor, 20)?;
    let vacate = |host: &str| {
        let name = format!("{host}.pool");
        pool.ap().run(User::Root, "/", &["condor_vacate", &name])
    };
    vacate("ep1")?;
    vacate(&first)?;
    survivor.wait_evicted(1)?;
    ensure!(generation(&survivor)?.as_deref() == Some("1"), "no image");

    // GLIDEIN_ToDie: asked in time, and on to the other pilot.
    let second = survivor.wait_start(2)?;
    ensure!(second != first, "it came back to {first}");
    counts(&survivor, 120)?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("the clock")?
        .as_secs();
    let host = pool.host(&second)?;
    host.reconfigure(&format!("GLIDEIN_ToDie = {}", now + 600))?;
    survivor.wait_evicted(2)?;
    ensure!(
        generation(&survivor)?.as_deref() == Some("2"),
        "no second image"
    );

    // Meanwhile nobody has asked the other one, and nobody does at its end.
    let gone = |events: &[Event]| {
        let others = |kind: &Kind| {
            !matches!(
                kind,
                Kind::Submitted | Kind::Started | Kind::Transfer | Kind::Other(_)
            )
        };
        events.iter().find(|event| others(&event.kind)).cloned()
    };
    ensure!(
        gone(&victim.events()?).is_none(),
        "condor_vacate evicted it after all"
    );
    pool.host("ep1")?
        .reconfigure("GLIDEIN_ToDie = 1\nSHUTDOWN_GRACEFUL_TIMEOUT = 2")?;
    victim.wait("the loss of its pilot", LIMIT, gone)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(generation(&victim)?.is_none(), "it was frozen after all");
    // It may have begun again elsewhere and ended since.
    let _ = victim.remove();

    ensure!(survivor.wait_start(3)? == first, "it went elsewhere");
    ensure!(survivor.wait_end()? == Exit::Code(7), "it ended otherwise");
    let expected: String = (1..=LAST).map(|i| format!("{i} 2\n")).collect();
    ensure!(
        survivor.file("numbers")? == expected,
        "{}",
        survivor.file("numbers")?
    );
    Ok(())
}

fn on(version: HtCondor) {
    require!(root, namespaces, user_namespaces, roots);
    test(version).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn with_our_policy_a_job_survives_its_pilots_end_and_without_it_does_not_23_9() {
    on(HtCondor::V23_9);
}

#[test]
fn with_our_policy_a_job_survives_its_pilots_end_and_without_it_does_not_25() {
    on(HtCondor::V25);
}
