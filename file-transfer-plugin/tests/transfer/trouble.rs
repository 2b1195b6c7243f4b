//! A network that breaks, and a process that is killed: what was moved stays moved.

use std::path::Path;
use std::time::{Duration, Instant};

use file_transfer_plugin::fetch::fetch;
use file_transfer_plugin::monitor::{Monitor, Progress, Silent};
use file_transfer_plugin::remote::{Error, Moved, Options, Remote, Tokens};
use file_transfer_plugin::ship::ship;

use crate::archive::{CHUNK, is_whole, make};
use crate::server::{Server, url};
use crate::wire::{Fate, Wire};

const CHUNKS: u64 = 60;

fn remote(url: &str) -> Remote {
    Remote::new(url.parse().unwrap(), Tokens::default()).unwrap()
}

fn options() -> Options {
    Options {
        within: Duration::from_secs(60),
        stall: Duration::from_secs(1),
        ..Options::default()
    }
}

/// Wants it to end.
struct Enough;

impl Monitor for Enough {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        true
    }
}

fn send(here: &Path, through: &Wire) -> Moved {
    let remote = remote(&url(through.address, "1.0"));
    ship(here, &remote, &options(), &Silent).unwrap()
}

#[test]
fn connections_that_are_cut_are_made_again_and_nothing_moves_twice() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let here = temp.path().join("here");
    let digest = make(&here, 1, 0..CHUNKS);
    const TEN: u64 = 10 * CHUNK as u64;
    static FATES: [Fate; 4] = [Fate::Good, Fate::Cut(TEN), Fate::Cut(TEN), Fate::Good];
    let wire = Wire::to(server.address, &FATES);
    let moved = send(&here, &wire);
    assert_eq!(moved.sent_chunks, moved.chunks);
    assert!(moved.attempts > 1 && wire.connections() > 4, "{moved:?}");

    let there = temp.path().join("there");
    let got = fetch(&remote(&server.url("1.0")), &there, &options(), &Silent);
    assert_eq!(got.unwrap().unwrap().digest, Some(digest));
    is_whole(&there, digest);
}

#[test]
fn a_connection_on_which_nothing_moves_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let here = temp.path().join("here");
    make(&here, 1, 0..CHUNKS);
    static FATES: [Fate; 3] = [Fate::Good, Fate::Silent(3 * CHUNK as u64), Fate::Good];
    let wire = Wire::to(server.address, &FATES);
    let start = Instant::now();
    let moved = send(&here, &wire);
    assert_eq!(moved.sent_chunks, moved.chunks);
    assert!(moved.attempts > 1, "{moved:?}");
    // One silence of a second, not the minute that there was.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_upload_that_was_cut_off_goes_on_where_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let here = temp.path().join("here");
    let digest = make(&here, 1, 0..CHUNKS);
    // Every connection dies after some chunks, and there is no time for more.
    static FATES: [Fate; 2] = [Fate::Good, Fate::Cut(12 * CHUNK as u64)];
    let wire = Wire::to(server.address, &FATES);
    let hasty = Options {
        patience: Duration::ZERO,
        connections: 1,
        ..options()
    };
    let cut = ship(&here, &remote(&url(wire.address, "1.0")), &hasty, &Silent);
    assert!(matches!(cut, Err(Error::Broken { .. })), "{cut:?}");

    let resumed = ship(&here, &remote(&server.url("1.0")), &options(), &Silent).unwrap();
    let left = resumed.chunks - resumed.sent_chunks;
    assert!(left >= 10, "only {left} chunks were there already");
    let there = temp.path().join("there");
    fetch(&remote(&server.url("1.0")), &there, &options(), &Silent).unwrap();
    is_whole(&there, digest);
}

#[test]
fn a_download_that_was_cut_off_goes_on_where_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let [here, there] = ["here", "there"].map(|name| temp.path().join(name));
    let digest = make(&here, 1, 0..CHUNKS);
    let direct = remote(&server.url("1.0"));
    ship(&here, &direct, &options(), &Silent).unwrap();
    fetch(&direct, &there, &options(), &Silent)
        .unwrap()
        .unwrap();
    // As a killed process leaves it: the beginning is there, the rest is a hole.
    let part = temp.path().join("there.part");
    std::fs::rename(&there, &part).unwrap();
    let file = std::fs::File::options().write(true).open(&part).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2).unwrap();
    file.set_len(size).unwrap();

    let resumed = fetch(&direct, &there, &options(), &Silent)
        .unwrap()
        .unwrap();
    assert!(
        (1..CHUNKS * 2 / 3).contains(&resumed.sent_chunks),
        "{resumed:?}"
    );
    is_whole(&there, digest);

    // The rest of another image is no help, and no harm.
    let other = make(&here, 2, 500..520);
    std::fs::rename(&there, &part).unwrap();
    ship(&here, &direct, &options(), &Silent).unwrap();
    fetch(&direct, &there, &options(), &Silent)
        .unwrap()
        .unwrap();
    is_whole(&there, other);
}

#[test]
fn a_store_that_comes_back_in_time_is_no_failure() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let here = temp.path().join("here");
    make(&here, 1, 0..3);
    let address = Server::start(&store).address;
    let url = url(address, "1.0");
    let sender = std::thread::spawn({
        let here = here.clone();
        move || ship(&here, &remote(&url), &options(), &Silent)
    });
    std::thread::sleep(Duration::from_secs(1));
    let _back = Server::at(&store, &address.to_string());
    let moved = sender.join().unwrap().unwrap();
    assert!(moved.attempts > 1, "{moved:?}");
}

#[test]
fn whoever_wants_it_to_end_is_obeyed_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let wire = Wire::to(server.address, &[Fate::Silent(0)]);
    let here = temp.path().join("here");
    make(&here, 1, 0..3);
    let start = Instant::now();
    let stopped = ship(
        &here,
        &remote(&url(wire.address, "1.0")),
        &options(),
        &Enough,
    );
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn uploads_that_have_to_wait_for_their_turn_all_get_it() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let server = Server::with(&store, "127.0.0.1:0", &["--uploads", "1"]);
    let jobs = 0..6u64;
    std::thread::scope(|scope| {
        for job in jobs.clone() {
            let (path, url) = (
                temp.path().join(job.to_string()),
                server.url(&format!("{job}.0")),
            );
            scope.spawn(move || {
                make(&path, 1, job * 100..job * 100 + 20);
                ship(&path, &remote(&url), &options(), &Silent).unwrap();
            });
        }
    });
    for job in jobs {
        let (path, url) = (temp.path().join("there"), server.url(&format!("{job}.0")));
        let got = fetch(&remote(&url), &path, &options(), &Silent)
            .unwrap()
            .unwrap();
        is_whole(&path, got.digest.unwrap());
    }
}
