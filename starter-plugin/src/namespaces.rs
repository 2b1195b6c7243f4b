//! The job's own little machine, made by an ordinary user.
//!
//! ```text
//! outer supervisor ──fork──> maker: unshare(user, mount, pid, ipc, uts, time), maps, clock offsets
//!                              └──fork──> pid 1: mounts, then init::run
//! ```
//!
//! The maker ends at once, and pid 1 becomes a child of the outer supervisor,
//! which is a subreaper. One id is mapped; the inner one is the job's for life.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

/// Where every job finds its sandbox, on every slot.
pub(crate) const SANDBOX: &str = "/srv";

/// `nix` does not name it: <linux/sched.h>, kernel 5.6.
const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// What a slot refused to make.
#[derive(Debug, Error)]
pub(crate) enum NamespaceError {
    /// unshare failed: a sysctl or a security module.
    #[error("cannot make the job's namespaces ({source}); {}", advice(.source))]
    Unshare {
        /// The errno.
        #[source]
        source: nix::Error,
    },
    /// An id map or a clock offset.
    #[error("cannot write {path}")]
    Write {
        /// The file of /proc.
        path: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A mount inside.
    #[error("cannot mount {what} ({source}); {}", if *.what == "/proc" { "the slot runs in a container whose /proc is masked: allow systempaths=unconfined" } else { "the slot cannot give the job its own" })]
    Mount {
        /// The mount point.
        what: &'static str,
        /// The errno.
        #[source]
        source: nix::Error,
    },
}

fn advice(errno: &nix::Error) -> &'static str {
    match errno {
        nix::Error::ENOSPC => "user.max_user_namespaces or max_pid_namespaces is 0 or used up",
        nix::Error::EPERM => {
            "unprivileged user namespaces are off (kernel.unprivileged_userns_clone) or a seccomp filter forbids them"
        }
        nix::Error::EACCES => "kernel.apparmor_restrict_unprivileged_userns is 1",
        _ => "the kernel may lack user namespaces",
    }
}

/// The ids of the job, inside and outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    /// What the job sees, for life.
    pub(crate) inner: (u32, u32),
    /// Ours on this slot.
    pub(crate) outer: (u32, u32),
}

/// Monotonic and boot time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clocks {
    /// CLOCK_MONOTONIC
    pub(crate) monotonic_ns: i64,
    /// CLOCK_BOOTTIME
    pub(crate) boottime_ns: i64,
}

impl Clocks {
    /// The clocks of this process's time namespace.
    pub(crate) fn now() -> Clocks {
        let read = |clock| {
            let time = clock_gettime(clock).unwrap_or(TimeSpec::new(0, 0));
            time.tv_sec() * 1_000_000_000 + time.tv_nsec()
        };
        Clocks {
            monotonic_ns: read(ClockId::CLOCK_MONOTONIC),
            boottime_ns: read(ClockId::CLOCK_BOOTTIME),
        }
    }
}

/// Moves this process (the maker) into new namespaces; its next child is pid 1.
/// With `resume`, time in them goes on from there. A job that runs as root has no ids of its own.
pub(crate) fn unshare_all(ids: Option<Ids>, resume: Option<Clocks>) -> Result<(), NamespaceError> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWUSER, ids.is_some());
    unshare(flags).map_err(|source| NamespaceError::Unshare { source })?;
    let write = |path: &'static str, text: String| {
        fs::write(path, text).map_err(|source| NamespaceError::Write { path, source })
    };
    if let Some(Ids { inner, outer }) = ids {
        // Without a helper that is setuid root, a map of one id is what there is,
        // and the kernel wants setgroups denied before it takes the second.
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/uid_map", format!("{} {} 1\n", inner.0, outer.0))?;
        write("/proc/self/gid_map", format!("{} {} 1\n", inner.1, outer.1))?;
    }
    // Kernels before 5.6 have none: the job's monotonic clock may then jump.
    if unshare(CLONE_NEWTIME).is_ok()
        && let Some(resume) = resume
    {
        let now = Clocks::now();
        let offset = |name: &str, then: i64, now: i64| {
            let offset = then - now;
            let (seconds, nanoseconds) = (
                offset.div_euclid(1_000_000_000),
                offset.rem_euclid(1_000_000_000),
            );
            format!("{name} {seconds} {nanoseconds}\n")
        };
        let text = offset("monotonic", resume.monotonic_ns, now.monotonic_ns)
            + &offset("boottime", resume.boottime_ns, now.boottime_ns);
        write("/proc/self/timens_offsets", text)?;
    }
    Ok(())
}

