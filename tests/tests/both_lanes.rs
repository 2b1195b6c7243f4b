//! The supervisor's own way to a store, and what it falls back to.

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::equipped::{equipped, pilot_says, survivor_with_store};
use tests::events::{Exit, Kind};
use tests::job::{Job, LIMIT};
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::store::{IMAGES, PLACE, Store, TOKEN, WITH_CREDD};
use tests::submit::Submit;
use tests::users::User;
use tests::wait;

use crate::counting;
use crate::shared::{Shared, on_both_versions, with_store};

/// How far the job counts.
const LAST: u32 = 240;

on_both_versions!(
    images_go_home_through_the_store_and_nothing_through_spool,
    a_store_that_is_down_at_the_eviction_costs_nothing_and_the_next_image_is_its_again,
    a_store_that_is_down_at_the_start_is_waited_for,
    an_image_in_passing_is_what_a_killed_slots_job_goes_on_from,
    a_slot_without_the_program_uses_spool,
    one_line_in_a_job_is_enough_where_the_access_point_names_its_store,
    images_of_jobs_that_left_the_queue_are_collected_and_no_others,
    the_credmons_token_is_found_where_htcondor_puts_it,
);

static POOLS: Shared = Shared::new(|version| with_store(&spec(version)?));

/// One test at a time: most of them do something to the store or the network that all share.
fn on_shared_pool(version: HtCondor, test: fn(&Pool, &Store<'_>) -> Result<()>) {
    POOLS.alone_on(version, |pool| test(pool, &Store::on(pool)));
}

/// Patience is right at a site; here it is only waited for.
fn spec(version: HtCondor) -> Result<Spec> {
    let transfer = binaries::dir()?.join("criu-transfer");
    let impatient = |ep: Ep| -> Result<Ep> {
        Ok(equipped(ep)?
            .install(&transfer, "criu-transfer")
            .config("SEC_DEFAULT_ENCRYPTION = PREFERRED")
            .config(format!(
                "STARTER_JOB_ENVIRONMENT = \"CRIU_TRANSFER_PATIENCE=3 BEARER_TOKEN_FILE={TOKEN}\""
            )))
    };
    Ok(Spec::new(version)
        .config(pilot_says(&["configure", "ap", "--store", PLACE])?)
        .config(WITH_CREDD)
        .ep(impatient(Ep::root())?)
        .ep(impatient(Ep::root())?)
        .ep(impatient(Ep::glidein())?))
}

fn counting_job() -> Result<Submit> {
    survivor_with_store(counting::NAME, counting::program(LAST), "", PLACE)
}

/// To the end, and whole.
fn ends_whole(job: &Job<'_>) -> Result<()> {
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Code(7),
        "it ended with {exit:?}, reason {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    counting::is_whole(job, LAST)
}

/// The generations of the job's images in the store, newest first.
fn stored(store: &Store<'_>, job: &Job<'_>) -> Result<Vec<u64>> {
    let id = job.attribute("GlobalJobId")?.context("it has an id")?;
    let images = store.list(User::Alice, id.trim_matches('"'))?;
    let generations = images
        .iter()
        .filter_map(|image| image.get("generation")?.as_u64());
    Ok(generations.collect())
}

/// Whether the job has an image in SPOOL.
fn is_spooled(job: &Job<'_>) -> Result<bool> {
    let ap = job.pool().ap();
    let spool = format!("{}/spool", ap.condor_dir());
    let (cluster, process) = job.id.split_once('.').context("an id")?;
    let its = format!("*/cluster{cluster}.proc{process}.subproc0/*");
    let args = ["find", &spool, "-path", &its, "-name", "checkpoint.criu*"];
    Ok(!ap.run(User::Root, "/", &args)?.is_empty())
}

/// The newest image went home by this lane.
fn went_by(job: &Job<'_>, lane: &str) -> Result<()> {
    let told = job.attribute("ChirpCRIULane")?;
    ensure!(
        told == Some(format!("{lane:?}")),
        "by {told:?}: {:?} {}",
        job.attribute("ChirpCRIUReason")?,
        tests::logs::of_job(job)
    );
    Ok(())
}

/// Takes the slot away, and waits until the job is out of it.
fn evict(job: &Job<'_>, nth: usize) -> Result<()> {
    job.vacate()?;
    job.wait_evicted(nth)?;
    // The event is written before the schedd has the job's last ad.
    let generation = nth.to_string();
    wait::until("the image in the job's ad", LIMIT, || {
        let told = job.attribute("ChirpCRIUGeneration")?;
        Ok((told.as_ref() == Some(&generation)).then_some(()))
    })
    .with_context(|| tests::logs::of_job(job))
}

fn images_go_home_through_the_store_and_nothing_through_spool(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let job = pool.submit(&counting_job()?)?;
    job.wait_start(1)?;
    for nth in 1..=2 {
        counting::wait(&job, LAST / 4 * nth)?;
        evict(&job, nth as usize)?;
        went_by(&job, "store")?;
        let newest = stored(store, &job)?.first().copied();
        ensure!(newest == Some(u64::from(nth)), "{newest:?}");
        ensure!(!is_spooled(&job)?, "it went to SPOOL");
        job.wait_start(nth as usize + 1)?;
    }
    ends_whole(&job)
}

fn a_store_that_is_down_at_the_eviction_costs_nothing_and_the_next_image_is_its_again(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let job = pool.submit(&counting_job()?)?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 4)?;
    store.kill()?;
    let evicted = evict(&job, 1);
    store.start()?;
    evicted?;
    went_by(&job, "spool")?;
    ensure!(is_spooled(&job)?, "it did not go to SPOOL");
    job.wait_start(2)?;
    counting::wait(&job, LAST / 2)?;
    evict(&job, 2)?;
    went_by(&job, "store")?;
    ensure!(stored(store, &job)? == [2]);
    // The older one is still where it was.
    ensure!(is_spooled(&job)?);
    job.wait_start(3)?;
    counting::wait(&job, LAST / 2 + 1)?;
    ends_whole(&job)
}

