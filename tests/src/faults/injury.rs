//! The faults: how each strikes, how long it lasts, how it is over.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use file_transfer_plugin::rig;
use serde::{Deserialize, Serialize};

use super::scene::{Lane, Scene};
use super::stages::{Stage, archive_there};
use crate::host::Host;
use crate::roots::HtCondor;
use crate::store;
use crate::users::User;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Kill -9 of CRIU.
    KillCriu,
    /// Kill -9 of the supervisor.
    KillSupervisor,
    /// Kill -9 of the transfer plugin.
    KillPlugin,
    /// Kill -9 of the store, back after 3 s.
    KillStore,
    /// Kill -9 of the starter.
    KillStarter,
    /// Kill -9 of the shadow.
    KillShadow,
    /// No byte free in the scratch directory.
    FullScratch,
    /// No byte free in SPOOL.
    FullSpool,
    /// No byte free in the store.
    FullStore,
    /// The memory limit is hit.
    MemoryLimit,
    /// A bit of the image flips.
    BitFlipped,
    /// A part of the image is lost.
    ChunkLost,
    /// The manifest is cut short.
    ManifestCut,
    /// An older image in place of the newer.
    OlderImage,
    /// The network is cut for 4 s.
    NetworkCut,
    /// The network has 2 Mbit/s.
    NetworkSlow,
    /// The network comes and goes: retries, reordered.
    NetworkFlaps,
    /// The slot's clock is 2 h ahead.
    ClockAhead,
    /// The slot's clock is 2 h behind.
    ClockBehind,
    /// The token is no longer accepted.
    TokenRefused,
    /// The slot has lost its CRIU.
    NoCriu,
    /// The slot has another version of CRIU than it says.
    OtherCriu,
    /// The slot says that it can, and its CRIU cannot.
    BrokenCriu,
}

/// Where a slot's CRIU is while another is in its place.
const AWAY: &str = "/usr/sbin/criu.away";
const CRIU: &str = "/usr/sbin/criu";
const OTHER: &str = "/opt/other-criu";

