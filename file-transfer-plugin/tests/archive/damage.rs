//! What is damaged is refused by name, without a panic.

use std::fs;
use std::path::Path;

use file_transfer_plugin::manifest::{Digest, Limits, ManifestError};
use file_transfer_plugin::monitor::{Monitor, Progress, Silent};
use file_transfer_plugin::pack::{Options, PackError, Tree, pack};
use file_transfer_plugin::unpack::{Archive, ArchiveError};
use proptest::prelude::*;
use serde_json::Value;

use crate::forge::{Parts, write_with};
use crate::roundtrip::pack_one;
use crate::tree::{head, noise};

/// A directory with an archive in it, of several frames.
pub(crate) struct Bench(pub(crate) tempfile::TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let dir = bench.at("srv");
        fs::create_dir_all(dir.join("dir")).unwrap();
        fs::write(dir.join("dir/small"), b"small").unwrap();
        fs::write(dir.join("first"), noise(70_000, 1)).unwrap();
        fs::write(dir.join("second"), noise(70_000, 2)).unwrap();
        pack_one(
            &dir,
            &bench.at("good"),
            &Options {
                sync: false,
                ..Options::default()
            },
        );
        bench
    }

    pub(crate) fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn good(&self) -> Vec<u8> {
        fs::read(self.at("good")).unwrap()
    }

    /// Whatever reading all of an archive with these bytes gives.
    fn read(&self, bytes: &[u8]) -> Result<(), ArchiveError> {
        fs::write(self.at("bad"), bytes).unwrap();
        all(&self.at("bad"), &self.at("out"))
    }

    /// What comes of an archive whose manifest was changed.
    pub(crate) fn forged(&self, change: impl FnOnce(&mut Value)) -> ArchiveError {
        let mut parts = Parts::of(&self.good());
        change(&mut parts.manifest);
        parts.write(&self.at("bad"));
        all(&self.at("bad"), &self.at("out")).unwrap_err()
    }

    /// The same, for a change of the list of entries.
    pub(crate) fn with_entries(&self, change: impl FnOnce(&mut Vec<Value>)) -> ArchiveError {
        self.forged(|manifest| change(manifest["contents"]["entries"].as_array_mut().unwrap()))
    }
}

/// Opens, verifies and unpacks.
pub(crate) fn all(archive: &Path, out: &Path) -> Result<(), ArchiveError> {
    let archive = Archive::open(
        archive,
        &Limits {
            bytes: 1 << 30,
            ..Limits::default()
        },
    )?;
    archive.unpack(&[("srv", out)], &Silent)?;
    archive.verify(&Silent)
}

/// An error with all that led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| {
        format!("{error}: {}", chain(source))
    })
}

#[test]
fn an_archive_that_was_cut_off_anywhere_is_refused() {
    let bench = Bench::new();
    let good = bench.good();
    bench.read(&good).unwrap();
    for len in (0..good.len()).filter(|len| len % 997 == 0 || *len < 700 || *len > good.len() - 100)
    {
        let error = bench.read(&good[..len]).unwrap_err();
        let named = matches!(
            error,
            ArchiveError::CutOff { .. } | ArchiveError::NotAnArchive { .. }
        );
        assert!(named, "{len}: {error}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let bench = Bench::new();
    let good = bench.good();
    for at in (0..good.len()).filter(|at| {
        at % 487 == 0 || *at < 200 || (*at < 2000 && at % 9 == 0) || *at > good.len() - 50
    }) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        // Not every bit of a zstd frame means something: one that changes nothing is no damage.
        if let Ok(()) = bench.read(&bad) {
            let (was, is) = (Parts::of(&good), Parts::of(&bad));
            assert_eq!(was.manifest, is.manifest, "byte {at}");
        }
    }
}

#[test]
fn frames_that_are_missing_doubled_or_swapped_are_found() {
    let bench = Bench::new();
    let parts = Parts::of(&bench.good());
    let frames = parts.frames();
    assert!(frames.len() >= 4);
    let try_frames = |frames: Vec<Vec<u8>>| {
        let parts = Parts {
            body: frames.concat(),
            ..parts.clone()
        };
        parts.write(&bench.at("bad"));
        all(&bench.at("bad"), &bench.at("out")).unwrap_err()
    };
    for index in 0..frames.len() {
        let mut less = frames.clone();
        less.remove(index);
        assert!(matches!(try_frames(less), ArchiveError::CutOff { .. }));
        let mut more = frames.clone();
        more.push(frames[index].clone());
        assert!(matches!(
            try_frames(more),
            ArchiveError::TrailingData { .. }
        ));
    }
    let same: Vec<usize> = (0..frames.len())
        .filter(|index| frames[*index].len() > 70_000)
        .collect();
    let mut swapped = frames.clone();
    swapped.swap(same[0], same[1]);
    assert!(matches!(try_frames(swapped), ArchiveError::Damaged { .. }));
}

#[test]
fn data_after_the_end_is_refused() {
    let bench = Bench::new();
    let error = bench.read(&[bench.good(), vec![0]].concat()).unwrap_err();
    assert!(
        matches!(error, ArchiveError::TrailingData { bytes: 1, .. }),
        "{error}"
    );
}

#[test]
fn data_in_the_gap_after_the_manifest_is_refused() {
    let bench = Bench::new();
    let mut bad = bench.good();
    let front = zstd::zstd_safe::find_frame_compressed_size(&bad).unwrap();
    bad[front + 8] = 1;
    let error = bench.read(&bad).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the gap after its manifest is not empty"),
        "{error}"
    );
}

