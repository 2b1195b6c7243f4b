//! A kernel of Debian's: nothing of it is installed, its package is only unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::lock::Lock;
use crate::{machine, roots};

/// The one without drivers for hardware.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What CRIU asks a kernel about sockets with, in the order of their needs.
const MODULES: [&str; 7] = [
    "net/unix/unix_diag.ko",
    "net/ipv4/inet_diag.ko",
    "net/ipv4/tcp_diag.ko",
    "net/ipv4/udp_diag.ko",
    "net/ipv4/raw_diag.ko",
    "net/netlink/netlink_diag.ko",
    "net/packet/af_packet_diag.ko",
];

/// A kernel that QEMU can start.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The kernel.
    pub vmlinuz: PathBuf,
    /// Its modules, in the order in which they are to be loaded.
    pub modules: Vec<PathBuf>,
}

/// The kernel, unpacked now if it is not cached beside the distribution roots.
pub fn get() -> Result<Kernel> {
    machine::need(&[("apt-get", "apt"), ("dpkg-deb", "dpkg")])?;
    let dir = roots::roots_dir();
    fs::create_dir_all(&dir)?;
    let cached = dir.join("kernel");
    if !cached.exists() {
        let _lock = Lock::take(&dir.join("kernel.lock"))?;
        if !cached.exists() {
            unpack(&cached)?;
        }
    }
    found_in(&cached)
}

fn unpack(to: &Path) -> Result<()> {
    let new = to.with_extension("tmp");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    // The package that depends on the newest kernel; where apt knows none, it has never been updated.
    let name = match newest() {
        Ok(name) => name,
        Err(_) => {
            output(Command::new("apt-get").args(["-qq", "update"]))?;
            newest()?
        }
    };
    eprintln!("unpacking {name} (once)");
    output(
        Command::new("apt-get")
            .args(["-qq", "download", &name])
            .current_dir(&new),
    )?;
    let package = fs::read_dir(&new)?
        .next()
        .context("apt-get brought nothing")??;
    output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package.path(), &new]),
    )?;
    fs::remove_file(package.path())?;
    fs::rename(&new, to).context("keep the kernel")
}

fn newest() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .with_context(|| format!("apt knows no {PACKAGE}"))
}

fn found_in(dir: &Path) -> Result<Kernel> {
    let only = |dir: PathBuf, prefix: &str| -> Result<PathBuf> {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                return Ok(entry.path());
            }
        }
        bail!("no {prefix} in {}", dir.display())
    };
    // Where /lib is a link to /usr/lib the package has the latter.
    let lib = ["lib/modules", "usr/lib/modules"].map(|lib| dir.join(lib));
    let lib = lib.into_iter().find(|lib| lib.exists());
    let modules = only(lib.context("a kernel without modules")?, "")?.join("kernel");
    let module = |name: &&str| {
        // Debian 13's are compressed.
        let plain = modules.join(name);
        let packed = modules.join(format!("{name}.xz"));
        if packed.exists() { packed } else { plain }
    };
    Ok(Kernel {
        vmlinuz: only(dir.join("boot"), "vmlinuz")?,
        modules: MODULES.iter().map(module).collect(),
    })
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .env("PATH", machine::PATH)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
