//! What CRIU does not bring back, noted before a dump and set again after the restore.
//!
//! - CPU affinity: CRIU leaves it out. Only what the job chose itself is noted: a mask that it has from its slot
//!   would be wrong on the next.
//! - A periodic timerfd with an unread tick: CRIU restores the tick and leaves the timer disarmed, so its program
//!   would wait for ever (pie/restorer.c arms before it sets ticks; 4.2.1 does so too).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
use serde::{Deserialize, Serialize};

/// A job of this many threads is none of ours to doubt; more would be a broken file.
const LIMIT: u64 = 16 << 20;

/// The notes, beside the images.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Unkept {
    /// Threads with a mask of their own.
    affinity: Vec<(i32, BTreeSet<usize>)>,
    /// Armed periodic timers: process and descriptor.
    timers: Vec<(i32, i32)>,
}

/// The file's name in the images' directory.
pub(crate) const FILE: &str = "unkept.json";

impl Unkept {
    /// Notes it for every process but pid 1. What ends meanwhile needs nothing.
    pub(crate) fn of(proc: &Path) -> Unkept {
        let mut unkept = Unkept::default();
        let slots = sched_getaffinity(Pid::from_raw(0)).ok();
        for pid in numbers(proc).filter(|pid| *pid != 1) {
            let dir = proc.join(pid.to_string());
            for thread in numbers(&dir.join("task")) {
                let own = sched_getaffinity(Pid::from_raw(thread)).ok();
                if let Some(own) = own.filter(|own| Some(*own) != slots) {
                    unkept.affinity.push((thread, cpus(&own)));
                }
            }
            for fd in numbers(&dir.join("fd")) {
                if timer(&dir, fd).is_some_and(|timer| timer.periodic && timer.is_armed()) {
                    unkept.timers.push((pid, fd));
                }
            }
        }
        unkept
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }

    /// Images of an earlier version have none.
    pub(crate) fn load(path: &Path) -> Unkept {
        if fs::metadata(path).is_ok_and(|meta| meta.len() <= LIMIT) {
            let bytes = fs::read(path).unwrap_or_default();
            return serde_json::from_slice(&bytes).unwrap_or_default();
        }
        Unkept::default()
    }

    /// Sets it again. What cannot be set leaves the job as CRIU restored it.
    pub(crate) fn restore(&self, proc: &Path) {
        if let Ok(here) = sched_getaffinity(Pid::from_raw(0)) {
            for (thread, wanted) in &self.affinity {
                let mut set = CpuSet::new();
                let there = cpus(&here);
                // A smaller slot may lack all of them: then any CPU must do.
                let any = wanted.intersection(&there).fold(false, |_, &cpu| {
                    let _ = set.set(cpu);
                    true
                });
                if any {
                    let _ = sched_setaffinity(Pid::from_raw(*thread), &set);
                }
            }
        }
        for &(pid, fd) in &self.timers {
            let dir = proc.join(pid.to_string());
            if let Some(timer) = timer(&dir, fd)
                && timer.periodic
                && !timer.is_running()
            {
                let _ = rearm(pid, fd, timer.interval);
            }
        }
    }
}

/// Through a copy of the job's own descriptor, which names the same timer.
fn rearm(pid: i32, fd: i32, interval: (i64, i64)) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let copy = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())?;
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Itimerspec {
        it_interval: time(interval),
        // At once: the tick that was unread is due.
        it_value: time((0, 1)),
    };
    timerfd_settime(&copy, TimerfdTimerFlags::empty(), &times)?;
    Ok(())
}

/// What fdinfo says of a timerfd.
#[derive(Debug, PartialEq, Eq)]
struct TimerState {
    periodic: bool,
    interval: (i64, i64),
    left: (i64, i64),
    ticks: u64,
}

impl TimerState {
    fn is_running(&self) -> bool {
        self.left != (0, 0)
    }

    fn is_armed(&self) -> bool {
        self.is_running() || self.ticks > 0
    }
}

fn timer(process: &Path, fd: i32) -> Option<TimerState> {
    let link = fs::read_link(process.join(format!("fd/{fd}"))).ok()?;
    if link.as_os_str() != "anon_inode:[timerfd]" {
        return None;
    }
    parse(&fs::read_to_string(process.join(format!("fdinfo/{fd}"))).ok()?)
}

fn parse(fdinfo: &str) -> Option<TimerState> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim())
    };
    let pair = |name: &str| {
        let inside = field(name)?.strip_prefix('(')?.strip_suffix(')')?;
        let (seconds, nanoseconds) = inside.split_once(", ")?;
        Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
    };
    let interval = pair("it_interval:")?;
    Some(TimerState {
        periodic: interval != (0, 0),
        interval,
        left: pair("it_value:")?,
        ticks: field("ticks:")?.parse().ok()?,
    })
}

fn cpus(set: &CpuSet) -> BTreeSet<usize> {
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu) == Ok(true))
        .collect()
}

/// The names in a directory of /proc that are numbers.
fn numbers(dir: &Path) -> impl Iterator<Item = i32> + use<> {
    let entries = fs::read_dir(dir).ok();
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_with_an_unread_tick_is_armed_and_does_not_run() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t16\nino:\t2080\nclockid: 1\nticks: 3\n\
                    settime flags: 00\nit_value: (0, 0)\nit_interval: (0, 10000000)\n";
        let timer = parse(text).unwrap();
        assert_eq!(timer.interval, (0, 10_000_000));
        assert!(timer.periodic && timer.is_armed() && !timer.is_running());
    }

    #[test]
    fn notes_are_read_back_and_their_absence_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert!(Unkept::load(&path).affinity.is_empty());
        let unkept = Unkept {
            affinity: vec![(2, BTreeSet::from([0, 5]))],
            timers: vec![(2, 4)],
        };
        unkept.save(&path).unwrap();
        assert_eq!(Unkept::load(&path).affinity, unkept.affinity);
        assert_eq!(Unkept::load(&path).timers, unkept.timers);
    }
}
