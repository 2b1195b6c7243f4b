//! The only unsafe code of the project: process creation and death.
//!
//! All of it happens while the process has one thread; nothing here allocates
//! between `fork` and what follows it in the child except through the
//! allocator of a single-threaded process, which is sound.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};
use nix::unistd::{ForkResult, Pid};

/// Forks: `None` in the child, which must leave by [`end`].
pub(crate) fn fork() -> nix::Result<Option<Pid>> {
    debug_assert!(
        is_alone(),
        "fork in a process with threads copies their locks"
    );
    // SAFETY: the process has one thread (asserted above, and nothing starts
    // one before the job is under way), so the child's heap and locks are whole.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Ends a forked child. `exit` would run the parent's destructors and flush its
/// buffers a second time.
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { nix::libc::_exit(code) }
}

/// Runs `prepare` in the forked child, between `fork` and `exec`.
pub(crate) fn before_exec(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the callers' closures make system calls and touch nothing that
    // another thread could hold: the process that spawns has a single thread.
    unsafe { command.pre_exec(prepare) };
}

/// Keeps every inherited descriptor above 2 from the job: it was opened outside
/// of the job's mounts, where CRIU cannot find it again.
pub(crate) fn keep_descriptors_from_children() -> io::Result<()> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The listing's own descriptor is closed by now; the call then fails, which is right.
        // SAFETY: F_SETFD on a number changes no ownership and touches no memory.
        unsafe { nix::libc::fcntl(fd, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Dies of `signal`, so that whoever waits for us sees the job's own death.
pub(crate) fn die_of(fatal: Signal) -> ! {
    // The job's core, where it left one, is the one that matters.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: SIG_DFL is no handler, so nothing can run in signal context.
    let _ = unsafe { signal(fatal, SigHandler::SigDfl) };
    let mut only = SigSet::empty();
    only.add(fatal);
    let _ = only.thread_unblock();
    let _ = raise(fatal);
    // A signal whose default is not death (or a pid 1) gets the shell's answer.
    std::process::exit(128 + fatal as i32)
}

/// Whether this thread is the only one, or soon is: the kernel lists one that was joined a moment longer.
fn is_alone() -> bool {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let until = Instant::now() + Duration::from_secs(1);
    while threads() > 1 && Instant::now() < until {
        std::thread::yield_now();
    }
    threads() == 1
}
