//! CRIU's images as it writes them: small ones into the images' directory, memory straight into the archive.
//!
//! ```text
//! CRIU ─┬─ requests ─> this thread ──┐
//!       ├─ core-2.img ──────────────>┴─> images/core-2.img
//!       └─ pages-1.img ─────────────────> the other thread ──> chunk, hash, compress ──> archive
//! ```
//!
//! Several small images are open at a time. Of the large ones CRIU writes one after the other, so that they can be
//! taken one after the other: while one is read, the next waits in its pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use file_transfer_plugin::monitor::{Monitor, Progress};
use file_transfer_plugin::pack::{PackError, Stream};
use file_transfer_plugin::rig;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ImageDir;
use super::streamer::{self, CAPTURE, Line, is_large};

/// What is moved at a time of a small image.
const PART: usize = 64 << 10;

/// A dump's images on their way.
pub(crate) struct Capture {
    requests: JoinHandle<io::Result<()>>,
    memory: JoinHandle<Result<Stream, PackError>>,
    /// Closed when no more images come.
    more: io::PipeWriter,
    given_up: Arc<GivenUp>,
}

/// Says when the archive is not wanted any more.
#[derive(Default)]
struct GivenUp(AtomicBool);

impl Monitor for GivenUp {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Capture {
    /// Listens in `images` for the CRIU that is started next.
    pub(crate) fn start(images: ImageDir, archive: Stream) -> io::Result<Capture> {
        let listener = streamer::listen(&images, CAPTURE)?;
        let (done, more) = io::pipe()?;
        let (large, arrivals) = channel();
        let given_up = Arc::new(GivenUp::default());
        let monitor = Arc::clone(&given_up);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let memory = named("memory").spawn(move || take_large(archive, &arrivals, &monitor))?;
        let requests = named("images").spawn(move || take_all(listener, &images, &large, &done))?;
        Ok(Capture {
            requests,
            memory,
            more,
            given_up,
        })
    }

    /// CRIU has written all of them: the archive with what was large.
    pub(crate) fn finish(self) -> Result<Stream> {
        drop(self.more);
        let requests = joined(self.requests)?;
        let memory = joined(self.memory)?;
        // If the archive could not be written, CRIU's pipes broke for that reason.
        let memory = memory.context("the image could not be packed")?;
        requests.context("cannot take an image from CRIU")?;
        Ok(memory)
    }

    /// CRIU has ended or will: what went wrong here, if that was the cause.
    pub(crate) fn give_up(self) -> Option<anyhow::Error> {
        self.given_up.0.store(true, Ordering::Relaxed);
        match self.finish() {
            Err(error) if !matches!(error.downcast_ref(), Some(PackError::Cancelled)) => {
                Some(error)
            }
            _ => None,
        }
    }
}

fn joined<T>(thread: JoinHandle<T>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a thread for the images panicked"))
}

fn take_large(
    mut archive: Stream,
    arrivals: &Receiver<(String, OwnedFd)>,
    monitor: &GivenUp,
) -> Result<Stream, PackError> {
    for (name, pipe) in arrivals {
        rig::stop("dumping");
        archive.file(&name, File::from(pipe), monitor)?;
    }
    Ok(archive)
}

/// A small image that is being written.
struct Small {
    from: File,
    to: File,
}

fn take_all(
    listener: UnixListener,
    images: &ImageDir,
    large: &Sender<(String, OwnedFd)>,
    done: &io::PipeReader,
) -> io::Result<()> {
    let mut line: Option<Line> = None;
    let mut open: Vec<Small> = Vec::new();
    let mut part = vec![0; PART];
    let mut no_more = false;
    loop {
        let criu = line.as_ref().map_or(listener.as_fd(), |line| line.as_fd());
        let mut ready: Vec<_> = [criu]
            .into_iter()
            .chain(open.iter().map(|small| small.from.as_fd()))
            // Once at its end it would be ready for ever.
            .chain((!no_more).then(|| done.as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let wait = if no_more && open.is_empty() {
            PollTimeout::ZERO
        } else {
            PollTimeout::NONE
        };
        match poll(&mut ready, wait) {
            Err(Errno::EINTR) => continue,
            // What CRIU asked for before it said that it was done has been read by now.
            Ok(0) => return Ok(()),
            other => other?,
        };
        let ready: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let (asked, mut readable) = (ready[0], ready[1..=open.len()].iter());
        no_more |= ready.get(1 + open.len()).is_some_and(|closed| *closed);
        let mut failed = None;
        open.retain_mut(|small| {
            if !readable.next().copied().unwrap_or(false) {
                return true;
            }
            small.turn(&mut part).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if !asked {
            continue;
        }
        let Some(criu) = &mut line else {
            line = Some(Line::new(listener.accept()?.0));
            std::fs::remove_file(images.file(CAPTURE))?;
            continue;
        };
        let Some(name) = criu.request()? else {
            // It has hung up: what is left is in the pipes.
            return open.iter_mut().try_for_each(|small| {
                while small.turn(&mut part)? {}
                Ok(())
            });
        };
        let pipe = criu.pipe()?;
        if is_large(name.as_bytes()) {
            streamer::widen(&pipe);
            // If nobody takes it, the pipe breaks, and the reason is known there.
            let _ = large.send((name, pipe));
        } else {
            let to = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(images.file(&name))?;
            open.push(Small {
                from: File::from(pipe),
                to,
            });
        }
    }
}

impl Small {
    /// Moves what is there; false at the end.
    fn turn(&mut self, part: &mut [u8]) -> io::Result<bool> {
        match self.from.read(part) {
            Ok(0) => Ok(false),
            Ok(count) => self.to.write_all(&part[..count]).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}
