//! Images through a store, moved by HTCondor itself with our file-transfer plugin: up at the vacate, down at the start.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::equipped::{equipped, survivor};
use tests::events::Exit;
use tests::job::{Job, LIMIT};
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::store::Store;
use tests::submit::Submit;
use tests::users::User;
use tests::wait;

use crate::counting;
use crate::shared::{Shared, on_both_versions, with_store};

/// How far the job counts.
const LAST: u32 = 120;

on_both_versions!(
    the_slots_say_that_they_have_the_plugin,
    images_travel_through_the_store_between_a_sites_own_nodes,
    images_travel_through_the_store_between_glideins,
    a_store_that_is_down_at_the_eviction_holds_the_job_with_its_older_image,
    a_store_that_is_down_at_the_start_holds_the_job_until_it_is_back,
    a_token_that_nobody_knows_is_said_to_be_so,
    another_users_token_sees_nothing,
    a_token_that_has_expired_is_refused_and_the_next_one_is_enough,
    a_network_that_is_slow_and_cut_off_for_a_while_is_no_failure,
);

static POOLS: Shared = Shared::new(|version| with_store(&spec(version)?));

/// One test at a time: most of them do something to the store or the network that all share.
fn on_shared_pool(version: HtCondor, test: fn(&Pool, &Store<'_>) -> Result<()>) {
    POOLS.alone_on(version, |pool| test(pool, &Store::on(pool)));
}

fn spec(version: HtCondor) -> Result<Spec> {
    let plugin = binaries::dir()?.join("criu-transfer");
    let with_plugin = |ep: Ep| -> Result<Ep> {
        Ok(equipped(ep)?
            .install(&plugin, "criu-transfer")
            // Patience is right at a site; here it is only waited for.
            .config("STARTD_ENVIRONMENT = \"CRIU_TRANSFER_PATIENCE=8\"")
            .config(
                "FILETRANSFER_PLUGINS = $(FILETRANSFER_PLUGINS), $(POOL_LIBEXEC)/criu-transfer",
            ))
    };
    Ok(Spec::new(version)
        .ep(with_plugin(Ep::root())?)
        .ep(with_plugin(Ep::root())?)
        .ep(with_plugin(Ep::glidein())?)
        .ep(with_plugin(Ep::glidein())?)
        .ep(with_plugin(Ep::root())?)
        .ep(with_plugin(Ep::root())?))
}

/// The counting job, on these hosts only, with its image in the store.
fn counting_job(store: &Store<'_>, hosts: [&str; 2]) -> Result<Submit> {
    let here = hosts.map(|host| format!("TARGET.Machine == \"{host}.pool\""));
    let url = store.url();
    Ok(survivor(counting::NAME, counting::program(LAST), "")?
        .requiring(&here.join(" || "))
        .set("transfer_input_files", format!("count.sh, {url}"))
        .set(
            "transfer_output_remaps",
            format!("\"checkpoint.criu={url}\""),
        )
        .set("+SpoolOnEvict", "false"))
}

fn generations(store: &Store<'_>, job: &Job<'_>) -> Result<Vec<u64>> {
    let images = store.list(User::Alice, &job.id)?;
    Ok(images
        .iter()
        .filter_map(|image| image["generation"].as_u64())
        .collect())
}

fn the_slots_say_that_they_have_the_plugin(pool: &Pool, _: &Store<'_>) -> Result<()> {
    for host in pool.eps() {
        pool.wait_slot(host, "the plugin", |ad| {
            let methods = ad
                .lines()
                .find(|line| line.starts_with("HasFileTransferPluginMethods = "))?;
            let version = ad.contains("CRIUTransferVersion = \"");
            (version && methods.contains("criu")).then_some(())
        })?;
    }
    Ok(())
}

fn images_travel_through_the_store_between_a_sites_own_nodes(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    images_travel_through_the_store(pool, store, ["ep1", "ep2"])
}

fn images_travel_through_the_store_between_glideins(pool: &Pool, store: &Store<'_>) -> Result<()> {
    images_travel_through_the_store(pool, store, ["ep3", "ep4"])
}

fn images_travel_through_the_store(pool: &Pool, store: &Store<'_>, hosts: [&str; 2]) -> Result<()> {
    let job = pool.submit(&counting_job(store, hosts)?)?;
    for (start, enough) in [(1, LAST / 6), (2, LAST / 2)] {
        job.wait_start(start)?;
        counting::wait(&job, enough)?;
        job.vacate()?;
        job.wait_evicted(start)?;
        let kept = generations(store, &job)?;
        let newest = kept.first().copied();
        ensure!(
            newest == Some(start as u64),
            "after eviction {start}: {kept:?}"
        );
        let spool = format!("{}/spool", pool.ap().condor_dir());
        let spooled = pool.ap().run(
            User::Root,
            "/",
            &["find", &spool, "-name", "checkpoint.criu*"],
        )?;
        ensure!(spooled.is_empty(), "it went to SPOOL: {spooled}");
    }
    job.wait_start(3)?;
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
    counting::is_whole(&job, LAST)
}

/// HTCondor has no second way once a URL is the way: the job is held, and its older image is what it goes on from. 23.9's starter
/// waits for a shadow that will not come back, and its slot with it: two hosts that no other test needs.
fn a_store_that_is_down_at_the_eviction_holds_the_job_with_its_older_image(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let job = pool.submit(&counting_job(store, ["ep5", "ep6"])?)?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 6)?;
    job.vacate()?;
    job.wait_start(2)?;
    counting::wait(&job, LAST / 3)?;
    store.kill()?;
    job.vacate()?;
    let held = job.wait_held();
    store.start()?;
    let held = held?.to_string();
    ensure!(
        held.contains("cannot reach ap.pool:9622"),
        "held because of {held}"
    );
    ensure!(generations(store, &job)? == [1]);
    job.release()?;
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
    counting::is_whole(&job, LAST)
}

