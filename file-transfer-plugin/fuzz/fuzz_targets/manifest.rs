//! Any text as a manifest: read or refused, and what was read is written and read as the same. Run it for a minute with
//! `cargo +nightly fuzz run manifest -- -max_total_time=60` in this directory's parent.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use file_transfer_plugin::manifest::{Digest, Limits, Manifest};
use file_transfer_plugin::unpack::Archive;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/archive/forge.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod forge;

static DIR: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("there is memory"));

fuzz_target!(|json: &[u8]| {
    if let Ok(manifest) = Manifest::from_json(json) {
        let again = Manifest::from_json(&manifest.to_json()).expect("what was written is read");
        assert_eq!(again, manifest);
        let _ = format!("{manifest:?}");
    }
    // In an archive it is checked, too: each claim before a byte is allocated because of it.
    let path: PathBuf = DIR.path().join("archive");
    forge::write_with(&path, json, b"");
    let limits = Limits {
        bytes: 1 << 20,
        entries: 1000,
        manifest: 1 << 20,
        frame: 1 << 20,
    };
    if let Ok(archive) = Archive::open(&path, &limits) {
        assert_eq!(archive.digest(), Digest::of(json));
    }
    fs::remove_file(path).expect("it was written");
});
