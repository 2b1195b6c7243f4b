//! No token, no service; and each token as far as it goes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use file_transfer_plugin::protocol;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::image::{Image, missing, put};
use crate::server::{Server, eventually};

const ISSUER: &str = "https://ap.example/scitokens";
const AUDIENCE: &str = "https://ap.example:9622";

/// What `printf %s TOKEN | sha256sum` prints.
pub(crate) fn sha256(token: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An issuer with a key.
struct Issuer {
    pair: EcdsaKeyPair,
    name: String,
}

impl Issuer {
    fn new(name: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            pair: EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap(),
            name: name.into(),
        }
    }

    /// Its public key, as an issuer publishes it.
    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.name, "alg": "ES256",
                "x": BASE64.encode(x), "y": BASE64.encode(y) })
    }

    fn sign(&self, claims: &Value) -> String {
        let head = json!({ "alg": "ES256", "typ": "JWT", "kid": self.name });
        let text = unsigned(&head, claims);
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text.as_bytes())
            .unwrap();
        format!("{text}.{}", BASE64.encode(signature))
    }
}

fn unsigned(head: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}", part(head), part(claims))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn claims(subject: &str, scope: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope, "exp": now() + 600, "nbf": now() - 5 })
}

fn status(server: &Server, token: &str) -> u16 {
    server.client().with_token(token).get("/v1/images").status
}

fn serve(dir: &Path, keys: &Path) -> Server {
    let issuer = format!("{ISSUER}={}", keys.display());
    let options = ["--issuer", &issuer, "--audience", AUDIENCE];
    Server::start_with(dir, &options)
}

#[test]
fn without_a_token_that_is_in_force_there_is_no_service() {
    let temp = tempfile::tempdir().unwrap();
    let keys = temp.path().join("keys.json");
    let (ours, other) = (Issuer::new("key-1"), Issuer::new("key-1"));
    fs::write(&keys, json!({ "keys": [ours.jwk()] }).to_string()).unwrap();
    let server = serve(&temp.path().join("store"), &keys);

    let good = claims("alice", "storage.read:/ storage.modify:/");
    assert_eq!(status(&server, &ours.sign(&good)), 200);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        ours.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        ours.sign(&claims)
    };
    // Clocks differ a little.
    assert_eq!(status(&server, &with("exp", json!(now() - 30))), 200);
    assert_eq!(status(&server, &with("nbf", json!(now() + 30))), 200);
    let everybody = json!("https://wlcg.cern.ch/jwt/v1/any");
    assert_eq!(status(&server, &with("aud", everybody)), 200);

    let mut altered = ours.sign(&good);
    let at = altered.find('.').unwrap() + 10;
    let byte = if altered.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    altered.replace_range(at..=at, byte);
    let none = format!("{}.", unsigned(&json!({ "alg": "none" }), &good));
    // Signed with what everybody knows, as if it were a secret.
    let key = ours.jwk().to_string();
    let text = unsigned(&json!({ "alg": "HS256", "kid": "key-1" }), &good);
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let hmac = ring::hmac::sign(&secret, text.as_bytes());
    let confused = format!("{text}.{}", BASE64.encode(hmac));
    for (what, token) in [
        ("expired", with("exp", json!(now() - 120))),
        ("without an end", without("exp")),
        ("not yet in force", with("nbf", json!(now() + 120))),
        (
            "for another store",
            with("aud", json!("https://other.example")),
        ),
        ("for nobody", without("aud")),
        (
            "of another issuer",
            with("iss", json!("https://other.example")),
        ),
        ("of nobody", without("sub")),
        ("of somebody with a path", with("sub", json!("../bob"))),
        ("signed with another key", other.sign(&good)),
        ("altered", altered),
        ("not signed", none),
        ("signed with the public key", confused),
        ("no token", "x".into()),
        ("too long", "x".repeat(20_000)),
        ("empty", String::new()),
    ] {
        assert_eq!(status(&server, &token), 401, "{what}");
    }
    for path in ["/v1/images", "/metrics", "/", "/v1/jobs/1.0/images/latest"] {
        assert_eq!(server.client().get(path).status, 401, "{path}");
    }
    assert_eq!(server.client().get("/healthz").status, 200);
}

