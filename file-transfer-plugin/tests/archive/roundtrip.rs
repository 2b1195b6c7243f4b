//! unpack(pack(tree)) == tree.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use file_transfer_plugin::manifest::{Codec, Limits, Name};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, PackError, Packed, Tree, pack};
use file_transfer_plugin::unpack::Archive;
use proptest::prelude::*;
use rustix::fs::{FileType, Mode, XattrFlags};

use crate::tree::{head, noise, picture};

pub(crate) fn pack_one(dir: &Path, out: &Path, options: &Options) -> Packed {
    pack(
        &[Tree { prefix: "srv", dir }],
        head(),
        out,
        options,
        &Silent,
    )
    .unwrap()
}

fn there_and_back(dir: &Path, options: &Options) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("checkpoint.criu");
    let packed = pack_one(dir, &out, options);
    assert_eq!(packed.bytes, fs::metadata(&out).unwrap().len());
    let archive = Archive::open(&out, &Limits::default())
        .unwrap()
        .expect(packed.digest)
        .unwrap();
    archive.verify(&Silent).unwrap();
    archive
        .unpack(&[("srv", &temp.path().join("back"))], &Silent)
        .unwrap();
    temp
}

/// One of everything.
pub(crate) fn zoo(dir: &Path) {
    let at = |name: &str| dir.join(name);
    fs::create_dir_all(at("empty/deeper")).unwrap();
    fs::create_dir(at("shut")).unwrap();
    fs::write(at("shut/inside"), b"behind a door").unwrap();
    fs::write(at("nothing"), b"").unwrap();
    fs::write(at("run.sh"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("noise"), noise(300_000, 1)).unwrap();
    fs::write(at("text"), "all work and no play\n".repeat(20_000)).unwrap();
    fs::hard_link(at("text"), at("twin")).unwrap();
    symlink("text", at("link")).unwrap();
    symlink("/etc/passwd", at("out")).unwrap();
    symlink("x".repeat(300), at("dangling")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    fs::write(
        dir.join(std::ffi::OsStr::from_bytes(b"no utf-8 \xff\n")),
        b"x",
    )
    .unwrap();
    fs::create_dir(at(&"d".repeat(200))).unwrap();
    fs::write(
        at(&format!("{}/{}", "d".repeat(200), "f".repeat(200))),
        b"long",
    )
    .unwrap();
    let holes = File::create(at("holes")).unwrap();
    holes.set_len(5 << 20).unwrap();
    holes.write_all_at(b"first", 1 << 20).unwrap();
    holes.write_all_at(&noise(200_000, 2), 3 << 20).unwrap();
    let holes = File::create(at(&"h".repeat(150))).unwrap();
    holes.set_len(1 << 20).unwrap();
    holes.write_all_at(b"long name", 300_000).unwrap();
    File::create(at("all hole"))
        .unwrap()
        .set_len(3 << 20)
        .unwrap();
    fs::write(at("zeros"), vec![0; 3 << 20]).unwrap();
    // Not every file system has them.
    let _ = rustix::fs::setxattr(at("text"), c"user.note", b"a\0b\xff", XattrFlags::empty());
    let long_ago = UNIX_EPOCH - Duration::new(1000, 5);
    File::open(at("nothing"))
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    File::open(at("shut"))
        .unwrap()
        .set_modified(UNIX_EPOCH + Duration::new(1, 999_999_999))
        .unwrap();
    fs::set_permissions(at("shut"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1750)).unwrap();
}

#[test]
fn one_of_everything_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    for options in [
        Options::default(),
        Options {
            chunk: 64 << 10,
            threads: 1,
            sync: false,
            level: 3,
            ..Options::default()
        },
        Options {
            codec: Codec::Gzip,
            ..Options::default()
        },
        Options {
            keep_disk_busy: true,
            ..Options::default()
        },
    ] {
        let back = there_and_back(dir.path(), &options);
        let back = back.path().join("back");
        let (before, after) = (picture(dir.path()), picture(&back));
        for (name, was) in &before {
            assert_eq!(after.get(name), Some(was), "{}", name.escape_ascii());
        }
        assert_eq!(before.len(), after.len());
        assert!(!back.join("socket").exists());
        let used = |name: &str| fs::metadata(back.join(name)).unwrap().blocks() * 512;
        assert_eq!(used("all hole"), 0);
        assert_eq!(used("zeros"), 0);
        assert!(used("holes") < 1 << 20, "{}", used("holes"));
        fs::set_permissions(back.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_left_out_is_named() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let out = dir.path().join("../left-out.criu");
    let packed = pack_one(dir.path(), &out, &Options::default());
    assert_eq!(packed.left_out.len(), 1);
    assert_eq!(packed.left_out[0].path, Name::from("srv/socket"));
    fs::remove_file(out).unwrap();
    fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_set_user_id_bit_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tool"), b"x").unwrap();
    fs::set_permissions(dir.path().join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    let back = there_and_back(dir.path(), &Options::default());
    assert_eq!(
        fs::metadata(back.path().join("back/tool")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn only_the_trees_asked_for_are_written() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    for tree in ["images", "srv"] {
        fs::create_dir(at(tree)).unwrap();
        fs::write(at(tree).join("a"), noise(100_000, tree.len() as u8)).unwrap();
    }
    let (images, srv) = (at("images"), at("srv"));
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
    pack(&trees, head(), &at("x.criu"), &Options::default(), &Silent).unwrap();
    let archive = Archive::open(&at("x.criu"), &Limits::default()).unwrap();
    archive.unpack(&[("images", &at("only"))], &Silent).unwrap();
    assert_eq!(picture(&at("only")), picture(&at("images")));
    for missing in ["shm", "", "srv/a", "sr", "srv/"] {
        let error = archive
            .unpack(&[(missing, &at("no"))], &Silent)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(&format!("has no tree {missing}")),
            "{error}"
        );
    }
}

#[test]
fn a_failed_pack_leaves_the_older_archive_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("checkpoint.criu");
    fs::write(&out, b"the older one").unwrap();
    let missing = temp.path().join("missing");
    let error = pack(
        &[Tree {
            prefix: "srv",
            dir: &missing,
        }],
        head(),
        &out,
        &Options::default(),
        &Silent,
    )
    .unwrap_err();
    assert!(matches!(error, PackError::Read { .. }), "{error}");
    let dir = temp.path().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a"), b"a").unwrap();
    // A directory cannot be replaced by a file: the rename fails, when all else is done.
    let blocked = temp.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("x"), b"").unwrap();
    let error = pack(
        &[Tree {
            prefix: "srv",
            dir: &dir,
        }],
        head(),
        &blocked,
        &Options::default(),
        &Silent,
    )
    .unwrap_err();
    assert!(matches!(error, PackError::Write { .. }), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"the older one");
    let left: Vec<_> = fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn the_same_tree_gives_the_same_archive() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), noise(3 << 20, 9)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let a = pack_one(dir.path(), &out.path().join("a"), &Options::default());
    let b = pack_one(
        dir.path(),
        &out.path().join("b"),
        &Options {
            threads: 1,
            ..Options::default()
        },
    );
    assert_eq!(a, b);
    assert_eq!(
        fs::read(out.path().join("a")).unwrap(),
        fs::read(out.path().join("b")).unwrap()
    );
}

#[test]
fn a_disk_that_would_wait_gets_chunks_as_they_are_but_no_zeros() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("text"), "all work ".repeat(1 << 18)).unwrap();
    fs::write(dir.path().join("zeros"), vec![0; 3 << 20]).unwrap();
    let size = |sync, keep_disk_busy| {
        let options = Options {
            sync,
            keep_disk_busy,
            ..Options::default()
        };
        let temp = tempfile::tempdir().unwrap();
        pack_one(dir.path(), &temp.path().join("out"), &options).bytes
    };
    let text = 9 << 18;
    assert!(size(true, false) < text / 10);
    assert!((text..text + text / 10).contains(&size(true, true)));
    // Nobody knows of the disk.
    assert!(size(false, true) < text / 10);
}

