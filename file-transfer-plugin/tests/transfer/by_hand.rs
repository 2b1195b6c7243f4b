//! `push`, `pull`, `ls`, `rm` and `verify`.

use std::fs;

use file_transfer_plugin::manifest::Codec;
use serde_json::Value;

use crate::archive::{is_whole, make, make_in};
use crate::server::{Server, criu_transfer, told};

fn run(args: &[&str]) -> (i32, String, String) {
    told(criu_transfer().args(args).output().unwrap())
}

fn json(args: &[&str]) -> Value {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn what_is_pushed_is_pulled_and_the_second_image_moves_what_changed() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let server = Server::start(&temp.path().join("store"));
    let url = server.url("12.0");
    let first = make(path("first").as_ref(), 1, 0..40);
    let second = make(path("second").as_ref(), 2, (0..38).chain(100..102));

    let pushed = json(&["push", &path("first"), &url, "--json"]);
    assert_eq!(pushed["digest"], first.to_string());
    assert!(pushed["sent_chunks"].as_u64() >= Some(41), "{pushed}");
    // The two that changed, and the one that the small image and the headers share.
    let pushed = json(&["push", &path("second"), &url, "--json"]);
    assert_eq!(pushed["sent_chunks"], 3, "{pushed}");
    let again = json(&["push", &path("second"), &url, "--json"]);
    assert_eq!(again["sent_chunks"], 0, "{again}");

    assert_eq!(run(&["pull", &url, &path("newest")]).0, 0);
    is_whole(path("newest").as_ref(), second);
    let named = format!("{url}&digest={first}");
    assert_eq!(run(&["pull", &named, &path("older")]).0, 0);
    is_whole(path("older").as_ref(), first);
    assert!(!temp.path().join("older.part").exists());
    let verified = json(&["verify", &url, "--json"]);
    assert_eq!(verified["digest"], second.to_string());

    let listed = json(&["ls", &url, "--json"]);
    let generations: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|image| &image["generation"])
        .collect();
    assert_eq!(generations, [2, 1]);
    assert_eq!(run(&["rm", &named]).0, 0);
    assert_eq!(
        json(&["ls", &server.url(""), "--json"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(run(&["rm", &url]).0, 0);
    let (code, stdout, _) = run(&["ls", &url]);
    assert_eq!((code, stdout.as_str()), (0, ""));
}

#[test]
fn an_image_of_gzip_members_goes_and_comes_as_well() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let url = server.url("12.0");
    let (there, back) = (temp.path().join("there"), temp.path().join("back"));
    let digest = make_in(Codec::Gzip, &there, 1, 0..10);
    assert_eq!(run(&["push", there.to_str().unwrap(), &url]).0, 0);
    assert_eq!(run(&["verify", &url]).0, 0);
    assert_eq!(run(&["pull", &url, back.to_str().unwrap()]).0, 0);
    is_whole(&back, digest);
    assert!(fs::read(&back).unwrap().starts_with(&[0x1f, 0x8b]));
}

#[test]
fn an_archive_of_before_frames_had_names_stays_here_and_it_is_said_why() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1.criu");
    let (code, _, stderr) = run(&["push", old, &server.url("7.0")]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("the archive has format 1, stores take 2"),
        "{stderr}"
    );
}

#[test]
fn a_job_without_an_image_has_its_own_exit_code() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let out = temp.path().join("out");
    let pull = ["pull", &server.url("7.0"), out.to_str().unwrap()];
    assert_eq!(run(&pull).0, 4);
    assert!(!out.exists());
    assert_eq!(run(&["verify", &server.url("7.0")]).0, 4);
}

#[test]
fn what_cannot_be_done_is_one_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let bad = temp.path().join("bad");
    fs::write(&bad, "no archive").unwrap();
    let server = Server::start(&temp.path().join("store"));
    let (code, _, stderr) = run(&["push", bad.to_str().unwrap(), &server.url("7.0")]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is no checkpoint archive"), "{stderr}");
    let (code, _, stderr) = run(&["pull", "criu://ap.example.org/7.0?tls=no"]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("without TLS to this machine only"),
        "{stderr}"
    );
}
