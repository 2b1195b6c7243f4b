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
pub(super) fn collect(proc: &Path, tree: &Path) -> io::Result<u64> {
    let mut found: Vec<(PathBuf, Metadata)> = used(proc)
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

/// What every process but pid 1 maps, runs and reads from outside of the sandbox.
fn used(proc: &Path) -> BTreeSet<PathBuf> {
    let mut used = BTreeSet::new();
    for dir in fs::read_dir(proc).into_iter().flatten().flatten() {
        let pid = dir
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        if pid.is_none_or(|pid| pid == 1) {
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
