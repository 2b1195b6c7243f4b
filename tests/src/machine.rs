//! The machine underneath: the commands that this package calls and how they get there, and the build directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::lock::Lock;

/// Where commands are looked for, on the machine and on hosts: a caller's own PATH may lack the system directories.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command (or a file, by its path) and the Debian package that brings it.
type Tool = (&'static str, &'static str);

/// What a running pool calls.
pub const FOR_A_POOL: &[Tool] = &[
    ("bash", "bash"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("pivot_root", "util-linux"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
];

/// What unpacking a distribution root calls or reads.
pub const FOR_A_ROOT: &[Tool] = &[
    ("mmdebstrap", "mmdebstrap"),
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
];

/// Makes sure that `tools` can be called: installs what is missing when root, names it otherwise.
pub fn need(tools: &[Tool]) -> Result<()> {
    let missing = || -> Vec<Tool> {
        let missing = tools.iter().filter(|(command, _)| !has(command));
        missing.copied().collect()
    };
    if missing().is_empty() {
        return Ok(());
    }
    // Tests ask at the same time, and apt-get does not wait for another one's update.
    let lock = target_dir().join("install.lock");
    std::fs::create_dir_all(target_dir())?;
    let _lock = Lock::take(&lock)?;
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let packages = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("this machine lacks {packages}; install with: sudo apt-get install {packages}");
    }
    if !has("apt-get") {
        bail!("this machine lacks {packages}, and has no apt-get to install them with");
    }
    eprintln!("installing {packages}");
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages.split(' '));
    apt(&install)
}

fn has(command: &str) -> bool {
    PATH.split(':')
        .any(|dir| Path::new(dir).join(command).exists())
}

fn apt(args: &[&str]) -> Result<()> {
    let ended = Command::new("apt-get")
        .env("PATH", PATH)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("-qq")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("run apt-get")?;
    if !ended.status.success() {
        let printed = String::from_utf8_lossy(&ended.stderr);
        bail!(
            "apt-get {} ended with {}: {}",
            args.join(" "),
            ended.status,
            printed.trim()
        );
    }
    Ok(())
}

/// The workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package lies in the workspace")
}

/// The workspace's build directory.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
