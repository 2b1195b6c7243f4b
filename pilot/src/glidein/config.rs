//! `glidein_config`: a key, one space, a value; the last line of a key counts.
//!
//! Written as its shell functions do, with their lock (a symbolic link beside it
//! and the holder's pid), because other scripts may write at the same time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The shell functions cut a line here, silently.
const LINE_LIMIT: usize = 4096;

/// Seconds until a dead holder's lock is broken, and until nobody waits longer:
/// the shell functions' own.
const UNLOCK_TIMEOUT: u32 = 60;
const LOCK_TIMEOUT: u32 = 300;

/// The file as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    path: PathBuf,
    text: String,
}

impl Config {
    pub(crate) fn read(path: &Path) -> Result<Config> {
        let text = read(path)?;
        Ok(Config {
            path: path.to_owned(),
            text,
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        last(&self.text, key).filter(|value| !value.is_empty())
    }

    /// Replaces or adds lines; what is there already is not written again.
    pub(crate) fn add<'a>(&self, lines: impl Iterator<Item = (&'a str, String)>) -> Result<()> {
        let lock = Lock::take(&self.path)?;
        let mut text = read(&self.path)?;
        let mut history = String::new();
        for (key, value) in lines {
            let line = format!("{key} {value}");
            if line.len() >= LINE_LIMIT {
                bail!("{key} is too long for glidein_config");
            }
            if last(&text, key) == Some(value.as_str()) {
                continue;
            }
            text = text
                .lines()
                .filter(|line| line.split(' ').next() != Some(key))
                .map(|line| format!("{line}\n"))
                .collect();
            text += &line;
            text.push('\n');
            history += &format!("REG{} {line}\n", std::process::id());
        }
        if !history.is_empty() {
            replace(&self.path, text.as_bytes())
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            // For those who look for the cause of trouble, as theirs do it.
            let log = beside(&self.path, "history");
            let _ = OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .and_then(|mut log| log.write_all(history.as_bytes()));
        }
        drop(lock);
        Ok(())
    }
}

/// A temporary file and a rename: readers see the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, &format!("{}.tmp", std::process::id()));
    let written = File::create(&new).and_then(|mut file| {
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(found, _)| *found == key)
        .map(|(_, value)| value)
        .next_back()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Theirs: `ln -s FILE FILE.lock`, and the holder's pid in FILE.pid.
struct Lock {
    link: PathBuf,
    pid: PathBuf,
    trash: PathBuf,
}

impl Lock {
    fn take(path: &Path) -> Result<Lock> {
        let lock = Lock {
            link: beside(path, "lock"),
            pid: beside(path, "pid"),
            trash: beside(path, "deleteme"),
        };
        let mut dead_for = 0;
        for _ in 0..LOCK_TIMEOUT {
            match symlink(path, &lock.link) {
                Ok(()) => {
                    fs::write(&lock.pid, format!("{}\n", std::process::id()))
                        .context("cannot note who holds the lock of glidein_config")?;
                    return Ok(lock);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    // Nobody is to break a lock that is not ours.
                    std::mem::forget(lock);
                    return Err(error).context("cannot lock glidein_config");
                }
            }
            let holder = fs::read_to_string(&lock.pid).unwrap_or_default();
            let holder = holder.trim();
            let dead = !holder.is_empty() && !Path::new("/proc").join(holder).exists();
            dead_for = if dead { dead_for + 1 } else { 0 };
            if dead_for > UNLOCK_TIMEOUT {
                lock.open();
                dead_for = 0;
            }
            thread::sleep(Duration::from_secs(1));
        }
        std::mem::forget(lock);
        bail!("another script holds the lock of glidein_config for {LOCK_TIMEOUT} s")
    }

    fn open(&self) {
        let _ = fs::remove_file(&self.pid);
        let _ = fs::rename(&self.link, &self.trash);
        let _ = fs::remove_file(&self.trash);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_key_counts_and_adding_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("glidein_config");
        fs::write(&path, "A 1\nHasCRIUx 9\nA 2 3\nHasCRIU False\n").unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.get("A"), Some("2 3"));
        assert_eq!(config.get("HasCRIUx"), Some("9"));
        for _ in 0..2 {
            config
                .add([("HasCRIU", "True".to_owned())].into_iter())
                .unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "A 1\nHasCRIUx 9\nA 2 3\nHasCRIU True\n");
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["glidein_config", "glidein_config.history"]);
        let history = fs::read_to_string(dir.path().join("glidein_config.history")).unwrap();
        assert_eq!(history.lines().count(), 1);
    }
}
