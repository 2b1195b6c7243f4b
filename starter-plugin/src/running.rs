//! A job under way: its output handed on, its signals passed on, to its end or
//! to its image.
//!
//! ```text
//! fresh, thawed ──> Running ── vacate signal ──> checkpoint ──> announced, exit 85
//!                      │  ^                        │ not taken: the signal goes to the job,
//!                      │  └────────────────────────┘            as it would without us
//!                      └── the job ends ──> results moved out, the same end
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::manifest::{Manifest, Resume};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getegid, geteuid};

use crate::checkpoint::NotTaken;
use crate::chirp::Chirp;
use crate::criu::{Criu, ImageDir, Then};
use crate::exit_code::ExitCode;
use crate::init::{Begin, Event, Exit, Init, Order};
use crate::job::Job;
use crate::launch::{Launched, launch};
use crate::namespaces::{Clocks, Ids};
use crate::relay::Relay;
use crate::sandbox::Sandbox;
use crate::vacate;

/// The inner id of a job that root starts by hand: not 0, which would give the
/// job back the capabilities that only CRIU is to have.
const INNER_ID_FOR_ROOT: u32 = 1000;

/// Before 5.3 a user namespace's /proc/sys is writable for its uid 0 alone.
const KERNEL_WITH_WRITABLE_PROC_SYS: u32 = 50_300;

/// How a supervised run ended.
pub(crate) enum End {
    /// As the job did.
    Job(Exit),
    /// With a code of ours.
    Ours(ExitCode),
}

/// The signals that are ours to pass on or to obey.
pub(crate) struct Signals(SignalFd);

impl Signals {
    pub(crate) fn block() -> Result<Signals> {
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals(SignalFd::with_flags(&mask, flags)?))
    }

    fn next(&mut self) -> Result<Option<Signal>> {
        let Some(info) = self.0.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).context("a signal of the kernel's")?;
        Ok(Signal::try_from(number).ok())
    }
}

/// A job that runs under its pid 1.
pub(crate) struct Running {
    pub(crate) init: Launched,
    relays: [Relay; 2],
    pub(crate) generation: u64,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) resume: Resume,
    /// Its end, where that was heard of while something else was waited for.
    pub(crate) ended: Option<Exit>,
}

pub(crate) enum Thawed {
    Running(Box<Running>),
    /// Told to leave before the job ran: the image is as good as it was.
    Vacated,
    Failed(String),
}

impl Running {
    pub(crate) fn fresh(
        job: &Job,
        criu: &Rc<Criu>,
        sandbox: &Sandbox,
        slot: &Fingerprint,
    ) -> Result<Running> {
        let inputs = sandbox.take_in()?;
        sandbox.make_streams()?;
        let (uid, gid) = inner_ids(slot.kernel.0);
        let resume = Resume {
            inner_uid: uid,
            inner_gid: gid,
            inputs,
            argv: job
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            ..Resume::default()
        };
        let begin = Begin::Fresh(job.inside(slot.kernel.0)?);
        let init = match launch(init(begin, criu, sandbox)?, ids(&resume), None) {
            Ok(init) => init,
            Err(error) => {
                sandbox.give_back(&resume.inputs)?;
                sandbox.remove()?;
                return Err(CannotHere(error).into());
            }
        };
        let mut relays = relays(job, sandbox, [0, 0])?;
        if job.is_htcondor() {
            for relay in &mut relays {
                relay
                    .restart()
                    .context("cannot empty an output of an earlier start")?;
            }
        }
        let mut running = Running {
            init,
            relays,
            generation: 0,
            // What it needs of the slot's abilities so far: none.
            fingerprint: Fingerprint {
                abilities: BTreeSet::new(),
                ..slot.clone()
            },
            resume,
            ended: None,
        };
        match running.init.channel.receive()? {
            Event::Running => {
                tracing::info!(stage = "running", from = "the beginning");
                Ok(running)
            }
            Event::CannotHere { message } => {
                running.come_home(sandbox)?;
                running.init.end();
                Err(CannotHere(anyhow!(message)).into())
            }
            Event::StartFailed { message, code } => {
                running.end_relays()?;
                running.come_home(sandbox)?;
                Err(StartFailed { message, code }.into())
            }
            other => bail!("an event out of turn: {other:?}"),
        }
    }

