//! Which images are taken of a running job, and how they get home.
//!
//! ```text
//! periodic   by hand, or nobody takes it home:  dump, pack, run on; the archive stays in the directory
//!            the job has a store:               dump, pack, run on; `shipping` sends it meanwhile
//!            the job has a checkpoint_exit_code: dump, pack, end with it; the starter sends the archive and starts
//!                                                us again, where we thaw (`again` has what we tell ourselves)
//! soft kill  plan (`plan`), then dump, pack, end; or the last image leaves; or, where nothing can be frozen, the
//!            job gets the signal that it would have got without us
//! ```
//!
//! An image that only lies on the slot's disk is not announced: what the job's ad says, its access point has.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use file_transfer_plugin::{attributes, rig};

use crate::again::{self, Notes};
use crate::checkpoint::{Checkpointed, NotTaken, Way};
use crate::criu::Then;
use crate::job::Job;
use crate::plan::{self, Cost, Last, Packing, Rung};
use crate::running::{End, Running, announce};
use crate::sandbox::Sandbox;
use crate::shipping::Sent;
use crate::store::{self, Lane};
use crate::{budget, measure, outputs, vacate};

/// The part of a slot's time that is left for the way home, at the most: with less, nothing would be frozen at all.
const MOST_FOR_SENDING: f64 = 0.7;

/// What came of an image that was due.
pub(crate) enum Imaged {
    /// The job runs on; its image cost so much of its time.
    Taken(Duration),
    /// There is none, and the job runs on.
    Failed(Duration),
    /// We end, and the image goes home.
    Leaving(End),
}

/// What came of a soft kill.
pub(crate) enum Left {
    /// There is an image, and no job.
    Frozen,
    /// The job runs, and has to go in the way that it knows.
    NotFrozen,
}

impl Running {
    /// What a dump would have to write now.
    pub(crate) fn cost(&self, sandbox: &Sandbox) -> Cost {
        measure::cost(self.init.pid, sandbox)
    }

    /// What an image would take of the job's time, from what earlier ones took.
    pub(crate) fn estimate(&self, job: &Job, sandbox: &Sandbox) -> Duration {
        let mut rates = self.notes.rates;
        if self.store.is_some() || job.checkpoint_code().is_none() {
            // It goes nowhere, or while the job runs.
            (rates.spool, rates.store) = (f64::INFINITY, 0.0);
        }
        Duration::from_secs_f64(plan::seconds(Rung::Full, self.cost(sandbox), &rates))
    }

    /// An image between two others, or the last before the slot's end.
    pub(crate) fn image(&mut self, job: &Job, sandbox: &Sandbox, last: bool) -> Result<Imaged> {
        match (&self.store, job.checkpoint_code()) {
            (None, Some(code)) => self.image_for_home(job, sandbox, last, code),
            _ => {
                let begun = Instant::now();
                Ok(match self.image_in_passing(job, sandbox)? {
                    Ok(taken) => Imaged::Taken(taken.frozen),
                    Err(NotTaken(_)) => Imaged::Failed(begun.elapsed()),
                })
            }
        }
    }

    /// An image of a job that runs on. That there is none this time is no reason to stop it.
    pub(crate) fn image_in_passing(
        &mut self,
        job: &Job,
        sandbox: &Sandbox,
    ) -> Result<Result<Checkpointed, NotTaken>> {
        let taken = self.take(job, sandbox, Way::well(Then::RunOn))?;
        match &taken {
            Ok(taken) => {
                let frozen = taken.frozen.as_secs_f64();
                self.notes.frozen += frozen;
                let total = self.notes.frozen;
                tracing::info!(
                    stage = "running on",
                    frozen_seconds = frozen,
                    frozen_in_all = total
                );
                announce(|chirp| chirp.set(attributes::JOB_FROZEN_SECONDS, &format!("{total:.3}")));
                self.last = Some(taken.packed.clone());
                self.begin_push(sandbox, &taken.packed);
            }
            Err(NotTaken(message)) => self.not_taken(message),
        }
        Ok(taken)
    }

