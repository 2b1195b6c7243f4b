//! Where our own sentences go: a file beside the job's and, by hand, standard error.
//!
//! Under HTCondor standard error is the job's: its user counts on every byte in
//! it being the job's own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::job::Job;

static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Begins to log, to standard error where that is ours to use.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_env("CRIU_STARTER_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .with_writer(|| Both)
        .init();
}

/// From here on the file sees it too.
pub(crate) fn also_into(path: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    // A log that cannot be written is no reason not to run the job.
    if let (Ok(file), Ok(mut slot)) = (file, FILE.lock()) {
        *slot = Some(file);
    }
}

struct Both;

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Ok(mut file) = FILE.lock()
            && let Some(file) = file.as_mut()
        {
            let _ = file.write_all(bytes);
        }
        if !Job::is_under_htcondor() {
            let _ = io::stderr().write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
