//! What a manifest must hold to before a single byte is written because of it.

use std::collections::{BTreeSet, HashMap};

use super::{Contents, Entry, Head, Kind, MANIFEST, Manifest, ManifestError, Name};
use crate::{frame, layout};

/// The most that a reader takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the manifest.
    pub manifest: u64,
    /// Bytes of one frame, each of which is held in memory.
    pub frame: u32,
}

impl Default for Limits {
    /// 1 TiB in a million entries: more than any scratch directory, and a bound all the same. The caller knows the slot's
    /// disk and should say so.
    fn default() -> Self {
        Self {
            bytes: 1 << 40,
            entries: 1 << 20,
            manifest: 64 << 20,
            frame: 4 << 20,
        }
    }
}

/// The longest path and link target, as the kernel has it.
const PATH_MAX: usize = 4095;
/// The longest part of a path, as the kernel has it.
const NAME_MAX: usize = 255;
/// The deepest directory. Each level is one system call for each file in it.
const DEPTH_MAX: usize = 128;
/// The longest word in a fingerprint, and the most of them.
const WORD_MAX: usize = 40;
const WORDS_MAX: usize = 400;
/// The kernel's own bound for the list of a file's attributes.
const XATTRS_MAX: usize = 64 << 10;

impl Manifest {
    /// Checks all that can be checked without the other bytes.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ManifestError> {
        self.head.check()?;
        self.contents.check(limits)
    }
}

impl Head {
    /// A fingerprint goes into ads, logs and terminals as it is, so it is made of words.
    fn check(&self) -> Result<(), ManifestError> {
        let print = &self.fingerprint;
        let word = |word: &String| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            (1..=WORD_MAX).contains(&word.len()) && word.bytes().all(plain)
        };
        let words = |words: &BTreeSet<String>| words.len() <= WORDS_MAX && words.iter().all(word);
        // "Genuine  RDC" is a maker, too.
        let vendor = print.cpu_vendor.len() <= WORD_MAX
            && print
                .cpu_vendor
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if vendor && words(&print.cpu_features) && words(&print.abilities) {
            Ok(())
        } else {
            Err(ManifestError::Contradiction(
                "the fingerprint is not made of words",
            ))
        }
    }
}

impl Contents {
    fn check(&self, limits: &Limits) -> Result<(), ManifestError> {
        within("entries", self.entries.len() as u64, limits.entries)?;
        self.check_entries(limits)?;
        self.check_frames(limits)
    }

    fn check_entries(&self, limits: &Limits) -> Result<(), ManifestError> {
        let mut seen: HashMap<&Name, &Kind> = HashMap::with_capacity(self.entries.len());
        let mut bytes = 0u64;
        for entry in &self.entries {
            check_path(&entry.path)?;
            if let Some((parent, _)) = split(&entry.path) {
                // Every way to an entry is made of directories of the archive itself: none leads through a link.
                if !matches!(seen.get(&parent), Some(Kind::Dir)) {
                    return Err(unsafe_path(
                        &entry.path,
                        "its parent is no directory of the archive",
                    ));
                }
            } else if entry.kind != Kind::Dir {
                return Err(unsafe_path(
                    &entry.path,
                    "a tree's root must be a directory",
                ));
            }
            if entry.mode & !0o1777 != 0 {
                return Err(ManifestError::Contradiction(
                    "a mode has more than permission bits",
                ));
            }
            check_xattrs(entry)?;
            match &entry.kind {
                Kind::File { size, extents } => {
                    check_extents(*size, extents.as_deref())?;
                    within("bytes in one file", *size, i64::MAX as u64)?;
                    bytes = bytes.saturating_add(*size);
                    within("bytes", bytes, limits.bytes)?;
                }
                Kind::Symlink { target } => check_target(&entry.path, target)?,
                Kind::Link { to } => {
                    if !matches!(seen.get(to), Some(Kind::File { .. })) {
                        return Err(unsafe_path(
                            &entry.path,
                            "it is a link to what is no earlier file of the archive",
                        ));
                    }
                }
                Kind::Dir | Kind::Fifo => {}
            }
            if seen.insert(&entry.path, &entry.kind).is_some() {
                return Err(unsafe_path(&entry.path, "it is there twice"));
            }
        }
        Ok(())
    }

