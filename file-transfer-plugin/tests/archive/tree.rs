//! Small trees on disk, and a picture of one that two trees can be compared by.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use file_transfer_plugin::fingerprint::{Fingerprint, Kernel, Version};
use file_transfer_plugin::manifest::{Head, Resume};

/// What matters of each thing in a directory.
pub(crate) fn picture(dir: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    look(dir, dir, &mut first, &mut all);
    all
}

fn look(
    root: &Path,
    path: &Path,
    first: &mut BTreeMap<u64, String>,
    all: &mut BTreeMap<Vec<u8>, String>,
) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let name = path
        .strip_prefix(root)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    if kind.is_socket() {
        return;
    }
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("-> {:?}", fs::read_link(path).unwrap())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        let twin = first
            .entry(meta.ino())
            .or_insert_with(|| format!("{:?}", path.strip_prefix(root).unwrap()));
        let bytes = fs::read(path).unwrap();
        format!("file {} {} {twin}", bytes.len(), blake3::hash(&bytes))
    };
    let mode = if kind.is_symlink() {
        0
    } else {
        meta.mode() & 0o7777
    };
    let mut xattrs = Vec::new();
    if kind.is_file() || kind.is_dir() {
        let mut list = vec![0; 4096];
        let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
        for key in list[..len]
            .split(|byte| *byte == 0)
            .filter(|key| key.starts_with(b"user."))
        {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, key, &mut value[..]).unwrap();
            xattrs.push((key.escape_ascii().to_string(), value[..len].to_vec()));
        }
    }
    xattrs.sort();
    all.insert(
        name,
        format!(
            "{what} {mode:o} {}.{:09} {xattrs:?}",
            meta.mtime(),
            meta.mtime_nsec()
        ),
    );
    if kind.is_dir() {
        let mut children: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|child| child.unwrap().path())
            .collect();
        children.sort();
        for child in children {
            look(root, &child, first, all);
        }
    }
}

/// Some head.
pub(crate) fn head() -> Head {
    Head {
        generation: 3,
        created: 1_790_000_000,
        fingerprint: Fingerprint {
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: ["avx", "avx2", "xsave"].map(str::to_owned).into(),
            xcr0: 7,
            xsave_size: 832,
            kernel: Kernel(60118),
            criu: Version::new(4, 2, 1),
            abilities: ["timens".to_owned()].into(),
        },
        resume: Resume {
            inner_uid: 1000,
            argv: vec!["./job".into(), "ä \u{1}".into()],
            ..Resume::default()
        },
    }
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}