fn a_store_that_is_down_at_the_start_holds_the_job_until_it_is_back(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    store.kill()?;
    let job = pool.submit(&counting_job(store, ["ep1", "ep2"])?);
    let held = job.and_then(|job| {
        let held = job.wait_held();
        store.start()?;
        Ok((held?.to_string(), job))
    });
    let (held, job) = held?;
    ensure!(
        held.contains("cannot reach ap.pool:9622"),
        "held because of {held}"
    );
    job.release()?;
    ensure!(job.wait_end()? == Exit::Code(7));
    counting::is_whole(&job, LAST)
}

fn a_token_that_nobody_knows_is_said_to_be_so(pool: &Pool, store: &Store<'_>) -> Result<()> {
    let host = pool.host("ep2")?;
    store.give_worthless_token(host)?;
    let job = pool.submit(&counting_job(store, ["ep2", "ep2"])?)?;
    let held = job.wait_held();
    store.give_token(host, User::Alice)?;
    let held = held?.to_string();
    ensure!(
        held.contains("ap.pool:9622 refuses"),
        "held because of {held}"
    );
    ensure!(!held.contains("worthless"), "the token is shown: {held}");
    job.remove()
}

/// A credmon's tokens live for minutes, and a job waits longer for its next slot.
fn a_token_that_has_expired_is_refused_and_the_next_one_is_enough(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    const IN_FORCE: i64 = 600;
    let hosts = ["ep1", "ep2"];
    let give =
        |name: &str, seconds| store.give_issued_token(pool.host(name)?, User::Alice, seconds);
    let story = || -> Result<()> {
        hosts.iter().try_for_each(|name| give(name, IN_FORCE))?;
        let job = pool.submit(&counting_job(store, hosts)?)?;
        let first = job.wait_start(1)?;
        let next = hosts.into_iter().find(|name| *name != first);
        let next = next.context("it is on both")?;
        give(next, -IN_FORCE)?;
        counting::wait(&job, LAST / 6)?;
        job.vacate()?;
        job.wait_evicted(1)?;
        let kept = store.list_of_issued(User::Alice, &job.id)?;
        ensure!(kept.len() == 1, "{kept:?}");
        ensure!(generations(store, &job)?.is_empty(), "another alice has it");
        let held = job.wait_held()?.to_string();
        ensure!(
            held.contains("ap.pool:9622 refuses") && !held.contains("eyJ"),
            "held because of {held}"
        );
        give(next, IN_FORCE)?;
        job.release()?;
        let exit = job.wait_end()?;
        ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
        counting::is_whole(&job, LAST)
    };
    let told = story();
    let give_back = |name| store.give_token(pool.host(name)?, User::Alice);
    hosts.into_iter().try_for_each(give_back)?;
    told
}

fn another_users_token_sees_nothing(pool: &Pool, store: &Store<'_>) -> Result<()> {
    let job = pool.submit(&counting_job(store, ["ep1", "ep2"])?)?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 6)?;
    job.vacate()?;
    job.wait_evicted(1)?;
    ensure!(generations(store, &job)? == [1]);
    ensure!(store.list(User::Bob, &job.id)?.is_empty());
    ensure!(store.list(User::Bob, "")?.is_empty());
    job.remove()
}

fn a_network_that_is_slow_and_cut_off_for_a_while_is_no_failure(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let host = pool.host("ep1")?;
    // Bytes that do not become fewer, for some seconds of upload.
    let with_ballast = counting::program(LAST).replacen(
        '\n',
        "\n[ -f ballast ] || head -c 8000000 /dev/urandom >ballast\n",
        1,
    );
    let job = counting_job(store, ["ep1", "ep2"])?.program("count.sh", with_ballast);
    let job = pool.submit(&job.requiring("TARGET.Machine == \"ep1.pool\" || NumJobStarts > 0"))?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 6)?;
    // No netem: not every kernel has it, and a narrow path shows the same.
    let slow = "qdisc add dev eth0 root tbf rate 10mbit burst 32k latency 400ms";
    let tc = |words: &str| {
        let words: Vec<&str> = ["tc"].into_iter().chain(words.split(' ')).collect();
        host.run_on_its_network(&words)
    };
    let link = |state| host.run_on_its_network(&["ip", "link", "set", "eth0", state]);
    let before = store.chunks()?;
    tc(slow)?;
    let evicted = job.vacate().and_then(|()| {
        wait::until("the upload to begin", LIMIT, || {
            Ok((store.chunks()? > before + 1).then_some(()))
        })?;
        link("down")?;
        // As long as a switch takes to start anew; what is measured is that nothing else is needed than waiting.
        std::thread::sleep(Duration::from_secs(3));
        link("up")?;
        job.wait_evicted(1)
    });
    tc("qdisc del dev eth0 root")?;
    evicted?;
    ensure!(generations(store, &job)? == [1]);
    ensure!(job.wait_end()? == Exit::Code(7));
    counting::is_whole(&job, LAST)
}