/// The directories of the host that the job gets as its own.
#[derive(Debug, Clone)]
pub(crate) struct Mounts {
    /// Seen as /srv.
    pub(crate) sandbox: PathBuf,
    /// Seen as /dev/shm.
    pub(crate) shm: PathBuf,
    /// Seen as /tmp.
    pub(crate) tmp: PathBuf,
    /// Files from outside of them all, laid over the slot's own where those differ.
    pub(crate) libraries: PathBuf,
}

/// Makes pid 1's view: what the job opens must lie on mounts of its own. Gives the directory of libraries, held open because
/// it may lie below /tmp, and opened here because only what is of this namespace can be bound in it.
pub(crate) fn mount_all(mounts: &Mounts) -> Result<OwnedFd, NamespaceError> {
    let none = None::<&str>;
    let mounted = |what: &'static str, result: nix::Result<()>| {
        result.map_err(|source| NamespaceError::Mount { what, source })
    };
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mounted("/ privately", mount(none, "/", none, private, none))?;
    mounted(
        "/proc",
        mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none),
    )?;
    let bind = |from: &Path, to: &'static str| {
        mounted(to, mount(Some(from), to, none, MsFlags::MS_BIND, none))
    };
    // Opened before they are covered: all of these may lie below /tmp or /srv.
    let shm = held(&mounts.shm)?;
    let tmp = held(&mounts.tmp)?;
    let libraries = held(&mounts.libraries)?;
    bind(&mounts.sandbox, SANDBOX)?;
    bind(&through(&shm), "/dev/shm")?;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    mounted(
        "/dev/pts",
        mount(
            Some("devpts"),
            "/dev/pts",
            Some("devpts"),
            MsFlags::empty(),
            options,
        ),
    )?;
    bind(Path::new("/dev/pts/ptmx"), "/dev/ptmx")?;
    // A glidein in /tmp stays visible to its job: its tools, its ads.
    let glidein = below_tmp(&mounts.sandbox);
    let kept = match &glidein {
        None => None,
        Some(path) => Some((held(path)?, path)),
    };
    bind(&through(&tmp), "/tmp")?;
    if let Some((dir, path)) = kept {
        let made = fs::create_dir(path).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        });
        made.map_err(|source| NamespaceError::Write {
            path: "/tmp",
            source,
        })?;
        let result = mount(
            Some(&through(&dir)),
            path.as_path(),
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        );
        mounted("the glidein's directory in /tmp", result)?;
    }
    Ok(libraries)
}

/// The directory of /tmp that `path` lies in.
fn below_tmp(path: &Path) -> Option<PathBuf> {
    let first = path.strip_prefix("/tmp").ok()?.iter().next()?;
    Some(Path::new("/tmp").join(first))
}

fn held(path: &Path) -> Result<OwnedFd, NamespaceError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|source| NamespaceError::Mount {
        what: "a directory of the sandbox",
        source,
    })
}

fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_of_tmp_is_kept() {
        let kept = |path| below_tmp(Path::new(path));
        assert_eq!(
            kept("/tmp/glide_x/dir_1/.criu/srv"),
            Some("/tmp/glide_x".into())
        );
        assert_eq!(kept("/tmpx/a"), None);
        assert_eq!(kept("/var/lib/condor/execute/dir_1"), None);
    }
}
