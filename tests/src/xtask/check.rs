//! `cargo xtask check`: what can be told of the code without running it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::machine;

pub(super) fn run() -> Result<()> {
    arrows()?;
    links()?;
    cargo(&["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--quiet", "--all-targets"];
    let deny = ["--", "--deny", "warnings"];
    cargo(&[&clippy[..], &["--workspace"], &deny].concat())?;
    // What the pilot links, alone: without default features it must stay small and whole. And what the supervisor does.
    let pure = ["--package", "file-transfer-plugin", "--no-default-features"];
    cargo(&[&clippy[..], &pure, &deny].concat())?;
    cargo(&[&clippy[..], &pure, &["--features", "archive"], &deny].concat())?;
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
        let text = read(&manifest)?;
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

/// Where a claim in a text leads: to a file, and to a row of it.
fn links() -> Result<()> {
    let tests = fs::read_dir(machine::workspace().join("tests")).context("cannot list tests")?;
    let mut texts = vec![machine::workspace().join("README.md")];
    for entry in tests {
        let path = entry.context("cannot list tests")?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            texts.push(path);
        }
    }
    for path in texts {
        let dir = path.parent().context("a text in no directory")?;
        let text = read(&path)?;
        let links = text.split("](").skip(1);
        let links = links.filter_map(|rest| rest.split_once(')'));
        for (link, _) in links.filter(|(link, _)| !link.contains("://")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = dir.join(file);
            let leads = target.exists()
                && (place.is_empty() || read(&target)?.contains(&format!("<a id=\"{place}\">")));
            ensure!(leads, "{} has a link to nowhere, {link}", path.display());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
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
