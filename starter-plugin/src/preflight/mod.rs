//! What would make a dump fail, or succeed and its restore be wrong, found by reading /proc and without stopping the job.
//!
//! ```text
//!   system v    objects of the namespace          message queues  an open descriptor of that file system
//!   status      tracer, seccomp, lost processes   descriptors     devices, sockets, files outside the sandbox
//!   maps        memfds, devices, lost files       namespaces      any of its own: a container in the job
//! ```
//!
//! Twice it is asked. While the job runs, [`blockers`] says all that is found, for its user to mend long before an
//! eviction. Before a freeze, [`blocker`] says the first thing that *stops* it: what CRIU would not refuse although
//! it cannot do it, and what /proc tells more plainly than CRIU's error. The rest is CRIU's to decide, which may be a
//! newer one than these lines.
//!
//! Not looked for, because they work: netlink sockets, TCP (closed on restore), inotify, timers, terminals of the job's
//! own.

mod descriptors;
mod maps;
mod namespaces;
mod status;
mod system_v;

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::namespaces::SANDBOX;

/// Something that cannot be frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    /// The process, as the reader of /proc numbers it; none for what belongs to them all.
    pub(crate) pid: Option<i32>,
    /// A sentence, with the way out.
    pub(crate) text: String,
    /// No dump must be tried.
    pub(crate) stops: bool,
}

impl Reason {
    /// CRIU will refuse it, or the thawed job miss it elsewhere.
    fn doubt(pid: i32, text: String) -> Reason {
        Reason {
            pid: Some(pid),
            text,
            stops: false,
        }
    }

    fn stop(pid: i32, text: String) -> Reason {
        Reason {
            pid: Some(pid),
            text,
            stops: true,
        }
    }
}

/// Which processes, and what is theirs.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Where /proc is.
    pub(crate) proc: &'a Path,
    /// The tree's root.
    pub(crate) root: Pid,
    /// Directories that travel with the job.
    pub(crate) own: Vec<PathBuf>,
    /// It is root's, and CRIU has what it lacks without privileges.
    pub(crate) as_root: bool,
}

impl<'a> Job<'a> {
    /// A job of ours, seen from its pid 1.
    pub(crate) fn inside(proc: &'a Path, root: Pid, as_root: bool) -> Job<'a> {
        let own = [SANDBOX, "/dev/shm", "/tmp"].map(PathBuf::from).into();
        Job {
            proc,
            root,
            own,
            as_root,
        }
    }
}

/// A process at which we look.
struct Process {
    pid: i32,
    dir: PathBuf,
    /// As `ps` shows it.
    name: String,
}

impl Process {
    fn of(proc: &Path, pid: i32) -> Process {
        let dir = proc.join(pid.to_string());
        let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        Process {
            pid,
            dir,
            name: name.trim_end().to_owned(),
        }
    }
}

/// Why the tree under `job` must not be dumped, if there is a reason.
pub(crate) fn blocker(job: &Job<'_>) -> Option<String> {
    blockers(job)
        .into_iter()
        .find(|reason| reason.stops)
        .map(|reason| reason.text)
}

/// Everything that would prevent a dump or spoil it. Pid 1's namespace holds the job and nothing else.
pub(crate) fn blockers(job: &Job<'_>) -> Vec<Reason> {
    let entries = fs::read_dir(job.proc).ok();
    let pids = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != 1);
    // Of a job of root's they are in a namespace that this does not show.
    let mut reasons = system_v::find(&job.proc.join("sysvipc"));
    reasons.extend(of_processes(job, pids));
    reasons
}

/// The same for a tree of processes among others, as far as it can be seen from there.
pub(crate) fn blockers_of_tree(job: &Job<'_>) -> Vec<Reason> {
    let mut pids = vec![job.root.as_raw()];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        pids.extend(children(&job.proc.join(pid.to_string())));
        next += 1;
    }
    of_processes(job, pids.into_iter())
}

fn of_processes(job: &Job<'_>, pids: impl Iterator<Item = i32>) -> Vec<Reason> {
    // A process that is gone by now blocks nothing, and its files read as empty.
    pids.map(|pid| Process::of(job.proc, pid))
        .flat_map(|process| {
            let mut reasons = maps::find(&process, job.as_root);
            reasons.extend(status::find(&process, job.root, job.as_root));
            reasons.extend(descriptors::find(&process, &job.own));
            reasons.extend(namespaces::find(&process, job));
            reasons
        })
        .collect()
}

/// A process's children, whichever of its threads started them.
pub(crate) fn children(dir: &Path) -> Vec<i32> {
    let threads = fs::read_dir(dir.join("task")).ok();
    let lists = threads
        .into_iter()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// One line for an ad: the starter takes expressions of up to about 990 characters.
pub(crate) fn shortened(reasons: &[Reason]) -> String {
    const LIMIT: usize = 600;
    let texts: Vec<_> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    let all = texts.join("; ");
    if all.chars().count() <= LIMIT {
        return all;
    }
    let cut: String = all.chars().take(LIMIT).collect();
    format!("{cut}... ({} reasons)", reasons.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_an_ad_is_short_and_says_how_much_there_is() {
        let one = Reason::doubt(2, "process 2 (sim) has opened the device /dev/fuse".into());
        assert_eq!(shortened(std::slice::from_ref(&one)), one.text);
        let many = vec![one; 40];
        let text = shortened(&many);
        assert!(
            text.len() < 640 && text.ends_with("... (40 reasons)"),
            "{text}"
        );
    }

    #[test]
    fn this_process_and_its_child_are_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let job = Job {
            proc: Path::new("/proc"),
            root: Pid::this(),
            own: vec!["/".into()],
            as_root: false,
        };
        let dir = Path::new("/proc/self");
        let listed = children(dir).contains(&i32::try_from(child.id()).unwrap());
        let reasons = blockers_of_tree(&job);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed);
        assert!(reasons.iter().all(|reason| !reason.stops), "{reasons:?}");
    }
}
