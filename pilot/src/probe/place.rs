//! The one directory of a probe, and those that killed probes left.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

/// Followed by pid and start time, so that a person can tell whose it is.
const PREFIX: &str = "criu-probe.";

/// A directory that goes with this value.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// Held while we live, and gone with us however we end. A pid alone could be
    /// another container's, which shares this directory but not our /proc.
    _lock: Flock<File>,
}

impl Place {
    /// Makes it in `dir`, and removes what killed probes left there.
    pub(crate) fn create(dir: &Path) -> Result<Place> {
        remove_leftovers(dir);
        let pid = std::process::id();
        let since = start_time(pid).unwrap_or_default();
        let path = dir.join(format!("{PREFIX}{pid}.{since}"));
        let what = || format!("cannot make the probe's directory {}", path.display());
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(what)?;
        let opened = File::open(&path).with_context(what)?;
        let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .with_context(what)?;
        Ok(Place { path, _lock: lock })
    }

    /// An empty directory in it.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now, the next probe finds.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Best effort: a leftover is ugly, and no reason to know less of the node.
fn remove_leftovers(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(whose) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if is_leftover(&entry.path(), whose) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Nobody holds its lock, and nobody is about to: its maker is gone.
fn is_leftover(path: &Path, whose: &str) -> bool {
    let ours = fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw());
    let lives = whose
        .split_once('.')
        .and_then(|(pid, since)| Some((pid.parse().ok()?, since.parse().ok()?)))
        .is_some_and(|(pid, since): (u32, u64)| start_time(pid) == Some(since));
    ours && !lives
        && File::open(path)
            .is_ok_and(|dir| Flock::lock(dir, FlockArg::LockExclusiveNonblock).is_ok())
}

/// When a process began, in the kernel's ticks.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; 22nd in proc(5), 20th behind it.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probes_directory_is_gone_with_it_and_left_alone_before() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::create(dir.path()).unwrap();
        remove_leftovers(dir.path());
        assert!(place.path.is_dir());
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_probe_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        // A pid that is ours, but began at another time; one that is nobody's; no pid at all.
        for whose in [
            format!("{}.1", std::process::id()),
            "4194305.7".into(),
            "x".into(),
        ] {
            fs::create_dir_all(dir.path().join(format!("{PREFIX}{whose}/here/.criu"))).unwrap();
        }
        fs::create_dir(dir.path().join("somebody-elses")).unwrap();
        remove_leftovers(dir.path());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_directory_whose_lock_is_held_is_somebodys() {
        let dir = tempfile::tempdir().unwrap();
        // As from another container: the pid tells nothing here.
        let other = dir.path().join(format!("{PREFIX}4194305.7"));
        fs::create_dir(&other).unwrap();
        let held = Flock::lock(File::open(&other).unwrap(), FlockArg::LockExclusive).unwrap();
        remove_leftovers(dir.path());
        assert!(other.is_dir());
        drop(held);
        remove_leftovers(dir.path());
        assert!(!other.exists());
    }
}
