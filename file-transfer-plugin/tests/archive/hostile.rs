//! What is meant to do harm is refused by name, and nothing is written outside.

use std::fs;
use std::os::unix::fs::symlink;

use file_transfer_plugin::manifest::{Limits, ManifestError};
use file_transfer_plugin::unpack::{Archive, ArchiveError};
use serde_json::{Value, json};

use crate::damage::{Bench, all, chain};
use crate::forge::{Parts, name_frames};
use crate::tree::noise;

fn file(path: &str) -> Value {
    json!({"path": path, "mode": 0o644, "mtime_ns": 0, "kind": {"file": {"size": 0}}})
}

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    let bench = Bench::new();
    let long = "srv/".to_owned() + &"x".repeat(256);
    let deep = "srv".to_owned() + &"/x".repeat(2000);
    for (path, why) in [
        ("../escaped", "empty part, . or .."),
        ("srv/../../escaped", "empty part, . or .."),
        ("srv/dir/..", "empty part, . or .."),
        ("srv/./x", "empty part, . or .."),
        ("srv//x", "empty part, . or .."),
        ("", "empty part, . or .."),
        ("srv/x/", "empty part, . or .."),
        ("/etc/x", "absolute"),
        ("srv/a\0b", "zero byte"),
        ("elsewhere/x", "no directory of the archive"),
        ("srv/first/x", "no directory of the archive"),
        ("x", "root must be a directory"),
        ("manifest.json", "the manifest's own"),
        ("srv/first", "there twice"),
        (&long, "too long"),
        (&deep, "too long"),
    ] {
        let error = chain(&bench.with_entries(|entries| entries.push(file(path))));
        assert!(
            error.contains("unsafe path") && error.contains(why),
            "{path:?}: {error}"
        );
    }
    assert!(!bench.at("../escaped").exists() && !bench.at("escaped").exists());
}

#[test]
fn nothing_is_written_through_a_link_of_the_archive() {
    let bench = Bench::new();
    let error = bench.with_entries(|entries| {
        let target = bench.at("");
        entries.push(json!({"path": "srv/link", "mode": 511, "mtime_ns": 0, "kind": {"symlink": {"target": target}}}));
        entries.push(file("srv/link/written"));
    });
    assert!(
        chain(&error).contains("no directory of the archive"),
        "{error}"
    );
    for to in ["/etc/passwd", "srv/link", "srv/later", "srv", "srv/x"] {
        let error = bench.with_entries(|entries| {
            entries.push(
                json!({"path": "srv/x", "mode": 420, "mtime_ns": 0, "kind": {"link": {"to": to}}}),
            );
            entries.push(file("srv/later"));
        });
        assert!(
            chain(&error).contains("no earlier file of the archive"),
            "{to}: {error}"
        );
    }
}

