//! The scratch directory, so arranged that an eviction finds one file.
//!
//! ```text
//! SCRATCH/checkpoint.criu       the last complete image, if any
//! SCRATCH/.criu/srv             the job's directory, /srv inside
//! SCRATCH/.criu/srv/.criu       its stdin, stdout and stderr
//! SCRATCH/.criu/{shm,tmp}       its /dev/shm and /tmp
//! SCRATCH/.criu/images          CRIU's images
//! SCRATCH/.criu/libraries       what it uses from outside of its directory
//! SCRATCH/.criu/log             our own log
//! SCRATCH/.criu-bin             our programs, where the slot's prepare hook put them
//! ```
//!
//! Inputs are moved in before the job starts and results out after it ended.
//! HTCondor sends no directory home that nobody named, so nothing of ours leaks.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use file_transfer_plugin::manifest::Input;
use thiserror::Error;

use crate::init::STDIO;
use crate::libraries;
use crate::namespaces::Mounts;
use crate::stubborn;

/// The one file that HTCondor carries.
pub(crate) const ARCHIVE: &str = "checkpoint.criu";

/// An older image.
pub(crate) const OLDER: &str = "checkpoint.criu.older";

/// Our directory in the scratch directory.
pub(crate) const WORK: &str = ".criu";

/// Where the prepare hook puts our programs. HTCondor sends no directory home that nobody named.
pub(crate) const TOOLS: &str = ".criu-bin";

/// The trees of an archive: their names in it, which are also those below `WORK`.
pub(crate) const TREES: [&str; 5] = ["images", "srv", "shm", "tmp", libraries::TREE];

/// What could not be arranged.
#[derive(Debug, Error)]
#[error("cannot {what} {path}")]
pub(crate) struct SandboxError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

