//! Distribution roots: Debian's own HTCondor and CRIU, unpacked once and used as the lower layer of every host.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::lock::Lock;
use crate::machine;

/// The HTCondor releases that a pool can run: the oldest and the newest that the project promises to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HtCondor {
    /// 23.9.6 with CRIU 4.1.1, from Debian trixie.
    #[serde(rename = "23.9")]
    V23_9,
    /// 25.14.1 with CRIU 4.2.1 and apptainer, from Debian sid.
    #[serde(rename = "25")]
    V25,
}

impl HtCondor {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::V23_9, Self::V25];

    fn suite(self) -> &'static str {
        match self {
            Self::V23_9 => "trixie",
            Self::V25 => "sid",
        }
    }

    fn packages(self) -> Vec<&'static str> {
        // catatonit -P is each host's init: it does nothing but reap.
        let mut packages = vec![
            "catatonit",
            "condor",
            "criu",
            "iproute2",
            "procps",
            "python3-minimal",
            "util-linux",
        ];
        if self == Self::V25 {
            packages.extend(["apptainer", "squashfuse"]);
        }
        packages
    }
}

impl fmt::Display for HtCondor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V23_9 => "23.9",
            Self::V25 => "25",
        })
    }
}

impl FromStr for HtCondor {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| anyhow!("no HTCondor {text} here, only 23.9 and 25"))
    }
}

/// Where roots are kept: `CRIU_TEST_ROOTS`, else `roots` in the build directory.
pub fn roots_dir() -> PathBuf {
    std::env::var_os("CRIU_TEST_ROOTS")
        .map_or_else(|| machine::target_dir().join("roots"), PathBuf::from)
}

/// The root for `version`, made now if it is not cached. Safe to call from many processes at once: one makes it, the others wait.
pub fn get(version: HtCondor) -> Result<PathBuf> {
    let roots = roots_dir();
    fs::create_dir_all(&roots).with_context(|| format!("create {}", roots.display()))?;
    let roots = roots.canonicalize()?;
    let root = roots.join(version.suite());
    let stamp = roots.join(format!("{}.packages", version.suite()));
    let packages = version.packages().join(",");
    let is_current = || fs::read_to_string(&stamp).is_ok_and(|text| text == packages);
    if is_current() {
        return Ok(root);
    }
    let _lock = Lock::take(&roots.join(format!("{}.lock", version.suite())))?;
    if !is_current() {
        build(version, &packages, &root)?;
        // Last: the stamp is what says that the root is whole.
        fs::write(&stamp, &packages).with_context(|| format!("write {}", stamp.display()))?;
    }
    Ok(root)
}

fn build(version: HtCondor, packages: &str, root: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("unpacking a distribution root needs root");
    }
    machine::need(machine::FOR_A_ROOT)?;
    let suite = version.suite();
    let temporary = root.with_extension("tmp");
    for old in [temporary.as_path(), root] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
        }
    }
    eprintln!(
        "unpacking Debian {suite} with HTCondor {version} and CRIU into {} (once, about half a minute)",
        root.display()
    );
    let made = Command::new("mmdebstrap")
        .args([
            "--quiet",
            "--variant=minbase",
            "--mode=root",
            "--format=directory",
        ])
        // sid's Release file may be past its date where a mirror lags behind.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        // A root is read by hosts that have no network: its documentation and locales are never looked at.
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ])
        .arg(format!("--include={packages}"))
        .arg(suite)
        .arg(&temporary)
        .stdin(Stdio::null())
        .output()
        .context("run mmdebstrap")?;
    if !made.status.success() {
        let printed = String::from_utf8_lossy(&made.stderr);
        let from = printed.lines().count().saturating_sub(20);
        let tail: Vec<&str> = printed.lines().skip(from).collect();
        bail!(
            "mmdebstrap {suite} ended with {}:\n{}",
            made.status,
            tail.join("\n")
        );
    }
    fs::rename(&temporary, root).with_context(|| format!("rename to {}", root.display()))
}
