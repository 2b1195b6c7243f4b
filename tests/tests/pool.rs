//! What every pool can do, whatever its version: these tests share one pool per version.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::events::Exit;
use tests::host::Role;
use tests::job::Job;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;

use crate::shared::{Shared, on_both_versions};

/// The pool's promise is 15 s on an idle machine; tests run several at once.
const UP_LIMIT: Duration = Duration::from_secs(20);

on_both_versions!(
    a_pool_is_up_in_time,
    a_job_runs_on_each_execution_point,
    a_job_can_make_its_own_namespaces,
    a_glidein_and_its_jobs_have_no_capability,
    a_vacated_job_gets_back_what_it_saved,
    a_job_that_matches_nowhere_is_told_which_clause,
    a_job_that_is_held_ends_the_waiting_for_it,
    a_host_has_no_criu_if_it_is_to_have_none,
    criu_freezes_and_thaws_in_a_host_without_root,
    what_a_startd_cron_job_prints_is_in_the_ads_of_its_slots,
    running_out_of_time_shows_the_logs_that_matter,
);

struct Timed {
    pool: Pool,
    took: Duration,
}

fn spec(version: HtCondor) -> Spec {
    let cron = |value: &str| {
        format!(
            "STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) TEST\n\
             STARTD_CRON_TEST_EXECUTABLE = $(POOL_LIBEXEC)/say\n\
             STARTD_CRON_TEST_ARGS = TestedByCron = {value}\n\
             STARTD_CRON_TEST_MODE = OneShot"
        )
    };
    Spec::new(version)
        .ep(Ep::root()
            .slots(2)
            .config(cron("true"))
            .install("/bin/echo", "say"))
        .ep(Ep::glidein()
            .slots(2)
            .config(cron("false"))
            .install("/bin/echo", "say"))
        .ep(Ep::root().without_criu().config("START = False"))
}

static POOLS: Shared<Timed> = Shared::new(|version| {
    let start = Instant::now();
    let pool = Pool::up(&spec(version))?;
    Ok(Timed {
        pool,
        took: start.elapsed(),
    })
});

fn on_shared_pool(version: HtCondor, test: fn(&Timed) -> Result<()>) {
    POOLS.on(version, test);
}

/// One job per kind of execution point, waiting side by side.
fn on_both_hosts<'p>(
    submit: impl Fn(&str) -> Result<Job<'p>>,
) -> Result<[(&'static str, Job<'p>); 2]> {
    Ok([("ep1", submit("ep1")?), ("ep2", submit("ep2")?)])
}

fn a_pool_is_up_in_time(shared: &Timed) -> Result<()> {
    eprintln!(
        "HtCondor {} was up after {:?}",
        shared.pool.version(),
        shared.took
    );
    ensure!(shared.took < UP_LIMIT, "it took {:?}", shared.took);
    Ok(())
}

fn a_job_runs_on_each_execution_point(shared: &Timed) -> Result<()> {
    let script = "echo hello from $(hostname) as $(id -un); echo oops >&2; exit 3";
    for (host, job) in
        on_both_hosts(|host| shared.pool.submit(&Submit::script(script).on_host(host)))?
    {
        let user = if host == "ep1" { "alice" } else { "pilot" };
        ensure!(job.wait_end()? == Exit::Code(3), "it ended otherwise");
        ensure!(
            job.output()? == format!("hello from {host} as {user}\n"),
            "it printed {:?}",
            job.output()?
        );
        ensure!(job.error()? == "oops\n", "it complained {:?}", job.error()?);
    }
    Ok(())
}

fn a_job_can_make_its_own_namespaces(shared: &Timed) -> Result<()> {
    let script = r#"exec unshare --user --map-root-user --pid --fork --mount --mount-proc --ipc --uts sh -c '
        mount -t tmpfs none /mnt && mount --bind . /srv && echo $$ $(awk "{print \$2}" /proc/self/uid_map)'"#;
    for (host, job) in
        on_both_hosts(|host| shared.pool.submit(&Submit::script(script).on_host(host)))?
    {
        let uid = if host == "ep1" {
            User::Alice.uid()
        } else {
            User::Pilot.uid()
        };
        let exit = job.wait_end()?;
        ensure!(
            exit == Exit::Code(0),
            "on {host} it ended with {exit:?}: {}",
            job.error()?
        );
        ensure!(
            job.output()? == format!("1 {uid}\n"),
            "on {host}: {}",
            job.output()?
        );
    }
    Ok(())
}

