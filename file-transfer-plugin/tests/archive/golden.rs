//! Archives of each format, written once and readable for ever.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use file_transfer_plugin::manifest::{FORMAT, Limits};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Tree, pack};
use file_transfer_plugin::unpack::Archive;

use crate::tree::{head, noise, picture};

/// The digest of each format's fixture, from format 1 on.
const DIGESTS: &[&str] = &[
    "6df5dee2a4963cc0f0a24c7eef6363390f451de13adcf073ad0fa323e935906e",
    "95a5095c3374bb7818c47c5bb979fad36cf1929a836e537b1256becdaeac491e",
];

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{format}.criu"))
}

/// What is in the fixture: some of everything that a format can get wrong.
fn contents(dir: &Path) {
    let at = |name: &str| dir.join(name);
    fs::create_dir_all(at("srv/empty")).unwrap();
    fs::create_dir(at("images")).unwrap();
    fs::write(
        at("images/pages-1.img"),
        [noise(5000, 1), vec![0; 200_000], noise(100, 2)].concat(),
    )
    .unwrap();
    fs::write(at("srv/run.sh"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(at("srv/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(at("srv/run.sh"), at("srv/twin")).unwrap();
    symlink("run.sh", at("srv/link")).unwrap();
    let holes = File::create(at("srv/holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    holes.write_all_at(b"middle", 512 << 10).unwrap();
    fs::write(at("srv").join("ä".repeat(60)), b"a long name").unwrap();
    let mut times = vec![
        at("images/pages-1.img"),
        at("srv/run.sh"),
        at("srv/holes"),
        at("srv").join("ä".repeat(60)),
    ];
    times.extend(["images", "srv/empty", "srv"].map(at));
    for path in times {
        File::open(&path)
            .unwrap()
            .set_modified(UNIX_EPOCH + Duration::new(1_790_000_000, 123_456_789))
            .unwrap();
    }
    let time = rustix::fs::Timespec {
        tv_sec: 1_790_000_001,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        at("srv/link"),
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    for dir in ["srv", "srv/empty", "images"] {
        fs::set_permissions(at(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for file in ["images/pages-1.img", "srv/holes"] {
        fs::set_permissions(at(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(
        at("srv").join("ä".repeat(60)),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
}

#[test]
fn every_format_has_a_fixture_that_is_still_read() {
    assert_eq!(
        DIGESTS.len(),
        FORMAT as usize,
        "a format without a digest of its fixture"
    );
    let temp = tempfile::tempdir().unwrap();
    contents(temp.path());
    for (format, digest) in (1..).zip(DIGESTS) {
        let archive = Archive::open(&fixture(format), &Limits::default()).unwrap();
        assert_eq!(
            archive.digest().to_string(),
            *digest,
            "a fixture is never changed"
        );
        assert_eq!(archive.manifest().head, head());
        archive.verify(&Silent).unwrap();
        let back = tempfile::tempdir().unwrap();
        let (images, srv) = (back.path().join("images"), back.path().join("srv"));
        archive
            .unpack(&[("images", &images), ("srv", &srv)], &Silent)
            .unwrap();
        assert_eq!(picture(&temp.path().join("images")), picture(&images));
        assert_eq!(picture(&temp.path().join("srv")), picture(&srv));
    }
}

/// Written where FIXTURE_OUT says, this is the fixture of a new format.
#[test]
fn a_fixture_of_this_format_is_made_from_its_contents() {
    let temp = tempfile::tempdir().unwrap();
    let out = std::env::var_os("FIXTURE_OUT")
        .map_or_else(|| temp.path().join("fixture"), std::path::PathBuf::from);
    assert!(!out.exists(), "a fixture is never changed");
    contents(temp.path());
    let (images, srv) = (temp.path().join("images"), temp.path().join("srv"));
    let trees = [
        Tree {
            prefix: "images",
            dir: &images,
        },
        Tree {
            prefix: "srv",
            dir: &srv,
        },
    ];
    pack(&trees, head(), &out, &Options::default(), &Silent).unwrap();
    let archive = Archive::open(&out, &Limits::default()).unwrap();
    assert_eq!(archive.manifest().format, FORMAT);
    assert_eq!(archive.manifest().head, head());
}
