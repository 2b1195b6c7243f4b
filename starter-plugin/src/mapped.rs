//! Names for mapped files that have lost theirs.
//!
//! Without privileges CRIU opens a mapped file by the path that `maps` shows. glibc makes a semaphore under a
//! temporary name, links it to its own and removes the first, so `maps` shows `/dev/shm/sem.AbCdEf (deleted)` for a
//! file that is there. A hard link with exactly that name, the last word included, is a path that CRIU can open; it
//! travels in the image, where the archive keeps hard links. A file that has no name at all cannot be given one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the kernel adds to the path of a name that is gone.
const DELETED: &str = " (deleted)";

/// Where the files lie that travel with the job.
const OURS: [&str; 3] = ["/dev/shm/", "/srv/", "/tmp/"];

/// Links that were made for a dump.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<PathBuf>);

impl Names {
    /// Gives a name to every mapped file that has another one in the same directory.
    pub(crate) fn give(proc: &Path) -> Names {
        let mut names = Names::default();
        let entries = fs::read_dir(proc).ok();
        let processes = entries.into_iter().flatten().filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.parse::<u32>().ok()
        });
        for pid in processes {
            let Ok(maps) = File::open(proc.join(format!("{pid}/maps"))) else {
                continue;
            };
            for (inode, path) in nameless(BufReader::new(maps)) {
                if !path.exists()
                    && let Some(other) = other_name(&path, inode)
                    && fs::hard_link(other, &path).is_ok()
                {
                    names.0.push(path);
                }
            }
        }
        names
    }

    /// Takes them back: the job runs on and may look at its directories.
    pub(crate) fn remove(self) {
        for path in self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Inodes and shown paths of mapped files in `maps` whose name is gone.
fn nameless(maps: impl BufRead) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    for line in maps.lines().map_while(Result::ok) {
        // address perms offset dev inode path
        let mut fields = line.splitn(6, ' ');
        let inode = fields.nth(4).and_then(|inode| inode.parse().ok());
        let (Some(inode), Some(path)) = (inode, fields.next()) else {
            continue;
        };
        let path = path.trim_start();
        if path.ends_with(DELETED) && OURS.iter().any(|dir| path.starts_with(dir)) {
            let entry = (inode, PathBuf::from(path));
            if !found.contains(&entry) {
                found.push(entry);
            }
        }
    }
    found
}

/// Another name of that file beside `path`.
pub(crate) fn other_name(path: &Path, inode: u64) -> Option<PathBuf> {
    fs::read_dir(path.parent()?).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let meta = entry.metadata().ok()?;
        (meta.is_file() && meta.ino() == inode).then(|| entry.path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_travel_and_have_lost_their_name_are_listed() {
        let maps = "7f00-7f01 rw-s 00000000 fe:00 77      /dev/shm/sem.AbC (deleted)\n\
                    7f01-7f02 rw-s 00000000 fe:00 77      /dev/shm/sem.AbC (deleted)\n\
                    7f02-7f03 rw-s 00000000 fe:00 78      /dev/shm/sem.there\n\
                    7f03-7f04 r-xp 00000000 fe:00 79      /usr/lib/old.so (deleted)\n\
                    7f04-7f05 rw-p 00000000 00:00 0 \n";
        let expected = [(77, PathBuf::from("/dev/shm/sem.AbC (deleted)"))];
        assert_eq!(nameless(maps.as_bytes()), expected);
    }

    #[test]
    fn another_name_is_found_by_its_inode() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("sem.mine");
        fs::write(&name, "x").unwrap();
        let inode = fs::metadata(&name).unwrap().ino();
        let shown = dir.path().join("sem.AbC (deleted)");
        assert_eq!(other_name(&shown, inode), Some(name));
        assert_eq!(other_name(&shown, inode + 1), None);
    }
}
