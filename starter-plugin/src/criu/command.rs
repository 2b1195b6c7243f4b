//! CRIU's command line.
//!
//! CRIU runs inside every namespace of the job, so that it dumps none of them,
//! as a child of the job's pid 1 and with that user namespace's capabilities,
//! which the job itself never gets. The command line and not the RPC: `-S`,
//! streaming and action scripts exist only there.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::alone::LOADER;
use super::images::ImageError;
use super::{errors, hook, registers, stats};
use crate::namespaces::SANDBOX;
use crate::sys;

/// A deleted file that the job still has open travels inside the image up to
/// this size; CRIU's own limit is 1 MiB, which refuses ordinary scratch files.
/// They go into the archive as memory does, and nobody limits files with names.
const GHOST_LIMIT: &str = "1024G";

/// The first that restores without privileges where kernels are recent.
const OLDEST: (u32, u32, u32) = (4, 1, 0);

/// A log is read back from its end; its errors are its last lines.
const LOG_TAIL: u64 = 64 << 10;

/// Why there is no usable CRIU, or what it could not do.
#[derive(Debug, Error)]
pub(crate) enum CriuError {
    /// No candidate ran.
    #[error(
        "no usable CRIU: looked into {looked}; install CRIU 4.1 or newer, or put one beside criu-starter"
    )]
    Missing {
        /// The places, comma separated.
        looked: String,
    },
    /// Older than what works without privileges.
    #[error("CRIU {version} cannot work without privileges; 4.1 is the oldest that can")]
    TooOld {
        /// The newest one's version.
        version: String,
    },
    /// A directory for images could not be opened.
    #[error("cannot open {path} for CRIU's images")]
    ImageDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A CRIU that ran and said its version.
///
/// Its directory is held open: the job's namespaces have another /tmp and
/// another /srv, and either may be where this CRIU lies.
#[derive(Debug)]
pub(crate) struct Criu {
    pub(super) dir: OwnedFd,
    pub(super) layout: Layout,
    pub(super) version: String,
}

/// How a CRIU lies in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `lib/` with its loader and libraries, `bin/criu`.
    Bundle,
    /// `criu`, and whatever it needs is the node's.
    Program,
}

/// What becomes of a tree when its dump is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Then {
    /// It is killed: it goes on elsewhere.
    End,
    /// It goes on here.
    RunOn,
}

/// A directory of image files, held open: its path may not exist where CRIU
/// runs, because the job has its own /tmp there.
#[derive(Debug)]
pub(crate) struct ImageDir(OwnedFd);

impl ImageDir {
    /// Opens an existing directory.
    pub(crate) fn open(path: &Path) -> Result<ImageDir, CriuError> {
        let fd = open_dir(path).map_err(|errno| CriuError::ImageDir {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(ImageDir(fd))
    }

    /// A file of it by name, seen from wherever this process is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// How long the last dump that ended well kept its tree frozen.
    pub(crate) fn frozen(&self) -> Option<Duration> {
        stats::frozen(&self.file(stats::FILE))
    }

    /// Which register state was in use in a tree whose images lie here.
    pub(crate) fn registers(&self) -> Result<u64, ImageError> {
        registers::in_use(&self.file("."))
    }

    /// One sentence for why the call that wrote `log` failed.
    pub(crate) fn why(&self, log: &str) -> String {
        errors::explain(&tail(&self.file(log)).unwrap_or_default())
    }
}

/// One that was asked for its version.
struct Asked {
    criu: Criu,
    child: Child,
}

impl Asked {
    fn open(dir: &Path, layout: Layout) -> Option<Asked> {
        if !dir.join(layout.program()).exists() {
            return None;
        }
        let criu = Criu {
            dir: open_dir(dir).ok()?,
            layout,
            version: String::new(),
        };
        let mut command = criu.command().ok()?;
        let child = command.arg("--version").stdout(Stdio::piped()).spawn();
        child.ok().map(|child| Asked { criu, child })
    }

    fn answer(self) -> Option<Criu> {
        let output = self.child.wait_with_output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("Version: "))?;
        let version = version.trim().to_owned();
        Some(Criu {
            version,
            ..self.criu
        })
    }
}

impl Layout {
    /// The program itself.
    fn program(self) -> &'static str {
        match self {
            Layout::Program => "criu",
            Layout::Bundle => "bin/criu",
        }
    }
}

impl Criu {
    /// Those beside this program and on the node that are new enough: the newest first, among equals the one found
    /// first.
    pub(crate) fn all(beside: &Path) -> Result<Vec<Criu>, CriuError> {
        let places = places(beside);
        // Asked all at once: each takes as long as its libraries take to load, and the job waits.
        let asked = places
            .iter()
            .filter_map(|(dir, layout)| Asked::open(dir, *layout));
        let asked: Vec<Asked> = asked.collect();
        let mut all: Vec<Criu> = asked.into_iter().filter_map(Asked::answer).collect();
        all.sort_by_key(|criu| Reverse(number(&criu.version)));
        let Some(newest) = all.first() else {
            let looked = places.iter().map(|(dir, _)| dir.display().to_string());
            let looked = looked.collect::<Vec<_>>().join(", ");
            return Err(CriuError::Missing { looked });
        };
        if number(&newest.version) < OLDEST {
            let version = newest.version.clone();
            return Err(CriuError::TooOld { version });
        }
        all.retain(|criu| number(&criu.version) >= OLDEST);
        Ok(all)
    }

