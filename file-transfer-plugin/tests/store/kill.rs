//! `kill -9` at any instant, then a start: every committed image is whole, nothing else is visible.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use file_transfer_plugin::manifest::Digest;
use file_transfer_plugin::protocol;

use crate::http::Client;
use crate::image::{Image, missing, noise, put};
use crate::server::{Server, eventually};

const ROUNDS: u64 = 25;
const JOBS: u64 = 3;

/// A number below `below`, the same for the same seed.
fn random(seed: u64, below: u64) -> u64 {
    let bytes = noise(seed, 8);
    u64::from_le_bytes(bytes.try_into().unwrap()) % below
}

/// What a client knows of its job when the store is gone.
#[derive(Default)]
struct Known {
    /// Committed, as the store said itself; newest last.
    acknowledged: Vec<Digest>,
    /// Sent, and no answer came.
    in_doubt: Option<Digest>,
}

/// Pushes images one after the other until the store is gone.
fn push_until_killed(
    client: &mut Client,
    job: &str,
    images: &[Image],
    known: &mut Known,
    committed: &AtomicU64,
) {
    let begin = known.acknowledged.len();
    for image in images.iter().skip(begin) {
        for (chunk, frame) in &image.frames {
            let path = format!("/v1/chunks/{chunk}");
            if client.call("PUT", &path, frame).is_err() {
                return;
            }
        }
        known.in_doubt = Some(image.digest);
        match client.call("PUT", &image.path(job), &image.manifest) {
            Ok(answer) => {
                assert!([200, 201].contains(&answer.status), "{}", answer.text());
                known.acknowledged.push(image.digest);
                known.in_doubt = None;
                committed.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return,
        }
    }
}

#[test]
fn whenever_it_is_killed_committed_images_are_whole_and_others_are_not_there() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    // Neighbours share pages, as the images of a job do; more than can be pushed before the last kill.
    let images: Vec<Vec<Image>> = (0..JOBS)
        .map(|job| {
            (1..150)
                .map(|generation| {
                    let pages = [generation, generation / 2, generation / 4, 7];
                    Image::of(generation, &pages.map(|page| job * 1000 + page))
                })
                .collect()
        })
        .collect();
    let mut known: Vec<Known> = (0..JOBS).map(|_| Known::default()).collect();
    let (mut in_doubt, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let server = Server::start(&dir);
        let committed = AtomicU64::new(0);
        let address = server.address;
        thread::scope(|scope| {
            for (job, (images, known)) in images.iter().zip(&mut known).enumerate() {
                let (committed, job) = (&committed, job.to_string());
                scope.spawn(move || {
                    push_until_killed(&mut Client::new(address), &job, images, known, committed);
                });
            }
            // After none to four commits, however fast the machine is; then the instant is what is tested, and any is as good.
            let some = random(2 * round, 5);
            eventually("some images are committed", || {
                committed.load(Ordering::Relaxed) >= some
            });
            thread::sleep(Duration::from_micros(random(2 * round + 1, 30_000)));
            server.kill();
        });
        let server = Server::start(&dir);
        assert_no_leftovers(&dir);
        let mut client = server.client();
        for (job, (images, known)) in images.iter().zip(&mut known).enumerate() {
            let job = job.to_string();
            let path = format!("/v1/jobs/{job}/images");
            let listed: Vec<protocol::Image> = client.get(&path).json();
            let listed: Vec<Digest> = listed.iter().map(|image| image.digest).collect();
            if let Some(digest) = known.in_doubt.take() {
                in_doubt += 1;
                if listed.contains(&digest) {
                    kept += 1;
                    known.acknowledged.push(digest);
                }
            }
            let newest = known.acknowledged.iter().rev();
            let expected: Vec<Digest> = newest.take(2).copied().collect();
            assert_eq!(listed, expected, "round {round}, job {job}");
            for image in images.iter().filter(|image| listed.contains(&image.digest)) {
                image.is_whole(&mut client, &job);
            }
        }
        server.kill();
    }
    let pushed: usize = known.iter().map(|known| known.acknowledged.len()).sum();
    eprintln!(
        "{pushed} images committed; {in_doubt} kills during a commit, {kept} of those had committed"
    );
    assert!(pushed > 20 && in_doubt > 0, "{pushed} {in_doubt}");
}

fn assert_no_leftovers(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            assert_no_leftovers(&entry.path());
        } else {
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.contains('#'), "{name}");
        }
    }
}

#[test]
fn an_upload_that_was_cut_off_by_a_kill_goes_on_where_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let image = Image::of(1, &[1, 2, 3, 4]);
    let server = Server::start(&dir);
    let mut client = server.client();
    for (chunk, frame) in &image.frames[..3] {
        assert_eq!(put(&mut client, *chunk, frame).status, 204);
    }
    server.kill();
    let server = Server::start(&dir);
    let mut client = server.client();
    assert_eq!(missing(&mut client, &image.names()), image.names()[3..]);
    image.push(&mut client, "12.0");
    image.is_whole(&mut client, "12.0");
}

#[test]
fn after_a_boot_only_what_images_name_is_believed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (image, half) = (Image::of(1, &[1, 2]), Image::of(2, &[1, 3]));
    let server = Server::start(&dir);
    let mut client = server.client();
    image.push(&mut client, "12.0");
    let (chunk, frame) = &half.frames[2];
    assert_eq!(put(&mut client, *chunk, frame).status, 204);
    server.kill();
    // As it is when the machine was started anew in between.
    std::fs::write(dir.join("boot"), "another boot\n").unwrap();
    let server = Server::start(&dir);
    let mut client = server.client();
    assert!(missing(&mut client, &half.names()).contains(chunk));
    image.is_whole(&mut client, "12.0");
}

#[test]
fn a_directory_is_served_by_one_process() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let _server = Server::start(&dir);
    let second = Server::command(&dir, &["--anonymous"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("is served by another process"), "{said}");
}
