//! A real archive with changes anywhere: refused, or unpacked and nothing written outside. Run it for a minute with
//! `cargo +nightly fuzz run archive -- -max_total_time=60` in this directory's parent.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use file_transfer_plugin::manifest::Limits;
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::unpack::Archive;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/archive/forge.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod forge;

/// Bytes put in the place of others.
#[derive(Arbitrary, Debug)]
struct Change {
    at: u16,
    remove: u8,
    insert: Vec<u8>,
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        let at = usize::from(self.at) % (bytes.len() + 1);
        let end = (at + usize::from(self.remove)).min(bytes.len());
        bytes.splice(at..end, self.insert.iter().copied());
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Whether it is an archive of the first format.
    old: bool,
    /// Whether the frames get names that fit, so that they are opened.
    named: bool,
    /// Changes of the manifest's text, whose frame is made anew.
    manifest: Vec<Change>,
    /// Changes of the frames.
    body: Vec<Change>,
    /// Changes of the archive as a whole.
    whole: Vec<Change>,
}

struct Real {
    json: Vec<u8>,
    body: Vec<u8>,
}

impl Real {
    fn of(archive: &[u8]) -> Self {
        let parts = forge::Parts::of(archive);
        Self {
            json: serde_json::to_vec(&parts.manifest).expect("it was JSON"),
            body: parts.body,
        }
    }
}

static REAL: LazyLock<[Real; 2]> = LazyLock::new(|| {
    [
        Real::of(include_bytes!("../../tests/fixtures/v2.criu")),
        Real::of(include_bytes!("../../tests/fixtures/v1.criu")),
    ]
});

fuzz_target!(|input: Input| {
    let outer = tempfile::tempdir_in("/dev/shm").expect("there is memory");
    let path = outer.path().join("archive");
    let real = &REAL[usize::from(input.old)];
    let (mut json, mut body) = (real.json.clone(), real.body.clone());
    input.manifest.iter().for_each(|change| change.make(&mut json));
    input.body.iter().for_each(|change| change.make(&mut body));
    if input.named
        && !input.old
        && let Ok(mut manifest) = serde_json::from_slice(&json)
    {
        forge::name_frames(&mut manifest, &body);
        json = serde_json::to_vec(&manifest).expect("it was JSON");
    }
    forge::write_with(&path, &json, &body);
    if !input.whole.is_empty() {
        let mut bytes = fs::read(&path).expect("it was written");
        input.whole.iter().for_each(|change| change.make(&mut bytes));
        fs::write(&path, bytes).expect("there is memory");
    }
    let limits = Limits {
        bytes: 16 << 20,
        entries: 1000,
        manifest: 1 << 20,
        frame: 4 << 20,
    };
    let Ok(archive) = Archive::open(&path, &limits) else {
        return;
    };
    let verified = archive.verify(&Silent);
    let inside = outer.path().join("inside");
    let trees = ["images", "srv"].map(|name| (name, inside.join(name)));
    let trees: Vec<(&str, &Path)> = trees.iter().map(|(name, dir)| (*name, dir.as_path())).collect();
    let unpacked = archive.unpack(&trees, &Silent);
    assert!(verified.is_ok() || input.manifest.len() + input.body.len() + input.whole.len() > 0);
    let _ = unpacked;
    let mut names: Vec<_> = fs::read_dir(outer.path())
        .expect("it is ours")
        .map(|entry| entry.expect("it is ours").file_name())
        .collect();
    names.sort();
    assert!(names == ["archive"] || names == ["archive", "inside"], "{names:?}");
});
