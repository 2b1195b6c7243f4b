//! What nobody will ask for again goes, and why is said before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use file_transfer_plugin::protocol;

use crate::image::{Image, put};
use crate::server::Server;

const DAY: u64 = 86_400;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * DAY);
    File::open(path).unwrap().set_modified(then).unwrap();
}

/// With a `condor_q` that knows these jobs, or fails.
fn gc(dir: &Path, options: &[&str], queue: Option<&str>) -> (i32, String, String) {
    let bin = dir.with_extension("bin");
    fs::create_dir_all(&bin).unwrap();
    let answer = queue.map_or("exit 1".to_owned(), |jobs| format!("cat <<'E'\n{jobs}E"));
    fs::write(bin.join("condor_q"), format!("#!/bin/sh\n{answer}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bin.join("condor_q"), mode).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_criu-transfer"))
        .arg("gc")
        .arg("--dir")
        .arg(dir)
        .args(options)
        .env("PATH", path)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_dry_run_explains_what_a_run_then_does() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let images = [1, 2, 3, 4].map(|n| Image::of(n, &[n, 7]));
    let server = Server::start(&dir);
    let mut client = server.client();
    for (image, job) in images.iter().zip(["12.0", "13.0", "mine", "14.0"]) {
        image.push(&mut client, job);
    }
    let orphan = Image::of(5, &[50]);
    for (chunk, frame) in &orphan.frames {
        put(&mut client, *chunk, frame);
    }
    server.kill();
    let named = |part: &str| -> Vec<PathBuf> {
        let all = files(&dir.join("v1"));
        all.into_iter()
            .filter(|path| path.to_str().unwrap().contains(part))
            .collect()
    };
    // 12.0 runs, 13.0 left the queue, "mine" is old, 14.0 has lost a chunk, and two writes were cut off.
    for image in &images {
        age(&named(&image.digest.to_string())[0], 1);
    }
    age(&named(&images[2].digest.to_string())[0], 40);
    let page = named(&images[3].frames[1].0.to_string());
    fs::remove_file(&page[0]).unwrap();
    let half = &orphan.frames[1].0.to_string();
    let cut = named(half);
    File::options()
        .write(true)
        .open(&cut[0])
        .unwrap()
        .set_len(10)
        .unwrap();
    age(&named(&orphan.frames[0].0.to_string())[0], 2);
    fs::write(page[0].with_extension("x#1"), "half").unwrap();

    let before = files(&dir);
    let queue = Some("12 0 ap#12.0#1790000000\n");
    let (code, said, errors) = gc(&dir, &["--dry-run", "--ask-schedd"], queue);
    assert_eq!((code, errors.as_str()), (0, ""));
    let digest = |n: usize| images[n].digest.to_string();
    for (what, why) in [
        (digest(1), "its job left the queue"),
        (digest(2), "it was committed 40 days ago"),
        (digest(3), "it is not whole: 1 of its chunks are missing"),
        (half.clone(), "it has another length"),
        (orphan.frames[0].0.to_string(), "no image names it"),
        (".x#1".to_owned(), "a write that was cut off"),
    ] {
        let line = said.lines().find(|line| line.contains(&what));
        assert!(
            line.is_some_and(|line| line.starts_with("would go: ") && line.contains(why)),
            "{why}:\n{said}"
        );
    }
    assert!(
        !said.contains(&digest(0)) && said.ends_with("6 in all\n"),
        "{said}"
    );
    assert_eq!(files(&dir), before, "a dry run changes nothing");

    let (code, said, _) = gc(&dir, &["--ask-schedd"], queue);
    assert_eq!(code, 0);
    assert!(
        said.contains("goes: ") && said.ends_with("6 in all\n"),
        "{said}"
    );
    let server = Server::start(&dir);
    let mut client = server.client();
    let left: Vec<protocol::Image> = client.get("/v1/images").json();
    assert_eq!(left.len(), 1);
    images[0].is_whole(&mut client, "12.0");
}

#[test]
fn a_schedd_that_does_not_answer_has_not_forgotten_its_jobs() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let server = Server::start(&dir);
    let image = Image::of(1, &[1]);
    image.push(&mut server.client(), "12.0");
    // A store that runs is looked at, and left alone.
    let (code, _, errors) = gc(&dir, &[], None);
    assert_eq!(code, 1);
    assert!(errors.contains("is served by another process"), "{errors}");
    assert_eq!(
        gc(&dir, &["--dry-run"], None),
        (0, "0 in all\n".into(), String::new())
    );
    server.kill();
    let (code, said, errors) = gc(&dir, &["--ask-schedd"], None);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(errors.contains("condor_q"), "{errors}");
    let server = Server::start(&dir);
    image.is_whole(&mut server.client(), "12.0");
}
