//! The plugin as HTCondor calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use classad::{ClassAd, Value};
use rustix::process::{Pid, Signal, kill_process};

use crate::archive::{is_whole, make};
use crate::server::{Server, criu_transfer, told, url};
use crate::wire::{Fate, Wire};

/// One call of it: files in the manner of a starter.
struct Call {
    dir: tempfile::TempDir,
}

impl Call {
    fn new(files: &[(&str, &Path)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ads = files.iter().map(|(url, file)| {
            let mut ad = ClassAd::new();
            ad.insert("Url", *url);
            ad.insert("LocalFileName", file.to_str().unwrap());
            ad.to_string()
        });
        // Version 4: an ad that is no file comes first.
        let text = format!(
            "[ Proxy = \"none\" ]\n{}",
            ads.collect::<Vec<_>>().join("\n")
        );
        fs::write(dir.path().join("in"), text).unwrap();
        fs::write(dir.path().join("out"), " ".repeat(19_264)).unwrap();
        Self { dir }
    }

    fn start(&self, upload: bool) -> Child {
        let mut command = criu_transfer();
        command.arg("-infile").arg(self.dir.path().join("in"));
        command.arg("-outfile").arg(self.dir.path().join("out"));
        if upload {
            command.arg("-upload");
        }
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, upload: bool) -> (i32, Vec<ClassAd>) {
        let output = self.start(upload).wait_with_output().unwrap();
        (told(output).0, self.results())
    }

    fn results(&self) -> Vec<ClassAd> {
        ClassAd::parse_all(&fs::read(self.dir.path().join("out")).unwrap()).unwrap()
    }
}

fn error_type(ad: &ClassAd) -> String {
    let Value::List(list) = ad.evaluate("TransferErrorData") else {
        panic!("{ad}")
    };
    let [Value::Ad(data)] = &list[..] else {
        panic!("{ad}")
    };
    data.eval_str("ErrorType").unwrap()
}

#[test]
fn the_ad_is_all_that_is_printed() {
    for log in ["trace", "not a filter=["] {
        let output = criu_transfer()
            .arg("-classad")
            .env("CRIU_TRANSFER_LOG", log)
            .output()
            .unwrap();
        let (code, stdout, stderr) = told(output);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let ad = ClassAd::parse_old(&stdout).unwrap();
        assert_eq!(ad.eval_bool("MultipleFileSupport"), Some(true));
        assert_eq!(ad.eval_str("SupportedMethods").as_deref(), Some("criu"));
        assert_eq!(stdout.lines().count(), ad.len());
    }
}

#[test]
fn a_first_start_gets_an_empty_file_and_a_second_its_image() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let url = server.url("12.0");
    let [here, there]: [PathBuf; 2] = ["here", "there"].map(|name| temp.path().join(name));

    let download = Call::new(&[(&url, &there)]);
    let (code, results) = download.run(false);
    assert_eq!(code, 0);
    assert_eq!(results[0].eval_bool("TransferSuccess"), Some(true));
    assert_eq!(fs::read(&there).unwrap(), b"");

    let digest = make(&here, 1, 0..20);
    let (code, results) = Call::new(&[(&url, &here)]).run(true);
    assert_eq!((code, results.len()), (0, 1), "{results:?}");
    assert_eq!(
        results[0].eval_str("TransferType").as_deref(),
        Some("upload")
    );
    let size = fs::metadata(&here).unwrap().len() as i64;
    assert_eq!(results[0].eval_int("TransferFileBytes"), Some(size));
    let Value::Ad(developer) = results[0].evaluate("DeveloperData") else {
        panic!("{results:?}")
    };
    assert_eq!(developer.eval_str("Digest"), Some(digest.to_string()));

    let (code, _) = download.run(false);
    assert_eq!(code, 0);
    is_whole(&there, digest);
}

#[test]
fn several_files_have_a_result_each_whatever_becomes_of_them() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let good = temp.path().join("good");
    make(&good, 1, 0..3);
    let bad = temp.path().join("bad");
    fs::write(&bad, "no archive").unwrap();
    let call = Call::new(&[
        (&server.url("1.0"), &good),
        (&server.url("2.0"), &bad),
        ("criu://h/not/a/job", &good),
        (&server.url("3.0"), &good),
    ]);
    let (code, results) = call.run(true);
    assert_eq!(code, 1);
    let success: Vec<_> = results
        .iter()
        .map(|ad| ad.eval_bool("TransferSuccess").unwrap())
        .collect();
    assert_eq!(success, [true, false, false, true]);
    assert_eq!(error_type(&results[1]), "Parameter");
    let error = results[1].eval_str("TransferError").unwrap();
    assert!(error.contains("is no checkpoint archive"), "{error}");
}

#[test]
fn a_store_that_is_down_is_worth_another_try() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path().join("here");
    make(&here, 1, 0..3);
    // Nobody listens there: the port was ours a moment ago.
    let address = Server::start(&temp.path().join("store")).address;
    let call = Call::new(&[(&url(address, "1.0"), &here)]);
    for upload in [true, false] {
        let (code, results) = call.run(upload);
        assert_eq!(code, 11, "{results:?}");
        assert_eq!(error_type(&results[0]), "Contact");
    }
}

#[test]
fn told_to_end_it_leaves_a_result_for_each_file() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let wire = Wire::to(server.address, &[Fate::Silent(0)]);
    let here = temp.path().join("here");
    make(&here, 1, 0..3);
    let call = Call::new(&[
        (&url(wire.address, "1.0"), &here),
        (&server.url("2.0"), &here),
    ]);
    let child = call.start(true);
    let limit = Instant::now() + Duration::from_secs(20);
    while wire.connections() == 0 {
        assert!(Instant::now() < limit, "it never connected");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (code, _, stderr) = told(child.wait_with_output().unwrap());
    let results = call.results();
    assert_eq!((code, results.len()), (11, 2), "{stderr}");
    for ad in &results {
        assert_eq!(ad.eval_bool("TransferSuccess"), Some(false));
        assert_eq!(error_type(ad), "Transfer");
    }
}
