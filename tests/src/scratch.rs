//! A directory for a while.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A directory that goes when it is done with.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it where the system has such; `name` says whose it is.
    pub fn new(name: &str) -> Result<Scratch> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("criu-tests-{name}-{}.{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in the system's directory for such, which is emptied anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}