type Result<T> = std::result::Result<T, SandboxError>;

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SandboxError + 'a {
    move |source| SandboxError {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The arranged scratch directory.
#[derive(Debug)]
pub(crate) struct Sandbox {
    scratch: PathBuf,
    work: PathBuf,
    /// Inodes that are ours or the starter's and stay where they are.
    outside: HashSet<(u64, u64)>,
}

impl Sandbox {
    /// Makes the empty directories. What a killed predecessor left is taken back first.
    pub(crate) fn create(scratch: &Path) -> Result<Sandbox> {
        let work = scratch.join(WORK);
        let sandbox = Sandbox {
            scratch: scratch.to_owned(),
            outside: streams_and_self(),
            work,
        };
        if sandbox.work.exists() {
            sandbox.give_back(&[])?;
            sandbox.remove()?;
        }
        make_dir(&sandbox.work, 0o700)?;
        for (name, mode) in [
            ("images", 0o700),
            ("srv", 0o755),
            ("shm", 0o1777),
            ("tmp", 0o1777),
            (libraries::TREE, 0o700),
        ] {
            make_dir(&sandbox.work.join(name), mode)?;
        }
        Ok(sandbox)
    }

    /// A file of ours that may lie among the job's stays where it is.
    pub(crate) fn leave_outside(&mut self, path: &Path) {
        let meta = fs::metadata(path).ok();
        self.outside
            .extend(meta.map(|meta| (meta.dev(), meta.ino())));
    }

    /// Bytes that are free where archives are written.
    pub(crate) fn free(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.scratch).ok()?;
        Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// The archive's place.
    pub(crate) fn archive(&self) -> PathBuf {
        self.scratch.join(ARCHIVE)
    }

    /// Where images to go on from may lie, newest first. HTCondor brings the first; whoever knows of an older one puts
    /// it beside it before we begin.
    pub(crate) fn archives(&self) -> [PathBuf; 2] {
        [self.archive(), self.scratch.join(OLDER)]
    }

    /// One of `TREES`.
    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// A standard stream of the job.
    pub(crate) fn stream(&self, name: &str) -> PathBuf {
        self.work.join("srv").join(STDIO).join(name)
    }

    /// Our directory in the scratch directory.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// Where the supervisor logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    /// What pid 1 mounts.
    pub(crate) fn mounts(&self) -> Mounts {
        Mounts {
            sandbox: self.tree("srv"),
            shm: self.tree("shm"),
            tmp: self.tree("tmp"),
            libraries: self.tree(libraries::TREE),
        }
    }

    /// Makes the job's standard streams, `stdin` a copy of ours where it is a file.
    pub(crate) fn make_streams(&self) -> Result<()> {
        let dir = self.tree("srv").join(STDIO);
        make_dir(&dir, 0o700)?;
        let ours = Path::new("/proc/self/fd/0");
        if fs::metadata(ours).is_ok_and(|meta| meta.is_file()) {
            let copy = self.stream("stdin");
            fs::copy(ours, &copy).map_err(failed("copy standard input to", &copy))?;
        }
        Ok(())
    }

    /// Moves the job's files in and says what they were.
    pub(crate) fn take_in(&self) -> Result<Vec<Input>> {
        let mut inputs = Vec::new();
        let srv = self.tree("srv");
        for (name, meta) in self.the_jobs_files()? {
            let from = self.scratch.join(&name);
            match stubborn::rename(&from, &srv.join(&name)) {
                // Something is mounted there: apptainer's /tmp in its working directory.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => continue,
                other => other.map_err(failed("move into the sandbox", &from))?,
            }
            if meta.is_file()
                && let Some(path) = name.to_str()
            {
                inputs.push(input(path, &meta));
            }
        }
        Ok(inputs)
    }

    /// Moves everything of the job's out. An input that HTCondor delivered again
    /// and that the job never changed stays as delivered: moved over it, it would
    /// look new and be sent home.
    pub(crate) fn give_back(&self, inputs: &[Input]) -> Result<()> {
        let srv = self.tree("srv");
        if !srv.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&srv).map_err(failed("list", &srv))? {
            let entry = entry.map_err(failed("list", &srv))?;
            let (from, name) = (entry.path(), entry.file_name());
            let to = self.scratch.join(&name);
            if name == OsStr::new(STDIO) || is_htcondors(&name) {
                continue;
            }
            let old = fs::symlink_metadata(&to).ok();
            let new = fs::symlink_metadata(&from).map_err(failed("look at", &from))?;
            if old.is_some()
                && new.is_file()
                && name
                    .to_str()
                    .is_some_and(|name| inputs.contains(&input(name, &new)))
            {
                continue;
            }
            match old {
                // A directory cannot be renamed over one that is not empty.
                Some(old) if old.is_dir() => {
                    stubborn::remove_dir_all(&to).map_err(failed("replace", &to))?;
                }
                Some(_) if new.is_dir() => fs::remove_file(&to).map_err(failed("replace", &to))?,
                _ => {}
            }
            stubborn::rename(&from, &to).map_err(failed("move out of the sandbox", &from))?;
        }
        Ok(())
    }

    /// Empties some of the trees.
    pub(crate) fn clear(&self, trees: &[&str]) -> Result<()> {
        for name in trees {
            let tree = self.tree(name);
            for entry in fs::read_dir(&tree).map_err(failed("list", &tree))? {
                let entry = entry.map_err(failed("list", &tree))?;
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_dir {
                    stubborn::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removed.map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes our directory with all that is left in it.
    pub(crate) fn remove(&self) -> Result<()> {
        stubborn::remove_dir_all(&self.work).map_err(failed("remove", &self.work))
    }

    fn the_jobs_files(&self) -> Result<Vec<(std::ffi::OsString, Metadata)>> {
        let mut files = Vec::new();
        let list = fs::read_dir(&self.scratch).map_err(failed("list", &self.scratch))?;
        for entry in list {
            let entry = entry.map_err(failed("list", &self.scratch))?;
            let meta = entry.metadata().map_err(failed("look at", &entry.path()))?;
            if !is_htcondors(&entry.file_name())
                && !self.outside.contains(&(meta.dev(), meta.ino()))
            {
                files.push((entry.file_name(), meta));
            }
        }
        Ok(files)
    }
}

/// Whether a top-level name belongs to the starter or to us.
pub(crate) fn is_htcondors(name: &OsStr) -> bool {
    const OURS: [&str; 2] = [WORK, TOOLS];
    const PREFIXES: [&str; 9] = [
        ARCHIVE, // and its temporary twin
        "_condor_",
        ".condor",
        ".chirp.config",
        ".docker",
        ".job",
        ".machine.ad",
        ".update.ad",
        ".execution_overlay.ad",
    ];
    OURS.iter().any(|own| name == OsStr::new(own))
        || PREFIXES
            .iter()
            .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

fn streams_and_self() -> HashSet<(u64, u64)> {
    [
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "/proc/self/exe",
    ]
    .iter()
    .filter_map(|path| fs::metadata(path).ok())
    .filter(|meta| meta.is_file())
    .map(|meta| (meta.dev(), meta.ino()))
    .collect()
}

fn input(path: &str, meta: &Metadata) -> Input {
    Input {
        path: path.to_owned(),
        size: meta.len(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(failed("make", path))?;
    // The umask took its part of the mode.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::write(path, text).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn inputs_go_in_and_the_starters_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["job", ".hidden", "_condor_stdout", ".job.ad"] {
            write(dir.path().join(name), name);
        }
        // The job's own program, behind the prepare hook; else it is this one, which stays.
        write(dir.path().join("condor_exec.exe"), "its program");
        fs::create_dir(dir.path().join(TOOLS)).unwrap();
        write(dir.path().join("ours"), "beside this program");
        let mut sandbox = Sandbox::create(dir.path()).unwrap();
        sandbox.leave_outside(&dir.path().join("ours"));
        let inputs = sandbox.take_in().unwrap();
        let moved = [".hidden", "condor_exec.exe", "job"];
        assert_eq!(names(&sandbox.tree("srv")), moved);
        assert_eq!(inputs.len(), 3);
        let left = [".criu", ".criu-bin", ".job.ad", "_condor_stdout", "ours"];
        assert_eq!(names(dir.path()), left);
    }

    #[test]
    fn results_come_out_over_what_was_delivered_again() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("input"), "same");
        write(dir.path().join("state"), "first");
        let sandbox = Sandbox::create(dir.path()).unwrap();
        let inputs = sandbox.take_in().unwrap();
        write(sandbox.tree("srv").join("state"), "last state");
        write(sandbox.tree("srv").join("result"), "42");
        write(dir.path().join("input"), "delivered again");
        write(dir.path().join("state"), "first");
        sandbox.give_back(&inputs).unwrap();
        sandbox.remove().unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(text("input"), "delivered again");
        assert_eq!(text("state"), "last state");
        assert_eq!(text("result"), "42");
        assert_eq!(names(dir.path()), ["input", "result", "state"]);
    }

    #[test]
    fn what_a_killed_supervisor_left_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("input"), "1");
        let killed = Sandbox::create(dir.path()).unwrap();
        killed.take_in().unwrap();
        write(killed.tree("srv").join("output"), "2");
        let next = Sandbox::create(dir.path()).unwrap();
        next.take_in().unwrap();
        assert_eq!(names(&next.tree("srv")), ["input", "output"]);
    }
}
