//! The same store on an object store: a server that speaks S3, not a stand-in of ours.
//!
//! `STORE_TEST_S3=http://host:port` with AWS's variables names one; otherwise it is moto's, from PyPI.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use file_transfer_plugin::protocol;

use crate::http::Client;
use crate::image::{Image, missing, problem, put};
use crate::server::{Server, have_package, skip};

const MOTO: &str = "moto[server]==5.2.5";

/// An S3 server that runs. Dropped, it is killed.
struct S3 {
    child: Option<Child>,
    endpoint: String,
}

impl S3 {
    fn start() -> Option<Self> {
        if let Ok(endpoint) = std::env::var("STORE_TEST_S3") {
            let child = None;
            return Some(Self { child, endpoint });
        }
        let packages = install()?;
        let mut child = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONPATH", packages)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let endpoint = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once("Running on ")?;
            Some(address.trim().to_owned())
        });
        // It writes a line for each request, and must not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            child: Some(child),
            endpoint: endpoint.unwrap(),
        })
    }

    /// The store on a bucket of this server.
    fn serve(&self, dir: &std::path::Path, url: &str) -> Server {
        let mut command = Server::command(dir, &["--anonymous", "--objects", url]);
        command
            .env("AWS_ENDPOINT", &self.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1");
        if self.child.is_some() {
            command
                .env("AWS_ACCESS_KEY_ID", "key")
                .env("AWS_SECRET_ACCESS_KEY", "key-secret");
        }
        Server::spawn(command, dir)
    }

    fn make_bucket(&self, name: &str) {
        let address = self.endpoint.strip_prefix("http://").unwrap();
        let made = Client::new(address.parse().unwrap()).put(&format!("/{name}"), b"");
        assert_eq!(made.status, 200, "{}", made.text());
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have been killed already, by the test.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where moto is, or was put now.
fn install() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("moto-5.2.5");
    if dir.is_dir() {
        return Some(dir);
    }
    have_package(&["python3"], "python3")?;
    have_package(&["pip3", "pip"], "python3-pip")?;
    let new = dir.with_extension(std::process::id().to_string());
    let done = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--target"])
        .arg(&new)
        .arg(MOTO)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !done.status.success() {
        skip(&format!(
            "{MOTO} cannot be installed: {}",
            String::from_utf8_lossy(&done.stderr)
        ));
        return None;
    }
    // Another test may have been quicker, with the same result.
    let _ = std::fs::rename(&new, &dir);
    Some(dir)
}

#[test]
fn an_object_store_keeps_images_as_a_directory_does() {
    let Some(mut s3) = S3::start() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    s3.make_bucket("images");
    let url = "s3://images/ap40";
    let server = s3.serve(&dir, url);
    let mut client = server.client();
    let images = [1, 2, 3].map(|n| Image::of(n, &[n, n + 1, 7]));
    for image in &images {
        image.push(
            &mut client,
            "ap#12.0#1790000000".replace('#', "%23").as_str(),
        );
    }
    let job = "ap%2312.0%231790000000";
    let other = Image::of(4, &[90]);
    let (chunk, frame) = &other.frames[1];
    assert_eq!(put(&mut client, *chunk, frame).status, 204);
    server.kill();

    // The next one finds it all again, what was only half sent too.
    let server = s3.serve(&dir, url);
    let mut client = server.client();
    let listed: Vec<protocol::Image> = client.get("/v1/images").json();
    let listed: Vec<u64> = listed.iter().map(|image| image.generation).collect();
    assert_eq!(listed, [3, 2]);
    images[1].is_whole(&mut client, job);
    images[2].is_whole(&mut client, job);
    assert_eq!(client.get(&images[0].path(job)).status, 404);
    assert!(!missing(&mut client, &other.names()).contains(chunk));
    other.push(&mut client, "13.0");
    // Another prefix is another store.
    let elsewhere = s3.serve(&temp.path().join("elsewhere"), "s3://images/ap41");
    let there: Vec<protocol::Image> = elsewhere.client().get("/v1/images").json();
    assert!(there.is_empty());
    assert_eq!(client.delete(&format!("/v1/jobs/{job}/images")).status, 204);
    other.is_whole(&mut client, "13.0");

    if let Some(child) = &mut s3.child {
        child.kill().unwrap();
        child.wait().unwrap();
        let lost = Image::of(5, &[91]);
        let (chunk, frame) = &lost.frames[1];
        let refused = put(&mut client, *chunk, frame);
        assert_eq!(refused.status, 500);
        assert_eq!(problem(&refused), "the store failed, its log says why");
        let log = server.log();
        assert!(
            log.contains("cannot write") && !log.contains("key-secret"),
            "{log}"
        );
    }
}
