//! How a slot is taken away.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::events::{Event, Kind};
use crate::host::Host;
use crate::job::Job;
use crate::pool::Pool;
use crate::store::Store;
use crate::submit::Submit;
use crate::users::User;
use crate::wait;
use anyhow::{Context, Result};

/// An outage of this length is over before anybody's lease is.
const SHORT: Duration = Duration::from_secs(5);

/// Until both sides know that the other is gone, and the job's lease of 20 s is over.
const LONG: Duration = Duration::from_secs(200);

/// A job on the slot that it is to lose.
pub(super) struct Case<'p> {
    pub(super) pool: &'p Pool,
    pub(super) job: Job<'p>,
    pub(super) host: &'p Host,
}

impl Case<'_> {
    fn admin(&self, args: &[&str]) -> Result<()> {
        self.pool.ap().run(User::Root, "/", args).map(drop)
    }

    fn owner(&self, args: &[&str]) -> Result<()> {
        self.pool.ap().run(User::Alice, "/", args).map(drop)
    }
}

pub(super) fn vacate_job(case: &Case<'_>) -> Result<()> {
    case.job.vacate()
}

pub(super) fn vacate_job_fast(case: &Case<'_>) -> Result<()> {
    case.owner(&["condor_vacate_job", "-fast", &case.job.id])
}

pub(super) fn vacate_machine(case: &Case<'_>) -> Result<()> {
    case.admin(&["condor_vacate", &case.host.full_name()])
}

pub(super) fn drain(case: &Case<'_>, how: &str) -> Result<()> {
    case.admin(&["condor_drain", how, &case.host.full_name()])
}

pub(super) fn off(case: &Case<'_>, how: &str, daemon: &str) -> Result<()> {
    let user = case.host.daemons();
    let args = ["condor_off", how, "-daemon", daemon];
    case.host.run(user, case.host.condor_dir(), &args).map(drop)
}

/// Another user's job that the machine ranks higher takes the slot, and ends.
pub(super) fn preferred_job(case: &Case<'_>) -> Result<()> {
    let other = Submit::script("true")
        .user(User::Bob)
        .set("+Preferred", "True")
        .on_host(&case.host.name);
    let other = case.pool.submit(&other)?;
    other.wait_end().map(drop)
}

pub(super) fn glidein_to_die(case: &Case<'_>) -> Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock")?;
    case.host
        .reconfigure(&format!("GLIDEIN_ToDie = {}", now.as_secs() + 600))
}

pub(super) fn hold_and_release(case: &Case<'_>) -> Result<()> {
    case.job.hold()?;
    case.job.wait_held()?;
    case.job.release()
}

pub(super) fn want_hold(case: &Case<'_>) -> Result<()> {
    case.host.reconfigure("WANT_HOLD = True\nPREEMPT = True")?;
    case.job.wait_held()?;
    // A slot that has ended its job is idle again.
    case.job.release()
}

pub(super) fn short_cut(case: &Case<'_>) -> Result<()> {
    case.host.cut()?;
    sleep(SHORT);
    case.host.heal()
}

/// Healed when the access point has given the slot up.
pub(super) fn long_cut(case: &Case<'_>) -> Result<()> {
    case.host.cut()?;
    case.job
        .wait("the job to be given up there", LONG, |events| {
            let starts = events.iter().filter(|event| event.kind == Kind::Started);
            (starts.count() > 1).then_some(())
        })?;
    case.host.heal()
}

pub(super) fn schedd_restarted(case: &Case<'_>) -> Result<()> {
    case.pool.ap().signal("condor_schedd", "KILL")?;
    wait_schedd(case)
}

/// The master waits for about ten seconds before it starts a daemon again.
fn wait_schedd(case: &Case<'_>) -> Result<()> {
    let limit = Duration::from_secs(90);
    wait::until("a schedd that answers", limit, || {
        Ok(case.admin(&["condor_q", "-totals"]).ok())
    })
}

/// The image takes some ten seconds to the access point, and the schedd ends in the middle of that.
pub(super) fn schedd_restarted_during_upload(case: &Case<'_>) -> Result<()> {
    case.host.throttle(Some("20mbit"))?;
    case.job.vacate()?;
    case.job
        .wait("the upload", Duration::from_secs(60), |events| {
            let out = |event: &Event| event.text.starts_with("Started transferring output files");
            events.iter().any(out).then_some(())
        })?;
    case.pool.ap().signal("condor_schedd", "KILL")?;
    wait_schedd(case)?;
    case.host.throttle(None)
}

pub(super) fn access_point_rebooted(case: &Case<'_>) -> Result<()> {
    let ap = case.pool.ap();
    let configuration = ap.configuration()?;
    ap.lose_power()?;
    sleep(SHORT);
    ap.power_cycle(case.pool.version(), &configuration)?;
    Store::on(case.pool).start()?;
    wait_schedd(case)
}
