//! The root that all CPUs have: our programs, CRIU's bundle, a libc, and the programs of the matrix.
//!
//! An image names the files that it has mapped; they are the same files everywhere.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::programs;
use crate::binaries;

/// Where the guest's programs are.
pub(super) const OURS: &str = "criu";
pub(super) const PROGRAMS: &str = "programs";
pub(super) const MODULES: &str = "modules";

/// Where a guest finds what jobs may expect of a machine.
const EMPTY: [&str; 7] = ["dev", "mnt", "proc", "root", "srv", "sys", "tmp"];

/// Makes a root in `dir` with nothing at all in it but what a guest needs.
pub fn bare(dir: &Path) -> Result<()> {
    for empty in EMPTY {
        fs::create_dir_all(dir.join(empty))?;
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    copy(&binaries::cpu_guest()?, &dir.join("init"))
}

/// Makes the root of the matrix in `dir`, which must not be there.
pub(super) fn make(dir: &Path, kernel: &Kernel) -> Result<()> {
    bare(dir)?;
    programs::build(&dir.join(PROGRAMS))?;
    let built = binaries::dir()?;
    binaries::bundle_criu(built)?;
    let starter = Path::new(OURS).join("criu-starter");
    copy(&built.join("criu-starter"), &dir.join(starter))?;
    let bundle = built.join("criu-bundle");
    for part in ["bin", "lib"] {
        for entry in fs::read_dir(bundle.join(part))? {
            let name = entry?.file_name();
            let to = dir.join(OURS).join("criu-bundle").join(part).join(&name);
            copy(&bundle.join(part).join(&name), &to)?;
        }
    }
    // The bundle's libc is as good a libc as any.
    let lib = bundle.join("lib");
    copy(
        &lib.join("libc.so.6"),
        &dir.join("lib/x86_64-linux-gnu/libc.so.6"),
    )?;
    let loader = "ld-linux-x86-64.so.2";
    copy(&lib.join(loader), &dir.join("lib64").join(loader))?;
    for (index, module) in kernel.modules.iter().enumerate() {
        let name = module.file_name().context("a module has a name")?;
        // Loaded in the order of their names.
        let name = format!("{index}-{}", name.to_string_lossy());
        copy(module, &dir.join(MODULES).join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file lies in a directory")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// A root as the kernel unpacks it.
pub(super) fn cpio(dir: &Path) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut todo = vec![PathBuf::new()];
    let mut number = 1;
    while let Some(path) = todo.pop() {
        let from = dir.join(&path);
        let meta = fs::symlink_metadata(&from)?;
        let contents = if meta.is_dir() {
            for entry in fs::read_dir(&from)? {
                todo.push(path.join(entry?.file_name()));
            }
            Vec::new()
        } else {
            fs::read(&from)?
        };
        let name = path.to_str().context("a name that is text")?;
        if !name.is_empty() {
            add(
                &mut archive,
                number,
                name,
                meta.permissions().mode(),
                &contents,
            )?;
            number += 1;
        }
    }
    cpio::newc::trailer(&mut archive)?;
    Ok(archive)
}

/// Files for a root, to be appended to its cpio.
pub(super) fn cpio_of(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut number = 1;
    let mut made = std::collections::BTreeSet::new();
    for (name, contents) in files {
        let mut above: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
        above.reverse();
        for dir in above.iter().filter_map(|dir| dir.to_str()) {
            if !dir.is_empty() && made.insert(dir) {
                add(&mut archive, number, dir, 0o40755, &[])?;
                number += 1;
            }
        }
        add(&mut archive, number, name, 0o100_644, contents)?;
        number += 1;
    }
    cpio::newc::trailer(&mut archive)?;
    Ok(archive)
}

fn add(archive: &mut Vec<u8>, number: u32, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
    let size = u32::try_from(contents.len())?;
    let entry = cpio::newc::Builder::new(name).ino(number).mode(mode);
    let mut writer = entry.write(archive, size);
    writer.write_all(contents)?;
    writer.finish()?;
    Ok(())
}