#[derive(Clone, Debug)]
enum Thing {
    File(Vec<(u8, u32)>, u32),
    Dir(u32),
    Link(String),
}

fn thing() -> impl Strategy<Value = Thing> {
    let run = (
        prop_oneof![Just(0u8), Just(1), 2..20u8],
        prop_oneof![0..2000u32, 60_000..70_000u32, 0..300_000u32],
    );
    prop_oneof![
        6 => (prop::collection::vec(run, 0..5), 0..0o1000u32).prop_map(|(runs, mode)| Thing::File(runs, mode | 0o400)),
        2 => (0..0o1000u32).prop_map(|mode| Thing::Dir(mode | 0o700)),
        1 => "[a-z./]{1,120}".prop_map(Thing::Link),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_comes_back(
        things in prop::collection::vec(("[a-c]{1,2}(/[a-c]{1,2}){0,2}|[a-z]{90,120}|\\PC{1,20}", thing()), 0..25),
        chunk in prop_oneof![Just(64u32 << 10), Just(1 << 20), (64u32 << 10)..(2 << 20)],
        threads in 0..4usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        for (name, thing) in things {
            let path = dir.path().join(name.trim_start_matches('/'));
            if let Some(parent) = path.parent() {
                let _ = fs::create_dir_all(parent);
            }
            // Names meet each other: what cannot be made is not there, and need not come back.
            match thing {
                Thing::Dir(mode) => {
                    if fs::create_dir(&path).is_ok() {
                        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                    }
                }
                Thing::Link(to) => { let _ = symlink(to, &path); }
                Thing::File(runs, mode) => {
                    let Ok(file) = File::create_new(&path) else { continue };
                    let mut at = 0;
                    for (seed, len) in runs {
                        match seed {
                            0 => {}
                            1 => file.write_all_at(&vec![0; len as usize], at).unwrap(),
                            seed => file.write_all_at(&noise(len as usize, seed), at).unwrap(),
                        }
                        at += u64::from(len);
                    }
                    file.set_len(at).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
        let back = there_and_back(dir.path(), &Options { chunk, threads, sync: false, ..Options::default() });
        prop_assert_eq!(picture(dir.path()), picture(&back.path().join("back")));
    }
}