    pub(crate) fn thawed(
        job: &Job,
        criu: &Rc<Criu>,
        sandbox: &Sandbox,
        slot: &Fingerprint,
        manifest: &Manifest,
        signals: &mut Signals,
    ) -> Result<Thawed> {
        let begun = Instant::now();
        let resume = manifest.head.resume.clone();
        let clocks = Clocks {
            monotonic_ns: resume.monotonic_ns,
            boottime_ns: resume.boottime_ns,
        };
        let init = launch(
            init(Begin::Thaw, criu, sandbox)?,
            ids(&resume),
            Some(clocks),
        )?;
        loop {
            let mut ready = [
                PollFd::new(init.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if ready[0].any().unwrap_or(false) {
                break;
            }
            while let Some(signal) = signals.next()? {
                if signal == job.vacate_signal() {
                    tracing::info!(stage = "vacated before it ran");
                    init.end();
                    return Ok(Thawed::Vacated);
                }
                // Pid 1 reads it when the job is there to get it.
                init.channel.send(&Order::Signal(signal as i32))?;
            }
        }
        match init.channel.receive()? {
            Event::Running => {}
            Event::RestoreFailed { message } => {
                init.end();
                return Ok(Thawed::Failed(message));
            }
            other => bail!("an event out of turn: {other:?}"),
        }
        // The next dump writes into an empty directory, and the disk is the slot's.
        sandbox.clear(&["images"])?;
        let generation = manifest.head.generation;
        let seconds = begun.elapsed().as_secs_f64();
        tracing::info!(stage = "running", from = "image", generation, seconds);
        // What it starts from here on picks its instructions on this CPU.
        let mut fingerprint = manifest.head.fingerprint.clone();
        fingerprint.absorb(slot);
        Ok(Thawed::Running(Box::new(Running {
            relays: relays(job, sandbox, resume.relayed)?,
            init,
            generation,
            fingerprint,
            resume,
            ended: None,
        })))
    }

    /// The job's life here, to its end or to its image.
    pub(crate) fn watch(
        mut self,
        job: &Job,
        sandbox: &Sandbox,
        signals: &mut Signals,
    ) -> Result<End> {
        let vacate = job.vacate_signal();
        let mut asked = false;
        let mut due = next_image(job);
        let written = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        for name in ["stdout", "stderr"] {
            written.add_watch(&sandbox.stream(name), AddWatchFlags::IN_MODIFY)?;
        }
        loop {
            let mut more = false;
            for relay in &mut self.relays {
                more |= relay.turn().context("cannot hand on the job's output")?;
            }
            let now = Instant::now();
            if due.is_some_and(|due| now >= due) {
                self.image_in_passing(job, sandbox)?;
                due = next_image(job);
                continue;
            }
            let wait = match due {
                _ if more => PollTimeout::ZERO,
                None => PollTimeout::NONE,
                Some(due) => PollTimeout::try_from(due - now).unwrap_or(PollTimeout::MAX),
            };
            let mut ready = [
                PollFd::new(self.init.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(written.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, wait) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let [spoke, signalled, wrote] = ready.map(|fd| fd.any().unwrap_or(false));
            if wrote {
                // Which file does not matter: both are looked at each turn.
                let _ = written.read_events();
            }
            if signalled {
                while let Some(signal) = signals.next()? {
                    if signal != vacate {
                        self.init.channel.send(&Order::Signal(signal as i32))?;
                    } else if !asked {
                        tracing::info!(stage = "vacating");
                        asked = true;
                        match self.checkpoint(job, sandbox, Then::End, None)? {
                            Ok(taken) => {
                                announce(|chirp| taken.packed.announce(chirp));
                                sandbox.remove()?;
                                return Ok(End::Ours(ExitCode::Frozen));
                            }
                            Err(NotTaken(message)) => {
                                tracing::error!("the job could not be frozen: {message}");
                                announce(|chirp| vacate::announce_failure(chirp, &message));
                                // It has to go all the same, in the way that it knows.
                                self.init.channel.send(&Order::Signal(vacate as i32))?;
                            }
                        }
                    }
                }
            }
            if spoke && self.ended.is_none() {
                match self.init.channel.receive()? {
                    Event::Exited(exit) => self.ended = Some(exit),
                    other => bail!("an event out of turn: {other:?}"),
                }
            }
            if let Some(exit) = self.ended {
                self.end_relays()?;
                self.come_home(sandbox)?;
                // After a failed freeze an older image is all there is.
                if !asked {
                    remove_archive(sandbox)?;
                }
                return Ok(End::Job(exit));
            }
        }
    }

    /// An image of a job that runs on. That there is none this time is no reason to stop it.
    fn image_in_passing(&mut self, job: &Job, sandbox: &Sandbox) -> Result<()> {
        match self.checkpoint(job, sandbox, Then::RunOn, None)? {
            Ok(taken) => {
                let frozen = taken.frozen.as_secs_f64();
                tracing::info!(stage = "running on", frozen_seconds = frozen);
                announce(|chirp| taken.packed.announce(chirp));
            }
            Err(NotTaken(message)) => {
                tracing::warn!("no image this time: {message}");
                announce(|chirp| vacate::announce_failure(chirp, &message));
            }
        }
        Ok(())
    }

    /// Hands on all that the job has written.
    pub(crate) fn end_relays(&mut self) -> Result<()> {
        for relay in &mut self.relays {
            relay.finish().context("cannot hand on the job's output")?;
        }
        Ok(())
    }

    /// Bytes of its output that were handed on in its life.
    pub(crate) fn relayed(&self) -> [u64; 2] {
        [self.relays[0].done(), self.relays[1].done()]
    }

    /// The job is over: its files go where HTCondor looks, ours go away.
    fn come_home(&self, sandbox: &Sandbox) -> Result<()> {
        sandbox.give_back(&self.resume.inputs)?;
        sandbox.remove()?;
        Ok(())
    }
}

fn next_image(job: &Job) -> Option<Instant> {
    Some(Instant::now() + job.every?)
}

fn remove_archive(sandbox: &Sandbox) -> Result<()> {
    match fs::remove_file(sandbox.archive()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the image of a job that has ended")
        }
        _ => Ok(()),
    }
}

/// This slot cannot give the job a machine of its own; it has not begun.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct CannotHere(anyhow::Error);

/// The job never began.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StartFailed {
    message: String,
    /// As a shell would end.
    pub(crate) code: i32,
}

fn init(begin: Begin, criu: &Rc<Criu>, sandbox: &Sandbox) -> Result<Init> {
    Ok(Init {
        begin,
        criu: Rc::clone(criu),
        images: ImageDir::open(&sandbox.tree("images"))?,
        mounts: sandbox.mounts(),
    })
}

fn inner_ids(kernel: u32) -> (u32, u32) {
    if kernel < KERNEL_WITH_WRITABLE_PROC_SYS {
        return (0, 0);
    }
    let or_ordinary = |id: u32| if id == 0 { INNER_ID_FOR_ROOT } else { id };
    (
        or_ordinary(geteuid().as_raw()),
        or_ordinary(getegid().as_raw()),
    )
}

fn ids(resume: &Resume) -> Ids {
    Ids {
        inner: (resume.inner_uid, resume.inner_gid),
        outer: (geteuid().as_raw(), getegid().as_raw()),
    }
}

fn relays(job: &Job, sandbox: &Sandbox, done: [u64; 2]) -> Result<[Relay; 2]> {
    let htcondor = job.is_htcondor();
    let relay = |name: &str, to: File, done| {
        Relay::new(&sandbox.stream(name), to, done, htcondor)
            .with_context(|| format!("cannot relay the job's {name}"))
    };
    let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let stderr = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    Ok([
        relay("stdout", stdout, done[0])?,
        relay("stderr", stderr, done[1])?,
    ])
}

/// Best effort: an image is worth having when nobody was told of it.
pub(crate) fn announce(say: impl FnOnce(&mut Chirp) -> Result<()>) {
    if let Some(config) = Chirp::from_environment()
        && let Err(error) = Chirp::connect(&config).and_then(|mut chirp| say(&mut chirp))
    {
        tracing::warn!("the access point was not told: {error:#}");
    }
}
