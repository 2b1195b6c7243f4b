//! One checkpoint: from a job that runs to a committed archive, and on, or to the job's end.
//!
//! ```text
//! outer supervisor               pid 1                    CRIU
//!   begins an archive
//!   ── Dump ──────────────────>  looks, notes ─────────>  freezes the tree
//!   <──────────────── Freezing ──
//!   <──────────────── images, memory into the archive ─────────┤
//!   <──────────────── hook: all is written, all stands still ──┤
//!   ── CollectAgain ──────────>  copies what it missed         │
//!   adds images and sandbox                                    │
//!   commits                                                    │
//!   ── it is saved ───────────────────────────────────────────>│ ends the tree, or lets it run on
//!   <────────────────── Dumped ──  <───────────── exit 0 ──────┘
//! ```
//!
//! The archive is committed while the tree stands still. So a job is ended only after its image is complete, and
//! whatever fails before, a full disk included, leaves a job that runs and an older image as it was.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use file_transfer_plugin::manifest::Head;
use file_transfer_plugin::monitor::{Monitor, Progress};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::channel::Channel;
use crate::control::Answer;
use crate::criu::{Capture, Held, Hook, ImageDir, Then, is_clean};
use crate::init::{Event, Order};
use crate::job::Job;
use crate::memory;
use crate::plan::Packing;
use crate::running::Running;
use crate::sandbox::Sandbox;
use crate::shipping::Along;
use crate::vacate::{self, Dumped, Packed};

/// Where nobody knows better: no job is worth standing still for longer.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// A page was read while CRIU had written to it. That is a matter of moments: it is tried again.
const UNCLEAN: &str = "a page in the image is not the job's";
const ATTEMPTS: u32 = 4;

/// How one is taken.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// What becomes of the job.
    pub(crate) then: Then,
    /// Within it the image is committed, or the job runs on without one.
    pub(crate) limit: Option<Duration>,
    pub(crate) packing: Packing,
    /// How long the store may take, where it is sent while it is written.
    pub(crate) along: Option<Duration>,
}

impl Way {
    /// Small, however long that takes.
    pub(crate) fn well(then: Then) -> Way {
        Way {
            then,
            limit: None,
            packing: Packing::Well,
            along: None,
        }
    }
}

/// A checkpoint that was taken.
pub(crate) struct Checkpointed {
    /// The archive, which has replaced the older one.
    pub(crate) packed: Packed,
    /// Its way to the store, if it is on it.
    pub(crate) along: Option<Along>,
    /// How long the job stood still.
    pub(crate) frozen: Duration,
}

impl Checkpointed {
    /// What whoever asked for it is told.
    pub(crate) fn answer(&self) -> Answer {
        Answer::Dumped {
            generation: self.packed.generation,
            bytes: self.packed.bytes,
            frozen_seconds: self.frozen.as_secs_f64(),
        }
    }
}

/// Why there is no new image, in one sentence. The job runs on, or has ended by itself.
#[derive(Debug)]
pub(crate) struct NotTaken(pub(crate) String);

impl Running {
    /// Takes an image; then the job is gone, or runs on. An error is one of ours, after which nothing is known of
    /// the job.
    pub(crate) fn checkpoint(
        &mut self,
        job: &Job,
        sandbox: &Sandbox,
        way: Way,
    ) -> Result<Result<Checkpointed, NotTaken>> {
        let until = Instant::now() + way.limit.unwrap_or(LONGEST);
        let mut attempts = 1;
        loop {
            let taken = self.attempt(job, sandbox, way, until)?;
            match taken {
                Err(NotTaken(message)) if message.contains(UNCLEAN) && attempts < ATTEMPTS => {
                    tracing::warn!("once more: {message}");
                    attempts += 1;
                }
                taken => return Ok(taken),
            }
        }
    }

