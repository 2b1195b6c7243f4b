//! Our programs in a pool: execution points that have them, and jobs that survive the loss of their slots.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::binaries;
use crate::spec::Ep;
use crate::submit::Submit;

/// What `criu-pilot` prints.
pub fn pilot_says(args: &[&str]) -> Result<String> {
    let output = Command::new(binaries::dir()?.join("criu-pilot"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("run criu-pilot")?;
    ensure!(output.status.success(), "criu-pilot {args:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// An execution point that has the programs, and no configuration for them.
pub fn with_programs(ep: Ep) -> Result<Ep> {
    let built = binaries::dir()?;
    Ok(["criu-pilot", "criu-starter"]
        .into_iter()
        .fold(ep, |ep, name| ep.install(built.join(name), name)))
}

/// An execution point that says what it can do.
pub fn equipped(ep: Ep) -> Result<Ep> {
    let pilot = "$(POOL_LIBEXEC)/criu-pilot";
    Ok(with_programs(ep)?.config(pilot_says(&["configure", "ep", "--pilot", pilot])?))
}

/// A job of one program, with the lines that `criu-pilot configure submit` prints, on another slot each time.
pub fn survivor(name: &str, program: impl Into<Vec<u8>>, arguments: &str) -> Result<Submit> {
    prepared(name, program, arguments, &["configure", "submit"])
}

/// The same, with a store for its images.
pub fn survivor_with_store(
    name: &str,
    program: impl Into<Vec<u8>>,
    arguments: &str,
    store: &str,
) -> Result<Submit> {
    let says = ["configure", "submit", "--store", store];
    Ok(prepared(name, program, arguments, &says)?
        .program("criu-transfer", built("criu-transfer")?)
        .set("transfer_input_files", format!("{name}, criu-transfer")))
}

fn built(name: &str) -> Result<Vec<u8>> {
    let path = binaries::dir()?.join(name);
    fs::read(&path).with_context(|| format!("read {}", path.display()))
}

fn prepared(
    name: &str,
    program: impl Into<Vec<u8>>,
    arguments: &str,
    says: &[&str],
) -> Result<Submit> {
    let mut submit = Submit::new("criu-starter")
        .program("criu-starter", built("criu-starter")?)
        .program(name, program)
        .arguments(format!("run -- ./{name} {arguments}").trim_end())
        .set("transfer_input_files", name);
    let printed = pilot_says(says)?;
    for line in printed.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").context("a submit line")?;
        submit = submit.set(key, value);
    }
    Ok(submit.requiring("TARGET.Name =!= MY.LastRemoteHost"))
}
