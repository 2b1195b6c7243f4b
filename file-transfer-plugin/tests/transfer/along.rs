//! Archives that are sent while they are written.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use file_transfer_plugin::manifest::Digest;
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Stream, Tree, Word};
use serde_json::Value;

use crate::archive::{CHUNK, head, is_whole, make, noise};
use crate::server::{Server, criu_transfer, told, url};

const CHUNKS: u64 = 40;
const LIMIT: Duration = Duration::from_secs(60);

/// A job's memory, on its way into an archive and at once to a store.
struct Writer {
    dir: tempfile::TempDir,
    stream: Stream,
    words: std::sync::mpsc::Receiver<Word>,
}

impl Writer {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        fs::create_dir(&images).unwrap();
        let options = Options {
            chunk: CHUNK as u32,
            sync: false,
            ..Options::default()
        };
        let out = dir.path().join("checkpoint.criu");
        let tree = tree(&images);
        let mut stream = Stream::begin(&[tree], 0, &head(1), &out, &options).unwrap();
        let (say, words) = std::sync::mpsc::channel();
        stream.tell(say);
        Self { dir, stream, words }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("checkpoint.criu")
    }

    /// So much memory is written, and told of.
    fn memory(&mut self, name: &str, chunks: std::ops::Range<u64>, to: &mut ChildStdin) {
        let pages: Vec<u8> = chunks.flat_map(noise).collect();
        self.stream.file(name, pages.as_slice(), &Silent).unwrap();
        for word in self.words.try_iter() {
            writeln!(to, "{word}").unwrap();
        }
    }

    /// The archive is complete, and that is told.
    fn finish(self, to: &mut ChildStdin) -> (tempfile::TempDir, Digest) {
        let Self { dir, stream, words } = self;
        let images = dir.path().join("images");
        fs::write(images.join("core-2.img"), b"small").unwrap();
        let packed = stream.finish(&[tree(&images)], head(1), &Silent).unwrap();
        for word in words.iter().chain([Word::Complete(packed.digest)]) {
            writeln!(to, "{word}").unwrap();
        }
        (dir, packed.digest)
    }
}

fn tree(dir: &Path) -> Tree<'_> {
    Tree {
        prefix: "images",
        dir,
    }
}

/// A writer, and a push to that place that listens to it.
fn pushed(url: &str) -> (Writer, Child, ChildStdin) {
    let writer = Writer::begin();
    let (child, to) = push(&writer.out(), url);
    (writer, child, to)
}

fn push(archive: &Path, url: &str) -> (Child, ChildStdin) {
    let mut child = criu_transfer()
        .args(["push", "--along", "--json"])
        .arg(archive)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    (child, stdin)
}

fn moved(child: Child) -> Value {
    let (code, stdout, stderr) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Waits until a store has so much memory, which cannot be compressed.
fn wait_for(store: &Path, chunks: u64) {
    fn bytes(dir: &Path) -> u64 {
        let below = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let of = |entry: fs::DirEntry| match entry.metadata().unwrap() {
            dir if dir.is_dir() => bytes(&entry.path()),
            file => file.len(),
        };
        below.map(of).sum()
    }
    let until = Instant::now() + LIMIT;
    while bytes(store) < chunks * CHUNK as u64 {
        assert!(Instant::now() < until, "only {} bytes", bytes(store));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn images(url: &str) -> usize {
    let (code, stdout, stderr) = told(criu_transfer().args(["ls", url]).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    stdout.lines().count()
}

fn pull(url: &str, digest: Digest) {
    let temp = tempfile::tempdir().unwrap();
    let there = temp.path().join("there");
    let pulled = criu_transfer().arg("pull").arg(url).arg(&there).output();
    assert_eq!(told(pulled.unwrap()).0, 0);
    is_whole(&there, digest);
}

#[test]
fn what_is_written_is_at_the_store_before_the_archive_is_complete() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let server = Server::start(&store);
    let url = server.url("12.0");
    let (mut writer, child, mut to) = pushed(&url);
    writer.memory("pages-1.img", 0..CHUNKS, &mut to);
    wait_for(&store, CHUNKS);
    // The same pages again are no news.
    writer.memory("pages-2.img", 0..CHUNKS, &mut to);
    assert!(!writer.out().exists());
    assert_eq!(images(&url), 0);

    let (_dir, digest) = writer.finish(&mut to);
    let moved = moved(child);
    assert_eq!(moved["digest"], digest.to_string());
    // Each once.
    assert_eq!(moved["sent_chunks"], moved["chunks"], "{moved}");
    assert_eq!(moved["attempts"], 1, "{moved}");
    assert_eq!(images(&url), 1);
    pull(&url, digest);
}

#[test]
fn what_the_store_did_not_get_meanwhile_it_gets_at_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let address = Server::start(&store).address;
    let url = url(address, "12.0");
    // It is down, and whoever writes does not notice.
    let (mut writer, child, mut to) = pushed(&url);
    writer.memory("pages-1.img", 0..CHUNKS, &mut to);
    let _back = Server::at(&store, &address.to_string());
    let (_dir, digest) = writer.finish(&mut to);
    let moved = moved(child);
    assert_eq!(moved["sent_chunks"], moved["chunks"], "{moved}");
    pull(&url, digest);
}

#[test]
fn an_archive_that_is_complete_before_anybody_looks_is_sent_all_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let url = server.url("12.0");
    let archive = temp.path().join("checkpoint.criu");
    let digest = make(&archive, 1, 0..CHUNKS);
    let (child, mut to) = push(&archive, &url);
    writeln!(to, "{}", Word::Complete(digest)).unwrap();
    let moved = moved(child);
    assert_eq!(moved["ahead_bytes"], 0, "{moved}");
    pull(&url, digest);
}

#[test]
fn an_archive_that_is_given_up_is_no_image_and_what_was_sent_of_it_need_not_be_again() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let server = Server::start(&store);
    let url = server.url("12.0");
    let (mut writer, child, mut to) = pushed(&url);
    writer.memory("pages-1.img", 0..CHUNKS, &mut to);
    wait_for(&store, CHUNKS);
    drop(writer);
    drop(to);
    let (code, _, stderr) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert!(
        stderr.contains("ended before the archive was complete"),
        "{stderr}"
    );
    assert_eq!(images(&url), 0);

    let (mut writer, child, mut to) = pushed(&url);
    writer.memory("pages-1.img", 0..CHUNKS + 1, &mut to);
    let (_dir, digest) = writer.finish(&mut to);
    let moved = moved(child);
    let sent = moved["sent_chunks"].as_u64().unwrap();
    // The last of the memory, headers and what is small.
    assert!(sent < moved["chunks"].as_u64().unwrap(), "{moved}");
    assert!(
        moved["sent_bytes"].as_u64().unwrap() < 20 * CHUNK as u64,
        "{moved}"
    );
    pull(&url, digest);
}

#[test]
fn what_is_no_word_about_an_archive_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let (_writer, child, mut to) = pushed(&server.url("12.0"));
    writeln!(to, "frame me").unwrap();
    let (code, _, stderr) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert!(
        stderr.contains("no word about an archive: \"frame me\""),
        "{stderr}"
    );
}