#[test]
fn a_format_of_the_future_is_named_before_anything_else_is_read() {
    let bench = Bench::new();
    write_with(
        &bench.at("bad"),
        br#"{"contents": 7, "format": 99, "head": "new"}"#,
        b"",
    );
    let error = all(&bench.at("bad"), &bench.at("out")).unwrap_err();
    assert!(
        chain(&error).ends_with("the archive has format 99, this program reads up to 2"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_manifest_that_is_no_json_or_too_deep_is_refused() {
    let bench = Bench::new();
    let deep = format!(
        "{{\"format\": 1, \"x\": {}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for text in [
        "",
        "{",
        "[]",
        "{\"format\": -1}",
        "{\"format\": 1}",
        "\u{0}",
        &deep,
    ] {
        write_with(&bench.at("bad"), text.as_bytes(), b"");
        let error = all(&bench.at("bad"), &bench.at("out")).unwrap_err();
        let ArchiveError::Manifest { source, .. } = error else {
            panic!("{error}")
        };
        assert!(matches!(source, ManifestError::Unreadable(_)), "{source}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let bench = Bench::new();
    let tar = zstd::bulk::compress(&[0; 4096], 1).unwrap();
    let unsized_frame = zstd::stream::encode_all(&[7u8; 100_000][..], 1).unwrap();
    for bytes in [
        b"".as_slice(),
        b"no",
        &[0x28, 0xb5, 0x2f, 0xfd],
        &[0; 4096],
        &tar,
        &unsized_frame,
    ] {
        let error = bench.read(bytes).unwrap_err();
        assert!(
            matches!(
                error,
                ArchiveError::NotAnArchive { .. } | ArchiveError::CutOff { .. }
            ),
            "{error}"
        );
    }
    let error = Archive::open(bench.0.path(), &Limits::default()).unwrap_err();
    assert!(
        matches!(error, ArchiveError::NotAnArchive { .. }),
        "{error}"
    );
}

#[test]
fn another_archive_than_the_one_meant_is_refused() {
    let bench = Bench::new();
    let archive = Archive::open(&bench.at("good"), &Limits::default()).unwrap();
    let error = archive.expect(Digest::of(b"another")).unwrap_err();
    assert!(
        matches!(error, ArchiveError::OtherArchive { .. }),
        "{error}"
    );
}

struct Impatient;

impl Monitor for Impatient {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn work_that_is_cancelled_leaves_nothing() {
    let bench = Bench::new();
    let tree = bench.at("srv");
    let trees = [Tree {
        prefix: "srv",
        dir: &tree,
    }];
    let error = pack(
        &trees,
        head(),
        &bench.at("new"),
        &Options::default(),
        &Impatient,
    )
    .unwrap_err();
    assert!(matches!(error, PackError::Cancelled), "{error}");
    assert_eq!(fs::read_dir(bench.0.path()).unwrap().count(), 2);
    let archive = Archive::open(&bench.at("good"), &Limits::default()).unwrap();
    let error = archive.verify(&Impatient).unwrap_err();
    assert!(matches!(error, ArchiveError::Cancelled), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_make_a_reader_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        inside in any::<bool>(),
    ) {
        let bench = Bench::new();
        let mut bytes = bench.good();
        if inside {
            // Damage that gets past zstd's checksum: the manifest's own text.
            let parts = Parts::of(&bytes);
            let mut text = serde_json::to_vec(&parts.manifest).unwrap();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            write_with(&bench.at("bad"), &text, &parts.body);
        } else {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let len = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
            fs::write(bench.at("bad"), &bytes[..len]).unwrap();
        }
        let _ = all(&bench.at("bad"), &bench.at("out"));
        let mut names: Vec<_> = fs::read_dir(bench.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "out");
        prop_assert_eq!(names.len(), 3);
    }
}
