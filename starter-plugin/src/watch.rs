//! A job under way: its output handed on, its signals passed on, its images taken, to its end or to its last image.
//!
//! ```text
//! Running ── vacate signal ──> frozen ──> exit 85
//!    │  ^           │ not frozen: the job gets the signal, as it would without us
//!    │  └───────────┘
//!    ├── image due ──> image, and on, while it goes to the store; or exit with the checkpoint code, to be started again here
//!    ├── thawed, and dead at once of SIGILL or SIGSEGV ──> a restore that failed
//!    └── the job ends ──> results moved out, the same end
//! ```

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use file_transfer_plugin::attributes;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, raise};

use crate::again;
use crate::channel::Channel;
use crate::checkpoint::{NotTaken, Way};
use crate::control::{Answer, Control, Request};
use crate::criu::Then;
use crate::exit_code::ExitCode;
use crate::imaging::{Imaged, Left};
use crate::init::{Event, Exit, Order};
use crate::job::Job;
use crate::outputs;
use crate::period::{self, Interval};
use crate::preflight::{self, Reason};
use crate::running::{End, Running, announce};
use crate::sandbox::Sandbox;
use crate::schedule::{Due, Schedule};
use crate::signals::{Arrived, Signals};

/// A thawed program that finds another CPU than it had dies at one of its next instructions.
const FIRST_SECONDS: Duration = Duration::from_secs(5);

/// How a job's life here came to an end.
pub(crate) enum Watched {
    End(End),
    /// Thawed and dead at once; a failed restore, and this is its sentence.
    Crashed(String),
}

/// What is known of a job while it is watched.
struct Watch<'a> {
    job: &'a Job,
    sandbox: &'a Sandbox,
    vacate: Signal,
    schedule: Schedule,
    /// The slot is wanted back, and the job could not be frozen: it was told to go.
    told: bool,
    blockers: Vec<Reason>,
}

impl Running {
    /// The job's life here.
    pub(crate) fn watch(
        mut self,
        job: &Job,
        sandbox: &Sandbox,
        signals: &Signals,
    ) -> Result<Watched> {
        let mut watch = Watch {
            job,
            sandbox,
            vacate: job.vacate_signal(),
            schedule: self.schedule(job),
            told: false,
            blockers: Vec::new(),
        };
        let mut control = Control::listen(sandbox.work()).context("cannot listen for requests")?;
        let written = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        for name in ["stdout", "stderr"] {
            written.add_watch(&sandbox.stream(name), AddWatchFlags::IN_MODIFY)?;
        }
        loop {
            let more = self.relay_turn()?;
            let wait = match watch.schedule.next() {
                _ if more || self.ended.is_some() => PollTimeout::ZERO,
                Some(next) if !watch.told => until(next),
                _ => PollTimeout::NONE,
            };
            let mut ready = vec![
                PollFd::new(self.init.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(written.as_fd(), PollFlags::POLLIN),
            ];
            ready.extend(
                control
                    .ears()
                    .map(|ear| PollFd::new(ear, PollFlags::POLLIN)),
            );
            let ears = ready.len();
            ready.extend(
                self.push_ear()
                    .map(|ear| PollFd::new(ear, PollFlags::POLLIN)),
            );
            match poll(&mut ready, wait) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let ready: Vec<_> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready[2] {
                // Which file does not matter: both are looked at each turn.
                let _ = written.read_events();
            }
            if ready[0] && self.ended.is_none() {
                match self.init.channel.receive()? {
                    Event::Exited(exit) => self.ended = Some(exit),
                    other => bail!("an event out of turn: {other:?}"),
                }
            }
            if ready[1] {
                while let Some(arrived) = signals.next()? {
                    if let Some(end) = watch.signal(&mut self, arrived)? {
                        return Ok(Watched::End(end));
                    }
                }
            }
            self.push_turn(sandbox);
            for (request, caller) in control.hear(&ready[3..ears]) {
                if let Some(end) = watch.request(&mut self, request, &caller)? {
                    return Ok(Watched::End(end));
                }
            }
            if let Some(due) = watch.due(&self)
                && let Some(end) = watch.on_time(&mut self, due)?
            {
                return Ok(Watched::End(end));
            }
            if let Some(exit) = self.ended {
                return watch.over(self, exit);
            }
        }
    }

    /// From what the ads say, and what images have cost so far.
    fn schedule(&self, job: &Job) -> Schedule {
        let now = again::now() as i64;
        let cost = self.image_cost;
        // Without a way home, an image before the slot's end ends with it.
        let home = self.store.is_some() || job.checkpoint_code().is_some();
        let slot = job.machine_ad.as_ref().filter(|_| home);
        let last = slot
            .filter(|_| !self.notes.last)
            .and_then(|slot| period::before_the_end(slot, cost.unwrap_or_default()))
            .and_then(|at| u64::try_from(at - now).ok())
            .map(Duration::from_secs);
        let interval = if self.notes.last {
            // The next would not get home any more.
            Interval::Never
        } else {
            job.interval(home)
        };
        tracing::debug!(?interval, ?cost, ?last, "schedule");
        let rehearse = job.rehearses() && self.generation == 0;
        Schedule::new(interval, cost, rehearse, last, Instant::now())
    }
}

impl Watch<'_> {
    fn due(&mut self, running: &Running) -> Option<Due> {
        if self.told || running.ended.is_some() {
            return None;
        }
        self.schedule.take(Instant::now())
    }

