//! From what /proc says of the tree to copies of its files.
//!
//! It runs twice: while the job does, when copies cost it nothing, and again when it stands still, for what it has begun to
//! use in between. A shell's job starts a program every other moment.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Metadata};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{kept, travels};

/// More than a JVM with its class library; what goes beyond stays, largest first.
const LIMIT: u64 = 1 << 30;

/// A process has some hundred mappings, a large one some ten thousand.
const MAPPINGS: usize = 1 << 20;

/// Brings the copies in `tree` up to date with what the processes in `proc` use; the bytes that they take.
pub(super) fn collect(proc: &Path, criu: Option<u32>, tree: &Path) -> io::Result<u64> {
    let mut found: Vec<(PathBuf, Metadata)> = used(proc, criu)
        .into_iter()
        .filter_map(|path| {
            // A name that leads nowhere by now is none that a thaw could use.
            let meta = fs::symlink_metadata(&path).ok()?;
            meta.is_file().then_some((path, meta))
        })
        .collect();
    found.sort_by_key(|(_, meta)| meta.len());
    let mut total = 0;
    found.retain(|(path, meta)| {
        total += meta.len();
        if total > LIMIT {
            tracing::warn!("{} does not travel: too large", path.display());
        }
        total <= LIMIT
    });

    let wanted: BTreeSet<PathBuf> = found.iter().map(|(path, _)| kept(tree, path)).collect();
    prune(tree, &wanted)?;
    let mut bytes = 0;
    for (path, meta) in &found {
        match copy(path, meta, &kept(tree, path)) {
            Ok(()) => bytes += meta.len(),
            // A program that its user may run and not read. The slot's own must do.
            Err(error) => tracing::warn!("{} does not travel: {error}", path.display()),
        }
    }
    Ok(bytes)
}

/// What the job's processes map, run and read from outside of the sandbox.
fn used(proc: &Path, criu: Option<u32>) -> BTreeSet<PathBuf> {
    let mut used = BTreeSet::new();
    for dir in fs::read_dir(proc).into_iter().flatten().flatten() {
        let pid = dir
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        if pid.is_none_or(|pid| is_ours(proc, pid, criu)) {
            continue;
        }
        let dir = dir.path();
        used.extend(fs::read_link(dir.join("exe")));
        if let Ok(maps) = File::open(dir.join("maps")) {
            used.extend(mapped(BufReader::new(maps)));
        }
        for fd in fs::read_dir(dir.join("fd")).into_iter().flatten().flatten() {
            used.extend(fs::read_link(fd.path()));
        }
    }
    used.retain(|path| travels(path));
    used
}

/// Whether a process is pid 1, or CRIU or started by it: what those use is no part of the job.
fn is_ours(proc: &Path, pid: u32, criu: Option<u32>) -> bool {
    let mut pid = pid;
    while pid > 1 && Some(pid) != criu {
        let stat = fs::read_to_string(proc.join(format!("{pid}/stat"))).unwrap_or_default();
        // pid (name) state parent; a name may have anything in it.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| {
            let parent = rest.split_whitespace().nth(1)?;
            parent.parse::<u32>().ok()
        });
        match parent {
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    true
}

/// The paths in a `maps` file.
fn mapped(maps: impl BufRead) -> impl Iterator<Item = PathBuf> {
    let lines = maps.lines().map_while(Result::ok).take(MAPPINGS);
    lines.filter_map(|line| {
        // address perms offset dev inode path
        let path = line.splitn(6, ' ').nth(5)?.trim_start();
        path.starts_with('/').then(|| PathBuf::from(path))
    })
}

/// Removes copies that nothing uses any more.
fn prune(dir: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            prune(&path, wanted)?;
            // It fails where something is left in it, which is right.
            let _ = fs::remove_dir(&path);
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Copies a file unless its copy is there.
fn copy(from: &Path, meta: &Metadata, to: &Path) -> io::Result<()> {
    let modified = meta.modified()?;
    if let Ok(there) = fs::metadata(to)
        && there.len() == meta.len()
        && there.modified()? == modified
    {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let result = (|| {
        let mut source = File::open(from)?;
        let mut copy = File::create(to)?;
        io::copy(&mut source, &mut copy)?;
        copy.set_times(FileTimes::new().set_modified(modified))?;
        // Ours to read and to remove, whatever it is on the slot.
        let mode = meta.permissions().mode() & 0o777 | 0o600;
        copy.set_permissions(fs::Permissions::from_mode(mode))
    })();
    if result.is_err() {
        // Half a library is none.
        let _ = fs::remove_file(to);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_1_and_criu_with_what_it_started_are_not_the_jobs() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, parent: u32| {
            let dir = proc.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
            std::os::unix::fs::symlink(format!("/usr/bin/{pid}"), dir.join("exe")).unwrap();
        };
        for (pid, parent) in [(1, 0), (2, 1), (3, 2), (40, 1), (41, 40), (42, 41)] {
            process(pid, parent);
        }
        let of = |criu| -> Vec<PathBuf> { used(proc.path(), criu).into_iter().collect() };
        let job = ["/usr/bin/2", "/usr/bin/3"].map(PathBuf::from);
        assert_eq!(of(Some(40)), job);
        assert_eq!(of(None).len(), 5);
    }

    #[test]
    fn only_files_are_taken_from_maps() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 77      /usr/lib/a b.so\n\
                    7f01-7f02 rw-p 00000000 00:00 0       [heap]\n\
                    7f02-7f03 rw-p 00000000 00:00 0 \n";
        let paths: Vec<_> = mapped(maps.as_bytes()).collect();
        assert_eq!(paths, [PathBuf::from("/usr/lib/a b.so")]);
    }

    #[test]
    fn a_copy_is_made_once_and_removed_when_unused() {
        let dir = tempfile::tempdir().unwrap();
        let (from, tree) = (dir.path().join("libx.so"), dir.path().join("tree"));
        fs::write(&from, "code").unwrap();
        fs::create_dir(&tree).unwrap();
        let meta = fs::metadata(&from).unwrap();
        let to = kept(&tree, &from);
        copy(&from, &meta, &to).unwrap();
        let first = fs::metadata(&to).unwrap().modified().unwrap();
        assert_eq!(first, meta.modified().unwrap());
        // Another content of the same size and time would be copied again only after a change of either.
        fs::write(&to, "CODE").unwrap();
        let times = FileTimes::new().set_modified(first);
        File::options()
            .write(true)
            .open(&to)
            .unwrap()
            .set_times(times)
            .unwrap();
        copy(&from, &meta, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"CODE");

        prune(&tree, &BTreeSet::from([to.clone()])).unwrap();
        assert!(to.exists());
        prune(&tree, &BTreeSet::new()).unwrap();
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
    }
}