#[test]
fn a_token_of_rsa_is_as_good() {
    let temp = tempfile::tempdir().unwrap();
    let (private, public) = (temp.path().join("key"), temp.path().join("key.pub"));
    let openssl = |args: &[&str], input: &[u8]| {
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    if !crate::server::have("openssl") {
        return;
    }
    fs::write(&private, openssl(&["genrsa", "2048"], b"")).unwrap();
    let key = private.to_str().unwrap();
    fs::write(&public, openssl(&["rsa", "-in", key, "-pubout"], b"")).unwrap();
    let server = serve(&temp.path().join("store"), &public);
    let head = json!({ "alg": "RS256" });
    let text = unsigned(&head, &claims("alice", "storage.read:/"));
    let signature = openssl(&["dgst", "-sha256", "-sign", key], text.as_bytes());
    let token = format!("{text}.{}", BASE64.encode(signature));
    assert_eq!(status(&server, &token), 200);
    let other = unsigned(&head, &claims("bob", "storage.read:/"));
    let (_, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(status(&server, &format!("{other}.{signature}")), 401);
}

#[test]
fn a_token_goes_as_far_as_its_scopes() {
    let temp = tempfile::tempdir().unwrap();
    let keys = temp.path().join("keys.json");
    let issuer = Issuer::new("key-1");
    fs::write(&keys, json!({ "keys": [issuer.jwk()] }).to_string()).unwrap();
    let server = serve(&temp.path().join("store"), &keys);
    let client = |scope: &str| {
        let token = issuer.sign(&claims("alice", scope));
        server.client().with_token(&token)
    };
    let image = Image::of(1, &[1]);
    let mut all = client("storage.read:/ storage.modify:/");
    image.push(&mut all, "12.0");
    image.push(&mut all, "12.1");

    let mut read = client("storage.read:/");
    image.is_whole(&mut read, "12.0");
    let (chunk, frame) = &image.frames[0];
    assert_eq!(put(&mut read, *chunk, frame).status, 403);
    assert_eq!(image.commit(&mut read, "12.2").status, 403);
    assert_eq!(read.delete(&image.path("12.0")).status, 403);

    let mut one = client("storage.read:/alice/12.0 storage.modify:/alice/12.0");
    image.is_whole(&mut one, "12.0");
    assert_eq!(one.get(&image.path("12.1")).status, 403);
    assert_eq!(image.commit(&mut one, "12.0").status, 200);
    assert_eq!(image.commit(&mut one, "12.1").status, 403);
    let listed: Vec<protocol::Image> = one.get("/v1/images").json();
    assert_eq!(listed.len(), 1);

    let mut elsewhere = client("storage.read:/bob storage.modify:/bob compute.read");
    assert_eq!(elsewhere.get(&image.path("12.0")).status, 403);
    assert_eq!(elsewhere.get(&format!("/v1/chunks/{chunk}")).status, 403);
}

#[test]
fn nobody_learns_of_the_chunks_of_others() {
    let temp = tempfile::tempdir().unwrap();
    let tokens = temp.path().join("tokens");
    let lines = format!("{} alice\n{} bob\n", sha256("a-secret"), sha256("b-secret"));
    fs::write(&tokens, lines).unwrap();
    let options = ["--tokens", tokens.to_str().unwrap()];
    let server = Server::start_with(&temp.path().join("store"), &options);
    let mut alice = server.client().with_token("a-secret");
    let mut bob = server.client().with_token("b-secret");
    let image = Image::of(1, &[1, 2]);
    image.push(&mut alice, "12.0");
    assert_eq!(missing(&mut bob, &image.names()), image.names());
    for path in [
        image.path("12.0"),
        "/v1/jobs/12.0/images/latest".into(),
        format!("/v1/chunks/{}", image.frames[0].0),
    ] {
        assert_eq!(bob.get(&path).status, 404, "{path}");
    }
    assert!(
        bob.get("/v1/images")
            .json::<Vec<protocol::Image>>()
            .is_empty()
    );
    assert_eq!(image.commit(&mut bob, "12.0").status, 409);
    bob.delete("/v1/jobs/12.0/images");
    // He sends all of it, and has it twice then: once as his own.
    assert_eq!(image.push(&mut bob, "12.0"), image.frames.len());
    bob.delete("/v1/jobs/12.0/images");
    image.is_whole(&mut alice, "12.0");
    assert!(!server.log().contains("secret"));
}

#[test]
fn a_list_of_tokens_is_read_again_when_it_changes() {
    let temp = tempfile::tempdir().unwrap();
    let tokens = temp.path().join("tokens");
    fs::write(&tokens, format!("{} alice\n", sha256("old"))).unwrap();
    let options = ["--tokens", tokens.to_str().unwrap()];
    let server = Server::start_with(&temp.path().join("store"), &options);
    assert_eq!((status(&server, "old"), status(&server, "new")), (200, 401));
    fs::write(&tokens, format!("{} alice\n", sha256("new"))).unwrap();
    eventually("the new token is taken", || status(&server, "new") == 200);
    assert_eq!(status(&server, "old"), 401);
    // An editor that crashed must not lock everybody out.
    fs::write(&tokens, "???\n").unwrap();
    eventually("the log says so", || {
        assert_eq!(status(&server, "new"), 200);
        server.log().contains("the old content stays in force")
    });
}

#[test]
fn what_would_let_in_everybody_is_refused_at_the_start() {
    let temp = tempfile::tempdir().unwrap();
    let said = |options: &[&str]| {
        let output = Server::command(&temp.path().join("store"), options)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&[]).contains("nobody could be let in"));
    let anywhere = ["--listen", "0.0.0.0:0"];
    let open = said(&[&anywhere[..], &["--anonymous"]].concat());
    assert!(
        open.contains("--anonymous: on a loopback address only"),
        "{open}"
    );
    let tokens = temp.path().join("tokens");
    fs::write(&tokens, format!("{} alice\n", sha256("secret"))).unwrap();
    let plain = said(&[&anywhere[..], &["--tokens", tokens.to_str().unwrap()]].concat());
    assert!(plain.contains("on a loopback address only"), "{plain}");
    fs::write(&tokens, "secret alice\n").unwrap();
    let bad = said(&["--tokens", tokens.to_str().unwrap()]);
    assert!(
        bad.contains("line 1") && !bad.contains("secret alice"),
        "{bad}"
    );
}