fn a_store_that_is_down_at_the_start_is_waited_for(pool: &Pool, store: &Store<'_>) -> Result<()> {
    let job = pool.submit(&counting_job()?)?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 4)?;
    evict(&job, 1)?;
    // Or it might be running again before the store is down.
    job.hold()?;
    job.wait_held()?;
    went_by(&job, "store")?;
    store.kill()?;
    job.release()?;
    // A starter that gives a job back sends no attribute of it, so the event tells why.
    // An eviction by the hold is there before it, where the job ran again already.
    let given_back = job.wait("the job to be given back", LIMIT, |events| {
        let evicted = events.iter().filter(|event| event.kind == Kind::Evicted);
        let mut others = evicted
            .map(ToString::to_string)
            .filter(|text| !text.contains("via condor_hold"));
        others.nth(1)
    });
    store.start()?;
    let reason = given_back?;
    ensure!(reason.contains("cannot reach ap.pool:9622"), "{reason}");
    ends_whole(&job)
}

fn an_image_in_passing_is_what_a_killed_slots_job_goes_on_from(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let job = pool.submit(&counting_job()?.set("+CRIUInterval", "1"))?;
    job.wait_start(1)?;
    let generation = wait::until("two images in the store", LIMIT, || {
        let newest = stored(store, &job)?.first().copied();
        Ok(newest.filter(|newest| *newest >= 2))
    })
    .with_context(|| tests::logs::of_job(&job))?;
    job.vacate_fast()?;
    job.wait_start(2)?;
    let from = job.wait_scratch(".criu/log", |log| {
        let line = log.lines().find(|line| line.contains("from=\"image\""))?;
        let rest = line.split("generation=").nth(1)?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    })?;
    ensure!(
        from >= generation,
        "it went on from image {from} of {generation}"
    );
    ends_whole(&job)
}

fn a_slot_without_the_program_uses_spool(pool: &Pool, store: &Store<'_>) -> Result<()> {
    let job = counting_job()?.set("transfer_input_files", "count.sh");
    let job = pool.submit(&job)?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 4)?;
    evict(&job, 1)?;
    went_by(&job, "spool")?;
    ensure!(stored(store, &job)?.is_empty());
    ensure!(is_spooled(&job)?);
    ends_whole(&job)
}

