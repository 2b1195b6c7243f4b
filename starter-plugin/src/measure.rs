//! What there is to be saved: the job's memory and its files, found without stopping it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::plan::Cost;
use crate::preflight::children;
use crate::sandbox::Sandbox;

/// More files than this are not counted: by then their number costs more than their bytes.
const MOST_FILES: usize = 200_000;

/// The processes below pid 1, seen from outside, and the sandbox.
pub(crate) fn cost(init: Pid, sandbox: &Sandbox) -> Cost {
    Cost {
        memory: memory(Path::new("/proc"), init.as_raw()),
        files: files(["srv", "tmp"].map(|name| sandbox.tree(name)).into()),
    }
}

/// Memory that a dump writes. What several processes share is counted once, as the kernel divides it among them.
fn memory(proc: &Path, init: i32) -> u64 {
    let mut pids = children(&proc.join(init.to_string()));
    let mut next = 0;
    let mut bytes = 0;
    while let Some(pid) = pids.get(next) {
        let dir = proc.join(pid.to_string());
        let rollup = fs::read_to_string(dir.join("smaps_rollup")).unwrap_or_default();
        bytes += of_rollup(&rollup);
        pids.extend(children(&dir));
        next += 1;
    }
    bytes
}

/// Memory in no file. Pages of files that nobody changed are not dumped.
fn of_rollup(rollup: &str) -> u64 {
    let kib = rollup.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let counts = matches!(name, "Pss_Anon" | "Pss_Shmem" | "SwapPss");
        let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        counts.then_some(kib)
    });
    kib.sum::<u64>() * 1024
}

/// Bytes on the disk: holes cost nothing.
fn files(mut dirs: Vec<PathBuf>) -> u64 {
    let (mut bytes, mut seen) = (0, 0);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            seen += 1;
            if seen > MOST_FILES {
                return bytes;
            }
            if meta.is_dir() {
                dirs.push(entry.path());
            } else {
                bytes += meta.blocks() * 512;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_pages_of_files_are_not_counted() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0  [rollup]\nRss:  9000 kB\nPss:  7000 kB\nPss_Dirty:  10 kB\n\
                      Pss_Anon:   300 kB\nPss_File:  6000 kB\nPss_Shmem:  20 kB\nAnonymous: 300 kB\nSwapPss:  4 kB\n";
        assert_eq!(of_rollup(rollup), 324 * 1024);
        assert_eq!(of_rollup(""), 0);
    }

    #[test]
    fn a_child_of_this_process_has_memory() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let bytes = memory(Path::new("/proc"), Pid::this().as_raw());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((10_000..100_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn files_count_with_what_they_take() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/full"), vec![1; 100_000]).unwrap();
        let hole = fs::File::create(dir.path().join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        let bytes = files(vec![dir.path().to_owned()]);
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
