//! Pid 1 of the job's namespaces: starts or restores the job, dumps it, reaps
//! everything, and tells the outer supervisor, whose orders it takes.
//!
//! ```text
//!            order             child                 event
//! Running ── Dump ──> Dumping ── begun ───────────> Freezing
//!    ^                   ├────── criu 0 ──────────> Dumped   (the tree is gone, or runs on: as ordered)
//!    │                   └────── criu else ───────> DumpFailed, the job runs on
//!    ├─ GiveUp: CRIU is killed, which the job survives
//!    └─ Signal(n): to the job            job ends ─> Exited
//! ```
//!
//! Between `Freezing` and `Dumped` CRIU itself tells the outer supervisor that all stands still (`criu::Hook`).
//!
//! When this process ends, the kernel ends all that is left in the namespace.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use caps::CapSet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::criu::{Criu, DUMP_LOG, ImageDir, PID_FILE, RESTORE_LOG, Then};
use crate::job::JobCommand;
use crate::libraries::Libraries;
use crate::mapped::Names;
use crate::nameless::{self, NamelessError};
use crate::namespaces::{Clocks, Mounts, SANDBOX, mount_all};
use crate::preflight::Reason;
use crate::running::StartFailed;
use crate::unkept::{self, Unkept};
use crate::{preflight, sys};

/// The job's files for its standard streams, inside the sandbox, so that they
/// travel with it.
pub(crate) const STDIO: &str = ".criu";

/// What the outer supervisor asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The maker is gone and you are mine: begin.
    Begin,
    /// Freeze and dump the job.
    Dump(Then),
    /// It stands still: what it began to use since the first look has to travel too.
    CollectAgain,
    /// It takes too long: let the job run on.
    GiveUp,
    /// Send the job a signal.
    Signal(i32),
    /// Send it to the job's process group.
    GroupSignal(i32),
    /// Say what would prevent a dump.
    Look,
}

/// What pid 1 has to say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The job runs, fresh or thawed.
    Running,
    /// This slot cannot give the job a machine of its own; it was not started.
    CannotHere { message: String },
    /// It could not be started: a message, and the shell's code for it.
    StartFailed { message: String, code: i32 },
    /// The image could not be restored; nothing of it is left.
    RestoreFailed { message: String },
    /// CRIU has begun; from here on the job's clock stands still.
    Freezing { monotonic_ns: i64, boottime_ns: i64 },
    /// What the frozen tree uses is with its images.
    Collected,
    /// CRIU has ended, and the tree is gone or runs on, as it was ordered.
    Dumped,
    /// The job runs on.
    DumpFailed { message: String },
    /// The answer to a look.
    Blockers(Vec<Reason>),
    /// The job ended by itself.
    Exited(Exit),
}

/// How the job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// `exit(n)`
    Code(i32),
    /// Killed by signal n.
    Signal(i32),
}

/// How the job begins on this slot.
pub(crate) enum Begin {
    /// From its command line.
    Fresh(JobCommand),
    /// From its images.
    Thaw {
        /// CRIU asks for them, else they are files.
        served: bool,
        /// How long that may take.
        limit: Duration,
    },
}

/// What pid 1 needs to know.
pub(crate) struct Init {
    pub(crate) begin: Begin,
    /// The job is root's (`as_root`).
    pub(crate) as_root: bool,
    pub(crate) criu: Rc<Criu>,
    pub(crate) images: ImageDir,
    pub(crate) mounts: Mounts,
    /// Files from outside of the sandbox, once all is mounted.
    pub(crate) libraries: Option<Libraries>,
}

/// Everything that pid 1 does; the return value is its exit code.
pub(crate) fn run(init: Init, channel: Channel) -> i32 {
    match serve(init, &channel) {
        Ok(()) => 0,
        // The outer supervisor is gone, or there is nothing left to tell it with.
        Err(_) => 1,
    }
}

fn serve(mut init: Init, channel: &Channel) -> anyhow::Result<()> {
    let Order::Begin = channel.receive()? else {
        bail!("the first order is to begin");
    };
    // From here on the outer supervisor is the parent: a job without it would
    // be one that nobody waits for. Should it have died just now, the channel
    // says so at the next read.
    set_pdeathsig(Signal::SIGKILL)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_set_mask()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    match mount_all(&init.mounts) {
        Ok(libraries) => init.libraries = Some(Libraries::new(libraries)),
        Err(error) => {
            let message = error.to_string();
            return channel.send(&match init.begin {
                Begin::Fresh(_) => Event::CannotHere { message },
                Begin::Thaw { .. } => Event::RestoreFailed { message },
            });
        }
    }
    let job = match &init.begin {
        Begin::Fresh(command) => match start(command, init.as_root) {
            Ok(job) => job,
            Err(StartFailed { message, code }) => {
                return channel.send(&Event::StartFailed { message, code });
            }
        },
        &Begin::Thaw { served, limit } => {
            match lay(&mut init).and_then(|()| thaw(&init, &children, served, limit)) {
                Ok(job) => job,
                Err(message) => return channel.send(&Event::RestoreFailed { message }),
            }
        }
    };
    channel.send(&Event::Running)?;
    watch(&init, channel, &children, job)
}