    /// The newest, unless another was seen to work here.
    pub(crate) fn find(beside: &Path, proven: Option<&str>) -> Result<Criu, CriuError> {
        let mut all = Criu::all(beside)?;
        let proven = |criu: &Criu| proven.is_some_and(|version| criu.is(version));
        let index = all.iter().position(proven).unwrap_or(0);
        Ok(all.swap_remove(index))
    }

    /// Whether it calls itself so.
    pub(crate) fn is(&self, version: &str) -> bool {
        number(&self.version) == number(version)
    }

    /// The program, its directory open in the child, and with no words yet.
    pub(super) fn command(&self) -> io::Result<Command> {
        // A copy that survives exec, in the child alone.
        let dir = self.dir.try_clone()?;
        let number = dir.as_raw_fd();
        let at = |path: &str| format!("/proc/self/fd/{number}/{path}");
        let program = at(self.layout.program());
        let mut command = match self.layout {
            Layout::Program => Command::new(program),
            Layout::Bundle => {
                let mut command = Command::new(at(&format!("lib/{LOADER}")));
                command.args(["--library-path", &at("lib"), &program]);
                command
            }
        };
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        sys::before_exec(&mut command, move || {
            fcntl(&dir, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
        Ok(command)
    }

    /// Where the program itself lies.
    pub(super) fn program(&self) -> PathBuf {
        let name = self.layout.program();
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }

    /// "4.1.1"
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Starts a dump of the tree under `pid`, which hands its images out ([`super::Capture`]) and asks at its end
    /// whether all is saved ([`super::Hook`]).
    pub(crate) fn dump(
        &self,
        pid: i32,
        then: Then,
        images: &ImageDir,
        as_root: bool,
    ) -> io::Result<Child> {
        let pid = pid.to_string();
        let mut options = [
            ["-t", &pid],
            ["-o", DUMP_LOG],
            ["--ghost-limit", GHOST_LIMIT],
            ["--irmap-scan-path", SANDBOX],
            ["--action-script", hook::SCRIPT],
        ]
        .concat();
        options.push("--stream");
        if then == Then::RunOn {
            options.push("--leave-running");
        }
        self.start("dump", images, as_root, &options)
    }

    /// Starts a restore, whose root process becomes a child of this process. The images are in their directory, or
    /// somebody serves them there ([`super::Serve`]).
    pub(crate) fn restore(
        &self,
        images: &ImageDir,
        served: bool,
        as_root: bool,
    ) -> io::Result<Child> {
        let mut options = [["-o", RESTORE_LOG], ["--pidfile", PID_FILE], ["-d", "-S"]].concat();
        if served {
            options.push("--stream");
        }
        self.start("restore", images, as_root, &options)
    }

    fn start(
        &self,
        action: &str,
        images: &ImageDir,
        as_root: bool,
        options: &[&str],
    ) -> io::Result<Child> {
        // A copy that survives exec, in the child alone.
        let dir = images.0.try_clone()?;
        let mut command = self.command()?;
        command
            .arg(action)
            .args((!as_root).then_some("--unprivileged"))
            .args(["-v4", "--file-locks", "--link-remap"])
            .args(["--tcp-close", "--manage-cgroups=ignore", "--force-irmap"])
            // `/` is 0755 on one distribution and 0555 on another.
            .arg("--skip-file-rwx-check")
            .args(["-D", &format!("/proc/self/fd/{}", dir.as_raw_fd())])
            .args(options);
        sys::before_exec(&mut command, move || {
            fcntl(&dir, FcntlArg::F_SETFD(FdFlag::empty()))?;
            // A restore hears by SIGCHLD that a process of the job's has failed.
            SigSet::empty().thread_set_mask()?;
            keep_capabilities().map_err(io::Error::other)
        });
        command.spawn()
    }
}

pub(crate) const DUMP_LOG: &str = "dump.log";
pub(crate) const RESTORE_LOG: &str = "restore.log";
/// Absolute inside the job's namespaces; CRIU resolves relative ones in -D.
pub(crate) const PID_FILE: &str = "root.pid";

/// Hands this process's capabilities over the next exec, less CAP_SETUID:
/// with it CRIU calls `setuid(0)`, and 0 is mapped in no namespace of ours.
fn keep_capabilities() -> Result<(), caps::errors::CapsError> {
    let mut kept: CapsHashSet = caps::read(None, CapSet::Permitted)?;
    kept.remove(&Capability::CAP_SETUID);
    caps::set(None, CapSet::Inheritable, &kept)?;
    for capability in kept {
        caps::raise(None, CapSet::Ambient, capability)?;
    }
    Ok(())
}

/// A relocatable bundle beside us, a program beside us, then the node's own.
fn places(beside: &Path) -> Vec<(PathBuf, Layout)> {
    let mut places = vec![
        (beside.join("criu-bundle"), Layout::Bundle),
        (beside.to_owned(), Layout::Program),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A job's PATH often lacks the directories of administration.
    for dir in std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
    {
        let place = (dir, Layout::Program);
        if place.0.is_absolute() && !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

pub(super) fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

fn number(version: &str) -> (u32, u32, u32) {
    let mut parts = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(number("4.10") > number("4.2.1"));
        assert!(number("4.1.1") > number("4.1"));
        assert!(number("3.17.1") < OLDEST);
    }
}
