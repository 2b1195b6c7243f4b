//! What a pool leaves on the machine while it lives, and how leftovers are told from living pools.
//!
//! ```text
//! POOLS/.lock            held while pools are made or cleaned
//! POOLS/NAME/owner       who brought it up
//!            ready       it is up, and is to outlive its owner
//!            guard       the process that removes this directory when the keeper is gone
//!            keeper      init of the pool's namespaces: kill it, and the pool is over
//!            init/HOST   init of a host
//!            *.sh        what guard, keeper and hosts run
//!            pool.json   what the pool is made of
//!            log/        what guard, keeper and hosts printed
//!            hosts/HOST/ upper and work layers of the host's overlay
//! ```
//!
//! A process is a pid and its start time, so a recycled pid is never killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::lock::Lock;
use crate::{machine, wait};

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number as the machine sees it.
    pub pid: u32,
    start: u64,
}

impl Process {
    /// This process.
    pub fn current() -> Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid).context("find this process in /proc")?;
        Ok(Self { pid, start })
    }

    /// The process that a script noted in `path`; none while the file is missing or half written.
    pub fn noted(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    fn kill(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (self.is_alive(), pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {}", self.pid, self.start)
    }
}

/// Field 22 of /proc/PID/stat; none for a process that is gone or only waits to be reaped.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, blanks and parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Where pools keep their state: `CRIU_TEST_POOLS`, else `pools` in the build directory.
pub fn pools_dir() -> PathBuf {
    std::env::var_os("CRIU_TEST_POOLS")
        .map_or_else(|| machine::target_dir().join("pools"), PathBuf::from)
}

/// Locks the directory of pools.
pub(crate) fn lock(pools: &Path) -> Result<Lock> {
    fs::create_dir_all(pools).with_context(|| format!("create {}", pools.display()))?;
    Lock::take(&pools.join(".lock"))
}

/// Names of the pools that have a directory, alive or not.
pub fn names(pools: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let Ok(entries) = fs::read_dir(pools) else {
        return Ok(names);
    };
    for entry in entries {
        let entry = entry?;
        if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether somebody still wants this pool and it still runs.
pub fn is_alive(dir: &Path) -> bool {
    let alive = |name: &str| Process::noted(&dir.join(name)).is_some_and(Process::is_alive);
    alive("owner") || (dir.join("ready").exists() && alive("keeper"))
}

/// Ends a pool, whatever state it is in: all its processes, then its directory.
pub fn destroy(dir: &Path) -> Result<()> {
    let note = |name: &str| Process::noted(&dir.join(name));
    // While the guard lives, the keeper it just started may not have noted itself yet.
    let guard = note("guard");
    if guard.is_some_and(Process::is_alive) {
        let _ = wait::until("the keeper's note", Duration::from_secs(2), || {
            Ok(note("keeper"))
        });
    }
    let keeper = note("keeper");
    if let Some(keeper) = keeper {
        keeper.kill();
    }
    wait::until(
        "the pool's processes to end",
        Duration::from_secs(20),
        || Ok((!keeper.is_some_and(Process::is_alive)).then_some(())),
    )?;
    // The guard removes the directory by itself; two at it would only trip over each other.
    if let Some(guard) = guard {
        let ended = wait::until("the guard to end", Duration::from_secs(20), || {
            Ok((!guard.is_alive()).then_some(()))
        });
        if ended.is_err() {
            guard.kill();
        }
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Ends what was left by owners that were killed. The caller holds the lock.
pub(crate) fn clean_leftovers(pools: &Path) -> Result<()> {
    for name in names(pools)? {
        let dir = pools.join(&name);
        if !is_alive(&dir) {
            eprintln!("removing what is left of pool {name}");
            // What cannot be removed is in nobody's way but its own.
            if let Err(error) = destroy(&dir) {
                eprintln!("cannot: {error:#}");
            }
        }
    }
    Ok(())
}
