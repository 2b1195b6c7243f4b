//! A directory of the slot's with the image's files in it.
//!
//! Nobody may make a file in /usr/lib without being root. In a mount namespace of its own a process may cover /usr/lib with
//! an empty file system, show in it everything that was there, entry by entry, and what was not. An overlay would be one
//! mount instead of some hundred, but CRIU cannot dump a program whose files lie on one on kernels before 6.8, and it needs 5.11.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use super::kept;
use super::lay::{LayError, bind};

/// Debian's /usr/lib/x86_64-linux-gnu has some thousand; the kernel allows 100,000 mounts.
const ENTRIES: usize = 20_000;

/// Covers `dir` with a mirror of itself in which `files`, which are below it, are those of `tree`.
pub(super) fn mirror(tree: &Path, dir: &Path, files: &[PathBuf]) -> Result<(), LayError> {
    let failed = |source| LayError::Mount {
        path: dir.to_owned(),
        source,
    };
    // What is covered stays reachable through this.
    let below = held(dir).map_err(failed)?;
    let covered = Path::new("/proc/self/fd").join(below.as_raw_fd().to_string());
    let names = names(&covered).map_err(failed)?;
    if names.len() > ENTRIES {
        return Err(LayError::TooLarge {
            path: dir.to_owned(),
            entries: names.len(),
        });
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("libraries"),
        dir,
        Some("tmpfs"),
        flags,
        Some("mode=755"),
    )
    .map_err(|errno| failed(errno.into()))?;
    for path in files {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        show(&kept(tree, path), path)?;
    }
    for name in names {
        let to = dir.join(&name);
        // The image's own file stands where the slot has a link of that name.
        if fs::symlink_metadata(&to).is_err() {
            show(&covered.join(&name), &to)?;
        }
    }
    Ok(())
}

/// Makes `to` what `from` is.
fn show(from: &Path, to: &Path) -> Result<(), LayError> {
    let failed = |source| LayError::Mount {
        path: to.to_owned(),
        source,
    };
    let kind = fs::symlink_metadata(from).map_err(failed)?.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(from).map_err(failed)?;
        return symlink(target, to).map_err(failed);
    }
    if kind.is_dir() {
        fs::create_dir(to).map_err(failed)?;
    } else {
        File::create(to).map_err(failed)?;
    }
    bind(from, to)
}

fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir.join("."))?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

fn held(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}