/// The loop of a job that runs.
fn watch(init: &Init, channel: &Channel, children: &SignalFd, job: Pid) -> anyhow::Result<()> {
    let mut dump: Option<Freezing> = None;
    let mut ended: Option<Exit> = None;
    loop {
        // Before the first wait too: the end of a job that died as it was thawed was told while CRIU was waited for.
        while let Some(status) = reap_next()? {
            let pid = status.pid();
            if pid == Some(job) {
                ended = exit_of(status);
            } else if let Some(freezing) = dump.take_if(|dump| pid == Some(pid_of(&dump.criu))) {
                let dumped = matches!(status, WaitStatus::Exited(_, 0));
                if dumped && freezing.then == Then::End {
                    return channel.send(&Event::Dumped);
                }
                freezing.names.remove();
                channel.send(&if dumped {
                    Event::Dumped
                } else {
                    Event::DumpFailed {
                        message: init.images.why(DUMP_LOG),
                    }
                })?;
            }
        }
        // While CRIU dumps, the job's death may be CRIU's doing: its verdict first.
        if dump.is_none()
            && let Some(exit) = ended
        {
            return channel.send(&Event::Exited(exit));
        }

        let mut ready = [
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let ordered = ready[1].any().unwrap_or(false);
        while children.read_signal()?.is_some() {}

        if ordered {
            match channel.receive()? {
                Order::Dump(then) if dump.is_none() && ended.is_none() => {
                    match freeze(init, job, then) {
                        Ok((begun, clocks)) => {
                            dump = Some(begun);
                            channel.send(&Event::Freezing {
                                monotonic_ns: clocks.monotonic_ns,
                                boottime_ns: clocks.boottime_ns,
                            })?;
                        }
                        Err(message) => channel.send(&Event::DumpFailed { message })?,
                    }
                }
                Order::Dump(_) | Order::Begin => {}
                // With CRIU gone, its end was the answer.
                Order::CollectAgain => {
                    let Some(freezing) = &dump else { continue };
                    if let Some(libraries) = &init.libraries {
                        libraries.collect(Path::new("/proc"), Some(freezing.criu.id()));
                    }
                    channel.send(&Event::Collected)?;
                }
                Order::GiveUp => {
                    if let Some(freezing) = &mut dump {
                        // It may have ended just now: then its end is on its way.
                        let _ = freezing.criu.kill();
                    }
                }
                Order::Signal(number) if ended.is_none() => pass_on(job, number, kill),
                Order::GroupSignal(number) if ended.is_none() => pass_on(job, number, killpg),
                Order::Signal(_) | Order::GroupSignal(_) => {}
                Order::Look => {
                    let mut reasons = preflight::blockers(&inside(init, job));
                    reasons.truncate(MOST_REASONS);
                    channel.send(&Event::Blockers(reasons))?;
                }
            }
        }
    }
}

/// A packet of the channel's holds this many sentences.
const MOST_REASONS: usize = 60;

/// Passes a signal on as the job would have got it. It may be gone already: its exit is on its way.
fn pass_on(job: Pid, number: i32, send: impl Fn(Pid, Signal) -> nix::Result<()>) {
    let Ok(mut signal) = Signal::try_from(number) else {
        return;
    };
    // The kernel lets no terminal stop a session that has none, and the job is the leader of its own.
    if signal == Signal::SIGTSTP && !has_own_way(job, signal) {
        signal = Signal::SIGSTOP;
    }
    let _ = send(job, signal);
}

/// Whether the job catches or ignores a signal.
fn has_own_way(job: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{job}/status")).unwrap_or_default();
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let caught = set("SigCgt:").unwrap_or(0) | set("SigIgn:").unwrap_or(0);
    caught >> (signal as i32 - 1) & 1 == 1
}

/// A dump under way.
struct Freezing {
    criu: Child,
    then: Then,
    names: Names,
}

/// Starts the dump of a job that can be dumped.
fn freeze(init: &Init, job: Pid, then: Then) -> Result<(Freezing, Clocks), String> {
    let proc = Path::new("/proc");
    if let Some(reason) = preflight::blocker(&inside(init, job)) {
        return Err(reason);
    }
    match nameless::adopt(proc) {
        Ok(0) => {}
        Ok(files) => tracing::info!(stage = "named", files),
        // The processes of a job that has come apart would go on with different bytes.
        Err(error @ NamelessError::Apart(_)) => return Err(error.to_string()),
        // CRIU says what it thinks of them.
        Err(error) => tracing::warn!("mapped files stay without a name: {error}"),
    }
    Unkept::of(proc)
        .save(&init.images.file(unkept::FILE))
        .map_err(|error| format!("cannot note what CRIU leaves out: {error}"))?;
    if let Some(libraries) = &init.libraries {
        libraries.collect(proc, None);
    }
    let names = Names::give(proc);
    // Before the freeze: what passes from here on is lost to the job's clock, a
    // few milliseconds in its past, never its future.
    let clocks = Clocks::now();
    match init
        .criu
        .dump(job.as_raw(), then, &init.images, init.as_root)
    {
        Ok(criu) => Ok((Freezing { criu, then, names }, clocks)),
        Err(error) => {
            names.remove();
            Err(format!("cannot start CRIU: {error}"))
        }
    }
}

/// What is looked at of the job.
fn inside(init: &Init, job: Pid) -> preflight::Job<'static> {
    preflight::Job::inside(Path::new("/proc"), job, init.as_root)
}

