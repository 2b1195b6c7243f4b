//! A CRIU of the node's, made independent of the node's libraries.
//!
//! Where an image's libraries are laid over the slot's, the slot's own CRIU would be started with the image's libc. So before
//! that it is copied with all that it loads, into the shape of a bundle.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::command::{Criu, Layout, open_dir};

/// The loader's name in a bundle.
pub(super) const LOADER: &str = "ld-linux-x86-64.so.2";

impl Criu {
    /// This CRIU, or a copy in `dir` that needs nothing of the node's.
    pub(crate) fn alone(&self, dir: &Path) -> io::Result<Option<Criu>> {
        if self.layout == Layout::Bundle {
            return Ok(None);
        }
        let needed = self.needed()?;
        // A static program.
        if needed.is_empty() {
            return Ok(None);
        }
        let (bin, lib) = (dir.join("bin"), dir.join("lib"));
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(&lib)?;
        fs::copy(self.program(), bin.join("criu"))?;
        for library in needed {
            let name = library.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            fs::copy(&library, lib.join(name))?;
        }
        Ok(Some(Criu {
            dir: open_dir(dir)?,
            layout: Layout::Bundle,
            version: self.version.clone(),
        }))
    }

    /// The libraries that it loads, its loader among them, as the loader itself lists them.
    fn needed(&self) -> io::Result<Vec<PathBuf>> {
        let output = self
            .command()?
            .env("LD_TRACE_LOADED_OBJECTS", "1")
            .stdout(Stdio::piped())
            .output()?;
        Ok(listed(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The paths in a loader's list.
fn listed(text: &str) -> Vec<PathBuf> {
    let lines = text.lines().filter(|line| line.contains("(0x"));
    let words = lines.flat_map(str::split_whitespace);
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaders_list_has_libraries_and_the_loader() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f1)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(listed(text), expected.map(PathBuf::from));
        assert!(listed("Usage:\n  criu dump -t PID -D /dir\n").is_empty());
    }
}
