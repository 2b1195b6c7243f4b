//! `cargo xtask bundle`: what a node gets, in one file.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::scratch::Scratch;
use crate::{binaries, bundle, machine};

pub(super) fn run(twice: bool) -> Result<()> {
    let file = bundle::tarball()?;
    let bytes = fs::read(&file)?;
    eprintln!("{} bytes", bytes.len());
    if twice {
        let elsewhere = Scratch::new("bundle")?;
        let sources = elsewhere.path().join("sources");
        copy_sources(&sources)?;
        let built = binaries::build_elsewhere(&sources, &elsewhere.path().join("built"))?;
        for name in binaries::NAMES {
            let same = fs::read(built.join(name))? == fs::read(binaries::dir()?.join(name))?;
            ensure!(same, "{name} is another one when it is built elsewhere");
        }
        let again = bundle::pack(&built, &sources)?;
        ensure!(again == bytes, "packed from elsewhere it is another file");
        eprintln!("built in {} it is the same", elsewhere.path().display());
    }
    println!("{}", file.display());
    Ok(())
}

/// The files that git knows, as they are now.
fn copy_sources(to: &Path) -> Result<()> {
    const COPY: &str = "git ls-files -z --cached --others --exclude-standard \
        | tar --null --files-from=- --ignore-failed-read -cf - | tar -xf - -C \"$1\"";
    fs::create_dir(to)?;
    let output = Command::new("sh")
        .args(["-euc", COPY, "sh"])
        .arg(to)
        .current_dir(machine::workspace())
        .stdin(Stdio::null())
        .output()
        .context("copy the sources")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "copy the sources: {said}");
    Ok(())
}
