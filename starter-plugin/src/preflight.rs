//! What would make a dump fail, or succeed and its restore be wrong.
//!
//! CRIU refuses most of what it cannot do, and the job runs on. What it does not refuse has to be found before the
//! freeze, by reading /proc; and what /proc tells more plainly than CRIU's error is found here too.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use nix::unistd::Pid;

/// A `status` file is some fifty short lines.
const STATUS_LIMIT: u64 = 64 << 10;

/// System V objects by their list, which names those of the reader's namespace.
const SYSTEM_V: [(&str, &str); 3] = [
    ("shm", "shared memory"),
    ("sem", "semaphores"),
    ("msg", "message queues"),
];

/// Why the tree under `job` must not be dumped, if there is a reason.
pub(crate) fn blocker(proc: &Path, job: Pid) -> Option<String> {
    system_v(&proc.join("sysvipc")).or_else(|| {
        let entries = fs::read_dir(proc).ok()?;
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != 1)
            // A process that is gone by now blocks nothing.
            .find_map(|pid| process(&proc.join(pid.to_string()), pid, job))
    })
}

/// CRIU sees such an object only where it is mapped, and a thawed job would miss the others.
fn system_v(lists: &Path) -> Option<String> {
    SYSTEM_V.into_iter().find_map(|(list, what)| {
        let text = fs::read_to_string(lists.join(list)).ok()?;
        // The first line names the columns.
        (text.lines().count() > 1).then(|| {
            format!(
                "the job uses System V {what}, which CRIU cannot restore without privileges; use POSIX ones \
                 (shm_open, sem_open) or pipes"
            )
        })
    })
}

fn process(dir: &Path, pid: i32, job: Pid) -> Option<String> {
    let maps = File::open(dir.join("maps")).ok()?;
    if let Some(name) = mapped_memfd(BufReader::new(maps)) {
        return Some(format!(
            "process {pid} has mapped a memfd ({name}); without privileges CRIU would restore its mapping and its \
             descriptor apart, and data written through one would be missing in the other; use a file in /dev/shm"
        ));
    }
    let mut status = String::new();
    let file = File::open(dir.join("status")).ok()?;
    file.take(STATUS_LIMIT).read_to_string(&mut status).ok()?;
    if let Some(reason) = of_status(&status, pid, job) {
        return Some(reason);
    }
    let mut links = fs::read_dir(dir.join("fd")).ok()?.filter_map(|entry| {
        let link = fs::read_link(entry.ok()?.path()).ok()?;
        Some(link.into_os_string())
    });
    links
        .any(|link| link == "anon_inode:[io_uring]")
        .then(|| {
            format!(
                "process {pid} uses io_uring, which CRIU cannot freeze; switch the program to ordinary or epoll I/O \
                 (UV_USE_IO_URING=0 for node)"
            )
        })
}

fn of_status(status: &str, pid: i32, job: Pid) -> Option<String> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':').map(str::trim)
    };
    let name = field("Name").unwrap_or("?");
    let tracer = field("TracerPid").unwrap_or("0");
    if tracer != "0" {
        return Some(format!(
            "process {pid} ({name}) is traced by a debugger, process {tracer}, and only one tracer is possible; let \
             the job run without gdb or strace"
        ));
    }
    // The job is a subreaper, so this does not happen; if it did, the process would be left out and be missed.
    let ended = field("State").is_some_and(|state| state.starts_with(['Z', 'X']));
    (field("PPid") == Some("1") && pid != job.as_raw() && !ended).then(|| {
        format!(
            "process {pid} ({name}) has left the job's tree of processes, and CRIU freezes that tree alone; keep its \
             parent running"
        )
    })
}

/// The first memfd in a `maps` file.
fn mapped_memfd(maps: impl BufRead) -> Option<String> {
    maps.lines().map_while(Result::ok).find_map(|line| {
        // address perms offset dev inode path
        let path = line.splitn(6, ' ').nth(5)?.trim_start();
        let name = path.strip_prefix("/memfd:")?;
        Some(name.trim_end_matches(" (deleted)").to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_memfd_is_found_by_name() {
        let maps = "00400000-00401000 r-xp 00000000 fe:00 12 /srv/memfd:no\n\
                    7f00-7f01 rw-s 00000000 00:01 2063                       /memfd:ring (deleted)\n";
        assert_eq!(mapped_memfd(maps.as_bytes()).as_deref(), Some("ring"));
        assert_eq!(mapped_memfd("7f00-7f01 rw-p 0 00:00 0 \n".as_bytes()), None);
        let spaced = "7f00-7f01 rw-s 0 00:01 7   /memfd:a b (deleted)\n";
        assert_eq!(mapped_memfd(spaced.as_bytes()).as_deref(), Some("a b"));
    }

    #[test]
    fn a_system_v_object_that_nobody_has_mapped_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let heading = "       key      semid perms      nsems\n";
        fs::write(dir.path().join("sem"), heading).unwrap();
        assert_eq!(system_v(dir.path()), None);
        let listed = format!("{heading}     24301          0   600          1\n");
        fs::write(dir.path().join("sem"), listed).unwrap();
        let reason = system_v(dir.path()).unwrap();
        assert!(reason.contains("System V semaphores"), "{reason}");
    }

    #[test]
    fn a_tracer_and_a_lost_process_are_named() {
        let job = Pid::from_raw(2);
        let status = |ppid, tracer, state| {
            format!("Name:\tsim\nState:\t{state} (x)\nPPid:\t{ppid}\nTracerPid:\t{tracer}\n")
        };
        assert_eq!(of_status(&status(1, 0, 'S'), 2, job), None);
        assert_eq!(of_status(&status(2, 0, 'S'), 5, job), None);
        assert_eq!(of_status(&status(1, 0, 'Z'), 5, job), None);
        let traced = of_status(&status(2, 4, 't'), 5, job).unwrap();
        assert!(traced.contains("process 5 (sim) is traced by a debugger, process 4"));
        let lost = of_status(&status(1, 0, 'S'), 5, job).unwrap();
        assert!(lost.contains("has left the job's tree"));
    }
}