    fn attempt(
        &mut self,
        job: &Job,
        sandbox: &Sandbox,
        way: Way,
        until: Instant,
    ) -> Result<Result<Checkpointed, NotTaken>> {
        let then = way.then;
        let begun = Instant::now();
        let dir = sandbox.tree("images");
        let images = ImageDir::open(&dir)?;
        self.resume.job_starts = job.starts();
        self.resume.memory_bytes = memory::resident(self.init.pid());
        let mut head = Head {
            generation: self.generation + 1,
            created: vacate::unix_time(),
            // Room for it all: what the image really asks for is known when it is written.
            fingerprint: self.widest(),
            resume: self.resume.clone(),
        };
        let mut archive = match vacate::begin(sandbox, &head, job.codec, way.packing) {
            Ok(archive) => archive,
            Err(error) => return Ok(Err(NotTaken(format!("{error:#}")))),
        };
        let along = way.along.and_then(|time| self.send_along(sandbox, time));
        if let Some(along) = &along {
            archive.tell(along.ear());
        }
        let capture = Capture::start(ImageDir::open(&dir)?, archive)?;
        let hook = Hook::listen(&images)?;
        self.init.channel.send(&Order::Dump(then))?;
        let held = match self.freeze(hook, &images, until)? {
            Ok(held) => held,
            Err(NotTaken(message)) => {
                let ours = capture.give_up();
                sandbox.clear(&["images"])?;
                // CRIU's pipes break where the archive cannot be written.
                let message = ours.map_or(message, |error| format!("{error:#}"));
                return Ok(Err(NotTaken(message)));
            }
        };
        let took = begun.elapsed();
        tracing::info!(stage = "dumped", seconds = took.as_secs_f64());
        // It stands still, so what it has written is all there is.
        self.end_relays()?;
        self.resume.relayed = self.relayed();
        head.resume = self.resume.clone();
        let memory = capture.finish();
        self.init.channel.send(&Order::CollectAgain)?;
        let collected = self.init.channel.receive()?;
        self.hold_to_baseline(&images);
        head.fingerprint = self.fingerprint.clone();
        let standing = Standing {
            channel: &self.init.channel,
            until,
        };
        let packed = memory.and_then(|memory| {
            // Else pid 1 has something worse to say: CRIU is gone, and the tree does not stand still.
            let Event::Collected = collected else {
                bail!("CRIU ended before the image was complete");
            };
            let proc = PathBuf::from(format!("/proc/{}/root/proc", self.init.pid()));
            let clean = is_clean(&images, &proc, &memory);
            if !clean.context("cannot compare the image with the job")? {
                bail!(UNCLEAN);
            }
            let dumped = Dumped { head, took };
            dumped.pack(sandbox, memory, &standing)
        });
        let packed = match packed {
            Ok(packed) => {
                self.generation += 1;
                // Where CRIU is gone there is nobody to tell, and its end says so.
                let _ = held.release();
                Ok(packed)
            }
            Err(error) => {
                drop(held);
                Err(NotTaken(format!("{error:#}; an older image is untouched")))
            }
        };
        let ended = match collected {
            Event::Collected => self.init.channel.receive()?,
            ended => ended,
        };
        let frozen = images.frozen().unwrap_or_else(|| begun.elapsed());
        sandbox.clear(&["images"])?;
        let taken = match ended {
            Event::Dumped | Event::DumpFailed { .. } if packed.is_err() => packed,
            Event::Dumped => packed,
            Event::DumpFailed { message } if then == Then::RunOn => {
                // The image is whole, and the job runs: that is what was wanted.
                tracing::warn!("CRIU failed after the image was complete: {message}");
                packed
            }
            Event::DumpFailed { message } => Err(NotTaken(message)),
            other => bail!("an event out of turn: {other:?}"),
        };
        Ok(taken.map(|packed| Checkpointed {
            packed,
            along,
            frozen,
        }))
    }

    /// Waits until all is written and stands still.
    fn freeze(
        &mut self,
        hook: Hook,
        images: &ImageDir,
        until: Instant,
    ) -> Result<Result<Held, NotTaken>> {
        let (mut late, mut begun) = (false, false);
        loop {
            let mut ready = [
                PollFd::new(self.init.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(hook.as_fd(), PollFlags::POLLIN),
            ];
            let left = until.saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let count = match poll(&mut ready, if late { PollTimeout::NONE } else { wait }) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let [spoke, held] = ready.map(|fd| fd.any().unwrap_or(false));
            if count == 0 && !late && Instant::now() >= until {
                late = true;
                self.init.channel.send(&Order::GiveUp)?;
                continue;
            }
            if spoke {
                match self.init.channel.receive()? {
                    Event::Freezing {
                        monotonic_ns,
                        boottime_ns,
                    } => {
                        self.resume.monotonic_ns = monotonic_ns;
                        self.resume.boottime_ns = boottime_ns;
                        begun = true;
                        continue;
                    }
                    Event::DumpFailed { .. } if late => {
                        return Ok(Err(NotTaken("the time for it was up".to_owned())));
                    }
                    Event::DumpFailed { message } => return Ok(Err(NotTaken(message))),
                    Event::Exited(exit) => {
                        self.ended = Some(exit);
                        return Ok(Err(NotTaken("the job had ended".to_owned())));
                    }
                    other => bail!("an event out of turn: {other:?}"),
                }
            }
            // What pid 1 knew before is on its way, if it is not here.
            if held && begun && !late {
                return Ok(Ok(hook.accept(images)?));
            }
        }
    }
}

/// Asks whether the tree still stands still, and whether there is time.
struct Standing<'a> {
    channel: &'a Channel,
    until: Instant,
}

impl Monitor for Standing<'_> {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        // Pid 1 has nothing to say while CRIU holds the tree: if it speaks, CRIU is gone and the job runs.
        let mut ready = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        Instant::now() >= self.until || poll(&mut ready, PollTimeout::ZERO) != Ok(0)
    }
}
