//! Files and directories that a job has closed to itself: read-only ones, as package caches are, or with no mode at all.
//!
//! Their owner may open them again, and so may we, who are he.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What an owner needs in a directory.
const ALL: u32 = 0o700;

/// Renames, also a directory that is read-only: moved to another one, its `..` is written.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let meta = fs::symlink_metadata(from)?;
            if !meta.is_dir() {
                return Err(error);
            }
            open(from)?;
            let renamed = fs::rename(from, to);
            let place = if renamed.is_ok() { to } else { from };
            fs::set_permissions(place, meta.permissions())?;
            renamed
        }
        other => other,
    }
}

/// Removes a directory and all that is in it.
pub(crate) fn remove_dir_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_all(dir)?;
            fs::remove_dir_all(dir)
        }
        other => other,
    }
}

fn open_all(dir: &Path) -> io::Result<()> {
    open(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Not through links: what they lead to is none of ours.
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
}

fn open(dir: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(dir)?.permissions().mode();
    fs::set_permissions(dir, Permissions::from_mode(mode | ALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root is never denied anything, so these show little to it; CI's user sees the whole of them.
    fn closed(dir: &Path, name: &str, mode: u32) -> std::path::PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::write(path.join("inner/file"), "x").unwrap();
        for dir in [path.join("inner"), path.clone()] {
            fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        }
        path
    }

    #[test]
    fn a_read_only_directory_moves_and_stays_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let from = closed(dir.path(), "cache", 0o555);
        let to = dir.path().join("home/cache");
        fs::create_dir(dir.path().join("home")).unwrap();
        rename(&from, &to).unwrap();
        let mode = fs::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o555);
        remove_dir_all(&to).unwrap();
    }

    #[test]
    fn a_directory_without_a_mode_is_removed_with_all_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = closed(dir.path(), "secret", 0);
        remove_dir_all(&path).unwrap();
        assert!(!path.exists());
    }
}
