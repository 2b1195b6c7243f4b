//! The demo as people run it, with a smaller sieve.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::require;

#[test]
fn in_a_pool_two_evictions_lose_no_step() {
    require!(root, namespaces, roots);
    two_evictions_lose_no_step(&[]).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn without_a_pool_two_evictions_lose_no_step() {
    // Root and a root to make the CRIU of.
    require!(root, namespaces, roots);
    two_evictions_lose_no_step(&["--no-pool"]).unwrap_or_else(|error| panic!("{error:#}"));
}

fn two_evictions_lose_no_step(mode: &[&str]) -> Result<()> {
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--quick", "--json"])
        .args(mode)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&demo.stderr);
    ensure!(
        demo.status.success(),
        "it ended with {}: {said}",
        demo.status
    );
    ensure!(
        !said.contains('\x1b'),
        "it draws where there is no terminal: {said}"
    );
    let report: Value = serde_json::from_slice(&demo.stdout).context("read its JSON")?;
    ensure!(report["ok"] == true, "not ok: {report:#}");
    let lost = &report["total"]["lost"];
    ensure!(lost["steps"] == 0, "steps are lost: {report:#}");
    let evictions = report["evictions"].as_array().context("no evictions")?;
    ensure!(
        evictions.len() == 2,
        "{} evictions: {report:#}",
        evictions.len()
    );
    for eviction in evictions {
        ensure!(
            eviction["from"] != eviction["to"],
            "it stayed where it was: {report:#}"
        );
        // The table of primes alone is 31 MB, and does not pack to nothing.
        ensure!(
            eviction["image_bytes"].as_u64() > Some(1_000_000),
            "no image to speak of: {report:#}"
        );
        ensure!(
            eviction["lost_without"]["steps"].as_u64() > Some(0),
            "nothing was at stake: {report:#}"
        );
    }
    if mode.is_empty() {
        let lanes = [0, 1].map(|index| &evictions[index]["lane"]);
        ensure!(lanes == ["spool", "store"], "{lanes:?}: {report:#}");
        ensure!(
            said.contains("ep3 is free and refused (this slot lacks avx2"),
            "the older node took it: {said}"
        );
        let page = said
            .lines()
            .find_map(|line| line.strip_prefix("its life as a picture: "))
            .context("no picture")?;
        let page = std::fs::read_to_string(page)?;
        ensure!(
            page.contains("<svg") && page.contains("computing, kept by an image on ep"),
            "{page}"
        );
    }
    let kept = |index: usize| evictions[index]["kept"]["steps"].as_u64();
    ensure!(kept(0) < kept(1), "it did not go on: {report:#}");
    Ok(())
}
