//! What every pool can do, whatever its version: these tests share one pool per version.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::events::Exit;
use tests::host::Role;
use tests::job::Job;
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;

/// The pool's promise is 15 s on an idle machine; tests run several at once.
const UP_LIMIT: Duration = Duration::from_secs(20);

/// Each test on both versions: `v23_9::name` and `v25::name`.
macro_rules! on_both_versions {
    ($($name:ident),+ $(,)?) => {
        mod v23_9 { $(#[test] fn $name() { super::on_shared_pool(super::HtCondor::V23_9, super::$name); })+ }
        mod v25 { $(#[test] fn $name() { super::on_shared_pool(super::HtCondor::V25, super::$name); })+ }
    };
}

on_both_versions!(
    a_pool_is_up_in_time,
    a_job_runs_on_each_execution_point,
    a_job_can_make_its_own_namespaces,
    a_glidein_and_its_jobs_have_no_capability,
    a_vacated_job_gets_back_what_it_saved,
    a_job_that_matches_nowhere_is_told_which_clause,
    a_job_that_is_held_ends_the_waiting_for_it,
    a_host_has_no_criu_if_it_is_to_have_none,
);

struct Shared {
    pool: Pool,
    took: Duration,
}

fn spec(version: HtCondor) -> Spec {
    Spec::new(version)
        .ep(Ep::root().slots(2))
        .ep(Ep::glidein().slots(2))
        .ep(Ep::root().without_criu().config("START = False"))
}

/// Nobody drops it: its guard ends it when the test process is gone.
fn shared(version: HtCondor) -> &'static Result<Shared, String> {
    static POOLS: [OnceLock<Result<Shared, String>>; 2] = [OnceLock::new(), OnceLock::new()];
    let index = usize::from(version == HtCondor::V25);
    POOLS[index].get_or_init(|| {
        let start = Instant::now();
        let pool = Pool::up(&spec(version)).map_err(|error| format!("{error:#}"))?;
        Ok(Shared {
            pool,
            took: start.elapsed(),
        })
    })
}

fn on_shared_pool(version: HtCondor, test: fn(&Shared) -> Result<()>) {
    require!(root, namespaces, roots);
    match shared(version) {
        Ok(shared) => test(shared).unwrap_or_else(|error| panic!("{error:#}")),
        Err(error) => panic!("{error}"),
    }
}

fn a_pool_is_up_in_time(shared: &Shared) -> Result<()> {
    eprintln!(
        "HtCondor {} was up after {:?}",
        shared.pool.version(),
        shared.took
    );
    ensure!(shared.took < UP_LIMIT, "it took {:?}", shared.took);
    Ok(())
}

fn a_job_runs_on_each_execution_point(shared: &Shared) -> Result<()> {
    let pool = &shared.pool;
    let script = "echo hello from $(hostname) as $(id -un); echo oops >&2; exit 3";
    let jobs: Vec<Job> = ["ep1", "ep2"]
        .map(|host| pool.submit(&Submit::script(script).on_host(host)))
        .into_iter()
        .collect::<Result<_>>()?;
    for (job, greeting) in jobs
        .iter()
        .zip(["hello from ep1 as alice\n", "hello from ep2 as pilot\n"])
    {
        ensure!(job.wait_end()? == Exit::Code(3), "it ended otherwise");
        ensure!(job.output()? == greeting, "it printed {:?}", job.output()?);
        ensure!(job.error()? == "oops\n", "it complained {:?}", job.error()?);
    }
    Ok(())
}

fn a_job_can_make_its_own_namespaces(shared: &Shared) -> Result<()> {
    let script = r#"exec unshare --user --map-root-user --pid --fork --mount --mount-proc --ipc --uts sh -c '
        mount -t tmpfs none /mnt && mount --bind . /srv && echo $$ $(awk "{print \$2}" /proc/self/uid_map)'"#;
    for (host, uid) in [("ep1", User::Alice.uid()), ("ep2", User::Pilot.uid())] {
        let job = shared.pool.submit(&Submit::script(script).on_host(host))?;
        let exit = job.wait_end()?;
        ensure!(
            exit == Exit::Code(0),
            "on {host} it ended with {exit:?}: {}",
            job.error()?
        );
        let printed = job.output()?;
        ensure!(printed == format!("1 {uid}\n"), "on {host}: {printed}");
    }
    Ok(())
}

fn a_glidein_and_its_jobs_have_no_capability(shared: &Shared) -> Result<()> {
    let glidein = shared.pool.host("ep2")?;
    ensure!(glidein.role == Role::Glidein);
    let job = shared
        .pool
        .submit(&Submit::script("cat /proc/self/status").on_host("ep2"))?;
    job.wait_end()?;
    let master = glidein.run(
        User::Root,
        "/",
        &["sh", "-c", "cat /proc/$(pgrep -o condor_master)/status"],
    )?;
    for (who, status) in [("job", job.output()?), ("master", master)] {
        let field = |name: &str| -> Result<String> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .with_context(|| format!("no {name}"))?;
            Ok(line.trim().to_owned())
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            ensure!(
                field(set)? == "0000000000000000",
                "{set} of the {who} is {}",
                field(set)?
            );
        }
        ensure!(
            field("NoNewPrivs:")? == "1",
            "the {who} may gain privileges"
        );
        ensure!(
            field("Uid:")?.starts_with("3000"),
            "the {who} runs as {}",
            field("Uid:")?
        );
    }
    Ok(())
}

fn a_vacated_job_gets_back_what_it_saved(shared: &Shared) -> Result<()> {
    let script = "\
        if [ -f saved ]; then cat saved; exit 7; fi
        trap 'echo saved on $(hostname) >saved; exit 0' TERM
        echo ready >ready
        sleep 600 & wait";
    for host in ["ep1", "ep2"] {
        let submit = Submit::script(script)
            .on_host(host)
            .set("when_to_transfer_output", "ON_EXIT_OR_EVICT");
        let job = shared.pool.submit(&submit)?;
        ensure!(job.wait_start(1)? == host);
        job.wait_scratch("ready", |text| (text == "ready\n").then_some(()))?;
        job.vacate()?;
        job.wait_evicted(1)?;
        job.wait_start(2)?;
        let exit = job.wait_end()?;
        ensure!(
            exit == Exit::Code(7),
            "its second start on {host} ended with {exit:?}"
        );
        ensure!(
            job.output()? == format!("saved on {host}\n"),
            "its second start printed {:?}",
            job.output()?
        );
    }
    Ok(())
}

fn a_job_that_matches_nowhere_is_told_which_clause(shared: &Shared) -> Result<()> {
    let job = shared
        .pool
        .submit(&Submit::script("true").set("requirements", "TARGET.HasNoSuchThing =?= true"))?;
    let analysis = job.analyze()?;
    ensure!(
        analysis.contains("HasNoSuchThing"),
        "the analysis names no clause:\n{analysis}"
    );
    ensure!(
        job.attribute("JobStatus")?.as_deref() == Some("1"),
        "it is not idle"
    );
    job.remove()
}

fn a_job_that_is_held_ends_the_waiting_for_it(shared: &Shared) -> Result<()> {
    let job = shared.pool.submit(&Submit::script("sleep 600"))?;
    job.wait_start(1)?;
    job.hold()?;
    let error = job.wait_end().expect_err("a held job does not end");
    ensure!(
        error.to_string().contains("held"),
        "the reason is not told: {error:#}"
    );
    job.wait_held()?;
    job.remove()
}

fn a_host_has_no_criu_if_it_is_to_have_none(shared: &Shared) -> Result<()> {
    for (host, has) in [("ep1", true), ("ep2", true), ("ep3", false)] {
        let found = shared.pool.host(host)?.run(
            User::Root,
            "/",
            &["sh", "-c", "command -v criu || echo none"],
        )?;
        ensure!((found.trim() != "none") == has, "on {host}: {found}");
    }
    Ok(())
}
