//! `cargo xtask check`: what can be told of the code without running it.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::machine;

pub(super) fn run() -> Result<()> {
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