/// The child of the starter's child, which is its keeper; a plugin has none.
const SUPERVISOR: &str =
    "for s in $(pgrep -x condor_starter); do for k in $(pgrep -P $s); do pgrep -P $k; done; done";

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 23] = [
        Fault::KillCriu,
        Fault::KillSupervisor,
        Fault::KillPlugin,
        Fault::KillStore,
        Fault::KillStarter,
        Fault::KillShadow,
        Fault::FullScratch,
        Fault::FullSpool,
        Fault::FullStore,
        Fault::MemoryLimit,
        Fault::BitFlipped,
        Fault::ChunkLost,
        Fault::ManifestCut,
        Fault::OlderImage,
        Fault::NetworkCut,
        Fault::NetworkSlow,
        Fault::NetworkFlaps,
        Fault::ClockAhead,
        Fault::ClockBehind,
        Fault::TokenRefused,
        Fault::NoCriu,
        Fault::OtherCriu,
        Fault::BrokenCriu,
    ];

    /// On the command line, and in words.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Fault::KillCriu => ("kill-criu", "kill -9 of CRIU"),
            Fault::KillSupervisor => ("kill-supervisor", "kill -9 of the supervisor"),
            Fault::KillPlugin => ("kill-plugin", "kill -9 of the transfer plugin"),
            Fault::KillStore => ("kill-store", "kill -9 of the store, back after 3 s"),
            Fault::KillStarter => ("kill-starter", "kill -9 of the starter"),
            Fault::KillShadow => ("kill-shadow", "kill -9 of the shadow"),
            Fault::FullScratch => ("full-scratch", "no byte free in the scratch directory"),
            Fault::FullSpool => ("full-spool", "no byte free in SPOOL"),
            Fault::FullStore => ("full-store", "no byte free in the store"),
            Fault::MemoryLimit => ("memory-limit", "the memory limit is hit"),
            Fault::BitFlipped => ("bit-flipped", "a bit of the image flips"),
            Fault::ChunkLost => ("chunk-lost", "a part of the image is lost"),
            Fault::ManifestCut => ("manifest-cut", "the manifest is cut short"),
            Fault::OlderImage => ("older-image", "an older image in place of the newer"),
            Fault::NetworkCut => ("network-cut", "the network is cut for 4 s"),
            Fault::NetworkSlow => ("network-slow", "the network has 2 Mbit/s"),
            Fault::NetworkFlaps => (
                "network-flaps",
                "the network comes and goes: retries, reordered",
            ),
            Fault::ClockAhead => ("clock-ahead", "the slot's clock is 2 h ahead"),
            Fault::ClockBehind => ("clock-behind", "the slot's clock is 2 h behind"),
            Fault::TokenRefused => ("token-refused", "the token is no longer accepted"),
            Fault::NoCriu => ("no-criu", "the slot has lost its CRIU"),
            Fault::OtherCriu => (
                "other-criu",
                "the slot has another version of CRIU than it says",
            ),
            Fault::BrokenCriu => (
                "broken-criu",
                "the slot says that it can, and its CRIU cannot",
            ),
        }
    }

    /// How long it lasts, at the most: shorter where its effect is seen sooner.
    pub(super) fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Fault::KillStore => 3,
            Fault::NetworkCut => 4,
            Fault::FullScratch | Fault::FullSpool | Fault::FullStore | Fault::TokenRefused => 8,
            Fault::NoCriu | Fault::OtherCriu | Fault::BrokenCriu | Fault::NetworkSlow => 10,
            _ => 0,
        })
    }

    /// Whether others of the pool would feel it.
    pub(super) fn is_everybodys(self, lane: Lane) -> bool {
        match self {
            Fault::KillStore | Fault::FullStore => true,
            _ => lane == Lane::Store && self.damages(),
        }
    }

    /// Whether it makes an image worthless.
    pub(super) fn damages(self) -> bool {
        matches!(
            self,
            Fault::BitFlipped | Fault::ChunkLost | Fault::ManifestCut | Fault::OlderImage
        )
    }

    /// What has to be there before the job begins.
    pub(super) fn prepare(self, scene: &Scene<'_>) -> Result<()> {
        match self {
            Fault::FullSpool => {
                // For this job's files alone.
                let ap = scene.pool.ap();
                let dir = scene.spool_dir();
                let like = format!("{}/spool", ap.condor_dir());
                scene.script(ap, &format!("mkdir -p {dir}; chown --reference={like} {dir}; chmod --reference={like} {dir}"))?;
                ap.mount_disk(&dir, "64m")
            }
            _ => Ok(()),
        }
    }

    /// It happens.
    pub(super) fn strike(self, scene: &Scene<'_>, stage: Stage) -> Result<()> {
        let there = scene.there;
        let ap = scene.pool.ap();
        match self {
            // By its arguments: it may be its loader's.
            Fault::KillCriu => scene.kill(there, "pgrep -f '[c]riu (dump|restore) '"),
            Fault::KillSupervisor => scene.kill(there, SUPERVISOR),
            Fault::KillPlugin => scene.kill(there, "pgrep -x criu-transfer"),
            Fault::KillStarter => scene.kill(there, "pgrep -x condor_starter"),
            Fault::KillShadow => {
                let mine = format!("pgrep -f '[c]ondor_shadow.* {} '", scene.job.id);
                scene.kill(ap, &mine)
            }
            Fault::KillStore => scene.store.kill(),
            Fault::FullScratch => fill(scene, there, &format!("{}/execute", there.condor_dir())),
            Fault::FullSpool => fill(scene, ap, &scene.spool_dir()),
            Fault::FullStore => fill(scene, ap, store::IMAGES),
            Fault::MemoryLimit => limit_memory(scene),
            Fault::BitFlipped => flip(&victim(scene, stage)?, scene.chance),
            Fault::ChunkLost => lose_chunk(scene, stage),
            Fault::ManifestCut => cut(&manifest(scene, stage)?, 300),
            Fault::OlderImage => put_older(scene),
            Fault::NetworkCut => there.cut(),
            Fault::NetworkSlow => {
                there.throttle(Some("2mbit"))?;
                there.throttle_arrivals(Some("2mbit"))
            }
            Fault::NetworkFlaps => flap(there),
            Fault::ClockAhead => set_clock(there, 7200),
            Fault::ClockBehind => set_clock(there, -7200),
            Fault::TokenRefused => scene.store.give_worthless_token(there),
            Fault::NoCriu => scene.script(there, &format!("mv {CRIU} {AWAY}")).map(drop),
            Fault::OtherCriu => other_criu(scene),
            Fault::BrokenCriu => replace_criu(
                scene,
                "case \"$*\" in *version*|*-V*) /usr/sbin/criu.away --version;; *) exit 1;; esac",
            ),
        }
    }

    /// It is over; also where it never happened.
    pub(super) fn heal(self, scene: &Scene<'_>) -> Result<()> {
        let there = scene.there;
        match self {
            Fault::KillStore => scene.store.start(),
            Fault::FullScratch => there.remove(format!("{}/execute/filler", there.condor_dir())),
            Fault::FullSpool => scene
                .pool
                .ap()
                .remove(format!("{}/filler", scene.spool_dir())),
            Fault::FullStore => scene.pool.ap().remove(format!("{}/filler", store::IMAGES)),
            Fault::NetworkCut => there.heal(),
            Fault::NetworkSlow => {
                let _ = there.throttle(None);
                let _ = there.throttle_arrivals(None);
                Ok(())
            }
            Fault::TokenRefused => scene.store.give_token(there, User::Alice),
            Fault::NoCriu | Fault::OtherCriu | Fault::BrokenCriu => {
                let back = format!("[ ! -e {AWAY} ] || mv -f {AWAY} {CRIU}");
                scene.script(there, &back).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What must not be there for the next cell.
    pub(super) fn clear(self, scene: &Scene<'_>) {
        let _ = scene.there.remove(format!("{}/clock", rig::DIR));
        if self == Fault::FullSpool {
            let away = format!("umount -l {dir} && rmdir {dir}", dir = scene.spool_dir());
            let _ = scene.script(scene.pool.ap(), &away);
        }
        if self == Fault::MemoryLimit {
            let away = "cd /sys && mkdir -p /cgroup && mount -t cgroup -o memory none /cgroup && \
                        rmdir /cgroup/criu-fault-*; umount /cgroup";
            let _ = scene.script(scene.there, away);
        }
    }
}

fn fill(scene: &Scene<'_>, host: &Host, dir: &str) -> Result<()> {
    // It ends with an error: that is what it is for.
    let fill = format!("cat /dev/zero >{dir}/filler 2>/dev/null; [ -s {dir}/filler ]");
    scene.script(host, &fill).map(drop)
}

fn limit_memory(scene: &Scene<'_>) -> Result<()> {
    // Version 1 of control groups charges what is taken from now on.
    let limit = format!(
        "mkdir -p /cgroup && mount -t cgroup -o memory none /cgroup || exit 1
         group=/cgroup/criu-fault-{}-{}; mkdir $group
         all() {{ for p in $(pgrep -P $1); do echo $p; all $p; done; }}
         for s in $(pgrep -x condor_starter); do for p in $(all $s); do echo $p >$group/cgroup.procs; done; done
         echo 128K >$group/memory.limit_in_bytes; grep -c . $group/cgroup.procs; umount /cgroup",
        std::process::id(),
        scene.cluster()
    );
    scene.script(scene.there, &limit).map(drop)
}

fn set_clock(host: &Host, ahead: i32) -> Result<()> {
    host.write(
        format!("{}/clock", rig::DIR),
        ahead.to_string(),
        User::Root,
        0o666,
    )
}

fn flap(host: &Host) -> Result<()> {
    for _ in 0..5 {
        host.cut()?;
        std::thread::sleep(Duration::from_millis(400));
        host.heal()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The file that an image of this stage is in.
fn victim(scene: &Scene<'_>, stage: Stage) -> Result<PathBuf> {
    match (stage, scene.lane) {
        (Stage::Committed, Lane::Spool) => scene.image_in_spool(),
        (Stage::Committed | Stage::Fetching, Lane::Store) => chunk(scene),
        _ => archive_there(scene).context("there is no archive in the scratch directory"),
    }
}

fn manifest(scene: &Scene<'_>, stage: Stage) -> Result<PathBuf> {
    match (stage, scene.lane) {
        (Stage::Committed, Lane::Store) => {
            let mut all = manifests(scene)?;
            all.pop().context("the store has no manifest of it")
        }
        _ => victim(scene, stage),
    }
}

/// Oldest first.
fn manifests(scene: &Scene<'_>) -> Result<Vec<PathBuf>> {
    let mut found = files(&scene.pool.ap().path(store::IMAGES));
    let job = format!("/jobs/{}/", scene.job.id);
    found.retain(|path| path.to_string_lossy().contains(&job));
    found.sort();
    Ok(found)
}

/// The newest large chunk of the store: one of this image's, since no other is being sent.
fn chunk(scene: &Scene<'_>) -> Result<PathBuf> {
    let mut found = files(&scene.pool.ap().path(store::IMAGES));
    found.retain(|path| path.to_string_lossy().contains("/chunks/"));
    let large = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() > 20_000);
    found.retain(large);
    found.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    found.pop().context("the store has no large chunk")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// One bit, in the middle half of the file.
fn flip(path: &Path, chance: u64) -> Result<()> {
    let flipped = || -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let at = length / 4 + chance % (length / 2).max(1);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << (chance % 8);
        file.write_all_at(&byte, at)
    };
    flipped().with_context(|| format!("flip a bit of {}", path.display()))
}

fn lose_chunk(scene: &Scene<'_>, stage: Stage) -> Result<()> {
    let victim = victim(scene, stage)?;
    if scene.lane == Lane::Store && matches!(stage, Stage::Committed | Stage::Fetching) {
        return Ok(fs::remove_file(victim)?);
    }
    let length = fs::metadata(&victim)?.len();
    cut(&victim, length * 2 / 3)
}

fn cut(path: &Path, length: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    Ok(file.set_len(length)?)
}

fn put_older(scene: &Scene<'_>) -> Result<()> {
    match scene.lane {
        Lane::Spool => {
            let older = scene.older.as_ref().context("no older image was kept")?;
            Ok(fs::write(scene.image_in_spool()?, older)?)
        }
        Lane::Store => {
            let all = manifests(scene)?;
            let [older, newer] = all.as_slice() else {
                anyhow::bail!("the store has {} images of it", all.len());
            };
            Ok(fs::write(newer, fs::read(older)?)?)
        }
    }
}

fn replace_criu(scene: &Scene<'_>, script: &str) -> Result<()> {
    let there = scene.there;
    scene.script(there, &format!("mv {CRIU} {AWAY}"))?;
    there.write(CRIU, format!("#!/bin/sh\n{script}\n"), User::Root, 0o755)
}

/// CRIU of the other distribution, with its libraries.
fn other_criu(scene: &Scene<'_>) -> Result<()> {
    let other = match scene.pool.version() {
        HtCondor::V23_9 => HtCondor::V25,
        HtCondor::V25 => HtCondor::V23_9,
    };
    let root = crate::roots::get(other)?;
    let mut loader = String::new();
    for part in crate::binaries::parts_of_criu(&root)? {
        let from = root.join(part.trim_start_matches('/'));
        let name = from.file_name().context("a file has a name")?;
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("ld-linux") {
            loader.clone_from(&name);
        }
        scene.there.write(
            format!("{OTHER}/{name}"),
            fs::read(&from)?,
            User::Root,
            0o755,
        )?;
    }
    replace_criu(
        scene,
        &format!("exec {OTHER}/{loader} --library-path {OTHER} {OTHER}/criu \"$@\""),
    )
}
