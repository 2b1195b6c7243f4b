//! From a dumped tree to a committed archive that the access point knows of.
//!
//! Stages are values that the next consumes: a tree that CRIU has written and
//! still holds is [`Dumped`], its archive [`Packed`], and what the job ad says of
//! it follows from that alone. Each failure leaves the older archive as it was.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::manifest::{Codec, Head};
use file_transfer_plugin::monitor::Monitor;
use file_transfer_plugin::pack::{Options, Stream, Tree};
use file_transfer_plugin::rig;

use crate::chirp::Chirp;
use crate::criu;
use crate::plan::Packing;
use crate::sandbox::{Sandbox, TREES};
use crate::store::Lane;

/// A tree that stands still, whole in its images.
pub(crate) struct Dumped {
    pub(crate) head: Head,
    /// From the order to freeze to the last image.
    pub(crate) took: Duration,
}

/// zstd's level where it must not take long: two and a half times as fast, a fifth larger. gzip has nothing like it.
const LEVEL_IN_HURRY: i32 = -5;

/// A committed archive.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) generation: u64,
    fingerprint: Fingerprint,
    pub(crate) bytes: u64,
    pub(crate) digest: String,
    created: i64,
    job_starts: u32,
    pub(crate) dump_seconds: f64,
    pub(crate) pack_seconds: f64,
}

/// An archive of this sandbox, begun before there is anything to write.
pub(crate) fn begin(
    sandbox: &Sandbox,
    head: &Head,
    codec: Codec,
    packing: Packing,
) -> Result<Stream> {
    let mut options = Options {
        codec,
        ..Options::default()
    };
    if packing != Packing::Well {
        options.keep_disk_busy = packing == Packing::ForDisk;
        (options.codec, options.level) = (Codec::Zstd, LEVEL_IN_HURRY);
    }
    let expected = head.resume.memory_bytes;
    let dirs = trees(sandbox);
    Stream::begin(&of(&dirs), expected, head, &sandbox.archive(), &options)
        .context("the image cannot be written")
}

fn trees(sandbox: &Sandbox) -> [(&'static str, PathBuf); TREES.len()] {
    TREES.map(|prefix| (prefix, sandbox.tree(prefix)))
}

fn of<'a>(dirs: &'a [(&'static str, PathBuf)]) -> Vec<Tree<'a>> {
    let tree = |(prefix, dir): &'a (&'static str, PathBuf)| Tree { prefix, dir };
    dirs.iter().map(tree).collect()
}

impl Dumped {
    /// Writes the archive beside the older one and then over it.
    pub(crate) fn pack(
        self,
        sandbox: &Sandbox,
        memory: Stream,
        monitor: &dyn Monitor,
    ) -> Result<Packed> {
        let begun = Instant::now();
        rig::stop("packing");
        criu::drop_groups(&sandbox.tree("images"))?;
        let dirs = trees(sandbox);
        let head = self.head;
        let (created, job_starts) = (head.created, head.resume.job_starts);
        let (generation, fingerprint) = (head.generation, head.fingerprint.clone());
        let packed = memory
            .finish(&of(&dirs), head, monitor)
            .context("the image could not be packed")?;
        let pack_seconds = begun.elapsed().as_secs_f64();
        tracing::info!(
            stage = "packed",
            bytes = packed.bytes,
            raw_bytes = packed.raw_bytes,
            seconds = pack_seconds
        );
        Ok(Packed {
            generation,
            fingerprint,
            bytes: packed.bytes,
            digest: packed.digest.to_string(),
            created,
            job_starts,
            dump_seconds: self.took.as_secs_f64(),
            pack_seconds,
        })
    }
}

impl Packed {
    /// Tells the access point what the next slot must have, how the image goes there, and which others may.
    pub(crate) fn announce(&self, chirp: &mut Chirp, lane: Lane, before: &[String]) -> Result<()> {
        for (name, value) in self.fingerprint.to_job_ad().iter() {
            chirp.set(&name, &value.to_old())?;
        }
        let quoted = |text: &str| classad::Value::from(text).to_string();
        let facts = [
            (attributes::JOB_GENERATION, self.generation.to_string()),
            (attributes::JOB_BYTES, self.bytes.to_string()),
            (attributes::JOB_TIME, self.created.to_string()),
            (attributes::JOB_STARTS, self.job_starts.to_string()),
            (attributes::JOB_DIGEST, quoted(&self.digest)),
            (attributes::JOB_DIGEST_BEFORE, quoted(&before.join(","))),
            (attributes::JOB_LANE, quoted(lane.name())),
            (
                attributes::JOB_DUMP_SECONDS,
                format!("{:.3}", self.dump_seconds),
            ),
            (
                attributes::JOB_PACK_SECONDS,
                format!("{:.3}", self.pack_seconds),
            ),
            (attributes::JOB_REASON, "undefined".to_owned()),
        ];
        for (name, value) in facts {
            chirp.set(name, &value)?;
        }
        Ok(())
    }
}

/// Tells the access point why there is no new image.
pub(crate) fn announce_failure(chirp: &mut Chirp, reason: &str) -> Result<()> {
    // The starter takes expressions of up to about 990 characters.
    let short: String = reason.chars().take(600).collect();
    chirp.set(
        attributes::JOB_REASON,
        &classad::Value::from(short.as_str()).to_string(),
    )
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> i64 {
    rig::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
