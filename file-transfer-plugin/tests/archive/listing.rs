//! The archive in the eyes of GNU tar.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use file_transfer_plugin::manifest::Codec;
use file_transfer_plugin::pack::Options;

use crate::roundtrip::{pack_one, zoo};
use crate::tree::picture;

/// Whether a program is here, or could be installed; if not, says so, and with REQUIRE=all fails.
fn have(program: &str) -> bool {
    let runs = || {
        Command::new(program)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let found = runs() || (rustix::process::geteuid().is_root() && install(program) && runs());
    if !found {
        assert!(
            std::env::var("REQUIRE").as_deref() != Ok("all"),
            "{program} is missing, and REQUIRE=all"
        );
        eprintln!("SKIPPED: {program} is missing; install with: apt-get install {program}");
    }
    found
}

/// The programs that are asked for have packages of their names.
fn install(package: &str) -> bool {
    eprintln!("installing {package}");
    let apt = |args: &[&str]| {
        Command::new("apt-get")
            .arg("-qq")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    apt(&["update"]) && apt(&["install", "--yes", "--no-install-recommends", package])
}

fn tar(args: &[&str], file: &Path, dir: &Path) -> String {
    let output = Command::new("tar")
        .args(args)
        .arg(file)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr: String = stderr
        .lines()
        .filter(|line| !line.contains("implausibly old time stamp"))
        .collect();
    assert!(
        output.status.success() && stderr.is_empty(),
        "tar {args:?}: {stderr}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tar_lists_the_manifest_first_and_extracts_the_same_tree() {
    for (codec, program, option) in [(Codec::Zstd, "zstd", "--zstd"), (Codec::Gzip, "gzip", "-z")] {
        if have("tar") && have(program) {
            tar_reads_it(codec, option);
        }
    }
}

fn tar_reads_it(codec: Codec, option: &str) {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("srv");
    fs::create_dir(&tree).unwrap();
    zoo(&tree);
    let file = dir.path().join("checkpoint.criu");
    let options = Options {
        codec,
        ..Options::default()
    };
    let packed = pack_one(&tree, &file, &options);
    let listing = tar(&[option, "-tf"], &file, dir.path());
    assert_eq!(listing.lines().next(), Some("manifest.json"));
    assert!(
        listing.lines().any(|line| line == "srv/run.sh"),
        "{listing}"
    );

    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    tar(&[option, "--xattrs", "-xpf"], &file, &out);
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    assert_eq!(
        packed.digest.to_string(),
        blake3::hash(&manifest).to_string()
    );
    assert_eq!(picture(&tree), picture(&out.join("srv")));
    for tree in [tree, out.join("srv")] {
        fs::set_permissions(tree.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
