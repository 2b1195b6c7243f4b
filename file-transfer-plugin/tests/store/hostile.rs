//! Clients that mean no good: they get a refusal, and the others their service.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::http::{Client, answer};
use crate::image::Image;
use crate::server::Server;

/// Sends bytes as they are; what came back until the store closed or answered.
fn raw(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // It may have had enough before all is sent.
    let _ = stream.write_all(request);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn paths_that_lead_elsewhere_lead_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let server = Server::start(&dir);
    let mut client = server.client();
    let image = Image::of(1, &[1]);
    let digest = image.digest;
    for job in [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fx",
        "a%2Fb",
        "%00",
        "a%5Cb",
        "%ff",
        "",
        "x%20y",
        ".x",
        &"x".repeat(300),
    ] {
        let path = format!("/v1/jobs/{job}/images/{digest}");
        let answer = client.put(&path, &image.manifest);
        assert!(
            [400, 404].contains(&answer.status),
            "{job}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let hash = "0".repeat(64);
    for chunk in [
        "x",
        "..",
        "%2e%2e%2fboot",
        &hash,
        &format!("{hash}-0"),
        &format!("{hash}-01"),
        &format!("{hash}-99999999999"),
    ] {
        for answer in [
            client.get(&format!("/v1/chunks/{chunk}")),
            client.put(&format!("/v1/chunks/{chunk}"), b"x"),
        ] {
            assert!(
                [400, 404].contains(&answer.status),
                "{chunk}: {}",
                answer.status
            );
        }
    }
    for packed in [5_000_000, u32::MAX] {
        let answer = client.put(&format!("/v1/chunks/{hash}-{packed}"), b"x");
        assert_eq!(answer.status, 400, "{packed}");
    }
    assert_eq!(std::fs::read_dir(dir.join("v1")).unwrap().count(), 0);
}

#[test]
fn a_body_is_never_longer_than_makes_sense() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--patience", "1"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let hash = "0".repeat(64);
    for request in [
        format!(
            "PUT /v1/chunks/{hash}-4000000 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        ),
        format!(
            "PUT /v1/jobs/1.0/images/{hash} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        ),
        "POST /v1/missing HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
        "POST /v1/admission HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n"
            .to_owned(),
        format!(
            "PUT /v1/chunks/{hash}-5 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ),
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let answer = answer(&mut BufReader::new(stream)).unwrap();
        assert!(
            [400, 413].contains(&answer.status),
            "{request}: {}",
            answer.status
        );
    }
    // Deep JSON, long lists, and numbers that are none.
    let mut client = server.client();
    let names = vec![format!("{hash}-1"); 20_000];
    for body in [
        "[".repeat(1_000_000),
        "{\"chunks\":[1]}".into(),
        "{\"chunks\":[\"x\"]}".into(),
        "nonsense".into(),
        serde_json::json!({ "chunks": names }).to_string(),
    ] {
        let answer = client.call("POST", "/v1/missing", body.as_bytes()).unwrap();
        assert_eq!(answer.status, 400);
    }
    let answer = client
        .call("POST", "/v1/admission", b"{\"bytes\":-1,\"seconds\":1}")
        .unwrap();
    assert_eq!(answer.status, 400);
}

#[test]
fn what_is_no_http_is_no_request() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(200_000));
    for request in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        &long,
        &path,
    ] {
        let said = raw(&server, request.as_bytes());
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    assert_eq!(server.client().get("/healthz").status, 200);
}

#[test]
fn who_sends_nothing_is_not_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--patience", "1"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let image = Image::of(1, &[1]);
    let (chunk, _) = &image.frames[1];
    let put = format!(
        "PUT /v1/chunks/{chunk} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\nxx",
        chunk.packed
    );
    let begin = Instant::now();
    let half = raw(&server, b"GET /healthz HTTP/1.1\r\nHost:");
    assert!(
        half.is_empty() || half.starts_with("HTTP/1.1 408"),
        "{half}"
    );
    let said = raw(&server, put.as_bytes());
    assert!(
        said.starts_with("HTTP/1.1 400") && said.contains("too slow"),
        "{said}"
    );
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn many_who_hold_on_do_not_keep_the_others_from_their_turn() {
    let temp = tempfile::tempdir().unwrap();
    let options = ["--anonymous", "--patience", "2"];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let hash = "0".repeat(64);
    // 60 times 4 MB is more than the store takes into memory at once.
    let request = format!(
        "PUT /v1/chunks/{hash}-4000000 HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\nx"
    );
    let held: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let begin = Instant::now();
    Image::of(1, &[1]).push(&mut Client::new(server.address), "12.0");
    assert!(begin.elapsed() < Duration::from_secs(20));
    drop(held);
}
