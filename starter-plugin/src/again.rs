//! What we tell ourselves when we end so that the starter takes an image home and starts us again in this place.
//!
//! An exit with the job's checkpoint code, before any soft kill, is HTCondor's own way to bring files to the access
//! point without giving the slot up: the starter sends them and starts the job again in the same directory. Of what
//! happened in between it says nothing, so a note is left in our directory, which is never sent.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use file_transfer_plugin::rig;
use serde::{Deserialize, Serialize};

use crate::plan::Rates;
use crate::sandbox::WORK;

const FILE: &str = "again.json";

/// It is a few hundred bytes.
const LIMIT: u64 = 64 << 10;

/// Digests that are kept: as many as fit into an attribute's thousand bytes.
const MOST_DIGESTS: usize = 8;

/// The note.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Notes {
    /// When the job stopped running, in seconds since 1970.
    pub(crate) stopped: f64,
    /// It stopped for the slot's announced end.
    pub(crate) last: bool,
    /// Images that the access point may have: the one that it gave this slot, then those that were sent since.
    pub(crate) digests: Vec<String>,
    /// Seconds for which this slot's images kept the job from running.
    pub(crate) frozen: f64,
    /// The last image's size and what making it took.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// How fast this slot is.
    pub(crate) rates: Rates,
}

impl Notes {
    /// Reads and removes the note of a predecessor in `scratch`.
    pub(crate) fn take(scratch: &Path) -> Option<Notes> {
        let path = scratch.join(WORK).join(FILE);
        let meta = fs::symlink_metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > LIMIT {
            return None;
        }
        let bytes = fs::read(&path).ok()?;
        fs::remove_file(&path).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Leaves it in our empty directory.
    pub(crate) fn leave(&self, scratch: &Path) -> std::io::Result<()> {
        let dir = scratch.join(WORK);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(FILE), serde_json::to_vec(self)?)
    }

    /// One more image that the access point may have. The first stays: it is the one that is there for certain.
    pub(crate) fn sent(&mut self, digest: &str) {
        if self.digests.len() >= MOST_DIGESTS {
            self.digests.remove(1);
        }
        self.digests.push(digest.to_owned());
    }

    /// An image that is at home for certain, and stays there.
    pub(crate) fn at_home(&mut self, digest: &str) {
        if !self.digests.iter().any(|known| known == digest) {
            self.digests.insert(0, digest.to_owned());
        }
    }

    /// The job runs again: how long it did not, and with that how fast the way home is.
    pub(crate) fn running_again(&mut self, now: f64) -> Duration {
        /// Below this, a transfer is HTCondor's own bookkeeping.
        const TELLING: u64 = 32 << 20;
        let away = (now - self.stopped).clamp(0.0, 1e6);
        self.frozen += away;
        let sending = away - self.seconds;
        if self.bytes > TELLING && sending > 0.0 {
            self.rates.spool = self.bytes as f64 / sending;
        }
        Duration::from_secs_f64(away)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    rig::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Notes::take(dir.path()), None);
        let notes = Notes {
            last: true,
            digests: vec!["a".into()],
            ..Notes::default()
        };
        notes.leave(dir.path()).unwrap();
        assert_eq!(Notes::take(dir.path()), Some(notes));
        assert_eq!(Notes::take(dir.path()), None);
    }

    #[test]
    fn a_note_of_somebody_elses_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(WORK)).unwrap();
        let path = dir.path().join(WORK).join(FILE);
        fs::write(&path, vec![b'['; 1 << 20]).unwrap();
        assert_eq!(Notes::take(dir.path()), None);
        fs::write(&path, "[true]").unwrap();
        assert_eq!(Notes::take(dir.path()), None);
    }

    #[test]
    fn the_image_that_came_with_the_job_is_never_forgotten() {
        let mut notes = Notes::default();
        for number in 0..20 {
            notes.sent(&number.to_string());
        }
        let expected = ["0", "13", "14", "15", "16", "17", "18", "19"];
        assert_eq!(notes.digests, expected);
    }

    #[test]
    fn the_way_home_is_measured_by_what_is_left_of_the_time() {
        let mut notes = Notes {
            stopped: 1000.0,
            bytes: 100 << 20,
            seconds: 4.0,
            ..Notes::default()
        };
        assert_eq!(notes.running_again(1014.0), Duration::from_secs(14));
        assert_eq!(notes.frozen, 14.0);
        assert_eq!(notes.rates.spool, f64::from(10 << 20));
    }
}
