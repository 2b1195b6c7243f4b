//! What there is to be saved: the job's memory and its files, found without stopping it.

use std::collections::BTreeSet;
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
    let processes = processes(Path::new("/proc"), init.as_raw());
    let files = files(["srv", "tmp"].map(|name| sandbox.tree(name)).into());
    Cost {
        memory: memory(&processes),
        files: files + nameless(&processes),
    }
}

/// Below `init`, as their directories in `proc`.
fn processes(proc: &Path, init: i32) -> Vec<PathBuf> {
    let of = |parent: &Path| -> Vec<PathBuf> {
        let pids = children(parent);
        pids.iter().map(|pid| proc.join(pid.to_string())).collect()
    };
    let mut found = of(&proc.join(init.to_string()));
    let mut next = 0;
    while let Some(dir) = found.get(next) {
        let below = of(dir);
        found.extend(below);
        next += 1;
    }
    found
}

/// Memory that a dump writes. What several processes share is counted once, as the kernel divides it among them.
fn memory(processes: &[PathBuf]) -> u64 {
    let rollups = processes.iter().map(|dir| dir.join("smaps_rollup"));
    rollups
        .map(|rollup| of_rollup(&fs::read_to_string(rollup).unwrap_or_default()))
        .sum()
}

/// Bytes of files that are open and have no name any more, which no directory shows.
fn nameless(processes: &[PathBuf]) -> u64 {
    let mut seen = BTreeSet::new();
    let open = processes
        .iter()
        .filter_map(|dir| fs::read_dir(dir.join("fd")).ok())
        .flatten()
        .filter_map(|fd| fs::metadata(fd.ok()?.path()).ok());
    open.filter(|meta| meta.is_file() && meta.nlink() == 0)
        .filter(|meta| seen.insert((meta.dev(), meta.ino())))
        .map(|meta| meta.blocks() * 512)
        .sum()
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
    use std::io::Write;

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
        let bytes = memory(&processes(Path::new("/proc"), Pid::this().as_raw()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((10_000..100_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_file_that_is_open_and_deleted_counts_once() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(file.try_clone().unwrap())
            .stdout(file)
            .spawn()
            .unwrap();
        let child_of_ours = Path::new("/proc").join(child.id().to_string());
        let bytes = nameless(&[child_of_ours]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
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
