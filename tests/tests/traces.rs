//! A pool leaves nothing behind, however it ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::state;
use tests::wait;

/// The `pool` command, with a directory of pools of its own.
fn pool(pools: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pool"));
    command
        .env("CRIU_TEST_POOLS", pools)
        .env_remove("CRIU_POOL")
        .stdin(Stdio::null());
    command
}

/// A directory of pools for one test, removed if the test passes.
fn pools_dir(test: &str) -> Result<std::path::PathBuf> {
    let dir = state::pools_dir().with_file_name(format!("pools-{test}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

/// Pids of all processes whose root, working directory or command line lies in `dir`.
fn processes_in(dir: &Path) -> Result<BTreeSet<u32>> {
    let dir = dir.to_string_lossy().into_owned();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A pool's daemons show it in their mounts, whatever their names.
        let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        let args = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if mounts.contains(&dir) || String::from_utf8_lossy(&args).contains(&dir) {
            found.insert(pid);
        }
    }
    Ok(found)
}

fn ensure_nothing_left(pools: &Path) -> Result<()> {
    let left = state::names(pools)?;
    ensure!(left.is_empty(), "directories are left: {left:?}");
    let left = processes_in(pools)?;
    ensure!(left.is_empty(), "processes are left: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(
        !mounts.contains(&*pools.to_string_lossy()),
        "mounts are left:\n{mounts}"
    );
    Ok(())
}

/// This process's network has no link of a pool, while it is up or after: bridges and cards are in the keeper's namespace.
fn links() -> Result<BTreeSet<String>> {
    let dir = fs::read_dir("/sys/class/net")?;
    Ok(dir
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

fn check(test: &str, body: fn(&Path) -> Result<()>) {
    let outcome = pools_dir(test).and_then(|pools| {
        body(&pools)?;
        fs::remove_dir_all(&pools).context("remove the directory of pools")
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn down_leaves_no_process_mount_link_or_directory() {
    require!(root, namespaces, roots);
    check("down", |pools| {
        let before = links()?;
        let up = pool(pools).args(["up", "--htcondor", "23.9"]).output()?;
        ensure!(
            up.status.success(),
            "up failed: {}",
            String::from_utf8_lossy(&up.stderr)
        );
        ensure!(
            processes_in(pools)?.len() > 6,
            "no processes are seen, so the test would see none that are left"
        );
        ensure!(links()? == before, "links appeared: {:?}", links()?);
        let down = pool(pools).arg("down").output()?;
        ensure!(
            down.status.success(),
            "down failed: {}",
            String::from_utf8_lossy(&down.stderr)
        );
        ensure_nothing_left(pools)
    });
}

#[test]
fn a_killed_up_is_cleaned_by_the_next() {
    require!(root, namespaces, roots);
    check("killed", |pools| {
        let mut killed = pool(pools).args(["--name", "first", "up"]).spawn()?;
        // In the middle: the keeper runs, the hosts are about to.
        let inits = pools.join("first/init");
        wait::until("a host", Duration::from_secs(20), || {
            Ok(fs::read_dir(&inits)
                .is_ok_and(|dir| dir.count() > 0)
                .then_some(()))
        })?;
        killed.kill()?;
        killed.wait()?;
        ensure!(
            !processes_in(pools)?.is_empty(),
            "a detached pool ended by itself"
        );

        let up = pool(pools).args(["--name", "second", "up"]).output()?;
        let printed = String::from_utf8_lossy(&up.stderr);
        ensure!(up.status.success(), "up failed: {printed}");
        ensure!(
            printed.contains("pool first"),
            "the leftover is not named: {printed}"
        );
        ensure!(
            state::names(pools)? == ["second"],
            "left: {:?}",
            state::names(pools)?
        );
        // A pool that is wanted is no leftover.
        let again = pool(pools).args(["--name", "second", "up"]).output()?;
        ensure!(!again.status.success(), "the same name came up twice");
        ensure!(
            pool(pools)
                .args(["--name", "second", "exec", "ap", "true"])
                .status()?
                .success(),
            "the living pool was cleaned"
        );

        ensure!(
            pool(pools)
                .args(["--name", "second", "down"])
                .status()?
                .success()
        );
        ensure_nothing_left(pools)
    });
}

#[test]
fn a_pool_ends_with_a_killed_owner() {
    require!(root, namespaces, roots);
    check("owner", |pools| {
        let mut owner = pool(pools).args(["run", "--", "sleep", "600"]).spawn()?;
        wait::until("the pool", Duration::from_secs(60), || {
            let names = state::names(pools)?;
            Ok(names
                .first()
                .filter(|name| pools.join(name).join("pool.json").exists())
                .map(drop))
        })?;
        owner.kill()?;
        owner.wait()?;
        wait::until("everything to be gone", Duration::from_secs(20), || {
            Ok(ensure_nothing_left(pools).ok())
        })
    });
}

#[test]
fn two_pools_are_up_side_by_side_and_a_dropped_one_is_gone() {
    require!(root, namespaces, roots);
    let both = || -> Result<()> {
        let first = Pool::up(&Spec::new(HtCondor::V25).ep(Ep::root()))?;
        let second = Pool::up(&Spec::new(HtCondor::V25).ep(Ep::root()))?;
        let names = [first.name.clone(), second.name.clone()];
        let dirs = names.map(|name| state::pools_dir().join(name));
        ensure!(
            dirs.iter().all(|dir| dir.exists()),
            "a pool has no directory"
        );
        second.down()?;
        ensure!(
            !dirs[1].exists() && state::is_alive(&dirs[0]),
            "the wrong pool ended"
        );
        drop(first);
        ensure!(!dirs[0].exists(), "a dropped pool is left");
        Ok(())
    };
    both().unwrap_or_else(|error| panic!("{error:#}"));
}
