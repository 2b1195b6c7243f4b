//! What a tree of processes has in memory.

use std::fs;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// No job has more processes than this; a tree that grows while it is walked ends here.
const MOST: usize = 100_000;

/// Resident bytes of all processes below `root`. What they share is counted for each: an upper bound.
pub(crate) fn resident(root: Pid) -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page
        .and_then(|page| u64::try_from(page).ok())
        .unwrap_or(4096);
    let mut left = children(root.as_raw());
    let (mut pages, mut seen) = (0_u64, 0);
    while let Some(pid) = left.pop()
        && seen < MOST
    {
        seen += 1;
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let resident = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages = pages.saturating_add(resident.unwrap_or(0));
        left.extend(children(pid));
    }
    pages.saturating_mul(page)
}

/// A kernel without CONFIG_PROC_CHILDREN names none.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok();
    let lists = tasks
        .into_iter()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_counts_and_this_process_does_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let of_child = children(std::process::id() as i32);
        assert!(of_child.contains(&(child.id() as i32)));
        let bytes = resident(nix::unistd::getpid());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((1 << 12..1 << 30).contains(&bytes), "{bytes}");
    }
}
