//! Programs that use one kind of instructions each, compiled from C: instructions cannot be had in safe Rust.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::machine;

/// A program of the matrix.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    compiler: &'static str,
    options: &'static [&'static str],
}

/// musl's functions are the same on every CPU, so a program linked with it uses what its own code says and nothing else.
const ALONE: &[&str] = &["-static", "-O1"];

const fn alone(name: &'static str, what: &'static str) -> Program {
    Program {
        name,
        what,
        compiler: "musl-gcc",
        options: ALONE,
    }
}

/// All of them.
pub const PROGRAMS: [Program; 6] = [
    alone("sse2", "what every x86-64 has"),
    alone("avx2", "AVX2 where it is shown"),
    alone("avx512", "AVX-512 where it is shown"),
    Program {
        name: "strings",
        what: "glibc's own choice of string functions",
        compiler: "gcc",
        options: &["-O1", "-fno-builtin"],
    },
    alone("handler", "registers in a signal's frame"),
    alone("everything", "each instruction that is shown"),
];

/// Compiles all of them into `dir`.
pub fn build(dir: &Path) -> Result<()> {
    machine::need(&[("musl-gcc", "musl-tools"), ("gcc", "gcc")])?;
    fs::create_dir_all(dir)?;
    let sources = machine::workspace().join("tests/src/cpus/programs");
    for program in &PROGRAMS {
        let compiled = Command::new(program.compiler)
            .args(program.options)
            .args(["-Wall", "-Wextra", "-Werror", "-o"])
            .arg(dir.join(program.name))
            .arg(sources.join(program.name).with_extension("c"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.compiler))?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr);
            bail!("{} does not compile: {said}", program.name);
        }
    }
    Ok(())
}

/// The features that the program `everything` in `dir` knows an instruction of.
pub fn witnessed(dir: &Path) -> Result<Vec<String>> {
    let output = Command::new(dir.join("everything")).arg("list").output()?;
    let names = String::from_utf8(output.stdout)?;
    Ok(names.lines().map(str::to_owned).collect())
}