    fn signal(&mut self, running: &mut Running, arrived: Arrived) -> Result<Option<End>> {
        if arrived.signal == self.vacate && !arrived.by_terminal {
            if self.told || running.ended.is_some() {
                return Ok(None);
            }
            if let Left::Frozen = running.leave(self.job, self.sandbox)? {
                return Ok(Some(End::Ours(ExitCode::Frozen)));
            }
            self.told = true;
        }
        if running.ended.is_some() {
            return Ok(None);
        }
        let number = arrived.signal as i32;
        running.init.channel.send(&if arrived.by_terminal {
            Order::GroupSignal(number)
        } else {
            Order::Signal(number)
        })?;
        if arrived.signal == Signal::SIGTSTP {
            // Whoever waits for us sees a stopped job, as it is.
            raise(Signal::SIGSTOP)?;
        }
        Ok(None)
    }

    fn request(
        &mut self,
        running: &mut Running,
        request: Request,
        caller: &Channel,
    ) -> Result<Option<End>> {
        let not_dumped = |reason: &str| Answer::NotDumped {
            reason: reason.to_owned(),
        };
        let mut end = None;
        let answer = match request {
            _ if running.ended.is_some() => not_dumped("the job has ended"),
            Request::Preflight => Answer::Blockers(running.look()?),
            Request::Dump { keep_running: true } => {
                match running.image_in_passing(self.job, self.sandbox)? {
                    Ok(taken) => {
                        self.schedule.taken(taken.frozen, Instant::now());
                        taken.answer()
                    }
                    Err(NotTaken(reason)) => Answer::NotDumped { reason },
                }
            }
            // It would take our end for the job's.
            Request::Dump { .. } if self.job.is_htcondor() => not_dumped(
                "HTCondor would take the job for finished; use condor_vacate_job, or --keep-running",
            ),
            Request::Dump { .. } => {
                match running.take(self.job, self.sandbox, Way::well(Then::End))? {
                    Ok(taken) => {
                        self.sandbox.remove()?;
                        end = Some(End::Ours(ExitCode::Frozen));
                        taken.answer()
                    }
                    Err(NotTaken(reason)) => Answer::NotDumped { reason },
                }
            }
        };
        // A caller that is gone has its image all the same.
        let _ = caller.send(&answer);
        Ok(end)
    }

    fn on_time(&mut self, running: &mut Running, due: Due) -> Result<Option<End>> {
        match due {
            Due::Look => {
                let found = running.look()?;
                if found != self.blockers {
                    tell(&found);
                    self.blockers = found;
                }
            }
            Due::Estimate => {
                let cost = running.estimate(self.job, self.sandbox);
                self.schedule.estimated(cost);
            }
            Due::Rehearsal => {
                if let Ok(taken) = running.image_in_passing(self.job, self.sandbox)? {
                    tracing::info!(stage = "rehearsed", bytes = taken.packed.bytes);
                }
            }
            // Each would end the other's way before it is home.
            Due::Image if running.push.is_some() => self.schedule.later(Instant::now()),
            Due::Image | Due::LastImage => {
                let last = due == Due::LastImage;
                match running.image(self.job, self.sandbox, last)? {
                    Imaged::Leaving(end) => return Ok(Some(end)),
                    Imaged::Taken(cost) => self.schedule.taken(cost, Instant::now()),
                    Imaged::Failed(cost) => self.schedule.failed(cost, Instant::now()),
                }
            }
        }
        Ok(None)
    }

