//! Our programs as they are shipped: static, so that one file runs on every node and in every container.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::machine;
use crate::roots::{self, HtCondor};

/// The programs.
pub const NAMES: [&str; 3] = ["criu-starter", "criu-pilot", "criu-transfer"];

/// The target of the static programs.
pub(crate) const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";

/// The directory with the static programs, built now where they are not up to date.
pub fn dir() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| build(&NAMES).map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

/// The programs once more, as a build that stands still where a file tells it to (`file_transfer_plugin::rig`).
pub fn paused() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| build_paused().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

fn build_paused() -> Result<PathBuf> {
    musl()?;
    // A directory of its own, so that nobody takes these for the others.
    let built = machine::target_dir().join("paused");
    let features = [
        "starter-plugin/pause-points",
        "file-transfer-plugin/pause-points",
    ];
    let names = ["criu-starter", "criu-transfer"];
    cargo_build(&names, &features, MUSL, machine::workspace(), &built)
}

/// The demo's job and the tests' specimens, static too: they run on hosts that have a libc of their own.
///
/// Built apart from the programs, for they are of this package: in one build each change here would make theirs slower.
fn of_this_package() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| {
        build(&["sieve", "specimens", "cpu-guest"]).map_err(|error| format!("{error:#}"))
    })
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

/// The first process on another CPU.
pub fn cpu_guest() -> Result<PathBuf> {
    Ok(of_this_package()?.join("cpu-guest"))
}

/// The programs once more, from a copy of the sources and into another directory.
pub fn build_elsewhere(sources: &Path, built: &Path) -> Result<PathBuf> {
    musl()?;
    cargo_build(&NAMES, &[], MUSL, sources, built)
}

/// The program that is written in C, because OpenMP is for that: static, as the others are.
pub fn openmp() -> Result<PathBuf> {
    machine::need(&[
        ("cc", "gcc"),
        ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ])?;
    let (name, text) = crate::specimens::OPENMP;
    let dir = machine::target_dir().join("static");
    std::fs::create_dir_all(&dir)?;
    // Tests make it at the same time; each its own, under one name in the end.
    let own = dir.join(format!("{name}.{}", std::process::id()));
    let source = own.with_extension(format!("{}.c", std::process::id()));
    std::fs::write(&source, text)?;
    let flags = [
        "-O2",
        "-fopenmp",
        "-static",
        "-w",
        "-Wl,--no-warnings",
        "-o",
    ];
    let mut compiler = Command::new("cc");
    output(compiler.args(flags).args([&own, &source]))?;
    std::fs::remove_file(&source)?;
    let program = dir.join(name);
    std::fs::rename(&own, &program)?;
    Ok(program)
}

fn build(names: &[&str]) -> Result<PathBuf> {
    // A directory of its own: other flags in the shared one would rebuild all of it each time.
    let built = machine::target_dir().join("static");
    let target = match musl() {
        Ok(()) => MUSL,
        Err(error) => {
            eprintln!("no musl target ({error:#}): linking statically against glibc instead");
            GNU
        }
    };
    cargo_build(names, &[], target, machine::workspace(), &built)
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

fn cargo_build(
    names: &[&str],
    features: &[&str],
    target: &str,
    sources: &Path,
    built: &Path,
) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--quiet", "--target", target])
        .arg("--target-dir")
        .arg(built)
        .current_dir(sources)
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(target, sources))
        // An allocator in C says when it was compiled; this is the hour that the compiler takes for it.
        .env("SOURCE_DATE_EPOCH", "0")
        .stdin(Stdio::null());
    for name in names {
        cargo.args(["--bin", name]);
    }
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
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

/// Nothing of this machine's directories goes into a program, so that it is the same wherever it is built.
fn flags(target: &str, sources: &Path) -> OsString {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = OsString::new();
    for (dir, name) in [(home.as_deref(), "/cargo"), (Some(sources), "/sources")] {
        if let Some(dir) = dir {
            // Cargo separates encoded flags by this.
            flags.push("--remap-path-prefix=");
            flags.push(dir);
            flags.push(format!("={name}\x1f"));
        }
    }
    let rest = if target == GNU {
        "-Ctarget-feature=+crt-static"
    } else {
        "-Cstrip=debuginfo"
    };
    flags.push(rest);
    flags
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
    for part in parts_of_criu(&root)? {
        let from = root.join(part.trim_start_matches('/'));
        let name = from.file_name().context("a file has a name")?;
        let kind = if name == "criu" { "bin" } else { "lib" };
        std::fs::copy(&from, new.join(kind).join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // Another process may have been quicker, with the same result.
    if std::fs::rename(&new, &bundle).is_err() {
        std::fs::remove_dir_all(&new)?;
    }
    Ok(())
}

/// CRIU, its libraries and its loader in a root, as the root calls them.
pub(crate) fn parts_of_criu(root: &Path) -> Result<Vec<String>> {
    const CRIU: &str = "/usr/sbin/criu";
    let needed = output(Command::new("chroot").arg(root).args(["ldd", CRIU]))?;
    let libraries = needed.split_whitespace();
    let libraries = libraries.filter(|word| word.starts_with('/'));
    Ok([CRIU]
        .into_iter()
        .chain(libraries)
        .map(str::to_owned)
        .collect())
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
