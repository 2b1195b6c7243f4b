//! The moment in a dump when all is written and the job still stands still.
//!
//! CRIU calls its action script then and waits for it, and ends the tree, or lets it run on, afterwards. The script
//! is this program. It closes every descriptor of the script's but the log, so what is left to speak through is a
//! socket in the images' directory, on which the outer supervisor listens.
//!
//! ```text
//! CRIU ── post-dump ──> script ── connects ──> outer supervisor: saves the sandbox, commits the archive
//!      <── exit 0 ─────        <── one byte ──  it is saved
//!      <── exit 1 ─────        <── the end ───  it is not: the job runs on
//! ```

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;

use file_transfer_plugin::rig;

use super::ImageDir;

/// Pid 1 is this program, wherever it lies and whatever is mounted over that.
pub(super) const SCRIPT: &str = "/proc/1/exe";

/// In the images' directory.
const SOCKET: &str = "frozen.sock";

/// How CRIU tells its script what for and about which images.
const ACTION: &str = "CRTOOLS_SCRIPT_ACTION";
const IMAGES: &str = "CRTOOLS_IMAGE_DIR";

/// The outer supervisor's ear.
pub(crate) struct Hook(UnixListener);

impl Hook {
    /// Listens in `images`; before the dump begins.
    pub(crate) fn listen(images: &ImageDir) -> io::Result<Hook> {
        let path = images.file(SOCKET);
        remove(&path)?;
        Ok(Hook(UnixListener::bind(path)?))
    }

    /// The tree stands still from before this returns until what is returned is gone.
    pub(crate) fn accept(self, images: &ImageDir) -> io::Result<Held> {
        let (stream, _) = self.0.accept()?;
        // The archive has no place for a socket, and would say so.
        remove(&images.file(SOCKET))?;
        Ok(Held(stream))
    }
}

impl AsFd for Hook {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A frozen tree. Dropped, CRIU's dump fails and the job runs on.
#[must_use]
pub(crate) struct Held(UnixStream);

impl Held {
    /// All is saved: CRIU may end the tree, or let it go, as it was told at first.
    pub(crate) fn release(mut self) -> io::Result<()> {
        self.0.write_all(b"+")
    }
}

/// What this program does when it is CRIU's script: the exit code then.
pub(crate) fn called_by_criu() -> Option<ExitCode> {
    let action = env::var_os(ACTION)?;
    if env::args_os().len() != 1 {
        return None;
    }
    let saved = || -> io::Result<()> {
        let images = env::var_os(IMAGES).ok_or(io::ErrorKind::NotFound)?;
        let mut outer = UnixStream::connect(Path::new(&images).join(SOCKET))?;
        outer.read_exact(&mut [0])
    };
    Some(match action.to_str() {
        // Written into CRIU's log.
        Some("post-dump") => match saved() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("criu-starter: the image was not saved: {error}");
                ExitCode::FAILURE
            }
        },
        Some("pre-dump") => {
            rig::stop("freezing");
            ExitCode::SUCCESS
        }
        _ => ExitCode::SUCCESS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_nobody_saved_is_not_released() {
        let dir = tempfile::tempdir().unwrap();
        let images = ImageDir::open(dir.path()).unwrap();
        for save in [true, false] {
            let hook = Hook::listen(&images).unwrap();
            let mut script = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
            let held = hook.accept(&images).unwrap();
            if save {
                held.release().unwrap();
            } else {
                drop(held);
            }
            assert_eq!(script.read_exact(&mut [0]).is_ok(), save);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
