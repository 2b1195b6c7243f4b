//! Where in its way a job is when a fault strikes, and how it is made to stand still there.
//!
//! Our own programs stand still where a file tells them to (`file_transfer_plugin::rig`); HTCondor's own transfer is made
//! so slow that a fault strikes in its middle.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use file_transfer_plugin::rig;
use serde::{Deserialize, Serialize};

use super::scene::{Lane, Scene};
use crate::users::User;
use crate::wait;

/// For a stage to be come to, on a machine that has more to do.
const LIMIT: Duration = Duration::from_secs(90);

/// Slow enough that an image of some megabytes is seen on its way.
const SLOW: &str = "16mbit";

/// Steps after its thaw that show that the job runs again.
const STEPS: usize = 3;

/// Where a job is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// CRIU has begun, and nothing stands still yet.
    Freezing,
    /// The tree stands still, and its memory is being written.
    Dumping,
    /// All is written; sandbox and memory become an archive.
    Packing,
    /// The archive is whole, and the supervisor about to end.
    Packed,
    /// The archive is on its way to the access point.
    Shipping,
    /// It is there, and the job waits for a slot.
    Committed,
    /// It is on its way to the next slot.
    Fetching,
    /// It is there, and has been opened.
    Unpacking,
    /// CRIU reads the memory.
    Restoring,
    /// The job counts again.
    RunningAgain,
}

impl Stage {
    /// All, in a job's order.
    pub const ALL: [Stage; 10] = [
        Stage::Freezing,
        Stage::Dumping,
        Stage::Packing,
        Stage::Packed,
        Stage::Shipping,
        Stage::Committed,
        Stage::Fetching,
        Stage::Unpacking,
        Stage::Restoring,
        Stage::RunningAgain,
    ];

    /// In tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Freezing => "freezing",
            Stage::Dumping => "dumping",
            Stage::Packing => "packing",
            Stage::Packed => "packed",
            Stage::Shipping => "shipping",
            Stage::Committed => "committed",
            Stage::Fetching => "fetching",
            Stage::Unpacking => "unpacking",
            Stage::Restoring => "restoring",
            Stage::RunningAgain => "running-again",
        }
    }

    /// Whether it belongs to a new image, which the older one outlives; the others are those of its way back.
    pub fn is_before_commit(self) -> bool {
        self < Stage::Committed
    }

    /// What our programs call it, where they are those that stand still.
    pub(super) fn rig(self, lane: Lane) -> Option<&'static str> {
        match self {
            Stage::Committed | Stage::RunningAgain => None,
            Stage::Shipping | Stage::Fetching if lane == Lane::Spool => None,
            stage => Some(stage.name()),
        }
    }

    /// From here on, whoever comes to this stage stays there.
    pub(super) fn arm(self, scene: &Scene<'_>) -> Result<()> {
        match (self.rig(scene.lane), self) {
            (Some(name), _) => {
                let file = format!("{}/{name}", rig::DIR);
                scene.there.write(file, "", User::Root, 0o666)
            }
            (None, Stage::Shipping) => scene.there.throttle(Some(SLOW)),
            (None, Stage::Fetching) => scene.there.throttle_arrivals(Some(SLOW)),
            _ => Ok(()),
        }
    }

    /// Waits until the job is there.
    pub(super) fn wait(self, scene: &Scene<'_>) -> Result<()> {
        let reached = || match (self.rig(scene.lane), self) {
            (Some(name), _) => scene
                .there
                .path(format!("{}/{name}.here", rig::DIR))
                .exists(),
            (None, Stage::Shipping) => !arriving_in_spool(scene).is_empty(),
            (None, Stage::Fetching) => archive_there(scene).is_some(),
            (None, Stage::RunningAgain) => scene.steps_there() >= STEPS,
            _ => true,
        };
        wait::until(&format!("the stage {}", self.name()), LIMIT, || {
            if let Some(end) = scene.over()? {
                anyhow::bail!("it never came to the stage {}: {end}", self.name());
            }
            Ok(reached().then_some(()))
        })
    }

    /// On it goes.
    pub(super) fn let_go(self, scene: &Scene<'_>) -> Result<()> {
        match (self.rig(scene.lane), self) {
            (Some(name), _) => {
                scene.there.remove(format!("{}/{name}", rig::DIR))?;
                scene.there.remove(format!("{}/{name}.here", rig::DIR))
            }
            (None, stage) => {
                // It may be gone already, with a cable that was out.
                let _ = match stage {
                    Stage::Shipping => scene.there.throttle(None),
                    Stage::Fetching => scene.there.throttle_arrivals(None),
                    _ => Ok(()),
                };
                Ok(())
            }
        }
    }
}

/// Files of an upload that is under way.
fn arriving_in_spool(scene: &Scene<'_>) -> Vec<PathBuf> {
    let found = scene.spooled().unwrap_or_default();
    found
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(".tmp/"))
        .collect()
}

/// The image in the scratch directory of the host where it strikes.
pub(super) fn archive_there(scene: &Scene<'_>) -> Option<PathBuf> {
    scratch_dirs(scene)
        .into_iter()
        .map(|dir| dir.join("checkpoint.criu"))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0))
}

/// Those of the host where it strikes.
pub(super) fn scratch_dirs(scene: &Scene<'_>) -> Vec<PathBuf> {
    let execute = scene
        .there
        .path(format!("{}/execute", scene.there.condor_dir()));
    let entries = fs::read_dir(execute).into_iter().flatten().flatten();
    // 25.14 has a directory more in between.
    let dirs = entries.map(|entry| entry.path());
    dirs.flat_map(|dir| [dir.join("scratch"), dir])
        .filter(|path| path.is_dir())
        .collect()
}

impl std::str::FromStr for Stage {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Stage::ALL.into_iter().find(|stage| stage.name() == text);
        found.with_context(|| format!("no stage {text}"))
    }
}