fn reap_next() -> nix::Result<Option<WaitStatus>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        Ok(status) => Ok(Some(status)),
        Err(errno) => Err(errno),
    }
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    match status {
        WaitStatus::Exited(_, code) => Some(Exit::Code(code)),
        WaitStatus::Signaled(_, signal, _) => Some(Exit::Signal(signal as i32)),
        _ => None,
    }
}

/// The job's first start: pid 2, a session of its own, no capability.
fn start(job: &JobCommand, as_root: bool) -> Result<Pid, StartFailed> {
    let command = || -> io::Result<Child> {
        let stdio = Path::new(SANDBOX).join(STDIO);
        let append = |name: &str| {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(stdio.join(name))
        };
        let input = match fs::File::open(stdio.join("stdin")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::File::open("/dev/null")?,
            other => other?,
        };
        let mut command = Command::new(&job.program);
        command
            .args(&job.arguments)
            .env_clear()
            .envs(job.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(SANDBOX)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(append("stdout")?))
            .stderr(Stdio::from(append("stderr")?));
        sys::before_exec(&mut command, move || {
            setsid()?;
            if as_root {
                // CRIU dumps the System V objects of a namespace that is not its own.
                unshare(CloneFlags::CLONE_NEWIPC)?;
            }
            // Ours would be the job's for life: with SIGCHLD blocked a program never
            // hears of its children's ends.
            SigSet::empty().thread_set_mask()?;
            // A process whose parent ends stays in the job's tree, which is what CRIU
            // dumps: as pid 1's child it would be left out, and be missed after the thaw.
            set_child_subreaper(true)?;
            caps::clear(None, CapSet::Ambient)
                .and_then(|()| caps::clear(None, CapSet::Inheritable))
                .map_err(io::Error::other)
        });
        command.spawn()
    };
    command()
        .map(|child| pid_of(&child))
        .map_err(|error| StartFailed::of(&job.program, &error))
}

/// The files that the job had from outside of its sandbox, in place of the slot's.
fn lay(init: &mut Init) -> Result<(), String> {
    let Some(libraries) = &init.libraries else {
        return Ok(());
    };
    let plan = libraries.plan().map_err(|error| error.to_string())?;
    if plan.files() == 0 {
        return Ok(());
    }
    match init.criu.alone(&libraries.beside()) {
        Ok(Some(criu)) => init.criu = Rc::new(criu),
        Ok(None) => {}
        Err(error) => {
            return Err(format!(
                "cannot keep CRIU from the job's libraries: {error}"
            ));
        }
    }
    libraries.lay(&plan).map_err(|error| error.to_string())
}

/// The job from its images, with the pids that it had.
fn thaw(
    Init {
        criu,
        images,
        as_root,
        ..
    }: &Init,
    children: &SignalFd,
    served: bool,
    limit: Duration,
) -> Result<Pid, String> {
    // CRIU and its helpers must not take a pid that the job needs.
    let pids: i64 = fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(32_768);
    fs::write("/proc/sys/kernel/ns_last_pid", (pids - 2_000).to_string())
        .map_err(|error| format!("cannot keep the job's pids free (ns_last_pid): {error}"))?;
    let mut restore = criu
        .restore(images, served, *as_root)
        .map_err(|error| format!("cannot start CRIU: {error}"))?;
    let until = Instant::now() + limit;
    // The job is our child too, so wait for this one alone.
    let status = loop {
        if let Some(status) = restore
            .try_wait()
            .map_err(|error| format!("lost CRIU: {error}"))?
        {
            break status;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Half a tree is left, which ends with this namespace.
            let _ = restore.kill();
            return Err(format!("CRIU took longer than {limit:?}"));
        }
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        // Whoever has ended: it is looked for again.
        let _ = poll(&mut ready, wait);
        while let Ok(Some(_)) = children.read_signal() {}
    };
    if !status.success() {
        return Err(images.why(RESTORE_LOG));
    }
    let pid = fs::read_to_string(images.file(PID_FILE))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(Pid::from_raw)
        .ok_or("CRIU named no root process")?;
    // -S made it our child, whatever it has become since.
    match waitid(
        Id::Pid(pid),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT,
    ) {
        Ok(_) => {
            Unkept::load(&images.file(unkept::FILE)).restore(Path::new("/proc"));
            Ok(pid)
        }
        Err(errno) => Err(format!("the restored process {pid} is not ours: {errno}")),
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("the kernel's pids fit"))
}
