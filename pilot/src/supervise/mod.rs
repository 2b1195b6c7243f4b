//! A pilot that lets its jobs out before it ends.
//!
//! ```text
//! site ──TERM──> criu-pilot supervise ──condor_vacate, the largest first──> startd
//!                      └── condor_master -f <──TERM, when all images are on their way, or at the end of the grace
//! ```
//!
//! It stands where the site's signal arrives: in front of `condor_master`, by hand and in the container execution point. Before
//! `GLIDEIN_ToDie` it does the same without ending anything; the startd's own PREEMPT, which comes later, asks all who are left.
//!
//! Under glideinWMS's own startup scripts no program of ours can do it at the site's signal: `on_die` in condor_startup.sh sends
//! SIGQUIT (fast, no soft kill) to the master whatever came, both scripts' `wait` return at once, and the glidein's directory is
//! removed under the running dumps. There the images taken periodically are what is left, and PREEMPT before `GLIDEIN_ToDie`.

mod plan;
mod startd;

use std::ffi::OsString;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::units::{size, time};
use plan::Plan;

/// What the daemons themselves need after the jobs are out, of the site's grace.
const FOR_DAEMONS: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(500);

/// A startd is asked no more often than this.
const LOOK: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  criu-pilot supervise --grace 300 -- condor_master -f
  In the container execution point: `criu-pilot configure container`

The site's grace: Slurm sends TERM and kills after KillWait or GraceTime,
Kubernetes after terminationGracePeriodSeconds, supervisord after stopwaitsecs.

glideinWMS: its condor_startup.sh turns the site's TERM into SIGQUIT and removes
the glidein's directory at once, so there this cannot help; what `criu-pilot
glidein` configures asks jobs before GLIDEIN_ToDie.";

/// What to run, and what the site gives.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Seconds from the site's signal to its kill
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    grace: u64,
    /// condor_master in the foreground
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command until it ends, or the site says so.
pub(crate) fn supervise(options: &Options) -> Result<ExitCode> {
    let (program, arguments) = options.command.split_first().context("no command")?;
    startd::open();
    // Before signals are blocked, because a child inherits that.
    let mut master = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let signals = signals()?;
    let mut looks_at_end = EndOfPilot::Unknown;
    loop {
        if let Some(status) = master.try_wait()? {
            return Ok(as_code(status));
        }
        if let Some(signal) = next(&signals)? {
            eprintln!("criu-pilot: {signal}, {} s are left", options.grace);
            let grace = Duration::from_secs(options.grace);
            if let Err(error) = startd::close() {
                eprintln!("criu-pilot: free slots may take new jobs: {error:#}");
            }
            leave(grace.saturating_sub(FOR_DAEMONS), Some(&signals))?;
            let ended = end(&mut master)?;
            // Daemons that are started here without us would find it closed for ever.
            startd::open();
            return Ok(as_code(ended));
        }
        if let Some(left) = looks_at_end.is_near() {
            eprintln!(
                "criu-pilot: this pilot ends in {}",
                time(left.as_secs() as i64)
            );
            leave(left, None)?;
        }
        std::thread::sleep(POLL);
    }
}

fn signals() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        mask.add(signal);
    }
    mask.thread_block().context("cannot block signals")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&mask, flags).context("cannot wait for signals")
}

fn next(signals: &SignalFd) -> Result<Option<Signal>> {
    let Some(info) = signals.read_signal()? else {
        return Ok(None);
    };
    let number = i32::try_from(info.ssi_signo).context("a signal of the kernel's")?;
    Ok(Some(Signal::try_from(number)?))
}

/// Asks the jobs that want it, until all are gone, the time is over, or a second signal comes.
fn leave(limit: Duration, signals: Option<&SignalFd>) -> Result<()> {
    let end = Instant::now() + limit;
    // A startd that does not answer any more has no jobs that could be helped.
    let slots = startd::slots().unwrap_or_else(|error| {
        eprintln!("criu-pilot: {error:#}");
        Vec::new()
    });
    let mut plan = Plan::new(slots);
    while !plan.is_done() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            eprintln!(
                "criu-pilot: the time is over with {} jobs not out",
                plan.rest()
            );
            break;
        }
        if let Some(signals) = signals
            && let Some(signal) = next(signals)?
        {
            eprintln!("criu-pilot: {signal} again, nothing more is waited for");
            break;
        }
        for slot in plan.next(left) {
            if let Err(error) = startd::vacate(&slot.name) {
                eprintln!("criu-pilot: {error:#}");
                if signals.is_none() {
                    // The startd's own PREEMPT asks each of them a little later, and nobody else's job.
                    return Ok(());
                }
                eprintln!("criu-pilot: all jobs are asked to leave at once");
                if let Err(error) = startd::vacate_all() {
                    // The daemons' own end asks them too, and must not be missed for this.
                    eprintln!("criu-pilot: {error:#}");
                    return Ok(());
                }
                plan.next(Duration::ZERO);
                break;
            }
            eprintln!(
                "criu-pilot: {} is asked to leave {}, {}",
                slot.job,
                slot.name,
                size(slot.bytes)
            );
        }
        std::thread::sleep(LOOK);
        if let Ok(now) = startd::slots() {
            for gone in plan.see(&now) {
                eprintln!("criu-pilot: {gone} is out");
            }
        }
    }
    Ok(())
}

/// Graceful first; what does not go by that goes at once.
fn end(master: &mut Child) -> Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(master.id()).context("a pid")?);
    for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGKILL] {
        let limit = Instant::now() + FOR_DAEMONS / 2;
        // Not yet waited for, so the pid is no other's.
        kill(pid, signal).context("cannot signal the daemons")?;
        while Instant::now() < limit {
            if let Some(status) = master.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
    }
    Ok(master.wait()?)
}

fn as_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
        .into()
}

/// The end that the pilot knows of, asked for when its daemons are up.
enum EndOfPilot {
    Unknown,
    At { end: u64, lead: u64 },
    Done,
}

impl EndOfPilot {
    /// How long it still is, once, when the jobs have to be asked.
    fn is_near(&mut self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        match *self {
            EndOfPilot::Unknown => {
                let configured = |name| startd::configured(name)?.parse().ok();
                *self = match configured("GLIDEIN_ToDie") {
                    // PREEMPT asks everybody at its lead, so the largest have to be asked before.
                    Some(end) => EndOfPilot::At {
                        end,
                        lead: configured("CRIU_LEAD").unwrap_or(2100),
                    },
                    None => EndOfPilot::Done,
                };
                None
            }
            EndOfPilot::At { end, lead } => {
                let left = end.saturating_sub(now);
                // More than the lead only by what the jobs need: not worth a question each second before.
                if left > 2 * lead {
                    return None;
                }
                let needed = Plan::new(startd::slots().ok()?).seconds();
                if left > lead + needed {
                    return None;
                }
                *self = EndOfPilot::Done;
                Some(Duration::from_secs(left))
            }
            EndOfPilot::Done => None,
        }
    }
}
