//! Verified bytes -> files, never outside of the directories that the caller named.
//!
//! The manifest's check has seen to it that each entry's way is made of the archive's own directories. Here every step of
//! that way is taken with `openat(O_NOFOLLOW | O_DIRECTORY)` from the root's descriptor (`openat2` would do it in one call,
//! from Linux 5.6 on). Links are made after all files, so that nothing is ever written through one, and directories get
//! their modes and times last, deepest first.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::{Archive, ArchiveError, Unpacked};
use crate::layout::{Piece, What};
use crate::manifest::{Entry, Kind, Name};

pub(super) struct Writer<'a> {
    pub(super) archive: &'a Archive,
    /// For each entry the root that it goes to, if it is wanted.
    pub(super) root_of: Vec<Option<usize>>,
    roots: Vec<Root>,
    /// In how many frames each file's contents are.
    pub(super) frames: Vec<u32>,
}

/// A directory that a tree goes to.
struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        archive: &'a Archive,
        trees: &[(&str, &Path)],
        without: impl Fn(&Name) -> bool,
    ) -> Result<Self, ArchiveError> {
        let contents = &archive.manifest.contents;
        let mut roots = Vec::new();
        let mut root_of = vec![None; contents.entries.len()];
        for (number, (prefix, path)) in trees.iter().enumerate() {
            let mut found = false;
            for (entry, root) in contents.entries.iter().zip(&mut root_of) {
                let root_name = entry.path.as_bytes().split(|byte| *byte == b'/').next();
                if root_name == Some(prefix.as_bytes()) {
                    found = true;
                    let left_out = matches!(entry.kind, Kind::File { .. }) && without(&entry.path);
                    *root = (!left_out).then_some(number);
                }
            }
            if !found {
                return Err(ArchiveError::NoTree {
                    path: archive.path.clone(),
                    prefix: (*prefix).to_owned(),
                });
            }
            let write = |source| ArchiveError::Write {
                path: (*path).to_owned(),
                source,
            };
            fs::create_dir_all(path).map_err(write)?;
            let fd = rustix::fs::open(
                *path,
                OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| write(error.into()))?;
            roots.push(Root {
                fd,
                path: (*path).to_owned(),
            });
        }
        let mut frames = vec![0; contents.entries.len()];
        for pieces in crate::layout::split(
            &contents.entries,
            contents.frames.iter().map(|frame| frame.raw),
        ) {
            let mut last = None;
            for piece in pieces
                .iter()
                .filter(|piece| matches!(piece.what, What::Data(_)))
            {
                if last.replace(piece.entry) != Some(piece.entry) {
                    frames[piece.entry] += 1;
                }
            }
        }
        Ok(Self {
            archive,
            root_of,
            roots,
            frames,
        })
    }

    /// Whether a frame holds contents that are to be written.
    pub(super) fn wants(&self, pieces: &[Piece]) -> bool {
        pieces
            .iter()
            .any(|piece| matches!(piece.what, What::Data(_)) && self.root_of[piece.entry].is_some())
    }

    fn wanted(&self) -> impl DoubleEndedIterator<Item = (usize, &'a Entry)> {
        let entries = self.archive.manifest.contents.entries.iter().enumerate();
        entries.filter(|(index, _)| self.root_of[*index].is_some())
    }

    /// Makes the directories, and the files that no frame will come for.
    pub(super) fn begin(&self) -> Result<(), ArchiveError> {
        let mut at = Way::default();
        for (index, entry) in self.wanted() {
            let made = match &entry.kind {
                Kind::Dir => self.make_dir(&mut at, index, entry),
                Kind::File { .. } if self.frames[index] == 0 => self
                    .create(&mut at, index, entry)
                    .and_then(|file| finish(&file, entry)),
                _ => Ok(()),
            };
            made.map_err(|error| self.cannot(index, error))?;
        }
        Ok(())
    }

    /// Makes links and fifos, then gives the directories their modes and times.
    pub(super) fn finish(self) -> Result<Unpacked, ArchiveError> {
        let mut at = Way::default();
        let mut unpacked = Unpacked::default();
        let files: HashMap<&[u8], usize> = self
            .wanted()
            .map(|(index, entry)| (entry.path.as_bytes(), index))
            .collect();
        for (index, entry) in self.wanted() {
            unpacked.entries += 1;
            unpacked.bytes += crate::layout::stored(entry);
            let made = match &entry.kind {
                // A manifest may link from one tree to another; the caller may have left that one out.
                Kind::Link { to } => match files.get(to.as_bytes()) {
                    Some(first) => self.make_link(&mut at, index, entry, (*first, to.as_bytes())),
                    None => Err(Errno::XDEV.into()),
                },
                Kind::Symlink { target } => {
                    self.make_special(&mut at, index, entry, |dir, name| {
                        rustix::fs::symlinkat(target.as_path(), dir, name)
                    })
                }
                Kind::Fifo => self.make_special(&mut at, index, entry, |dir, name| {
                    rustix::fs::mknodat(
                        dir,
                        name,
                        FileType::Fifo,
                        Mode::from_raw_mode(entry.mode),
                        0,
                    )?;
                    // The umask has taken bits away; there was nothing by this name, so this is our fifo.
                    rustix::fs::chmodat(
                        dir,
                        name,
                        Mode::from_raw_mode(entry.mode),
                        AtFlags::empty(),
                    )
                }),
                Kind::Dir | Kind::File { .. } => Ok(()),
            };
            made.map_err(|error| self.cannot(index, error))?;
        }
        for (index, entry) in self
            .wanted()
            .rev()
            .filter(|(_, entry)| entry.kind == Kind::Dir)
        {
            let dir = self.open_dir(index, entry.path.as_bytes());
            let done = dir.and_then(|dir| finish(&File::from(dir), entry));
            done.map_err(|error| self.cannot(index, error))?;
        }
        Ok(unpacked)
    }

    pub(super) fn cannot(&self, index: usize, source: io::Error) -> ArchiveError {
        let entry = &self.archive.manifest.contents.entries[index];
        let root = self.root_of[index].map_or(Path::new(""), |root| &self.roots[root].path);
        let path = inner(entry.path.as_bytes())
            .map_or(root.to_owned(), |rest| root.join(OsStr::from_bytes(rest)));
        ArchiveError::Write { path, source }
    }

    /// Opens the directory at a path in the archive, step by step.
    fn open_dir(&self, index: usize, path: &[u8]) -> io::Result<OwnedFd> {
        let root = self.root_of[index]
            .and_then(|root| self.roots.get(root))
            .ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut dir = rustix::io::fcntl_dupfd_cloexec(&root.fd, 3)?;
        for part in inner(path)
            .into_iter()
            .flat_map(|rest| rest.split(|byte| *byte == b'/'))
        {
            dir = rustix::fs::openat(&dir, part, flags, Mode::empty())?;
        }
        Ok(dir)
    }

    /// The directory that an entry lies in, and its name there. None for the root of a tree.
    fn place<'w, 'e>(
        &self,
        at: &'w mut Way,
        index: usize,
        path: &'e [u8],
    ) -> io::Result<Option<(&'w OwnedFd, &'e [u8])>> {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            return Ok(None);
        };
        let (dir, name) = (&path[..slash], &path[slash + 1..]);
        if at.0.as_ref().is_none_or(|(open, _)| open != dir) {
            at.0 = Some((dir.to_vec(), self.open_dir(index, dir)?));
        }
        Ok(at.0.as_ref().map(|(_, fd)| (fd, name)))
    }

    fn make_dir(&self, at: &mut Way, index: usize, entry: &Entry) -> io::Result<()> {
        let Some((dir, name)) = self.place(at, index, entry.path.as_bytes())? else {
            return Ok(());
        };
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            // It may be there already; a link of that name will not do, which the first step through it finds out.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                Ok(rustix::fs::chmodat(
                    dir,
                    name,
                    Mode::RWXU,
                    AtFlags::empty(),
                )?)
            }
            made => Ok(made?),
        }
    }

    pub(super) fn create(&self, at: &mut Way, index: usize, entry: &Entry) -> io::Result<File> {
        let Some((dir, name)) = self.place(at, index, entry.path.as_bytes())? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        remove(dir, name)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(
            dir,
            name,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?);
        if let Kind::File { size, .. } = entry.kind {
            file.set_len(size)?;
        }
        Ok(file)
    }

    fn make_link(
        &self,
        at: &mut Way,
        index: usize,
        entry: &Entry,
        (first, path): (usize, &[u8]),
    ) -> io::Result<()> {
        let mut from = Way::default();
        let Some((old_dir, old_name)) = self.place(&mut from, first, path)? else {
            return Err(Errno::ISDIR.into());
        };
        let Some((dir, name)) = self.place(at, index, entry.path.as_bytes())? else {
            return Err(Errno::ISDIR.into());
        };
        remove(dir, name)?;
        Ok(rustix::fs::linkat(
            old_dir,
            old_name,
            dir,
            name,
            AtFlags::empty(),
        )?)
    }

    fn make_special(
        &self,
        at: &mut Way,
        index: usize,
        entry: &Entry,
        make: impl FnOnce(&OwnedFd, &[u8]) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        let Some((dir, name)) = self.place(at, index, entry.path.as_bytes())? else {
            return Err(Errno::ISDIR.into());
        };
        remove(dir, name)?;
        make(dir, name)?;
        Ok(rustix::fs::utimensat(
            dir,
            name,
            &times(entry),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// The directory that was last gone to.
#[derive(Default)]
pub(super) struct Way(Option<(Vec<u8>, OwnedFd)>);

/// A path without the name of its tree.
fn inner(path: &[u8]) -> Option<&[u8]> {
    path.iter()
        .position(|byte| *byte == b'/')
        .map(|slash| &path[slash + 1..])
}

/// Makes room for a new file. A directory in its place is somebody else's and stays, as an error.
fn remove(dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file or directory its attributes, mode and time, in this order: a read-only one takes no attributes.
pub(super) fn finish(file: &File, entry: &Entry) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        match rustix::fs::fsetxattr(file, name.as_bytes(), value.as_bytes(), XattrFlags::empty()) {
            // Not every file system has them, and few programs miss them.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NOSPC) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    Ok(rustix::fs::futimens(file, &times(entry))?)
}

fn times(entry: &Entry) -> Timestamps {
    let last_modification = Timespec {
        tv_sec: entry.mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: entry.mtime_ns.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification,
    }
}
