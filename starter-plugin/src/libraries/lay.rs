//! The image's files over those of the slot, in the job's own mount namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use thiserror::Error;

use super::mirror;

/// What a slot cannot be made to look like.
#[derive(Debug, Error)]
pub(crate) enum LayError {
    /// The files of the image.
    #[error("cannot read {path}, which the image brought along ({source})")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel, or a file system.
    #[error("cannot show the job its own {path} in place of this slot's ({source})")]
    Mount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Only the root directory itself cannot be covered.
    #[error("the job uses {0}, and this slot has no such directory at its root")]
    NoDirectory(PathBuf),
    /// Each entry of a mirrored directory is a mount.
    #[error("{path} has {entries} entries, too many to show it with the job's own files in it")]
    TooLarge { path: PathBuf, entries: usize },
}

/// What has to be done for one slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Files that differ: bound over.
    pub(super) differ: Vec<PathBuf>,
    /// Files that are missing, by the deepest directory above them that is there.
    pub(super) missing: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl Plan {
    /// How many files are laid.
    pub(crate) fn files(&self) -> usize {
        self.differ.len() + self.missing.values().map(Vec::len).sum::<usize>()
    }
}

/// What this slot has not of the files in `tree`, or has otherwise.
pub(super) fn plan_for(tree: &Path) -> Result<Plan, LayError> {
    let mut files = Vec::new();
    list(tree, Path::new("/"), &mut files)?;
    plan(tree, Path::new("/"), files)
}

/// Covers what is planned.
pub(super) fn lay(tree: &Path, plan: &Plan) -> Result<(), LayError> {
    // Parents stand before their children in a map, and a mirrored parent shows the child as it was.
    for (dir, files) in &plan.missing {
        mirror::mirror(tree, dir, files)?;
    }
    for path in &plan.differ {
        bind(&super::kept(tree, path), path)?;
    }
    Ok(())
}

/// The files below a directory of the tree, by their paths on a slot.
fn list(tree: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), LayError> {
    let at = super::kept(tree, dir);
    let failed = |source| LayError::Read {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(&at).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = dir.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            list(tree, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Compares with what the slot has below `root`.
fn plan(tree: &Path, root: &Path, files: Vec<PathBuf>) -> Result<Plan, LayError> {
    let mut plan = Plan::default();
    for path in files {
        let kept = super::kept(tree, &path);
        let here = super::kept(root, &path);
        // A link there leads to another file, which is not to be covered.
        match fs::symlink_metadata(&here) {
            Ok(meta) if meta.is_file() => {
                let same = same(&kept, &here);
                if !same.map_err(|source| LayError::Read {
                    path: path.clone(),
                    source,
                })? {
                    plan.differ.push(path);
                }
            }
            _ => {
                let above = path.ancestors().skip(1);
                let mut there = above.filter(|dir| super::kept(root, dir).is_dir());
                let dir = there.next().filter(|dir| *dir != Path::new("/"));
                let Some(dir) = dir else {
                    return Err(LayError::NoDirectory(path));
                };
                plan.missing.entry(dir.to_owned()).or_default().push(path);
            }
        }
    }
    Ok(plan)
}

/// Whether two files have the same bytes. A slot's file that cannot be read is another.
fn same(ours: &Path, theirs: &Path) -> io::Result<bool> {
    let Ok(theirs) = File::open(theirs) else {
        return Ok(false);
    };
    let ours = File::open(ours)?;
    if ours.metadata()?.len() != theirs.metadata()?.len() {
        return Ok(false);
    }
    let mut ours = BufReader::with_capacity(0, ours);
    let mut theirs = BufReader::with_capacity(0, theirs);
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let length = ours.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        if theirs.read_exact(&mut right[..length]).is_err()
            || !equal(&left[..length], &right[..length])
        {
            return Ok(false);
        }
    }
}

const BLOCK: usize = 128 << 10;

/// Whether two parts have the same bytes. Not `==`: musl's memcmp looks at them one by one, and a job's libraries
/// took longer to compare than to unpack.
fn equal(left: &[u8], right: &[u8]) -> bool {
    // An inner loop without an exit becomes vector instructions.
    let differ = |(left, right): (&[u8], &[u8])| {
        let pairs = left.iter().zip(right);
        pairs.fold(0, |or, (left, right)| or | (left ^ right)) != 0
    };
    left.len() == right.len() && !left.chunks(256).zip(right.chunks(256)).any(differ)
}

pub(super) fn bind(from: &Path, to: &Path) -> Result<(), LayError> {
    let none = None::<&str>;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, none, flags, none).map_err(|errno| LayError::Mount {
        path: to.to_owned(),
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_bound_and_what_is_missing_is_put_into_the_deepest_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, root) = (dir.path().join("tree"), dir.path().join("root"));
        let write = |at: &Path, path: &str, text: &str| {
            let file = super::super::kept(at, Path::new(path));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        for (path, ours, theirs) in [
            ("/usr/lib/same.so", "1", Some("1")),
            ("/usr/lib/libc.so.6", "old", Some("new")),
            ("/usr/lib/python3.11/x/y.so", "1", None),
            ("/usr/lib/gone.so", "1", None),
        ] {
            write(&tree, path, ours);
            if let Some(theirs) = theirs {
                write(&root, path, theirs);
            }
        }
        let mut files = Vec::new();
        list(&tree, Path::new("/"), &mut files).unwrap();
        files.sort();
        let made = plan(&tree, &root, files).unwrap();
        assert_eq!(made.differ, [PathBuf::from("/usr/lib/libc.so.6")]);
        let missing = ["/usr/lib/gone.so", "/usr/lib/python3.11/x/y.so"].map(PathBuf::from);
        let expected = BTreeMap::from([(PathBuf::from("/usr/lib"), missing.to_vec())]);
        assert_eq!(made.missing, expected);
    }

    #[test]
    fn one_other_byte_anywhere_makes_a_difference() {
        for length in [0, 1, 255, 256, 257, 600] {
            let left = vec![7; length];
            assert!(equal(&left, &left.clone()));
            for at in 0..length {
                let mut right = left.clone();
                right[at] = 8;
                assert!(!equal(&left, &right), "byte {at} of {length}");
                assert!(!equal(&left, &left[..at]), "{at} bytes of {length}");
            }
        }
    }

    #[test]
    fn a_slot_without_the_directory_at_its_root_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = plan(dir.path(), dir.path(), vec!["/software/lib/x.so".into()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the job uses /software/lib/x.so, and this slot has no such directory at its root"
        );
    }
}
