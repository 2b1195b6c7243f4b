//! Our programs as they are shipped: static, so that one file runs on every node and in every container.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::machine;
use crate::roots::{self, HtCondor};

/// The programs.
pub const NAMES: [&str; 3] = ["criu-starter", "criu-pilot", "criu-transfer"];

const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";

/// The directory with the static programs, built now where they are not up to date.
pub fn dir() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| build(&NAMES).map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

/// The demo's job and the tests' specimens, static too: they run on hosts that have a libc of their own.
///
/// Built apart from the programs, for they are of this package: in one build each change here would make theirs slower.
fn of_this_package() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| build(&["sieve", "specimens"]).map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

/// The demo's job.
pub fn sieve() -> Result<PathBuf> {
    Ok(of_this_package()?.join("sieve"))
}

/// What is frozen and thawed by the tests.
pub fn specimens() -> Result<PathBuf> {
    Ok(of_this_package()?.join("specimens"))
}

fn build(names: &[&str]) -> Result<PathBuf> {
    match musl() {
        Ok(()) => cargo_build(names, MUSL, &[("CC_x86_64_unknown_linux_musl", "musl-gcc")]),
        Err(error) => {
            eprintln!("no musl target ({error:#}): linking statically against glibc instead");
            cargo_build(
                names,
                GNU,
                &[("RUSTFLAGS", "-C target-feature=+crt-static")],
            )
        }
    }
}

/// Makes sure that there is a musl target and a C compiler for it.
fn musl() -> Result<()> {
    machine::need(&[("musl-gcc", "musl-tools")])?;
    let libdir =
        output(Command::new("rustc").args(["--print", "target-libdir", "--target", MUSL]))?;
    if Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    eprintln!("adding the target {MUSL}");
    output(Command::new("rustup").args(["target", "add", MUSL]))?;
    Ok(())
}

fn cargo_build(names: &[&str], target: &str, environment: &[(&str, &str)]) -> Result<PathBuf> {
    // A directory of its own: other flags in the shared one would rebuild all of it each time.
    let built = machine::target_dir().join("static");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--quiet", "--target", target])
        .arg("--target-dir")
        .arg(&built)
        .current_dir(machine::workspace())
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    for name in names {
        cargo.args(["--bin", name]);
    }
    // Cargo's own variables describe the package that runs this, not those that are built.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the static programs do not build ({status})");
    }
    Ok(built.join(target).join("release"))
}

/// A CRIU with its own loader and libraries, made of a root's, beside the programs in `dir`.
///
/// The node's own may be too old, and Debian 12 has none that works without privileges.
pub fn bundle_criu(dir: &Path) -> Result<()> {
    let bundle = dir.join("criu-bundle");
    if bundle.join("bin/criu").exists() {
        return Ok(());
    }
    let root = roots::get(HtCondor::V25)?;
    let new = dir.join(format!("criu-bundle.{}", std::process::id()));
    std::fs::create_dir_all(new.join("bin"))?;
    std::fs::create_dir_all(new.join("lib"))?;
    let copy = |from: &Path, to: PathBuf| {
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(&root.join("usr/sbin/criu"), new.join("bin/criu"))?;
    let needed = output(
        Command::new("chroot")
            .arg(&root)
            .args(["ldd", "/usr/sbin/criu"]),
    )?;
    for library in needed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let name = Path::new(library)
            .file_name()
            .context("a library has a name")?;
        copy(&root.join(&library[1..]), new.join("lib").join(name))?;
    }
    // Another process may have been quicker, with the same result.
    if std::fs::rename(&new, &bundle).is_err() {
        std::fs::remove_dir_all(&new)?;
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