    fn check_frames(&self, limits: &Limits) -> Result<(), ManifestError> {
        let mut raw = 0u64;
        for frame in &self.frames {
            within("bytes in one frame", frame.raw.into(), limits.frame.into())?;
            if frame.raw == 0
                || frame.packed == 0
                || frame.packed as usize > frame::bound(frame.raw as usize)
            {
                return Err(ManifestError::Contradiction(
                    "a frame has an impossible size",
                ));
            }
            raw += u64::from(frame.raw);
        }
        if raw != layout::length(&self.entries) {
            return Err(ManifestError::Contradiction(
                "the frames do not make up the files",
            ));
        }
        Ok(())
    }
}

/// A path's directory and last part.
pub(crate) fn split(path: &Name) -> Option<(Name, &[u8])> {
    let bytes = path.as_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/')?;
    Some((Name::from(bytes[..slash].to_vec()), &bytes[slash + 1..]))
}

fn within(what: &'static str, found: u64, allowed: u64) -> Result<(), ManifestError> {
    if found > allowed {
        Err(ManifestError::TooMuch {
            what,
            found,
            allowed,
        })
    } else {
        Ok(())
    }
}

fn unsafe_path(path: &Name, why: &'static str) -> ManifestError {
    // The path goes into logs: as long as it is useful there.
    let path = Name::from(path.as_bytes()[..path.as_bytes().len().min(200)].to_vec());
    ManifestError::UnsafePath { path, why }
}

fn check_path(path: &Name) -> Result<(), ManifestError> {
    let bytes = path.as_bytes();
    if bytes.len() > PATH_MAX {
        return Err(unsafe_path(path, "it is too long"));
    }
    if bytes.contains(&0) {
        return Err(unsafe_path(path, "it holds a zero byte"));
    }
    if bytes == MANIFEST.as_bytes() {
        return Err(unsafe_path(path, "it is the manifest's own"));
    }
    if bytes.starts_with(b"/") {
        return Err(unsafe_path(path, "it is absolute"));
    }
    let mut depth = 0;
    for part in bytes.split(|byte| *byte == b'/') {
        depth += 1;
        if part.is_empty() || part == b"." || part == b".." {
            return Err(unsafe_path(path, "it has an empty part, . or .."));
        }
        if part.len() > NAME_MAX || depth > DEPTH_MAX {
            return Err(unsafe_path(path, "it is too long"));
        }
    }
    Ok(())
}

fn check_target(path: &Name, target: &Name) -> Result<(), ManifestError> {
    let bytes = target.as_bytes();
    if bytes.is_empty() || bytes.len() > PATH_MAX || bytes.contains(&0) {
        return Err(unsafe_path(
            path,
            "it is a link to nothing that can be named",
        ));
    }
    Ok(())
}

fn check_xattrs(entry: &Entry) -> Result<(), ManifestError> {
    let mut bytes = 0;
    for (name, value) in &entry.xattrs {
        bytes += name.as_bytes().len() + value.as_bytes().len();
        let name = name.as_bytes();
        if !name.starts_with(b"user.")
            || name.len() > NAME_MAX
            || name.contains(&0)
            || name.contains(&b'=')
        {
            return Err(ManifestError::Contradiction(
                "an extended attribute is not of the user's name space",
            ));
        }
    }
    if bytes > XATTRS_MAX {
        return Err(ManifestError::Contradiction(
            "a file has more extended attributes than a kernel allows",
        ));
    }
    Ok(())
}

fn check_extents(size: u64, extents: Option<&[(u64, u64)]>) -> Result<(), ManifestError> {
    let mut end = 0;
    for (offset, length) in extents.unwrap_or_default() {
        let next = offset.checked_add(*length).filter(|next| *next <= size);
        match next {
            Some(next) if *offset >= end && *length > 0 => end = next,
            _ => {
                return Err(ManifestError::Contradiction(
                    "the parts of a sparse file are not in order",
                ));
            }
        }
    }
    Ok(())
}