#[test]
fn nothing_is_written_through_a_link_that_was_there_before() {
    let bench = Bench::new();
    let (out, outside) = (bench.at("out"), bench.at("outside"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(outside.join("kept"), b"kept").unwrap();
    symlink(&outside, out.join("dir")).unwrap();
    let error = all(&bench.at("good"), &out).unwrap_err();
    assert!(
        matches!(error, ArchiveError::Write { ref path, .. } if path.ends_with("out/dir")),
        "{error}"
    );
    fs::remove_file(out.join("dir")).unwrap();
    symlink(outside.join("kept"), out.join("first")).unwrap();
    all(&bench.at("good"), &out).unwrap();
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(out.join("first")).unwrap(), noise(70_000, 1));
}

#[test]
fn devices_and_powers_are_refused() {
    let bench = Bench::new();
    for kind in [
        json!("device"),
        json!({"char_device": {"major": 1, "minor": 3}}),
        json!("socket"),
        json!(7),
    ] {
        let error = bench.with_entries(|entries| {
            entries.push(json!({"path": "srv/x", "mode": 420, "mtime_ns": 0, "kind": kind}));
        });
        assert!(
            matches!(
                error,
                ArchiveError::Manifest {
                    source: ManifestError::Unreadable(_),
                    ..
                }
            ),
            "{error}"
        );
    }
    for mode in [0o4755, 0o2755, 0o100644, u32::MAX] {
        let error = bench.with_entries(|entries| entries[2]["mode"] = json!(mode));
        assert!(
            chain(&error).contains("more than permission bits"),
            "{}",
            chain(&error)
        );
    }
    for name in [
        "security.capability",
        "trusted.x",
        "system.posix_acl_access",
        "user.a\0b",
        "user.a=b",
    ] {
        let error = bench.with_entries(|entries| entries[2]["xattrs"] = json!([[name, "x"]]));
        assert!(
            chain(&error).contains("not of the user's name space"),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn sizes_that_cannot_be_are_refused_before_anything_is_allocated() {
    let bench = Bench::new();
    for size in [u64::MAX, i64::MAX as u64, 1 << 31, 0] {
        bench.with_entries(|entries| entries[3]["kind"]["file"]["size"] = json!(size));
    }
    for extents in [
        json!([[0, u64::MAX]]),
        json!([[u64::MAX, 1]]),
        json!([[10, 5], [12, 5]]),
        json!([[0, 0]]),
        json!([[0, 70_001]]),
        json!([[9, 9], [0, 9]]),
        json!([]),
    ] {
        bench.with_entries(|entries| entries[3]["kind"]["file"]["extents"] = extents);
    }
    for (raw, packed) in [
        (u32::MAX, 1),
        (0, 1),
        (1, 0),
        (1, u32::MAX),
        (4 << 20, 4 << 20),
    ] {
        bench.forged(|manifest| {
            manifest["contents"]["frames"][0][1] = json!(raw);
            manifest["contents"]["frames"][0][2] = json!(packed);
        });
    }
    bench.forged(|manifest| manifest["contents"]["frames"] = json!([]));
    assert!(!bench.at("out").exists());
    // A size that rounds to the same number of blocks is not impossible, only wrong.
    let error = bench.with_entries(|entries| entries[3]["kind"]["file"]["size"] = json!(69_999));
    assert!(matches!(error, ArchiveError::Header { .. }), "{error}");
    for hash in ["", "00", &"0".repeat(64), &"F".repeat(64), &"é".repeat(32)] {
        bench.forged(|manifest| manifest["contents"]["frames"][0][0] = json!(hash));
    }
}

#[test]
fn a_frame_that_has_its_name_and_not_its_contents_is_refused() {
    let bench = Bench::new();
    let good = Parts::of(&bench.good());
    let raw = good.manifest["contents"]["frames"][0][1].as_u64().unwrap() as usize;
    let mut packer = zstd::bulk::Compressor::new(1).unwrap();
    packer.include_checksum(true).unwrap();
    let mut packed = |raw: &[u8]| packer.compress(raw).unwrap();
    let first = zstd::bulk::decompress(&good.frames()[0], raw).unwrap();
    let mut not_its_checksum = packed(&first);
    *not_its_checksum.last_mut().unwrap() ^= 1;
    for (frame, good_one) in [
        (packed(&first), true),
        (not_its_checksum, false),
        (packed(&vec![0; 64 << 20]), false),
        (packed(&first[1..]), false),
        ([packed(&first), packed(b"x")].concat(), false),
        (b"no frame".to_vec(), false),
    ] {
        let mut parts = good.clone();
        let mut frames = parts.frames();
        parts.manifest["contents"]["frames"][0][2] = json!(frame.len());
        frames[0] = frame;
        parts.body = frames.concat();
        name_frames(&mut parts.manifest, &parts.body);
        parts.write(&bench.at("bad"));
        match all(&bench.at("bad"), &bench.at("out")) {
            Ok(()) => assert!(good_one),
            Err(error) => {
                let damaged = matches!(error, ArchiveError::Damaged { frame: 0, .. });
                assert!(damaged && !good_one, "{error}");
            }
        }
    }
}

#[test]
fn more_than_the_caller_allows_is_refused_by_its_amount() {
    let bench = Bench::new();
    for (limits, what) in [
        (
            Limits {
                bytes: 100_000,
                ..Limits::default()
            },
            "140005 bytes, allowed are 100000",
        ),
        (
            Limits {
                entries: 4,
                ..Limits::default()
            },
            "5 entries, allowed are 4",
        ),
        (
            Limits {
                manifest: 600,
                ..Limits::default()
            },
            "bytes of manifest, allowed are 600",
        ),
        (
            Limits {
                frame: 65_536,
                ..Limits::default()
            },
            "70000 bytes in one frame, allowed are 65536",
        ),
        (
            Limits {
                bytes: 0,
                entries: 0,
                manifest: 0,
                frame: 0,
            },
            "bytes of manifest, allowed are 0",
        ),
    ] {
        let error = chain(&Archive::open(&bench.at("good"), &limits).unwrap_err());
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn tar_headers_that_differ_from_the_manifest_are_refused() {
    let bench = Bench::new();
    let error = bench.with_entries(|entries| entries[1]["mode"] = json!(0o700));
    assert!(matches!(error, ArchiveError::Header { .. }), "{error}");
}

#[test]
fn what_a_terminal_would_obey_is_not_repeated() {
    let bench = Bench::new();
    for field in ["cpu_features", "abilities"] {
        for word in ["\u{1b}[2J", "a,b", "a\"b", "", &"x".repeat(41)] {
            let error = chain(
                &bench.forged(|manifest| manifest["head"]["fingerprint"][field] = json!([word])),
            );
            assert!(
                error.ends_with("the fingerprint is not made of words"),
                "{error}"
            );
        }
    }
    let error =
        bench.forged(|manifest| manifest["head"]["fingerprint"]["cpu_vendor"] = json!("\n"));
    assert!(
        chain(&error).ends_with("the fingerprint is not made of words"),
        "{}",
        chain(&error)
    );
    let error = bench.with_entries(|entries| entries[2]["kind"] = json!("\u{1b}[2J".repeat(1000)));
    assert!(
        !chain(&error).contains('\u{1b}') && chain(&error).len() < 500,
        "{}",
        chain(&error)
    );
    let error = bench.with_entries(|entries| entries.push(file("srv/\u{1b}[2J/x")));
    assert!(!chain(&error).contains('\u{1b}'), "{}", chain(&error));
}