fn a_glidein_and_its_jobs_have_no_capability(shared: &Timed) -> Result<()> {
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

fn a_vacated_job_gets_back_what_it_saved(shared: &Timed) -> Result<()> {
    let script = "\
        if [ -f saved ]; then cat saved; exit 7; fi
        trap 'echo saved on $(hostname) >saved; exit 0' TERM
        echo ready >ready
        sleep 600 & wait";
    let jobs = on_both_hosts(|host| {
        let submit = Submit::script(script)
            .on_host(host)
            .set("when_to_transfer_output", "ON_EXIT_OR_EVICT");
        shared.pool.submit(&submit)
    })?;
    for (host, job) in &jobs {
        ensure!(job.wait_start(1)? == *host);
        job.wait_scratch("ready", |text| (text == "ready\n").then_some(()))?;
        job.vacate()?;
    }
    for (host, job) in &jobs {
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

fn a_job_that_matches_nowhere_is_told_which_clause(shared: &Timed) -> Result<()> {
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

fn a_job_that_is_held_ends_the_waiting_for_it(shared: &Timed) -> Result<()> {
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

fn a_host_has_no_criu_if_it_is_to_have_none(shared: &Timed) -> Result<()> {
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

/// The environment that all of the project stands on: user namespaces, an unmasked /proc, nothing inherited.
fn criu_freezes_and_thaws_in_a_host_without_root(shared: &Timed) -> Result<()> {
    let supervisor = r#"
        mount --make-rprivate / && mount -t proc proc /proc && mount --bind . /srv && cd /srv || exit 1
        setsid setpriv --inh-caps=-all --ambient-caps=-all sh -c 'while :; do echo x; sleep 0.02; done' </dev/null >out 2>&1 &
        until [ -s out ]; do sleep 0.01; done
        export XDG_RUNTIME_DIR=/srv
        criu() { setpriv --inh-caps=-setuid --ambient-caps=-setuid criu "$@" --unprivileged -D img -v4; }
        criu dump -t $! -o dump.log || { grep Error img/dump.log; exit 2; }
        wait $!
        before=$(wc -l <out)
        criu restore -o restore.log -d -S || { grep Error img/restore.log; exit 3; }
        until [ $(wc -l <out) -gt $before ]; do sleep 0.01; done
        echo thawed"#;
    let namespaces = "exec unshare --user --map-user=1000 --map-group=1000 --keep-caps --mount --pid --ipc --uts --fork bash -c";
    for (host, user) in [("ep1", User::Alice), ("ep2", User::Pilot)] {
        let dir = format!("{}/criu", user.home());
        let host = shared.pool.host(host)?;
        host.make_dir(format!("{dir}/img"), user, 0o755)?;
        host.make_dir(&dir, user, 0o755)?;
        let script = format!("{namespaces} \"$0\" 2>&1");
        let printed = host.run(user, &dir, &["bash", "-c", &script, supervisor])?;
        ensure!(printed.contains("thawed"), "on {}: {printed}", host.name);
    }
    Ok(())
}

fn what_a_startd_cron_job_prints_is_in_the_ads_of_its_slots(shared: &Timed) -> Result<()> {
    for (host, has) in [("ep1", true), ("ep2", false)] {
        let host = shared.pool.host(host)?;
        let line = format!("TestedByCron = {has}");
        shared.pool.wait_slot(host, &line, |ad| {
            ad.lines().any(|found| found == line).then_some(())
        })?;
    }
    let job = shared
        .pool
        .submit(&Submit::script("hostname").set("requirements", "TARGET.TestedByCron =?= true"))?;
    job.wait_end()?;
    ensure!(job.output()? == "ep1\n", "it ran on {}", job.output()?);
    Ok(())
}

fn running_out_of_time_shows_the_logs_that_matter(shared: &Timed) -> Result<()> {
    let job = shared
        .pool
        .submit(&Submit::script("true").on_host("nowhere"))?;
    let error = job
        .wait("a wonder", Duration::from_millis(500), |_| None::<()>)
        .expect_err("it has nowhere to run");
    let error = format!("{error:#}");
    for part in [
        "a wonder",
        "Job submitted from host",
        "ap SchedLog",
        "ap NegotiatorLog",
        "ep1 StartLog",
        "ep2 StartLog",
    ] {
        ensure!(error.contains(part), "it does not show {part}: {error}");
    }
    job.remove()
}
