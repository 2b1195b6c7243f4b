//! How a job begins here: from its command, or from an image.
//!
//! ```text
//! fresh ──> take the inputs in ──> namespaces ──> start ───┐
//! thawed ─────────────────────────> namespaces ──> criu ───┴──> Running (`watch` has its life)
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::{Baseline, Fingerprint};
use file_transfer_plugin::manifest::Resume;
use nix::unistd::{getegid, geteuid};

use crate::again::{self, Notes};
use crate::as_root;
use crate::baseline;
use crate::chirp::Chirp;
use crate::criu::{Criu, ImageDir};
use crate::exit_code::ExitCode;
use crate::init::{Begin, Event, Exit, Init, STDIO};
use crate::job::Job;
use crate::launch::{Launched, launch};
use crate::namespaces::Ids;
use crate::present;
use crate::relay::Relay;
use crate::restore::{Image, Ladder};
use crate::sandbox::Sandbox;
use crate::shipping::Push;
use crate::store::Store;
use crate::vacate::Packed;

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
    /// With the code at which the starter takes our image home and starts us again here.
    Checkpoint(i32),
}

/// A job that runs under its pid 1.
pub(crate) struct Running {
    pub(crate) init: Launched,
    relays: [Relay; 2],
    pub(crate) generation: u64,
    pub(crate) fingerprint: Fingerprint,
    /// All that this slot has, whatever the job gets to see of it.
    slot: Fingerprint,
    pub(crate) resume: Resume,
    /// Its end, where that was heard of while something else was waited for.
    pub(crate) ended: Option<Exit>,
    /// When it was thawed, if it was.
    pub(crate) thawed: Option<Instant>,
    /// What an image costs of its time, where one was taken here.
    pub(crate) image_cost: Option<Duration>,
    /// What is told from one start in this place to the next.
    pub(crate) notes: Notes,
    /// The last image that was taken here and that nobody has taken home.
    pub(crate) last: Option<Packed>,
    /// Where images go while the job runs, and at its soft kill, if anywhere.
    pub(crate) store: Option<Store>,
    /// That image, on its way there.
    pub(crate) push: Option<Push>,
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
        let as_root = slot.abilities.get(as_root::ABILITY).filter(|_| job.as_root);
        let (uid, gid) = if as_root.is_some() {
            (0, 0)
        } else {
            inner_ids(slot.kernel.0)
        };
        let baseline = job.baseline(slot);
        let resume = Resume {
            inner_uid: uid,
            inner_gid: gid,
            inputs,
            argv: job
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            baseline: baseline.map(|level| level.name().to_owned()),
            ..Resume::default()
        };
        let mut command = job.inside(slot.kernel.0)?;
        if let Some(level) = baseline {
            baseline::hide(level, &mut command.environment);
            tracing::info!(stage = "baseline", level = level.name());
        }
        write_environment(job, sandbox);
        // What it needs of the slot's abilities so far.
        let fingerprint = Fingerprint {
            abilities: as_root.cloned().into_iter().collect(),
            ..seen(baseline, slot)
        };
        let begin = Begin::Fresh(command);
        let ids = ids(&resume, &fingerprint);
        let init = match launch(init(begin, criu, sandbox, &fingerprint)?, ids, None) {
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
            fingerprint,
            slot: slot.clone(),
            resume,
            ended: None,
            thawed: None,
            image_cost: None,
            notes: Notes::default(),
            last: None,
            store: None,
            push: None,
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

    /// A job that was restored, with what its image says of it.
    pub(crate) fn thawed(
        job: &Job,
        sandbox: &Sandbox,
        slot: &Fingerprint,
        image: &Image,
        again: Option<Notes>,
        init: Launched,
    ) -> Result<Running> {
        let head = &image.manifest.head;
        let mut resume = head.resume.clone();
        resume.follows.clone_from(&image.digest);
        let (notes, image_cost) = Self::notes(again, image);
        // What it starts from here on picks its instructions on this CPU.
        let mut fingerprint = head.fingerprint.clone();
        let baseline = resume.baseline.as_deref().and_then(Baseline::named);
        fingerprint.absorb(&seen(baseline, slot));
        Ok(Running {
            relays: relays(job, sandbox, resume.relayed)?,
            init,
            generation: head.generation,
            fingerprint,
            slot: slot.clone(),
            resume,
            ended: None,
            thawed: Some(Instant::now()),
            image_cost,
            notes,
            last: None,
            store: None,
            push: None,
        })
    }

    /// It runs, so the store was found, or is waited for no longer.
    pub(crate) fn has_store(&mut self, store: Option<&Store>, job: &Job, ladder: &Ladder) {
        self.store = store.cloned();
        if store.is_some() {
            self.notes.rates.store = self.notes.rates.spool;
            // What was passed over, and may turn up again, is older than what comes from here on.
            self.generation = self.generation.max(job.generation()).max(ladder.generation);
        }
        if let Some(digest) = &ladder.at_home {
            self.notes.at_home(digest);
        }
    }

    /// What is known of images here: from a start just before this one, or from the image itself.
    fn notes(again: Option<Notes>, image: &Image) -> (Notes, Option<Duration>) {
        let Some(mut notes) = again else {
            let digests = vec![image.digest.clone()];
            let notes = Notes {
                digests,
                ..Notes::default()
            };
            return (notes, None);
        };
        let cost = notes.running_again(again::now());
        let seconds = cost.as_secs_f64();
        tracing::info!(
            stage = "running again",
            away_seconds = seconds,
            away_in_all = notes.frozen
        );
        let total = format!("{:.3}", notes.frozen);
        announce(|chirp| chirp.set(attributes::JOB_FROZEN_SECONDS, &total));
        (notes, Some(cost))
    }

    /// Hands on some of what the job has written; true when there may be more.
    pub(crate) fn relay_turn(&mut self) -> Result<bool> {
        let mut more = false;
        for relay in &mut self.relays {
            more |= relay.turn().context("cannot hand on the job's output")?;
        }
        Ok(more)
    }

    /// Hands on all that the job has written.
    pub(crate) fn end_relays(&mut self) -> Result<()> {
        for relay in &mut self.relays {
            relay.finish().context("cannot hand on the job's output")?;
        }
        Ok(())
    }

    /// What an image asks for at most.
    pub(crate) fn widest(&self) -> Fingerprint {
        let mut widest = self.fingerprint.clone();
        widest.absorb(&self.slot);
        widest
    }

    /// Where the job turns out to have used more than its baseline, its images need what the slot has.
    pub(crate) fn hold_to_baseline(&mut self, images: &ImageDir) {
        let Some(level) = self.resume.baseline.as_deref().and_then(Baseline::named) else {
            return;
        };
        let used = match images.registers() {
            Ok(used) if baseline::exceeded(level, used) => {
                format!("registers {used:#x} are in use")
            }
            Ok(_) => match baseline::engine(&self.init.proc()) {
                Some(engine) => format!("{engine} chooses instructions by itself"),
                None => return,
            },
            Err(error) => format!("{error:#}"),
        };
        tracing::warn!("the image needs more than {}: {used}", level.name());
        self.fingerprint.absorb(&self.slot);
    }

    /// Bytes of its output that were handed on in its life.
    pub(crate) fn relayed(&self) -> [u64; 2] {
        [self.relays[0].done(), self.relays[1].done()]
    }

    /// The job is over: its files go where HTCondor looks, ours go away.
    pub(crate) fn come_home(&self, sandbox: &Sandbox) -> Result<()> {
        sandbox.give_back(&self.resume.inputs)?;
        sandbox.remove()?;
        Ok(())
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
    pub(crate) message: String,
    /// As a shell would end.
    pub(crate) code: i32,
}

impl StartFailed {
    pub(crate) fn of(program: &OsStr, error: &io::Error) -> Self {
        let missing = error.kind() == io::ErrorKind::NotFound;
        Self {
            message: format!("cannot start {}: {error}", program.display()),
            code: if missing { 127 } else { 126 },
        }
    }
}

/// What a job may use of a slot.
fn seen(baseline: Option<Baseline>, slot: &Fingerprint) -> Fingerprint {
    baseline.map_or_else(|| slot.clone(), |level| level.of(slot))
}

pub(crate) fn init(
    begin: Begin,
    criu: &Rc<Criu>,
    sandbox: &Sandbox,
    image: &Fingerprint,
) -> Result<Init> {
    Ok(Init {
        begin,
        as_root: as_root::asks_for_it(image),
        criu: Rc::clone(criu),
        images: ImageDir::open(&sandbox.tree("images"))?,
        mounts: sandbox.mounts(),
        libraries: None,
    })
}

/// A job that never looks at it misses nothing, so it is no reason to stop.
pub(crate) fn write_environment(job: &Job, sandbox: &Sandbox) {
    let dir = sandbox.tree("srv").join(STDIO);
    if let Err(error) = present::write(&dir, job.environment().iter()) {
        tracing::warn!("the job is not told where it is: {error}");
    }
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

pub(crate) fn ids(resume: &Resume, image: &Fingerprint) -> Option<Ids> {
    (!as_root::asks_for_it(image)).then(|| Ids {
        inner: (resume.inner_uid, resume.inner_gid),
        outer: (geteuid().as_raw(), getegid().as_raw()),
    })
}

fn relays(job: &Job, sandbox: &Sandbox, done: [u64; 2]) -> Result<[Relay; 2]> {
    let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let stderr = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    let file = |of: &File| of.metadata().map(|meta| (meta.dev(), meta.ino()));
    // A submit file may name one file for both: neither stream alone says how long that is to be.
    let apart = job.is_htcondor() && file(&stdout)? != file(&stderr)?;
    let relay = |name: &str, to: File, done| {
        Relay::new(&sandbox.stream(name), to, done, apart)
            .with_context(|| format!("cannot relay the job's {name}"))
    };
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
