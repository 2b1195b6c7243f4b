//! `cargo xtask`: what maintainers and CI do beside `cargo test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use crate::binaries;
use crate::machine;
use crate::roots::{self, HtCondor};

const EXAMPLES: &str = "\
Examples:
  cargo xtask check      formatting, lints, dependency arrows
  cargo xtask musl       build the static programs and run them on other systems
  cargo xtask bundle     the static programs with a CRIU that needs nothing of the node";

/// What maintainers and CI do beside `cargo test`
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, clippy with warnings denied, documentation, dependency arrows
    Check,
    /// Build the static programs and run them here, on Debian 13, on Debian sid and in a root with no libc
    Musl,
    /// Put the static programs and a relocatable CRIU into one directory, and name it
    Bundle,
}

/// Parses the command line and does it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Check => check(),
        Task::Musl => musl(),
        Task::Bundle => bundle(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    arrows()?;
    cargo(&["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--quiet", "--all-targets"];
    let deny = ["--", "--deny", "warnings"];
    cargo(&[&clippy[..], &["--workspace"], &deny].concat())?;
    // What the pilot links, alone: without default features it must stay small and whole.
    let pure = ["--package", "file-transfer-plugin", "--no-default-features"];
    cargo(&[&clippy[..], &pure, &deny].concat())?;
    cargo(&["doc", "--quiet", "--workspace", "--no-deps"])
}

/// classad <- file-transfer-plugin <- starter-plugin, pilot; the last two never meet.
fn arrows() -> Result<()> {
    const ALLOWED: [(&str, &[&str]); 4] = [
        ("classad", &[]),
        ("file-transfer-plugin", &["classad"]),
        ("starter-plugin", &["classad", "file-transfer-plugin"]),
        ("pilot", &["classad", "file-transfer-plugin"]),
    ];
    for (package, allowed) in ALLOWED {
        let manifest = machine::workspace().join(package).join("Cargo.toml");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        for (other, _) in ALLOWED {
            let depends = text.lines().any(|line| {
                line.strip_prefix(other)
                    .is_some_and(|rest| rest.starts_with([' ', '.', '=']))
            });
            if depends && !allowed.contains(&other) {
                bail!("{package} must not depend on {other}: the arrows point one way");
            }
        }
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    eprintln!("cargo {}", args.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .current_dir(machine::workspace())
        .env("RUSTDOCFLAGS", "--deny warnings")
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", args.join(" "));
    Ok(())
}

fn musl() -> Result<()> {
    let built = binaries::dir()?;
    binaries::bundle_criu(built)?;
    for name in binaries::NAMES {
        let bytes = fs::metadata(built.join(name))?.len();
        eprintln!("{name}: {bytes} bytes");
    }
    try_in(built, None, "this system")?;
    for version in HtCondor::ALL {
        let root = roots::get(version)?;
        try_in(
            built,
            Some(&root),
            &format!("the root with HTCondor {version}"),
        )?;
    }
    let empty = Scratch::new("no-libc")?;
    fs::create_dir(empty.0.join("mnt"))?;
    try_in(built, Some(&empty.0), "a root with no libc at all")?;
    println!("{}", built.display());
    Ok(())
}

/// Runs each program with `root` as its whole world; nothing is written there.
fn try_in(built: &Path, root: Option<&Path>, what: &str) -> Result<()> {
    const IN_ROOT: &str =
        "mount --bind \"$1\" \"$2/mnt\" && exec chroot \"$2\" \"/mnt/$3\" --version";
    for name in binaries::NAMES {
        let mut command = match root {
            None => {
                let mut command = Command::new(built.join(name));
                command.arg("--version");
                command
            }
            Some(root) => {
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "sh", "-c", IN_ROOT, "sh"])
                    .args([built, root])
                    .arg(name);
                command
            }
        };
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "{name} does not run on {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(said.starts_with(name), "{name} calls itself {said:?}");
        eprintln!("{said} runs on {what}");
    }
    Ok(())
}

fn bundle() -> Result<()> {
    let built = binaries::dir()?;
    binaries::bundle_criu(built)?;
    println!("{}", built.display());
    Ok(())
}

/// A directory that goes when it is done with.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in the system's directory for such, which is emptied anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}
