//! Namespaces of a process's own: a container in the job, which CRIU restores for root alone.

use std::fs;

use super::{Job, Process, Reason};

const KINDS: [(&str, &str); 6] = [
    ("user", "user"),
    ("mnt", "mount"),
    ("pid", "pid"),
    ("net", "network"),
    ("ipc", "IPC"),
    ("uts", "host name"),
];

pub(super) fn find(process: &Process, job: &Job<'_>) -> Option<Reason> {
    let root = job.proc.join(job.root.to_string());
    let differ: Vec<_> = KINDS
        .iter()
        .filter(|(file, _)| {
            let of = |dir: &std::path::Path| fs::read_link(dir.join("ns").join(file)).ok();
            // One that has just ended has none, and so it does not count.
            matches!((of(&root), of(&process.dir)), (Some(a), Some(b)) if a != b)
        })
        .map(|(_, name)| *name)
        .collect();
    (!differ.is_empty()).then(|| {
        let (pid, name) = (process.pid, &process.name);
        Reason::doubt(
            pid,
            format!(
                "process {pid} ({name}) has its own {} namespace, and without privileges CRIU cannot make one again; \
                 let HTCondor start the container instead of the job",
                differ.join(", ")
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_namespace_of_its_own_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid: i32, user: &str| {
            let ns = dir.path().join(format!("{pid}/ns"));
            fs::create_dir_all(&ns).unwrap();
            symlink(user, ns.join("user")).unwrap();
            symlink("net:[1]", ns.join("net")).unwrap();
        };
        process(2, "user:[7]");
        process(3, "user:[7]");
        process(4, "user:[8]");
        let job = Job::inside(dir.path(), Pid::from_raw(2), false);
        let of = |pid| find(&Process::of(dir.path(), pid), &job);
        assert_eq!(of(3), None);
        assert_eq!(of(5), None);
        let text = of(4).unwrap().text;
        assert!(text.contains("its own user namespace"), "{text}");
        assert!(Path::new("/proc/self/ns/user").exists());
    }
}
