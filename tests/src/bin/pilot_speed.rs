//! `pilot-speed`: how long people and startds wait for `criu-pilot`: `where` over 10,000 slots, and a probe with cold caches.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use classad::ClassAd;
use file_transfer_plugin::fingerprint::{Fingerprint, requirements};
use tests::binaries;
use tests::equipped::equipped;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::scratch::Scratch;
use tests::spec::{Ep, Spec};
use tests::users::User;

const SLOTS: usize = 10_000;
const RUNS: usize = 9;

fn main() -> Result<()> {
    let pool = Pool::up(&Spec::new(HtCondor::V25).ep(equipped(Ep::glidein())?))?;
    let host = pool.host("ep1")?;
    let slot = pool.wait_slot(host, "HasCRIU", |ad| {
        ad.contains("HasCRIU = true").then(|| ad.to_owned())
    })?;

    let dir = Scratch::new("pilot-speed")?;
    let (job, slots) = (dir.path().join("job"), dir.path().join("slots"));
    fs::write(&job, job_of(&slot)?)?;
    let text = many(&slot);
    fs::write(&slots, &text)?;
    let pilot = binaries::dir()?.join("criu-pilot");
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let mut command = Command::new(&pilot);
        command.arg("where").arg("--job-ad").arg(&job);
        let begun = Instant::now();
        let output = command.arg("--slots").arg(&slots).output()?;
        seconds.push(begun.elapsed().as_secs_f64());
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains(&format!("of {SLOTS} slots")), "{output:?}");
    }
    let megabytes = text.len() / 1_000_000;
    println!(
        "where, {SLOTS} slots, {megabytes} MB: {}",
        spread(&mut seconds)
    );

    let probe = format!("{}/criu-pilot", host.libexec());
    for cold in [true, false] {
        let mut seconds = Vec::new();
        for _ in 0..RUNS {
            if cold {
                rustix::fs::sync();
                fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")?;
            }
            let begun = Instant::now();
            let said = host.run(User::Pilot, "/home/pilot", &[&probe, "probe"])?;
            seconds.push(begun.elapsed().as_secs_f64());
            ensure!(said.contains("HasCRIU = true"), "{said}");
        }
        let caches = if cold { "cold" } else { "warm" };
        println!("probe, {caches}: {}", spread(&mut seconds));
    }
    pool.down()
}

/// The ad of a job with an image that was taken on this slot.
fn job_of(slot: &str) -> Result<String> {
    let image = Fingerprint::from_slot_ad(&ClassAd::parse_old(slot)?)?;
    let mut job = image.to_job_ad();
    for (name, value) in [
        ("RequestCpus", 1_i64),
        ("RequestMemory", 128),
        ("RequestDisk", 1024),
    ] {
        job.insert(name, value);
    }
    let all = format!(
        "{} && TARGET.Memory >= RequestMemory && TARGET.HasFileTransfer",
        requirements()
    );
    job.insert_parsed("Requirements", &all)?;
    Ok(job.to_old())
}

/// As many slots, each with another name, on machines of which one in eight lacks an instruction and one in five CRIU.
fn many(slot: &str) -> String {
    let mut text = String::new();
    for number in 0..SLOTS {
        for line in slot.lines() {
            let (name, value) = line.split_once(" = ").unwrap_or((line, ""));
            let _ = match name {
                "Name" => writeln!(text, "Name = \"slot1@glidein_{number}@node{}\"", number / 8),
                "CRIUCpuFeatures" if number % 8 == 0 => {
                    writeln!(text, "{name} = {}", value.replace("avx2,", ""))
                }
                "HasCRIU" if number % 5 == 0 => writeln!(text, "HasCRIU = false"),
                "CRIUProbeTime" => writeln!(text, "{name} = {}", 1_795_000_000 + number),
                _ => writeln!(text, "{line}"),
            };
        }
        text.push('\n');
    }
    text
}

/// The median and the extremes.
fn spread(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    format!(
        "{:.3} s (median of {}, {:.3} to {:.3})",
        seconds[seconds.len() / 2],
        seconds.len(),
        seconds[0],
        seconds[seconds.len() - 1]
    )
}
