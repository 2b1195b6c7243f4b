//! Archives whose first files came through pipes, and files read one by one.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;

use file_transfer_plugin::manifest::{Head, Limits, Name};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Packed, Stream, Tree};
use file_transfer_plugin::unpack::{Archive, ArchiveError};

use crate::roundtrip::zoo;
use crate::tree::{head, noise, picture};

/// Files of a page, of a chunk and more, and of no whole block.
fn arrivals() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("pages-1.img", noise(9_000_000 / 4096 * 4096, 1)),
        ("pages-2.img", vec![7; 5 << 20]),
        ("ghost-file-3.img", noise(100_001, 2)),
        ("pages-4.img", Vec::new()),
    ]
}

fn stream(dir: &Path, expected: u64, grow: impl FnOnce(&Path)) -> (Packed, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let images = temp.path().join("images");
    fs::create_dir(&images).unwrap();
    let trees = [
        Tree {
            prefix: "images",
            dir: &images,
        },
        Tree { prefix: "srv", dir },
    ];
    let out = temp.path().join("checkpoint.criu");
    let mut stream = Stream::begin(&trees, expected, &head(), &out, &Options::default()).unwrap();
    for (name, bytes) in arrivals() {
        let size = stream.file(name, bytes.as_slice(), &Silent).unwrap();
        assert_eq!(size, bytes.len() as u64);
        for at in [0, size / 3, size.saturating_sub(4096)] {
            let len = (size - at).min(4096);
            if len > 0 {
                let back = stream.read_back(name, at, len).unwrap();
                assert!(back == bytes[at as usize..][..len as usize]);
            }
        }
    }
    assert!(!out.exists());
    fs::write(images.join("core-2.img"), b"small").unwrap();
    grow(dir);
    let packed = stream.finish(&trees, head(), &Silent).unwrap();
    assert_eq!(packed.bytes, fs::metadata(&out).unwrap().len());
    let names = fs::read_dir(temp.path()).unwrap().count();
    assert_eq!(names, 2, "only the archive and the images are there");
    (packed, temp)
}

fn open(temp: &Path, packed: &Packed) -> Archive {
    Archive::open(&temp.join("checkpoint.criu"), &Limits::default())
        .unwrap()
        .expect(packed.digest)
        .unwrap()
}

#[test]
fn what_came_through_pipes_is_in_the_archive_like_any_other_file() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let (packed, temp) = stream(dir.path(), 15 << 20, |_| {});
    let archive = open(temp.path(), &packed);
    archive.verify(&Silent).unwrap();
    let (images, srv) = (
        temp.path().join("back/images"),
        temp.path().join("back/srv"),
    );
    archive
        .unpack(&[("images", &images), ("srv", &srv)], &Silent)
        .unwrap();
    for (name, bytes) in arrivals() {
        assert!(fs::read(images.join(name)).unwrap() == bytes, "{name}");
    }
    assert_eq!(fs::read(images.join("core-2.img")).unwrap(), b"small");
    assert_eq!(picture(&srv), picture(dir.path()));
}

#[test]
fn a_manifest_that_outgrows_its_room_moves_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, temp) = stream(dir.path(), 0, |dir| {
        for name in noise(20_000 * 20, 5).chunks(20) {
            let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(dir.join(name), b"").unwrap();
        }
    });
    let archive = open(temp.path(), &packed);
    archive.verify(&Silent).unwrap();
    assert_eq!(archive.manifest().contents.entries.len(), 20_000 + 7);
}

#[test]
fn a_stream_that_is_given_up_leaves_the_older_archive() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("checkpoint.criu");
    fs::write(&out, b"older").unwrap();
    let images = temp.path().join("images");
    fs::create_dir(&images).unwrap();
    let trees = [Tree {
        prefix: "images",
        dir: &images,
    }];
    let options = Options::default();
    let mut stream = Stream::begin(&trees, 0, &head(), &out, &options).unwrap();
    stream
        .file("pages-1.img", [1; 4096].as_slice(), &Silent)
        .unwrap();
    drop(stream);
    assert_eq!(fs::read(&out).unwrap(), b"older");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
}

fn read(archive: &Archive, name: &str) -> (Vec<u8>, Result<(), ArchiveError>) {
    let path = Name::from(format!("images/{name}").as_str());
    let stored = archive.stored(|path| path.as_bytes().starts_with(b"images/"));
    assert!(stored.has(&path));
    let (mut from, to) = std::io::pipe().unwrap();
    thread::scope(|scope| {
        let written = scope.spawn(|| {
            let to = File::from(std::os::fd::OwnedFd::from(to));
            stored.write(&path, &to, 3)
        });
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        (bytes, written.join().unwrap())
    })
}

#[test]
fn files_are_read_one_by_one_whichever_way_they_were_packed() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, temp) = stream(dir.path(), 15 << 20, |_| {});
    let streamed = open(temp.path(), &packed);
    let tree = tempfile::tempdir().unwrap();
    for (name, bytes) in arrivals() {
        fs::write(tree.path().join(name), bytes).unwrap();
    }
    let out = tree.path().join("out");
    let options = Options {
        chunk: 100_000,
        ..Options::default()
    };
    let trees = [Tree {
        prefix: "images",
        dir: tree.path(),
    }];
    let head: Head = head();
    file_transfer_plugin::pack::pack(&trees, head, &out, &options, &Silent).unwrap();
    let packed = Archive::open(&out, &Limits::default()).unwrap();
    for archive in [&streamed, &packed] {
        for (name, bytes) in arrivals() {
            let (found, written) = read(archive, name);
            written.unwrap();
            assert!(found == bytes, "{name}");
        }
    }
}

#[test]
fn nothing_of_a_damaged_chunk_is_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, temp) = stream(dir.path(), 15 << 20, |_| {});
    let archive = open(temp.path(), &packed);
    let whole = arrivals().swap_remove(0).1;
    let path = temp.path().join("checkpoint.criu");
    let good = fs::read(&path).unwrap();
    // The first half of the archive is pages-1.img's.
    for at in [good.len() / 8, good.len() / 3, good.len() / 2] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let (found, written) = read(&archive, "pages-1.img");
        assert!(matches!(written, Err(ArchiveError::Damaged { .. })));
        assert!(found.len() < whole.len() && whole.starts_with(&found));
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, temp) = stream(dir.path(), 15 << 20, |_| {});
    let archive = open(temp.path(), &packed);
    let stored = archive.stored(|_| true);
    let (from, to) = std::io::pipe().unwrap();
    drop(from);
    let to = File::from(std::os::fd::OwnedFd::from(to));
    stored
        .write(&Name::from("images/pages-1.img"), &to, 2)
        .unwrap();
}
