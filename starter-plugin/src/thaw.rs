//! From an image to a job that runs.
//!
//! ```text
//! unpacked but for the memory ──> CRIU asks for each image ──> Running
//!                                   │ not this CRIU, not that kind of memory
//!                                   └──> unpacked, all of it ──> CRIU reads files ──> Running, or Failed
//! ```
//!
//! CRIU cannot ask for huge pages: it comes back for them, and what has passed through a pipe is gone. Rather than to
//! tell from its log which failure is of that kind, the second way is tried after any but a damaged image.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::unpack::Archive;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::again::Notes;
use crate::criu::{Criu, ImageDir, Serve, Socket, is_damage};
use crate::init::{Begin, Event, Order};
use crate::job::Job;
use crate::launch::{Launched, launch};
use crate::namespaces::Clocks;
use crate::restore::{self, Image};
use crate::running::{Running, ids, init, write_environment};
use crate::sandbox::{Sandbox, TREES};
use crate::signals::{Arrived, Signals};

/// A restore that takes longer than this, and longer than its memory at this rate, hangs.
const LONGEST: Duration = Duration::from_secs(600);
const SLOWEST: u64 = 10 << 20;

/// What became of an image.
pub(crate) enum Thawed {
    Running(Box<Running>),
    /// Told to leave before the job ran: the image is as good as it was.
    Vacated,
    /// The image is not what its manifest says.
    Damaged(String),
    /// It could not be restored here.
    Failed(String),
}

/// Restores the image that is unpacked in the sandbox but for its memory.
pub(crate) fn thawed(
    job: &Job,
    criu: &Rc<Criu>,
    sandbox: &Sandbox,
    slot: &Fingerprint,
    image: &Image,
    again: Option<Notes>,
    signals: &Signals,
) -> Result<Thawed> {
    let begun = Instant::now();
    let archive = &image.archive;
    let mut served = true;
    write_environment(job, sandbox);
    let init = loop {
        match attempt(job, criu, sandbox, archive, signals, served)? {
            Attempt::Runs(init) => break init,
            Attempt::Failed(reason) if served => {
                tracing::warn!("once more, from files: {reason}");
                served = false;
                sandbox.clear(&TREES)?;
                if let Err(error) = restore::write_out(archive, sandbox, |_| false) {
                    return Ok(Thawed::Failed(format!("{:#}", anyhow::Error::from(error))));
                }
                write_environment(job, sandbox);
            }
            Attempt::Failed(reason) => return Ok(Thawed::Failed(reason)),
            Attempt::Damaged(reason) => return Ok(Thawed::Damaged(reason)),
            Attempt::Vacated => return Ok(Thawed::Vacated),
        }
    };
    // The next dump writes into an empty directory, and the disk is the slot's.
    sandbox.clear(&["images"])?;
    let generation = image.manifest.head.generation;
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(stage = "running", from = "image", generation, seconds);
    let running = Running::thawed(job, sandbox, slot, image, again, init)?;
    Ok(Thawed::Running(Box::new(running)))
}

enum Attempt {
    Runs(Launched),
    Vacated,
    Damaged(String),
    Failed(String),
}

fn attempt(
    job: &Job,
    criu: &Rc<Criu>,
    sandbox: &Sandbox,
    archive: &Arc<Archive>,
    signals: &Signals,
    served: bool,
) -> Result<Attempt> {
    let resume = &archive.manifest().head.resume;
    let clocks = Clocks {
        monotonic_ns: resume.monotonic_ns,
        boottime_ns: resume.boottime_ns,
    };
    let limit = LONGEST + Duration::from_secs(archive.bytes() / SLOWEST);
    let socket = if served {
        let images = ImageDir::open(&sandbox.tree("images"))?;
        Some(Socket::listen(images)?)
    } else {
        None
    };
    let begin = Begin::Thaw { served, limit };
    let needs = &archive.manifest().head.fingerprint;
    let init = init(begin, criu, sandbox, needs)?;
    let launched = launch(init, ids(resume, needs), Some(clocks))?;
    let serve = socket
        .map(|socket| socket.serve(Arc::clone(archive)))
        .transpose()?;
    loop {
        let mut ready = [
            PollFd::new(launched.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if ready[0].any().unwrap_or(false) {
            break;
        }
        while let Some(Arrived { signal, .. }) = signals.next()? {
            if signal == job.vacate_signal() {
                tracing::info!(stage = "vacated before it ran");
                launched.end();
                // CRIU's pipes broke: whatever is said of that is no news.
                let _ = finish(serve);
                return Ok(Attempt::Vacated);
            }
            // Pid 1 reads it when the job is there to get it.
            launched.channel.send(&Order::Signal(signal as i32))?;
        }
    }
    match launched.channel.receive()? {
        Event::Running => {
            if let Err(error) = finish(serve) {
                tracing::warn!("after the restore: {error:#}");
            }
            Ok(Attempt::Runs(launched))
        }
        Event::RestoreFailed { message } => {
            launched.end();
            Ok(match finish(serve) {
                Err(error) if is_damage(&error) => Attempt::Damaged(format!("{error:#}")),
                Err(error) => Attempt::Failed(format!("{message}; {error:#}")),
                Ok(()) => Attempt::Failed(message),
            })
        }
        other => bail!("an event out of turn: {other:?}"),
    }
}

fn finish(serve: Option<Serve>) -> Result<()> {
    serve.map_or(Ok(()), Serve::finish)
}
