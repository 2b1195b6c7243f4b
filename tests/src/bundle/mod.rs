//! `criu-pilot-x86_64.tar.gz`: all that a node gets, in one file.
//!
//! The same sources and the same CRIU give the same file, bit for bit, in whatever directory it is made: names are sorted, times
//! and owners are nobody's, and the programs have no path of the machine in them.

mod licences;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};

use crate::binaries;
use crate::lock::Lock;
use crate::machine;
use crate::scratch::Scratch;

/// The directory in it.
pub const NAME: &str = "criu-pilot-x86_64";

/// What a glidein may cost to fetch, in bytes.
pub const LIMIT: u64 = 15 << 20;

const INSTALL: &str = include_str!("INSTALL");

/// 2000-01-01: extracted files of 1970 look broken to people and to some tools.
const TIME: u64 = 946_684_800;

/// The tarball of this workspace, made now.
pub fn tarball() -> Result<PathBuf> {
    let dir = machine::target_dir().join("bundle");
    fs::create_dir_all(&dir)?;
    let _lock = Lock::take(&dir.join("lock"))?;
    let file = dir.join(format!("{NAME}.tar.gz"));
    let built = binaries::dir()?;
    let bytes = pack(built, machine::workspace())?;
    let new = file.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(&new, &file)?;
    Ok(file)
}

/// The bytes of a tarball with the programs in `built`, which come from `sources`.
pub fn pack(built: &Path, sources: &Path) -> Result<Vec<u8>> {
    // Not the one beside the programs: that may be of an older root, and the licences are of this one.
    let criu = Scratch::new("criu")?;
    binaries::bundle_criu(criu.path())?;
    let mut files: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    let mut add = |name: &str, mode, bytes| files.insert(format!("{NAME}/{name}"), (mode, bytes));
    for name in binaries::NAMES {
        add(name, 0o755, stripped(&built.join(name), criu.path())?);
    }
    for part in ["bin", "lib"] {
        let dir = criu.path().join("criu-bundle").join(part);
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.ok().context("a library's name is text")?;
            add(
                &format!("criu-bundle/{part}/{name}"),
                0o755,
                read(&entry.path())?,
            );
        }
    }
    add("INSTALL", 0o644, INSTALL.into());
    add("LICENSE", 0o644, read(&sources.join("LICENSE"))?);
    for (name, text) in licences::collect(sources)? {
        add(&format!("licences/{name}"), 0o644, text);
    }
    let bytes = archive(&files)?;
    let length = bytes.len() as u64;
    ensure!(
        length <= LIMIT,
        "the bundle has {length} bytes, more than {LIMIT}"
    );
    Ok(bytes)
}

fn archive(files: &BTreeMap<String, (u32, Vec<u8>)>) -> Result<Vec<u8>> {
    let header = |kind, mode, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(TIME);
        header
    };
    let gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(gzip);
    let mut dirs: Vec<&Path> = files
        .keys()
        .flat_map(|name| Path::new(name).ancestors().skip(1))
        .filter(|dir| !dir.as_os_str().is_empty())
        .collect();
    dirs.sort_unstable();
    dirs.dedup();
    for dir in dirs {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        archive.append_data(&mut header, format!("{}/", dir.display()), &[][..])?;
    }
    for (name, (mode, bytes)) in files {
        let mut header = header(tar::EntryType::Regular, *mode, bytes.len());
        archive.append_data(&mut header, name, &bytes[..])?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// Unpacks a tarball into `dir`, as `tar -xzf` does.
pub fn unpack(tarball: &Path, dir: &Path) -> Result<()> {
    let file = fs::File::open(tarball).with_context(|| format!("open {}", tarball.display()))?;
    tar::Archive::new(flate2::read::GzDecoder::new(file))
        .unpack(dir)
        .with_context(|| format!("unpack {}", tarball.display()))
}

/// A program without its symbols, of which a node has no use and which are a tenth of it.
fn stripped(program: &Path, dir: &Path) -> Result<Vec<u8>> {
    machine::need(&[("strip", "binutils")])?;
    let to = dir.join("stripped");
    let output = Command::new("strip")
        .arg("--strip-all")
        .arg("-o")
        .args([&to, program])
        .stdin(Stdio::null())
        .output()
        .context("cannot run strip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "strip: {said}");
    read(&to)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
