//! What a process has mapped: memfds, devices, and files that have no name any more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{Process, Reason};
use crate::{mapped, nameless};

const DELETED: &str = " (deleted)";

/// Shown as deleted files, and memory that CRIU dumps as such.
const MEMORY: [&str; 3] = ["/dev/zero", "/[aio]", "/anon_hugepage"];

pub(super) fn find(process: &Process, as_root: bool) -> Vec<Reason> {
    let Ok(maps) = File::open(process.dir.join("maps")) else {
        return Vec::new();
    };
    let has_name = |path: &Path, inode| {
        // Root's CRIU opens what has none.
        as_root
            || path.exists()
            || mapped::other_name(path, inode).is_some()
            // One that has none may get one before the freeze.
            || process.dir.parent().is_some_and(|proc| nameless::adopts(proc, inode))
    };
    of_maps(BufReader::new(maps), process, as_root, has_name)
}

fn of_maps(
    maps: impl BufRead,
    process: &Process,
    as_root: bool,
    has_name: impl Fn(&Path, u64) -> bool,
) -> Vec<Reason> {
    let (pid, name) = (process.pid, &process.name);
    let mut seen = BTreeSet::new();
    let mut reasons = Vec::new();
    for line in maps.lines().map_while(Result::ok) {
        // address perms offset dev inode path
        let mut fields = line.splitn(6, ' ');
        let inode: u64 = fields
            .nth(4)
            .and_then(|inode| inode.parse().ok())
            .unwrap_or(0);
        let path = fields.next().unwrap_or_default().trim_start();
        if path.is_empty() || path.starts_with('[') || !seen.insert(path.to_owned()) {
            continue;
        }
        let bare = path.strip_suffix(DELETED).unwrap_or(path);
        if as_root && (bare.starts_with("/memfd:") || bare.starts_with("/SYSV")) {
        } else if let Some(memfd) = bare.strip_prefix("/memfd:") {
            reasons.push(Reason::stop(
                pid,
                format!(
                    "process {pid} ({name}) has mapped a memfd ({memfd}); without privileges CRIU would restore its \
                     mapping and its descriptor apart, and data written through one would be missing in the other; \
                     use a file in /dev/shm"
                ),
            ));
        } else if bare.starts_with("/SYSV") {
            reasons.push(Reason::stop(
                pid,
                format!(
                    "process {pid} ({name}) has mapped System V shared memory, which CRIU cannot restore without \
                     privileges; use shm_open"
                ),
            ));
        } else if MEMORY.contains(&bare) {
        } else if bare.starts_with("/secretmem") || bare.starts_with("anon_inode:") {
            reasons.push(Reason::doubt(
                pid,
                format!("process {pid} ({name}) has mapped {bare}, which CRIU cannot dump"),
            ));
        } else if bare.starts_with("/dev/") && !bare.starts_with("/dev/shm/") {
            reasons.push(Reason::doubt(
                pid,
                format!(
                    "process {pid} ({name}) has mapped the device {bare}: what a GPU or another device holds cannot \
                     be frozen; let the program run on the CPU"
                ),
            ));
        } else if path.ends_with(DELETED) && !has_name(Path::new(path), inode) {
            reasons.push(Reason::doubt(
                pid,
                format!(
                    "process {pid} ({name}) has mapped {bare}, which was deleted since, and without privileges CRIU \
                     opens a mapped file by its name; keep the file (for Python's multiprocessing: \
                     set_start_method(\"forkserver\"))"
                ),
            ));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(maps: &str) -> Vec<Reason> {
        let process = Process {
            pid: 4,
            dir: "/proc/4".into(),
            name: "sim".into(),
        };
        of_maps(maps.as_bytes(), &process, false, |path, _| {
            path == Path::new("/dev/shm/sem.named (deleted)")
        })
    }

    #[test]
    fn ordinary_mappings_are_none() {
        let maps = "00400000-00401000 r-xp 00000000 fe:00 12 /srv/memfd:no\n\
                    7f00-7f01 rw-p 00000000 00:00 0 \n\
                    7f01-7f02 rw-p 00000000 00:00 0      [heap]\n\
                    7f02-7f03 rw-s 00000000 00:01 7      /dev/zero (deleted)\n\
                    7f03-7f04 rw-s 00000000 00:01 8      /[aio] (deleted)\n\
                    7f04-7f05 rw-s 00000000 fe:00 9      /dev/shm/sem.named (deleted)\n\
                    7f05-7f06 rw-s 00000000 fe:00 9      /dev/shm/block\n";
        assert_eq!(of(maps), []);
    }

    #[test]
    fn what_cannot_be_dumped_is_named_once() {
        let maps = "7f00-7f01 rw-s 00000000 00:01 2063   /memfd:a ring (deleted)\n\
                    7f01-7f02 rw-s 00000000 00:01 2063   /memfd:a ring (deleted)\n\
                    7f02-7f03 rw-s 00000000 00:01 3      /SYSV00005eed (deleted)\n\
                    7f03-7f04 rw-s 00000000 00:05 4      /dev/nvidia0\n\
                    7f04-7f05 rw-s 00000000 fe:00 5      /dev/shm/psm_x (deleted)\n\
                    7f05-7f06 rw-s 00000000 00:0e 6      anon_inode:[perf_event]\n";
        let reasons = of(maps);
        let told: Vec<_> = reasons.iter().map(|reason| reason.stops).collect();
        assert_eq!(told, [true, true, false, false, false]);
        for (reason, word) in reasons.iter().zip([
            "memfd (a ring)",
            "System V",
            "/dev/nvidia0",
            "/dev/shm/psm_x, which was deleted",
            "perf_event",
        ]) {
            assert!(reason.text.contains(word), "{}", reason.text);
        }
    }
}
