//! How fast a directory is packed, verified and unpacked: `speed DIR WORK [LEVEL [THREADS]]`.
//!
//! Prints wall and CPU time of each stage and the largest memory of the process so far. WORK is a directory for the results.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use file_transfer_plugin::fingerprint::{Fingerprint, Kernel, Version};
use file_transfer_plugin::manifest::{Head, Limits, Resume};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Tree, pack};
use file_transfer_plugin::unpack::Archive;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [dir, work] = [1, 2].map(|index| args.get(index).map(Path::new));
    let (dir, work) = dir
        .zip(work)
        .context("usage: speed DIR WORK [LEVEL [THREADS]]")?;
    let level = args.get(3).map_or(Ok(1), |level| level.parse())?;
    let threads = args.get(4).map_or(Ok(0), |threads| threads.parse())?;
    let fingerprint = Fingerprint {
        cpu_vendor: String::new(),
        cpu_features: Default::default(),
        xcr0: 0,
        xsave_size: 0,
        kernel: Kernel(0),
        criu: Version::new(0, 0, 0),
        abilities: Default::default(),
    };
    let head = Head {
        generation: 1,
        created: 0,
        fingerprint,
        resume: Resume::default(),
    };
    let (out, back) = (work.join("speed.criu"), work.join("speed.back"));
    for sync in [false, true] {
        let options = Options {
            level,
            threads,
            sync,
            ..Options::default()
        };
        let tree = Tree {
            prefix: "images",
            dir,
        };
        let mut bytes = (0, 0);
        timed(if sync { "pack, sync" } else { "pack" }, || {
            let packed = pack(&[tree], head.clone(), &out, &options, &Silent)?;
            bytes = (packed.raw_bytes, packed.bytes);
            Ok(packed.raw_bytes)
        })?;
        println!("{:>12} -> {} bytes", bytes.0, bytes.1);
    }
    let archive = Archive::open(&out, &Limits::default())?;
    timed("verify", || {
        Ok(archive.verify(&Silent).map(|()| archive.bytes())?)
    })?;
    timed("unpack", || {
        Ok(archive.unpack(&[("images", &back)], &Silent)?.bytes)
    })?;
    std::fs::remove_dir_all(back)?;
    Ok(std::fs::remove_file(out)?)
}

fn timed(what: &str, work: impl FnOnce() -> anyhow::Result<u64>) -> anyhow::Result<()> {
    let (start, cpu) = (Instant::now(), cpu()?);
    let bytes = work()?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), self::cpu()? - cpu);
    let rate = bytes as f64 / 1e9 / seconds;
    println!(
        "{what:>12}: {seconds:6.2} s, {rate:5.2} GB/s, CPU {cpu:5.2} s, peak {} MB",
        peak()?
    );
    Ok(())
}

/// Seconds of CPU that this process has used.
fn cpu() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit(')').next().context("no stat")?;
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / 100.0)
}

/// The largest memory of this process, in MB.
fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .context("no VmHWM")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse::<u64>()?
        / 1024)
}
