//! TLS, with certificates that are replaced beneath a store that runs.

use std::fs;
use std::io::BufReader;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::answer;
use crate::server::{Server, eventually, have};
use crate::tokens::sha256;

/// A certificate for this host, good for itself.
fn certificate(dir: &Path, name: &str) -> (String, String) {
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let (new_certificate, new_key) = (dir.join("new-cert"), dir.join("new-key"));
    let subject = format!("/CN={name}");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", &subject])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&new_certificate)
        .arg("-keyout")
        .arg(&new_key)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    fs::rename(new_certificate, &certificate).unwrap();
    fs::rename(new_key, &key).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    (text(&certificate), text(&key))
}

/// Asks over TLS, believing this certificate only; what came, and what the two agreed to speak.
fn get(server: &Server, believed: &str, alpn: &[&str]) -> Option<(u16, Option<Vec<u8>>)> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(believed).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(server.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    connection.complete_io(&mut tcp).ok()?;
    let agreed = connection.alpn_protocol().map(<[u8]>::to_vec);
    if agreed.as_deref() == Some(b"h2") {
        return Some((0, agreed));
    }
    let mut stream = StreamOwned::new(connection, tcp);
    let request = b"GET /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).ok()?;
    let answer = answer(&mut BufReader::new(stream)).ok()?;
    Some((answer.status, agreed))
}

#[test]
fn a_certificate_that_is_replaced_is_used_without_a_restart() {
    if !have("openssl") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tokens = temp.path().join("tokens");
    fs::write(&tokens, format!("{} alice\n", sha256("secret"))).unwrap();
    let (certificate_path, key_path) = certificate(temp.path(), "first");
    let options = [
        "--listen",
        "0.0.0.0:0",
        "--tokens",
        tokens.to_str().unwrap(),
        "--certificate",
        &certificate_path,
        "--key",
        &key_path,
    ];
    let mut server = Server::start_with(&temp.path().join("store"), &options);
    server.address.set_ip([127, 0, 0, 1].into());
    let first = temp.path().join("first.pem");
    fs::copy(&certificate_path, &first).unwrap();
    let first = first.to_str().unwrap();

    let http1 = Some(b"http/1.1".to_vec());
    assert_eq!(get(&server, first, &["http/1.1"]), Some((200, http1)));
    assert_eq!(
        get(&server, first, &["h2", "http/1.1"]),
        Some((0, Some(b"h2".to_vec())))
    );
    certificate(temp.path(), "second");
    eventually("the new certificate is shown", || {
        get(&server, &certificate_path, &["http/1.1"]).is_some_and(|(status, _)| status == 200)
    });
    assert_eq!(get(&server, first, &["http/1.1"]), None);
    // Whoever does not speak TLS gets no answer, and does not keep the others from theirs.
    let plain = server.client().call("GET", "/healthz", b"");
    assert!(plain.is_err(), "{plain:?}");
    assert!(get(&server, &certificate_path, &["http/1.1"]).is_some());
}
