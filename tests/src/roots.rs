//! Distribution roots: Debian's own HTCondor and CRIU, unpacked once and used as the lower layer of every host.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Instant;

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
}

/// What the hosts of a pool are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Root {
    /// HTCondor and a CRIU that works without privileges.
    HtCondor(HtCondor),
    /// Debian 12, whose own CRIU is too old to be of use.
    Bookworm,
    /// Debian 13 with interpreters, their libraries and CRIU 4.1.1.
    Languages,
    /// Debian 13 with LAMMPS, python and CRIU 4.1.1: for measurements, no test unpacks it.
    Lammps,
}

impl From<HtCondor> for Root {
    fn from(version: HtCondor) -> Root {
        Root::HtCondor(version)
    }
}

impl Root {
    fn suite(self) -> &'static str {
        match self {
            Root::HtCondor(HtCondor::V23_9) | Root::Languages | Root::Lammps => "trixie",
            Root::HtCondor(HtCondor::V25) => "sid",
            Root::Bookworm => "bookworm",
        }
    }

    fn packages(self) -> Vec<&'static str> {
        // catatonit -P is each host's init: it does nothing but reap.
        let mut packages = match self {
            Root::HtCondor(_) => vec![
                "catatonit",
                "condor",
                "criu",
                "iproute2",
                "openssh-client",
                "openssh-server",
                "procps",
                "python3-minimal",
                "util-linux",
            ],
            Root::Bookworm => vec!["catatonit", "iproute2", "python3", "util-linux"],
            Root::Languages => vec![
                "catatonit",
                "criu",
                "elvish",
                "gdb",
                "iproute2",
                "libopenblas0-pthread",
                "nodejs",
                "openjdk-21-jre-headless",
                "python3-numpy",
                "r-base-core",
                "rhino",
                "util-linux",
            ],
            Root::Lammps => vec![
                "catatonit",
                "criu",
                "iproute2",
                "lammps",
                "python3-numpy",
                "util-linux",
            ],
        };
        if self == Root::HtCondor(HtCondor::V25) {
            packages.extend(["apptainer", "squashfuse"]);
        }
        packages
    }

    /// Its suite and a digest (FNV-1a) of what is unpacked.
    fn name(self) -> String {
        let mut contents = self.packages();
        contents.push("copyright");
        let digest = contents
            .join(",")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        format!("{}-{:08x}", self.suite(), digest >> 32)
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Root::HtCondor(version) => write!(f, "HTCondor {version}"),
            Root::Bookworm => f.write_str("nothing beside it"),
            Root::Languages => f.write_str("interpreters"),
            Root::Lammps => f.write_str("LAMMPS"),
        }
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

/// The root of a kind, made now if it is not cached. Safe to call from many processes at once: one makes it, the others wait.
///
/// Its name has a digest of the package list, so a changed list makes a new root beside the one that running pools may use.
pub fn get(kind: impl Into<Root>) -> Result<PathBuf> {
    let kind = kind.into();
    let roots = roots_dir();
    fs::create_dir_all(&roots).with_context(|| format!("create {}", roots.display()))?;
    let root = roots.canonicalize()?.join(kind.name());
    // It gets its name when it is whole.
    if root.exists() {
        return Ok(root);
    }
    let _lock = Lock::take(&roots.join(format!("{}.lock", kind.suite())))?;
    if !root.exists() {
        build(kind, &root)?;
    }
    Ok(root)
}

fn build(kind: Root, root: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("unpacking a distribution root needs root");
    }
    machine::need(machine::FOR_A_ROOT)?;
    eprintln!(
        "unpacking Debian {} with {kind} into {} (once, about half a minute)",
        kind.suite(),
        root.display()
    );
    let start = Instant::now();
    let temporary = root.with_extension("tmp");
    if temporary.exists() {
        fs::remove_dir_all(&temporary)
            .with_context(|| format!("remove {}", temporary.display()))?;
    }
    let made = Command::new("mmdebstrap")
        .env("PATH", machine::PATH)
        .args(["--variant=minbase", "--mode=root", "--format=directory"])
        // sid's Release file may be past its date where a mirror lags behind.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        // Documentation and translations are never looked at in a host, but whose work it is goes with the bundle.
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ])
        .arg(format!("--include={}", kind.packages().join(",")))
        .arg(kind.suite())
        .arg(&temporary)
        .stdin(Stdio::null())
        .output()
        .context("run mmdebstrap")?;
    if !made.status.success() {
        let printed = String::from_utf8_lossy(&made.stderr);
        let lines: Vec<&str> = printed.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        // Debian 12's keys are enough for both suites.
        let hint = if printed.contains("NO_PUBKEY") {
            "\nthis machine needs a newer debian-archive-keyring"
        } else {
            ""
        };
        bail!(
            "mmdebstrap {} ended with {}:\n{tail}{hint}",
            kind.suite(),
            made.status
        );
    }
    fs::rename(&temporary, root).with_context(|| format!("rename to {}", root.display()))?;
    eprintln!("unpacked {} in {:.0?}", kind.suite(), start.elapsed());
    Ok(())
}
