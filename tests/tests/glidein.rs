//! What glideinWMS's configuration does to a job, shown on pools of their own: the world that the project has to cope with.

use anyhow::{Result, ensure};
use tests::events::Kind;
use tests::job::LIMIT;
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;

/// A job that would save something if it were asked to leave.
const SAVES: &str = "\
    if [ -f saved ]; then cat saved; exit 0; fi
    trap 'echo asked >saved; exit 0' TERM
    echo ready >ready
    sleep 600 & wait";

fn run(test: impl FnOnce() -> Result<()>) {
    require!(root, namespaces, roots);
    test().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_pilots_end_kills_its_job_unasked_23_9() {
    run(|| a_pilots_end_kills_its_job_unasked(HtCondor::V23_9));
}

#[test]
fn a_pilots_end_kills_its_job_unasked_25() {
    run(|| a_pilots_end_kills_its_job_unasked(HtCondor::V25));
}

/// At GLIDEIN_ToDie the job stays in its retirement of 10,000,000 s until the daemons' own time is over, and then gets no signal that
/// it could trap: what it would have saved is lost.
fn a_pilots_end_kills_its_job_unasked(version: HtCondor) -> Result<()> {
    let pool = Pool::up(&Spec::new(version).ep(Ep::glidein()))?;
    let job =
        pool.submit(&Submit::script(SAVES).set("when_to_transfer_output", "ON_EXIT_OR_EVICT"))?;
    job.wait_start(1)?;
    job.wait_scratch("ready", |text| (!text.is_empty()).then_some(()))?;
    let glidein = pool.host("ep1")?;
    // The two minutes that a real pilot has are not worth waiting for.
    glidein.reconfigure("GLIDEIN_ToDie = 1\nSHUTDOWN_GRACEFUL_TIMEOUT = 2")?;
    let gone = job.wait("the loss of its pilot", LIMIT, |events| {
        events
            .iter()
            .find(|event| {
                !matches!(
                    event.kind,
                    Kind::Submitted | Kind::Started | Kind::Transfer | Kind::Other(_)
                )
            })
            .cloned()
    })?;
    eprintln!("HTCondor {version}: {gone}");
    ensure!(
        matches!(gone.kind, Kind::Evicted | Kind::ShadowException),
        "it came to {gone}"
    );
    let spooled = pool.ap().run(
        User::Root,
        "/",
        &["find", pool.ap().condor_dir(), "-name", "saved"],
    )?;
    ensure!(spooled.is_empty(), "it was asked after all: {spooled}");
    Ok(())
}
