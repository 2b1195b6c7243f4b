//! Files that the job uses from outside of its sandbox, so that they travel with it.
//!
//! A frozen program goes on only with the very files that it had mapped: its interpreter, its libc, the loader, locale
//! archives, python's modules. CRIU compares their sizes and refuses others. So each is copied beside the images under its
//! own path, `libraries/usr/lib/x86_64-linux-gnu/libc.so.6`, and laid over what a slot has in its place, where that differs.
//!
//! ```text
//! freeze   collect   what the tree maps, runs or reads from outside   -> .criu/libraries, once for each path
//! thaw     lay       the same here: nothing; another: a bind mount; none: its directory is mirrored, with it in
//! ```
//!
//! What the job starts or loads for the first time after a thaw comes from the same view: the image's libc under the slot's
//! programs. That works where the image's libc is the newer one; the other way round, a shell's job may find that the slot's
//! `sleep` wants a newer libc. What was never loaded does not travel.

mod collect;
mod lay;
mod mirror;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) use lay::{LayError, Plan};

/// The tree's name in the archive and below our directory.
pub(crate) const TREE: &str = "libraries";

/// What has the same files everywhere, or is the job's own already.
const ELSEWHERE: [&str; 7] = [
    "/srv", "/tmp", "/dev", "/proc", "/sys", "/run",
    // One path is one content, on every node of the world.
    "/cvmfs",
];

/// The copies on this slot, in a directory that is held open.
#[derive(Debug)]
pub(crate) struct Libraries {
    tree: PathBuf,
    _held: OwnedFd,
}

impl Libraries {
    /// Those in a directory of the job's mount namespace.
    pub(crate) fn new(dir: OwnedFd) -> Libraries {
        Libraries {
            tree: PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd())),
            _held: dir,
        }
    }

    /// Brings them up to date with what the job's processes in `proc` use: all but pid 1 and CRIU, which is there while it
    /// freezes them.
    pub(crate) fn collect(&self, proc: &Path, criu: Option<u32>) {
        match collect::collect(proc, criu, &self.tree) {
            Ok(bytes) => tracing::debug!(stage = "libraries", bytes),
            // Without them the image is one for slots that have the same files.
            Err(error) => tracing::warn!("the job's libraries do not travel: {error}"),
        }
    }

    /// What of the slot's has to be covered for them.
    pub(crate) fn plan(&self) -> Result<Plan, LayError> {
        lay::plan_for(&self.tree)
    }

    /// Lays them over the slot's files as planned.
    pub(crate) fn lay(&self, plan: &Plan) -> Result<(), LayError> {
        lay::lay(&self.tree, plan)?;
        tracing::info!(stage = "libraries", laid = plan.files());
        Ok(())
    }

    /// A place beside them for a CRIU that does without the slot's.
    pub(crate) fn beside(&self) -> PathBuf {
        self.tree.join("../criu")
    }
}

/// Whether a file of that path has to travel.
fn travels(path: &Path) -> bool {
    path.is_absolute() && !ELSEWHERE.iter().any(|dir| path.starts_with(dir))
}

/// Where the file at `path` is kept in the tree at `tree`.
fn kept(tree: &Path, path: &Path) -> PathBuf {
    tree.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_sandbox_and_of_cvmfs_stay() {
        for path in ["/usr/lib/libc.so.6", "/opt/python/bin/python3", "/srvx/y"] {
            assert!(travels(Path::new(path)), "{path}");
        }
        for path in ["/srv/job", "/tmp/x", "/cvmfs/oasis/libm.so", "relative"] {
            assert!(!travels(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_file_is_kept_under_its_own_path() {
        let kept = kept(Path::new("/x/libraries"), Path::new("/usr/lib/a.so"));
        assert_eq!(kept, Path::new("/x/libraries/usr/lib/a.so"));
    }
}
