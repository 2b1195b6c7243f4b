//! `criu-transfer` as people and scripts see it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn criu_transfer(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_criu-transfer"))
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn inspect_shows_what_an_archive_is() {
    let (code, stdout, stderr) = criu_transfer(&["inspect", "v1.criu"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(
        stdout,
        "digest      6df5dee2a4963cc0f0a24c7eef6363390f451de13adcf073ad0fa323e935906e\n\
         format      1\n\
         generation  3\n\
         created     1790000000\n\
         job         ./job ä \\u{1}\n\
         starts      0\n\
         memory      0 bytes\n\
         archive     8452 bytes for 224768 in 3 chunks (26.6 to 1)\n\
         needs       CRIU 4.2.1, kernel 6.1.18, GenuineIntel\n            \
                     xcr0 0x7, 832 bytes of registers\n            \
                     avx avx2 xsave\n\
         tree        images: 1 entries, 205100 bytes\n\
         tree        srv: 6 entries, 1048597 bytes\n"
    );
}

#[test]
fn inspect_prints_the_manifest_itself_as_json() {
    let (code, stdout, _) = criu_transfer(&["inspect", "--json", "v1.criu"]);
    let manifest: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &manifest["head"]["generation"]), (0, &3.into()));
}

#[test]
fn verify_says_that_an_archive_is_whole() {
    let (code, stdout, stderr) = criu_transfer(&["verify", "v1.criu"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with(" whole v1.criu\n"), "{stdout}");
}

#[test]
fn what_cannot_be_done_is_said_once_with_exit_code_1() {
    let temp = tempfile::tempdir().unwrap();
    let bad = temp.path().join("bad");
    let good = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/v1.criu"
    ))
    .unwrap();
    std::fs::write(&bad, &good[..good.len() - 1]).unwrap();
    let bad = bad.to_str().unwrap();
    let (code, stdout, stderr) = criu_transfer(&["verify", bad]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(stderr, format!("criu-transfer: {bad} is cut off\n"));
    let (code, _, stderr) = criu_transfer(&["inspect", "missing"]);
    assert_eq!(code, 1);
    assert_eq!(
        stderr,
        "criu-transfer: cannot read missing: No such file or directory (os error 2)\n"
    );
}

#[test]
fn wrong_usage_has_exit_code_2() {
    assert_eq!(criu_transfer(&["frobnicate"]).0, 2);
    assert_eq!(criu_transfer(&[]).0, 2);
    assert_eq!(criu_transfer(&["--help"]).0, 0);
}
