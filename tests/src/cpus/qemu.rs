//! A guest on an emulated CPU.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kernel::Kernel;
use super::report;
use super::report::Line;
use crate::{machine, wait};

/// Far above what the longest plan takes on two busy cores.
const LIMIT: Duration = Duration::from_secs(3600);

/// Where a guest's second serial line is for it.
pub(super) const REPORT: &str = "/dev/ttyS1";

/// A command that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended by itself there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a machine with that CPU and that root, and reads its report when it is off again.
pub(super) fn boot(
    cpu: &str,
    kernel: &Kernel,
    initrd: &Path,
    dir: &Path,
) -> Result<Vec<(Line, Vec<u8>)>> {
    let (console, report) = (dir.join("console"), dir.join("report"));
    let serial = |path: &Path| format!("file:{}", path.display());
    let child = Command::new("qemu-system-x86_64")
        .env("PATH", machine::PATH)
        .args(["-accel", "tcg", "-cpu", cpu, "-smp", "1", "-m", "768"])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args([
            "-append",
            "console=ttyS0 loglevel=4 panic=-1 rdinit=/init mitigations=off",
        ])
        .args(["-serial", &serial(&console), "-serial", &serial(&report)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("qemu"))?)
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let mut child = Running(child);
    let story = || {
        let last = |name: &str| {
            let text = fs::read(dir.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        format!("{cpu}:\n{}\n{}", last("qemu"), last("console"))
    };
    let status =
        wait::until("a guest to end", LIMIT, || Ok(child.0.try_wait()?)).with_context(story)?;
    ensure!(status.success(), "qemu ended with {status}: {}", story());
    report::read(&fs::read(report)?).with_context(story)
}
