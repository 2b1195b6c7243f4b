//! Room: quotas, the disk, and turns. What is refused is refused before it is written, and committed images do not suffer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use file_transfer_plugin::protocol::{self, Admission, Ticket};

use crate::http::{Answer, Client};
use crate::image::{Image, problem, put};
use crate::server::{Server, eventually};

fn admission(client: &mut Client, bytes: u64, seconds: u64, job: Option<&str>) -> Answer {
    let job = job.map(|job| job.parse().unwrap());
    client.post(
        "/v1/admission",
        &Admission {
            bytes,
            seconds,
            job,
        },
    )
}

/// Sends chunks until one is refused.
fn send(client: &mut Client, image: &Image) -> Option<Answer> {
    let answers = image
        .frames
        .iter()
        .map(|(chunk, frame)| put(client, *chunk, frame));
    answers.into_iter().find(|answer| answer.status != 204)
}

#[test]
fn a_quota_refuses_before_anything_is_written_and_says_how_much_there_is() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--quota", "512K"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let mut client = server.client();
    // Each chunk of 64 kB, the headers and the manifest count.
    let first = Image::of(1, &[1, 2, 3]);
    first.push(&mut client, "12.0");
    let refused = admission(&mut client, 400_000, 60, None);
    assert_eq!(refused.status, 507);
    let said = problem(&refused);
    assert!(
        said.starts_with("your quota of 524288 bytes has no room for 400000 more"),
        "{said}"
    );
    let second = Image::of(2, &[4, 5, 6, 7, 8]);
    assert_eq!(send(&mut client, &second).unwrap().status, 507);
    first.is_whole(&mut client, "12.0");
}

#[test]
fn where_the_quota_is_full_the_older_image_of_a_job_gives_way_and_never_the_newest() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--quota", "800K"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let mut client = server.client();
    let images = [1, 2, 3].map(|n| Image::of(n, &[10 * n, 10 * n + 1, 10 * n + 2, 10 * n + 3]));
    images[0].push(&mut client, "12.0");
    images[1].push(&mut client, "12.0");
    let bytes = images[2]
        .frames
        .iter()
        .map(|(_, frame)| frame.len() as u64)
        .sum();
    assert_eq!(admission(&mut client, bytes, 60, None).status, 507);
    images[0].is_whole(&mut client, "12.0");
    assert_eq!(admission(&mut client, bytes, 60, Some("12.0")).status, 200);
    assert_eq!(client.get(&images[0].path("12.0")).status, 404);
    images[1].is_whole(&mut client, "12.0");
    images[2].push(&mut client, "12.0");
    assert_eq!(
        admission(&mut client, 10 << 20, 60, Some("12.0")).status,
        507
    );
    images[2].is_whole(&mut client, "12.0");
}

#[test]
fn the_disk_keeps_its_low_water_mark() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let server = Server::start_with(&dir, &["--anonymous", "--low-water", "1000T"]);
    let mut client = server.client();
    let image = Image::of(1, &[1]);
    let refused = send(&mut client, &image).unwrap();
    assert_eq!(refused.status, 507);
    assert!(problem(&refused).contains("disk has no room"));
    assert_eq!(admission(&mut client, 1, 60, None).status, 507);
    let chunks = std::fs::read_dir(dir.join("v1")).unwrap().count();
    assert_eq!(chunks, 0);
}

/// Serves a directory on a file system of its own, which goes with the process.
fn on_a_small_disk(dir: &Path, mount: &str) -> Option<Server> {
    const SCRIPT: &str = "mount -t tmpfs -o \"$0\" tmpfs \"$1\" && shift && exec \"$@\"";
    let can = Command::new("unshare")
        .args(["--mount", "true"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !can {
        crate::server::skip("no mount namespace of its own");
        return None;
    }
    std::fs::create_dir_all(dir).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT, mount])
        .arg(dir);
    let options = ["--anonymous", "--low-water", "0"];
    Some(Server::start_by(command, dir, &options))
}

#[test]
fn a_disk_that_is_full_refuses_and_what_was_committed_stays_whole() {
    let temp = tempfile::tempdir().unwrap();
    // What statvfs says is right for bytes; that there is no inode left is seen by trying.
    for mount in ["size=1m", "size=64m,nr_inodes=40"] {
        let dir = temp.path().join("store");
        let Some(server) = on_a_small_disk(&dir, mount) else {
            return;
        };
        let mut client = server.client();
        let first = Image::of(1, &[1, 2]);
        first.push(&mut client, "12.0");
        let seeds: Vec<u64> = (100..140).collect();
        let large = Image::of(2, &seeds);
        let refused = send(&mut client, &large).unwrap();
        assert_eq!(refused.status, 507, "{mount}: {}", refused.text());
        assert_eq!(large.commit(&mut client, "12.0").status, 409, "{mount}");
        first.is_whole(&mut client, "12.0");
        let listed: Vec<protocol::Image> = client.get("/v1/images").json();
        assert_eq!(listed.len(), 1, "{mount}");
        // Once there is room again, all goes on.
        assert_eq!(client.delete("/v1/jobs/12.0/images").status, 204);
        Image::of(3, &[1]).push(&mut client, "12.0");
    }
}

#[test]
fn uploads_have_turns_and_who_has_least_time_goes_first() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--uploads", "1"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let mut client = server.client();
    let first: Ticket = admission(&mut client, 1000, 100, None).json();
    let waiting = |number: u64| {
        let metrics = server.client().get("/metrics");
        metrics
            .text()
            .contains(&format!("criu_store_uploads_waiting {number}\n"))
    };
    thread::scope(|scope| {
        let server = &server;
        let patient = scope.spawn(move || admission(&mut server.client(), 1000, 50, None));
        eventually("one waits", || waiting(1));
        let hasty = scope.spawn(move || admission(&mut server.client(), 1000, 20, None));
        eventually("two wait", || waiting(2));
        let image = Image::of(1, &[1]);
        let (chunk, frame) = &image.frames[0];
        // Without a turn of its own nobody gets ahead of those who wait.
        assert_eq!(put(&mut server.client(), *chunk, frame).status, 429);
        let mut holder = server.client().with_header("criu-ticket", &first.ticket);
        image.push(&mut holder, "12.0");
        let hasty = hasty.join().unwrap().json::<Ticket>();
        assert!(!patient.is_finished());
        let mut holder = server.client().with_header("criu-ticket", &hasty.ticket);
        Image::of(2, &[2]).push(&mut holder, "12.1");
        assert_eq!(patient.join().unwrap().status, 200);
    });
}

#[test]
fn whose_time_is_over_before_its_turn_is_told_so() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--uploads", "1"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let mut client = server.client();
    assert_eq!(admission(&mut client, 1000, 100, None).status, 200);
    let begin = std::time::Instant::now();
    let late = admission(&mut client, 1000, 1, None);
    assert_eq!(late.status, 503);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(problem(&late).contains("turn"), "{}", problem(&late));
    assert!(late.header("retry-after").is_some());
}
