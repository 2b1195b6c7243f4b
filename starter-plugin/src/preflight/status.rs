//! What a process's `status` says: a debugger, a seccomp filter, a process that CRIU would not see.

use std::fs::File;
use std::io::Read;

use nix::unistd::Pid;

use super::{Process, Reason};

/// A `status` file is some fifty short lines.
const LIMIT: u64 = 64 << 10;

pub(super) fn find(process: &Process, job: Pid, as_root: bool) -> Vec<Reason> {
    let mut status = String::new();
    let read = File::open(process.dir.join("status"))
        .and_then(|file| file.take(LIMIT).read_to_string(&mut status));
    match read {
        Ok(_) => of_status(&status, process.pid, job, as_root),
        Err(_) => Vec::new(),
    }
}

fn of_status(status: &str, pid: i32, job: Pid, as_root: bool) -> Vec<Reason> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':').map(str::trim)
    };
    let name = field("Name").unwrap_or("?");
    let mut reasons = Vec::new();
    let tracer = field("TracerPid").unwrap_or("0");
    if tracer != "0" {
        reasons.push(Reason::stop(
            pid,
            format!(
                "process {pid} ({name}) is traced by a debugger, process {tracer}, and only one tracer is possible; \
                 let the job run without gdb or strace"
            ),
        ));
    }
    // The job is a subreaper, so this does not happen; if it did, the process would be left out and be missed.
    let ended = field("State").is_some_and(|state| state.starts_with(['Z', 'X']));
    if field("PPid") == Some("1") && pid != job.as_raw() && !ended {
        reasons.push(Reason::stop(
            pid,
            format!(
                "process {pid} ({name}) has left the job's tree of processes, and CRIU freezes that tree alone; keep \
                 its parent running"
            ),
        ));
    }
    if !as_root && field("Seccomp").is_some_and(|mode| mode != "0") {
        reasons.push(Reason::doubt(
            pid,
            format!(
                "process {pid} ({name}) runs under a seccomp filter, which CRIU cannot suspend without privileges; \
                 switch the program's own sandbox off (--no-sandbox for browsers), or ask the site whether its \
                 container runtime sets the filter"
            ),
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Pid = Pid::from_raw(2);

    fn status(ppid: i32, tracer: i32, state: char, seccomp: i32) -> String {
        format!(
            "Name:\tsim\nState:\t{state} (x)\nPPid:\t{ppid}\nTracerPid:\t{tracer}\nSeccomp:\t{seccomp}\n\
             Seccomp_filters:\t0\n"
        )
    }

    #[test]
    fn an_ordinary_process_is_none() {
        assert_eq!(of_status(&status(1, 0, 'S', 0), 2, JOB, false), []);
        assert_eq!(of_status(&status(2, 0, 'S', 0), 5, JOB, false), []);
        assert_eq!(of_status(&status(1, 0, 'Z', 0), 5, JOB, false), []);
    }

    #[test]
    fn every_reason_is_named() {
        let reasons = of_status(&status(1, 4, 't', 2), 5, JOB, false);
        let texts: Vec<_> = reasons.iter().map(|reason| &reason.text).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[0].contains("process 5 (sim) is traced by a debugger, process 4"));
        assert!(texts[1].contains("has left the job's tree"));
        assert!(texts[2].contains("seccomp filter"));
        let stops: Vec<_> = reasons.iter().map(|reason| reason.stops).collect();
        assert_eq!(stops, [true, true, false]);
    }
}
