//! A file that is read again when it has changed: tokens, keys and certificates are replaced beneath a store that runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::StoreError;
use crate::workers::lock;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// No such file is longer.
const MOST: u64 = 4 << 20;

/// What a file says, as of a second ago at most.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    parse: fn(&[Vec<u8>]) -> Result<T, String>,
    last: Mutex<Last<T>>,
}

struct Last<T> {
    looked: Instant,
    stamps: Vec<Option<Stamp>>,
    value: Arc<T>,
}

/// What changes when a file does.
type Stamp = (u64, i64, i64, u64);

impl<T> Watched<T> {
    /// Reads files that are one value together. That they cannot be read is an error now and a log line later.
    pub(super) fn open(
        paths: &[&Path],
        parse: fn(&[Vec<u8>]) -> Result<T, String>,
    ) -> Result<Self, StoreError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
        let stamps = stamps(&paths);
        let value = Arc::new(read(&paths, parse)?);
        let looked = Instant::now();
        Ok(Self {
            paths,
            parse,
            last: Mutex::new(Last {
                looked,
                stamps,
                value,
            }),
        })
    }

    /// What the files say. While they make no sense, what they said before.
    pub(super) fn get(&self) -> Arc<T> {
        let mut last = lock(&self.last);
        if last.looked.elapsed() >= LOOK {
            last.looked = Instant::now();
            let stamps = stamps(&self.paths);
            if stamps != last.stamps {
                match read(&self.paths, self.parse) {
                    Ok(value) => {
                        last.value = Arc::new(value);
                        tracing::info!(path = %self.paths[0].display(), "read again");
                    }
                    // Half written, perhaps; the next stamp is another.
                    Err(error) => tracing::warn!(%error, "the old content stays in force"),
                }
                last.stamps = stamps;
            }
        }
        Arc::clone(&last.value)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
    };
    paths.iter().map(stamp).collect()
}

fn read<T>(paths: &[PathBuf], parse: fn(&[Vec<u8>]) -> Result<T, String>) -> Result<T, StoreError> {
    let mut contents = Vec::new();
    for path in paths {
        let open = |source| StoreError::Open {
            what: path.display().to_string(),
            source,
        };
        let long = fs::metadata(path).map_err(open)?.len() > MOST;
        if long {
            return Err(StoreError::Configuration {
                what: path.display().to_string(),
                why: "it is too long".into(),
            });
        }
        contents.push(fs::read(path).map_err(open)?);
    }
    parse(&contents).map_err(|why| StoreError::Configuration {
        what: paths[0].display().to_string(),
        why,
    })
}