    fn over(&self, mut running: Running, exit: Exit) -> Result<Watched> {
        running.push = None;
        running.end_relays()?;
        if let Some(signal) = running.died_of_the_thaw(exit)
            && !self.told
            // A program that does so by itself would begin again for it, and do so again.
            && self.job.has_died_of() != Some(signal)
        {
            running.init.end();
            return Ok(Watched::Crashed(format!(
                "the thawed job died of {signal} in its first {} seconds",
                FIRST_SECONDS.as_secs()
            )));
        }
        if self.died_unsaved(exit) {
            // The next start must not find half of what this one did: it would do that half twice.
            self.sandbox.remove()?;
        } else {
            running.come_home(self.sandbox)?;
        }
        // After a failed freeze an older image is all there is.
        if !self.told {
            for archive in self.sandbox.archives() {
                remove(&archive)?;
            }
        } else {
            outputs::leave_image(self.job, self.sandbox)?;
        }
        Ok(Watched::End(End::Job(self.as_htcondor_takes_it(exit))))
    }

    /// Whether the job, which could not be frozen, died of the signal that told it to go: one that saves something by
    /// itself when it is told ends by itself.
    fn died_unsaved(&self, exit: Exit) -> bool {
        let told_by = self.job.vacate_signal() as i32;
        self.told && self.job.is_htcondor() && exit == Exit::Signal(told_by)
    }

    /// The job's exit code, unless HTCondor would take it for an image of ours and start the job for ever.
    fn as_htcondor_takes_it(&self, exit: Exit) -> Exit {
        match (exit, self.job.checkpoint_code()) {
            (Exit::Code(code), Some(checkpoint)) if code == checkpoint => {
                let instead = ExitCode::Taken as i32;
                let reason = format!(
                    "the job itself ended with code {code}, which is its checkpoint_exit_code; it is reported as \
                     {instead}"
                );
                tracing::error!("{reason}");
                announce(|chirp| crate::vacate::announce_failure(chirp, &reason));
                Exit::Code(instead)
            }
            _ => exit,
        }
    }
}

impl Running {
    /// What would prevent an image, as pid 1 sees it.
    fn look(&mut self) -> Result<Vec<Reason>> {
        self.init.channel.send(&Order::Look)?;
        match self.init.channel.receive()? {
            Event::Blockers(reasons) => Ok(reasons),
            // It ended just now, and nobody is left to answer.
            Event::Exited(exit) => {
                self.ended = Some(exit);
                Ok(Vec::new())
            }
            other => bail!("an event out of turn: {other:?}"),
        }
    }

    /// The signal of a death that is the restore's fault and not the job's.
    fn died_of_the_thaw(&self, exit: Exit) -> Option<Signal> {
        let early = self.thawed?.elapsed() < FIRST_SECONDS;
        match exit {
            Exit::Signal(number) if early => Signal::try_from(number)
                .ok()
                .filter(|signal| matches!(signal, Signal::SIGILL | Signal::SIGSEGV)),
            _ => None,
        }
    }
}

fn until(next: Instant) -> PollTimeout {
    // A millisecond more, lest the last one be spent in turns of no length.
    let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// To the log in full, to the job's ad in short.
fn tell(blockers: &[Reason]) {
    for reason in blockers {
        tracing::warn!("cannot be frozen: {}", reason.text);
    }
    if blockers.is_empty() {
        tracing::info!("nothing prevents an image any more");
    }
    let value = if blockers.is_empty() {
        "undefined".to_owned()
    } else {
        classad::Value::from(preflight::shortened(blockers).as_str()).to_string()
    };
    announce(|chirp| chirp.set(attributes::JOB_BLOCKERS, &value));
}

fn remove(archive: &std::path::Path) -> Result<()> {
    match fs::remove_file(archive) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the image of a job that has ended")
        }
        _ => Ok(()),
    }
}
