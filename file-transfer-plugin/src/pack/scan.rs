//! What is in the trees: names, kinds, sizes, holes.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use super::{PackError, Tree};
use crate::manifest::{Entry, Kind, LeftOut, Name};

/// A hole shorter than this is packed as zeros: each part of a file costs forty bytes of manifest.
const HOLE: u64 = 64 << 10;
/// The most parts that a file is packed in.
const PARTS: usize = 4096;

/// What was found.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) entries: Vec<Entry>,
    /// Where each entry lies.
    pub(super) sources: Vec<PathBuf>,
    pub(super) left_out: Vec<LeftOut>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Name>,
    closed: Closed,
}

/// What its owner had closed to himself, open for as long as this lives. The archive has the modes that were found.
#[derive(Default)]
struct Closed(Vec<(PathBuf, Permissions)>);

impl Closed {
    /// A mode that lets its owner in. That it cannot be set is found out by whoever reads next.
    fn open(&mut self, path: &Path, meta: &Metadata) {
        let needed = if meta.is_dir() { 0o500 } else { 0o400 };
        let mode = meta.permissions().mode();
        if mode & needed == needed {
            return;
        }
        let permissions = Permissions::from_mode(mode & 0o7777 | needed);
        if fs::set_permissions(path, permissions).is_ok() {
            self.0.push((path.to_owned(), meta.permissions()));
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        // What lies deeper first, while the way to it is open.
        for (path, permissions) in self.0.drain(..).rev() {
            let _ = fs::set_permissions(path, permissions);
        }
    }
}

pub(super) fn scan(trees: &[Tree<'_>]) -> Result<Scan, PackError> {
    let mut scan = Scan::default();
    for tree in trees {
        let at = |source| PackError::Read {
            path: tree.dir.to_owned(),
            source,
        };
        // The root itself may be a link of the caller's.
        let meta = fs::metadata(tree.dir).map_err(at)?;
        if !meta.is_dir() {
            return Err(at(io::ErrorKind::NotADirectory.into()));
        }
        scan.links.clear();
        scan.add(tree.prefix.into(), tree.dir.to_owned(), &meta)?;
    }
    Ok(scan)
}

impl Scan {
    fn add(&mut self, path: Name, source: PathBuf, meta: &Metadata) -> Result<(), PackError> {
        let error = |error| PackError::Read {
            path: source.clone(),
            source: error,
        };
        let kind = meta.file_type();
        if kind.is_dir() || kind.is_file() {
            self.closed.open(&source, meta);
        }
        let kind = if kind.is_dir() {
            Kind::Dir
        } else if kind.is_symlink() {
            Kind::Symlink {
                target: fs::read_link(&source).map_err(error)?.into(),
            }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_file() {
            let first = (meta.nlink() > 1)
                .then(|| self.links.get(&(meta.dev(), meta.ino())).cloned())
                .flatten();
            match first {
                Some(to) => Kind::Link { to },
                None => {
                    if meta.nlink() > 1 {
                        self.links.insert((meta.dev(), meta.ino()), path.clone());
                    }
                    Kind::File {
                        size: meta.len(),
                        extents: extents(&source, meta).map_err(error)?,
                    }
                }
            }
        } else {
            let why = if kind.is_socket() {
                "a socket, which CRIU makes anew"
            } else {
                "a device"
            };
            self.left_out.push(LeftOut {
                path,
                why: why.into(),
            });
            return Ok(());
        };
        let is_dir = kind == Kind::Dir;
        let xattrs = match kind {
            Kind::Dir | Kind::File { .. } => xattrs(&source).map_err(error)?,
            _ => Vec::new(),
        };
        let mtime_ns = meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec());
        let mode = meta.permissions().mode() & 0o1777;
        let children = if is_dir {
            children(&source).map_err(error)?
        } else {
            Vec::new()
        };
        self.entries.push(Entry {
            path: path.clone(),
            mode,
            mtime_ns,
            xattrs,
            kind,
        });
        self.sources.push(source.clone());
        for child in children {
            let inner = Name::from([path.as_bytes(), b"/", child.as_os_str().as_bytes()].concat());
            let source = source.join(&child);
            let meta = fs::symlink_metadata(&source).map_err(|error| PackError::Read {
                path: source.clone(),
                source: error,
            })?;
            self.add(inner, source, &meta)?;
        }
        Ok(())
    }
}

/// The names in a directory, sorted: the same tree gives the same archive.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = fs::read_dir(dir)?
        .map(|child| child.map(|child| PathBuf::from(child.file_name())))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Opens a file for reading; not what somebody put in its place, and without waiting for a fifo's other end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

/// The parts of a file that are no holes, if it has any holes worth it.
fn extents(path: &Path, meta: &Metadata) -> io::Result<Option<Vec<(u64, u64)>>> {
    let size = meta.len();
    if meta.blocks() * 512 >= size || size < HOLE {
        return Ok(None);
    }
    let file = open(path)?;
    let mut parts = Parts {
        list: Vec::new(),
        hole: HOLE,
    };
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(size);
        if start >= end {
            break;
        }
        parts.add(start, end);
        at = end;
    }
    Ok((parts.list != [(0, size)]).then_some(parts.list))
}

/// The parts of a sparse file.
struct Parts {
    /// Offset and length of each.
    list: Vec<(u64, u64)>,
    /// A shorter hole is not worth an end of a part.
    hole: u64,
}

impl Parts {
    fn add(&mut self, start: u64, end: u64) {
        match self.list.last_mut() {
            Some((from, len)) if start - (*from + *len) < self.hole => *len = end - *from,
            None if start < self.hole => self.list.push((0, end)),
            _ => self.list.push((start, end - start)),
        }
        // A file that is all small holes is still one file, not a manifest that nobody can read.
        while self.list.len() > PARTS {
            self.hole *= 2;
            for (start, len) in std::mem::take(&mut self.list) {
                self.add(start, start + len);
            }
        }
    }
}

/// The attributes of the user's name space; others are the system's. None where the file system has none.
fn xattrs(path: &Path) -> io::Result<Vec<(Name, Name)>> {
    // The kernel's own bound for a list and for a value, XATTR_LIST_MAX.
    let mut buffer = vec![0; 64 << 10];
    let list = match rustix::fs::llistxattr(path, buffer.as_mut_slice()) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::PERM) => return Ok(Vec::new()),
        list => buffer[..list?].to_vec(),
    };
    let mut found = Vec::new();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user.") && !name.contains(&b'='))
    {
        let len = rustix::fs::lgetxattr(path, name, buffer.as_mut_slice())?;
        found.push((
            Name::from(name.to_vec()),
            Name::from(buffer[..len].to_vec()),
        ));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_owner_has_closed_is_open_while_it_is_read_and_closed_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("shut")).unwrap();
        fs::write(at("shut/secret"), "x").unwrap();
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        let close = |name, mode| fs::set_permissions(at(name), Permissions::from_mode(mode));
        close("shut/secret", 0o000).unwrap();
        close("shut", 0o200).unwrap();
        let scan = scan(&[Tree {
            prefix: "srv",
            dir: dir.path(),
        }])
        .unwrap();
        let found: Vec<_> = scan.entries[1..].iter().map(|entry| entry.mode).collect();
        assert_eq!(found, [0o200, 0o000]);
        assert_eq!((mode("shut"), mode("shut/secret")), (0o700, 0o400));
        drop(scan);
        assert_eq!(mode("shut"), 0o200);
        close("shut", 0o700).unwrap();
        assert_eq!(mode("shut/secret"), 0o000);
    }

    #[test]
    fn a_file_of_many_small_holes_is_packed_in_few_parts() {
        let mut parts = Parts {
            list: Vec::new(),
            hole: HOLE,
        };
        let mut bytes = 0;
        for index in 0..20_000 {
            let start = index * 3 * HOLE + 2 * HOLE;
            parts.add(start, start + HOLE);
            bytes += HOLE;
        }
        assert!((1..=PARTS).contains(&parts.list.len()));
        assert_eq!(
            parts.list.last().map(|(at, len)| at + len),
            Some(60_000 * HOLE)
        );
        assert!(parts.list.is_sorted());
        assert!(parts.list.iter().map(|(_, len)| len).sum::<u64>() >= bytes);
    }
}
