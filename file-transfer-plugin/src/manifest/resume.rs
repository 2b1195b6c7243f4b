//! What the supervisor needs to go on with a job, beside CRIU's images.
//!
//! Every field has a default, so that fields can be added without a new format.

use serde::{Deserialize, Serialize};

/// How the job goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resume {
    /// The job's uid inside its namespace, the same for its whole life.
    pub inner_uid: u32,
    /// Its gid.
    pub inner_gid: u32,
    /// CLOCK_MONOTONIC as the job saw it when it was frozen.
    pub monotonic_ns: i64,
    /// CLOCK_BOOTTIME likewise.
    pub boottime_ns: i64,
    /// How many bytes of its stdout and stderr the starter has got already.
    pub relayed: [u64; 2],
    /// The input files as they were handed over, so that what the job left unchanged need not travel.
    pub inputs: Vec<Input>,
    /// How many times the job was started or thawed.
    pub job_starts: u32,
    /// Resident memory when it was frozen.
    pub memory_bytes: u64,
    /// The digest of the image before, empty for the first.
    pub follows: String,
    /// The job and its arguments.
    pub argv: Vec<String>,
    /// The level of instructions that the job gets to see, where that is less than all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The CPU affinity of each process, which CRIU does not restore.
    pub affinity: Vec<Affinity>,
}

/// An input file as the job was given it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Input {
    /// Where, relative to the sandbox.
    pub path: String,
    /// Its length.
    pub size: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The CPUs on which a process may run: its pid and their numbers.
pub type Affinity = (u32, Vec<u32>);
