//! Room: quotas and the disk, asked before anything is written.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::workers::lock;

/// How long an answer of the file system is believed. What we write ourselves meanwhile is counted.
const FRESH: Duration = Duration::from_secs(1);

/// Why something is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The caller's own quota.
    #[error("your quota of {quota} bytes has no room for {bytes} more, {used} are used")]
    Owner {
        /// The quota.
        quota: u64,
        /// What is used of it.
        used: u64,
        /// What was to be written.
        bytes: u64,
    },
    /// The store's. What others use is not the caller's business.
    #[error("the store's quota has no room for {bytes} bytes")]
    All {
        /// What was to be written.
        bytes: u64,
    },
    /// The disk's.
    #[error("the store's disk has no room for {bytes} bytes")]
    Disk {
        /// What was to be written.
        bytes: u64,
    },
}

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Bytes of one owner.
    pub owner: u64,
    /// Bytes of all owners.
    pub all: u64,
    /// Bytes of the disk that stay free.
    pub low_water: u64,
}

/// The disk that a directory lies on.
#[derive(Debug)]
pub(super) struct Disk {
    path: Option<PathBuf>,
    last: Mutex<Option<Free>>,
}

#[derive(Clone, Copy, Debug)]
struct Free {
    at: Instant,
    bytes: u64,
    /// Written by us since.
    since: u64,
}

impl Disk {
    /// The disk of a directory, or none.
    pub(super) fn of(path: Option<PathBuf>) -> Self {
        Self {
            path,
            last: Mutex::new(None),
        }
    }

    /// Bytes that are free, if there is a disk and it says so.
    pub(super) fn free(&self) -> Option<u64> {
        let path = self.path.as_ref()?;
        let mut last = lock(&self.last);
        if let Some(free) = last.filter(|free| free.at.elapsed() < FRESH) {
            return Some(free.bytes.saturating_sub(free.since));
        }
        // A file system that does not answer gets no say: a write to it fails by itself.
        let stat = rustix::fs::statvfs(path).ok()?;
        let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        *last = Some(Free {
            at: Instant::now(),
            bytes,
            since: 0,
        });
        Some(bytes)
    }

    /// Something was removed, or nothing is to be believed for another reason.
    pub(super) fn forget(&self) {
        *lock(&self.last) = None;
    }

    /// `bytes` were written.
    pub(super) fn wrote(&self, bytes: u64) {
        if let Some(free) = lock(&self.last).as_mut() {
            free.since += bytes;
        }
    }
}