fn one_line_in_a_job_is_enough_where_the_access_point_names_its_store(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let submit = Submit::new("count.sh")
        .program(counting::NAME, counting::program(LAST))
        .set("+WantCRIU", "true")
        .requiring("TARGET.Name =!= MY.LastRemoteHost");
    let job = pool.submit(&submit)?;
    job.wait_start(1)?;
    counting::wait(&job, LAST / 3)?;
    evict(&job, 1)?;
    went_by(&job, "store")?;
    ensure!(stored(store, &job)? == [1]);
    ends_whole(&job)
}

fn images_of_jobs_that_left_the_queue_are_collected_and_no_others(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let [gone, there] = [
        pool.submit(&counting_job()?)?,
        pool.submit(&counting_job()?)?,
    ];
    for job in [&gone, &there] {
        job.wait_start(1)?;
        counting::wait(job, LAST / 4)?;
        evict(job, 1)?;
        ensure!(stored(store, job)? == [1]);
    }
    let ids = [&gone, &there].map(|job| job.attribute("GlobalJobId"));
    let [gone_id, there_id] = ids;
    let (gone_id, there_id) = (gone_id?.context("an id")?, there_id?.context("an id")?);
    let is_of = |line: &str, id: &str| line.contains(&format!("job {},", id.trim_matches('"')));
    gone.remove()?;
    gone.wait("its end", LIMIT, |events| {
        events
            .iter()
            .find(|event| event.kind == Kind::Removed)
            .cloned()
    })?;

    // Nobody is asked about the youngest: a job may be on its way from one queue to another.
    let ap = pool.ap();
    let collect = |option: &[&str]| {
        let args = ["criu-transfer", "gc", "--dir", IMAGES, "--ask-schedd"];
        ap.run(User::Root, "/", &[&args, option].concat())
    };
    let said = collect(&["--dry-run"])?;
    ensure!(!said.lines().any(|line| is_of(line, &gone_id)), "{said}");
    let aged = "find \"$0\" -name '*.json' -exec touch -d '2 hours ago' {} +";
    ap.run(User::Root, "/", &["sh", "-c", aged, IMAGES])?;
    let said = collect(&["--dry-run"])?;
    ensure!(said.lines().any(|line| is_of(line, &gone_id)), "{said}");

    store.kill()?;
    let collected = collect(&[]);
    store.start()?;
    let said = collected?;
    let left = |line: &&str| is_of(line, &gone_id) && line.ends_with("its job left the queue");
    ensure!(said.lines().filter(left).count() == 1, "{said}");
    ensure!(!said.lines().any(|line| is_of(line, &there_id)), "{said}");
    ensure!(stored(store, &there)? == [1]);
    ends_whole(&there)
}

/// The credd, the shadow and the starter are HTCondor's; who signs the token and puts it into the credd's directory is not.
fn the_credmons_token_is_found_where_htcondor_puts_it(
    pool: &Pool,
    store: &Store<'_>,
) -> Result<()> {
    let hosts = || pool.eps().iter();
    let story = || -> Result<()> {
        // Nothing else that a slot has is of use.
        hosts().try_for_each(|host| store.give_worthless_token(host))?;
        store.give_credmons_token(User::Alice, 600)?;
        let job = counting_job()?.set("use_oauth_services", "scitokens");
        let job = pool.submit(&job)?;
        job.wait_start(1)?;
        counting::wait(&job, LAST / 4)?;
        evict(&job, 1)?;
        went_by(&job, "store")?;
        let id = job.attribute("GlobalJobId")?.context("an id")?;
        let kept = store.list_of_issued(User::Alice, id.trim_matches('"'))?;
        ensure!(kept.len() == 1, "{kept:?}");
        ensure!(stored(store, &job)?.is_empty(), "another alice has it");
        ensure!(!store.log()?.contains("eyJ"), "the token is in the log");
        job.wait_start(2)?;
        ends_whole(&job)
    };
    let told = story();
    hosts().try_for_each(|host| store.give_token(host, User::Alice))?;
    told
}
