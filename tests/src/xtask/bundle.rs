//! `cargo xtask bundle`: what a node gets, in one file.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use crate::scratch::Scratch;
use crate::{binaries, bundle, machine};

pub(super) fn run(twice: bool) -> Result<()> {
    let file = bundle::tarball()?;
    let bytes = fs::read(&file)?;
    eprintln!("{} bytes", bytes.len());
    for name in binaries::NAMES {
        let program = binaries::dir()?.join(name);
        for trace in traces(&program)? {
            let found = memmem::find(&fs::read(&program)?, trace.as_bytes()).is_some();
            ensure!(
                !found,
                "{name} has {trace:?} in it, and is another one elsewhere"
            );
        }
    }
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

/// What a program tells of where and when it was built, if it tells anything.
fn traces(program: &Path) -> Result<[String; 3]> {
    let home = std::env::var("HOME").context("$HOME says where cargo keeps its sources")?;
    // As C's `__DATE__` has it.
    let mut day = Command::new("date");
    day.args(["-u", "+%b %e %Y", "-r"])
        .arg(program)
        .env("LC_ALL", "C");
    let day = String::from_utf8(day.output()?.stdout)?;
    ensure!(day.len() == 12, "date says {day:?}");
    let workspace = machine::workspace().display().to_string();
    Ok([workspace, home + "/.cargo", day.trim_end().to_owned()])
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
