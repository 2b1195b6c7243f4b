//! `cargo xtask musl`: the static programs, tried on other systems.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::binaries;
use crate::roots::{self, HtCondor};
use crate::scratch::Scratch;

pub(super) fn run() -> Result<()> {
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
    fs::create_dir(empty.path().join("mnt"))?;
    try_in(built, Some(empty.path()), "a root with no libc at all")?;
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
