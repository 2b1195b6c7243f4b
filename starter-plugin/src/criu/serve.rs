//! The images that a restore asks for: small ones from the images' directory, memory straight from the archive.
//!
//! Every process of the tree reads its own memory, several at a time. A pipe that is not read must not keep others
//! waiting: small images fit into their pipes, and what is larger is written by threads of its own. A few of them are
//! enough, because a process reads its memory from beginning to end and waits for nobody meanwhile.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use file_transfer_plugin::manifest::Name;
use file_transfer_plugin::rig;
use file_transfer_plugin::unpack::{Archive, ArchiveError, Stored};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ImageDir;
use super::spliced::Spliced;
use super::streamer::{self, Line, SERVE, is_large};

/// What every pipe takes at once.
const PIPE: u64 = 64 << 10;

/// Images that are written at a time, and threads for each.
const WRITERS: usize = 3;
const THREADS: usize = 2;

/// The first part of the images' paths in an archive.
const TREE: &str = "images/";

/// Whether a file of an archive is given to CRIU from there, and need not be unpacked.
pub(crate) fn is_served(path: &Name) -> bool {
    path.as_bytes()
        .strip_prefix(TREE.as_bytes())
        .is_some_and(is_large)
}

/// A socket that CRIU will connect to.
pub(crate) struct Socket(UnixListener, ImageDir);

/// A restore's images on their way.
pub(crate) struct Serve {
    thread: JoinHandle<Result<()>>,
    /// Closed when the restore is over.
    more: io::PipeWriter,
}

impl Socket {
    /// Before CRIU is started, and without a thread: who forks meanwhile must have one.
    pub(crate) fn listen(images: ImageDir) -> io::Result<Socket> {
        Ok(Socket(streamer::listen(&images, SERVE)?, images))
    }

    /// Answers from now on.
    pub(crate) fn serve(self, archive: Arc<Archive>) -> io::Result<Serve> {
        let (done, more) = io::pipe()?;
        let Socket(listener, images) = self;
        let thread = thread::Builder::new()
            .name("images".to_owned())
            .spawn(move || serve(&listener, &images, &archive, &done))?;
        Ok(Serve { thread, more })
    }
}

impl Serve {
    /// The restore is over, or CRIU is gone: what went wrong here.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.more);
        self.thread
            .join()
            .map_err(|_| anyhow!("a thread for the images panicked"))?
    }
}

/// An image and the pipe that CRIU reads it from.
type Order = (String, OwnedFd);

fn serve(
    listener: &UnixListener,
    images: &ImageDir,
    archive: &Archive,
    done: &io::PipeReader,
) -> Result<()> {
    let stored = archive.stored(is_served);
    let (orders, taken) = channel::<Order>();
    let taken = Mutex::new(taken);
    let error = Mutex::new(None);
    let answered = thread::scope(|scope| {
        let work = || {
            while let Some((name, pipe)) = next(&taken) {
                if let Err(first) = write(&stored, images, &name, pipe)
                    && let Ok(mut error) = error.lock()
                {
                    error.get_or_insert(first);
                }
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(work)).collect();
        // Moved in, so that the writers see the end of it.
        let answered = answer(listener, images, &stored, orders, done);
        for writer in writers {
            if writer.join().is_err()
                && let Ok(mut error) = error.lock()
            {
                error.get_or_insert(anyhow!("a thread for the images panicked"));
            }
        }
        answered
    });
    match error.into_inner() {
        Ok(None) => answered.context("cannot answer CRIU"),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(anyhow!("a thread for the images panicked")),
    }
}

fn next(orders: &Mutex<Receiver<Order>>) -> Option<Order> {
    orders.lock().ok()?.recv().ok()
}

fn write(stored: &Stored<'_>, images: &ImageDir, name: &str, pipe: OwnedFd) -> Result<()> {
    rig::stop("restoring");
    streamer::widen(&pipe);
    let path = in_archive(name);
    if stored.has(&path) {
        // Closed whichever way it ends: CRIU then sees that the image is short, and fails.
        return Ok(stored.write(&path, &Spliced::into(pipe)?, THREADS)?);
    }
    let mut pipe = File::from(pipe);
    let copied = File::open(images.file(name)).and_then(|mut file| io::copy(&mut file, &mut pipe));
    match copied {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("cannot hand {name} to CRIU"))
        }
        _ => Ok(()),
    }
}

fn in_archive(name: &str) -> Name {
    Name::from(format!("{TREE}{name}").as_str())
}

fn answer(
    listener: &UnixListener,
    images: &ImageDir,
    stored: &Stored<'_>,
    orders: Sender<Order>,
    done: &io::PipeReader,
) -> io::Result<()> {
    let mut line: Option<Line> = None;
    loop {
        let criu = line.as_ref().map_or(listener.as_fd(), |line| line.as_fd());
        let mut ready = [criu, done.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let [asked, over] = ready.map(|fd| fd.any().unwrap_or(false));
        if over {
            return Ok(());
        }
        if !asked {
            continue;
        }
        let Some(criu) = &mut line else {
            line = Some(Line::new(listener.accept()?.0));
            continue;
        };
        let Some(name) = criu.request()? else {
            return Ok(());
        };
        let local = fs::metadata(images.file(&name)).ok();
        let large = stored.has(&in_archive(&name));
        criu.answer(large || local.is_some())?;
        if !large && local.is_none() {
            continue;
        }
        let pipe = criu.pipe()?;
        if large || local.is_some_and(|meta| meta.len() > PIPE) {
            let _ = orders.send((name, pipe));
        } else {
            let mut bytes = Vec::new();
            File::open(images.file(&name))?
                .take(PIPE)
                .read_to_end(&mut bytes)?;
            match io::Write::write_all(&mut File::from(pipe), &bytes) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
    }
}

/// Whether an error of [`Serve::finish`] is the archive's own: another copy may be good, another slot will not help.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(
            ArchiveError::Damaged { .. }
                | ArchiveError::CutOff { .. }
                | ArchiveError::Header { .. }
        )
    )
}
