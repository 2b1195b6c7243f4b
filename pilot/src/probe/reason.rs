//! What an admin can change, said beside what went wrong.
//!
//! Only after a failed trial: a node where all works is never told that one of
//! its settings is bad.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

/// Twice what a probe takes at most.
const ENOUGH_BYTES: u64 = 40 << 20;

/// Limits of namespaces, any of which at 0 forbids what every job needs.
const LIMITS: [&str; 5] = ["user", "pid", "mnt", "ipc", "uts"];

/// The sentence, and what of this node explains it.
pub(super) fn explain(sentence: &str, dir: &Path) -> String {
    let mut text = sentence.trim().to_owned();
    for fact in [namespaces(), disk(dir), masked_proc()]
        .into_iter()
        .flatten()
    {
        text += "; ";
        text += &fact;
    }
    text
}

fn namespaces() -> Option<String> {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok();
    let is = |name: &str, value: &str| setting(name).is_some_and(|text| text.trim() == value);
    if !Path::new("/proc/self/ns/user").exists() {
        return Some(
            "/proc is not mounted, or the kernel lacks user namespaces (CONFIG_USER_NS)".to_owned(),
        );
    }
    for limit in LIMITS {
        if is(&format!("user/max_{limit}_namespaces"), "0") {
            return Some(format!(
                "the sysctl user.max_{limit}_namespaces is 0: set it to 10000 or so"
            ));
        }
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return Some("the sysctl kernel.unprivileged_userns_clone is 0: set it to 1".to_owned());
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(
            "the sysctl kernel.apparmor_restrict_unprivileged_userns is 1: set it to 0, or give \
             criu-starter an AppArmor profile with `userns,`"
                .to_owned(),
        );
    }
    None
}

fn disk(dir: &Path) -> Option<String> {
    let Ok(stat) = statvfs(dir) else {
        return Some(format!(
            "{} is no directory that can be used",
            dir.display()
        ));
    };
    let dir = dir.display();
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        return Some(format!("{dir} is on a file system mounted read-only (ro)"));
    }
    if stat.flags().contains(FsFlags::ST_NOEXEC) {
        return Some(format!(
            "{dir} is on a file system mounted noexec, where no job can run: mount it exec, or \
             name another place with --dir"
        ));
    }
    let free = stat.blocks_available() * stat.fragment_size();
    (free < ENOUGH_BYTES).then(|| {
        let mib = free >> 20;
        format!("{dir} has {mib} MiB free: a probe needs 20, a job the size of its memory")
    })
}

/// A kernel lets nobody mount a /proc that shows more than the one that is there.
fn masked_proc() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let covered = covered_by(&mounts);
    let first = covered.first()?;
    Some(format!(
        "{} paths of /proc are covered ({first}): run the container with \
         --security-opt systempaths=unconfined, or its like",
        covered.len()
    ))
}

/// Mount points below /proc but the kernel's own automount.
fn covered_by(mountinfo: &str) -> Vec<&str> {
    let mut points: Vec<_> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with("/proc/") && *point != "/proc/sys/fs/binfmt_misc")
        .collect();
    points.dedup();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_on_proc_are_told_from_the_kernels_own() {
        let mountinfo = "\
            22 1 0:20 / /proc rw - proc proc rw\n\
            23 22 0:21 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
            24 22 0:22 / /proc/kcore rw - tmpfs tmpfs rw\n\
            25 1 0:23 / /process rw - tmpfs tmpfs rw\n";
        assert_eq!(covered_by(mountinfo), ["/proc/kcore"]);
    }

    #[test]
    fn a_place_that_is_none_is_named() {
        let text = explain("cannot make it", Path::new("/nowhere"));
        assert!(text.starts_with("cannot make it; "), "{text}");
        assert!(text.contains("/nowhere"), "{text}");
    }
}