    fn image_for_home(
        &mut self,
        job: &Job,
        sandbox: &Sandbox,
        last: bool,
        code: i32,
    ) -> Result<Imaged> {
        let begun = Instant::now();
        let stopped = again::now();
        match self.take(job, sandbox, Way::well(Then::End))? {
            Ok(taken) => {
                let packed = &taken.packed;
                let mut notes = Notes {
                    stopped,
                    last,
                    bytes: packed.bytes,
                    seconds: begun.elapsed().as_secs_f64(),
                    ..self.notes.clone()
                };
                announce(|chirp| packed.announce(chirp, Lane::Spool, &notes.digests));
                notes.sent(&packed.digest);
                tracing::info!(stage = "going home", bytes = packed.bytes, code);
                sandbox.remove()?;
                notes
                    .leave(&job.scratch)
                    .context("cannot leave a note for the next start")?;
                Ok(Imaged::Leaving(End::Checkpoint(code)))
            }
            Err(NotTaken(message)) => {
                self.not_taken(&message);
                Ok(Imaged::Failed(begun.elapsed()))
            }
        }
    }

    /// The slot is wanted back.
    pub(crate) fn leave(&mut self, job: &Job, sandbox: &Sandbox) -> Result<Left> {
        let begun = Instant::now();
        // A newer image is worth more, and this one's chunks that are there need not be sent again.
        self.push = None;
        let cost = self.cost(sandbox);
        let now = again::now() as i64;
        let budget = budget::seconds(job.job_ad.as_ref(), job.machine_ad.as_ref(), now);
        let last = self.last.as_ref().map_or(Last::None, |_| Last::Here);
        let mut rates = self.notes.rates;
        if !job.is_htcondor() {
            // It stays where it is.
            rates.spool = f64::INFINITY;
        }
        let plan = plan::plan(budget, cost, &rates, last);
        tracing::info!(
            stage = "vacating",
            plan = ?plan.rung,
            expected_seconds = plan.seconds,
            allowed_seconds = budget,
            memory_bytes = cost.memory,
            file_bytes = cost.files
        );
        let left = || {
            let budget = Duration::from_secs_f64(budget?);
            Some(budget.saturating_sub(begun.elapsed()))
        };
        if plan.rung == Rung::KeepLast
            && let Some(last) = self.last.take()
        {
            self.init.end();
            self.send(sandbox, &last, None, left())
                .announce(&last, &self.notes.digests);
            outputs::leave_image(job, sandbox)?;
            sandbox.remove()?;
            return Ok(Left::Frozen);
        }
        let packing = if job.small {
            Packing::Well
        } else {
            plan::packing(plan.rung, &rates).within(sandbox.free(), cost)
        };
        let limit = budget.map(|budget| {
            let sending = (cost.memory + cost.files) as f64 * self.notes.rates.ratio;
            let sending = (sending / self.notes.rates.spool).min(budget * MOST_FOR_SENDING);
            Duration::from_secs_f64(budget - sending)
        });
        let along = (plan.rung != Rung::Spool).then(|| left().unwrap_or(store::IN_PASSING));
        let way = Way {
            then: Then::End,
            limit,
            packing,
            along,
        };
        match self.take(job, sandbox, way)? {
            Ok(taken) => {
                let packed = &taken.packed;
                let sent = match plan.rung {
                    Rung::Spool => Sent::by_spool(),
                    _ => self.send(sandbox, packed, taken.along, left()),
                };
                sent.announce(packed, &self.notes.digests);
                outputs::leave_image(job, sandbox)?;
                sandbox.remove()?;
                rig::stop("packed");
                Ok(Left::Frozen)
            }
            Err(NotTaken(message)) => {
                tracing::error!("the job could not be frozen: {message}");
                // An image of this slot's leaves all the same, and its fingerprint with it.
                announce(|chirp| match &self.last {
                    Some(last) => last.announce(chirp, Lane::Spool, &self.notes.digests),
                    None => Ok(()),
                });
                announce(|chirp| vacate::announce_failure(chirp, &message));
                Ok(Left::NotFrozen)
            }
        }
    }

    /// Takes an image, and learns from it.
    pub(crate) fn take(
        &mut self,
        job: &Job,
        sandbox: &Sandbox,
        way: Way,
    ) -> Result<Result<Checkpointed, NotTaken>> {
        let cost = self.cost(sandbox);
        self.resume.memory_bytes = cost.memory;
        let taken = self.checkpoint(job, sandbox, way)?;
        if let Ok(taken) = &taken {
            let packed = &taken.packed;
            self.notes
                .rates
                .learn(cost, packed.bytes, packed.dump_seconds, packed.pack_seconds);
            self.resume.follows.clone_from(&packed.digest);
        }
        Ok(taken)
    }

    fn not_taken(&self, message: &str) {
        tracing::warn!("no image this time: {message}");
        announce(|chirp| vacate::announce_failure(chirp, message));
    }
}
