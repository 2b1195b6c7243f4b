//! What a client and the store say to each other: version 1.
//!
//! HTTP/1.1 or 2. Control is JSON, chunks are the raw frames of the archive. Whose images they are is never part of a
//! request: it is the subject of the token in `Authorization: Bearer`.
//!
//! ```text
//! request                                   answer
//! POST   /v1/admission       Admission      200 Ticket, as soon as it is this upload's turn; send it with each PUT
//! POST   /v1/missing         Missing        200 Missing: those of the chunks that the caller lacks
//! PUT    /v1/chunks/CHUNK   frame           204; the store has compared the frame with its name
//! PUT    /v1/jobs/JOB/images/DIGEST  manifest.json   201 the image is committed, 200 it was already;
//!                                           409 Problem with the chunks that are still missing
//! GET    /v1/images                         200 [Image] of all of the caller's jobs
//! GET    /v1/jobs/JOB/images                200 [Image], newest first; empty for a job that has none
//! GET    /v1/jobs/JOB/images/DIGEST         200 manifest.json; also `latest` for DIGEST
//! GET    /v1/chunks/CHUNK                   200 the frame
//! DELETE /v1/jobs/JOB/images[/DIGEST]       204, also where there was nothing
//! GET    /healthz                           200 to anybody while the store works
//! GET    /metrics                           200 Prometheus' text, sums only
//! GET    /                                  200 a page for people; the token is the password
//! ```
//!
//! A chunk's name is the hash of its frame, as it is compressed, and the frame's length. So the store never opens what others
//! send, and who fetches an image opens only what its manifest commits to.
//!
//! An image is there when its manifest is: the upload is chunks in any order, then the manifest. An upload that was cut off
//! is resumed by asking `/v1/missing` again. Whoever is told that nothing is missing and still gets a 409 sends what the
//! answer names: an image that held those chunks was removed meanwhile.
//!
//! Each refusal is a [`Problem`]. 401 the token is none, or no longer one; 403 it does not allow this; 404 there is no such
//! image or chunk, of the caller's; 400 and 422 the request is wrong and will stay so; 429 and 503 not now, `Retry-After`
//! says when; 507 there is no room, the quota's or the disk's.

mod name;

pub use name::{BadName, Chunk, Job};

use serde::{Deserialize, Serialize};

use crate::manifest::Digest;

/// The header that carries [`Ticket::ticket`].
pub const TICKET: &str = "criu-ticket";
/// Stands for the digest of a job's newest image in a URL.
pub const LATEST: &str = "latest";
/// The most names in one [`Missing`].
pub const NAMES_MAX: usize = 16_384;
/// The longest body of a request that is JSON but for a manifest: [`NAMES_MAX`] names and their commas.
pub const CONTROL_MAX: usize = 2 << 20;

/// Asks which of these chunks the store lacks, and is the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Names of chunks, at most [`NAMES_MAX`].
    pub chunks: Vec<Chunk>,
}

/// An image of the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The job whose it is.
    pub job: Job,
    /// How many images of this job there had been, with this one.
    pub generation: u64,
    /// The hash of its manifest.
    pub digest: Digest,
    /// The size of the archive: all of its frames, shared ones too.
    pub bytes: u64,
    /// What that is before compression.
    pub raw_bytes: u64,
    /// When it was taken, in seconds since 1970, by the clock of the slot.
    pub created: i64,
    /// When it was committed, by the clock of the store.
    pub committed: i64,
}

/// Asks for a turn to upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// How much is to come, as far as is known: the frames that the store lacks.
    pub bytes: u64,
    /// The time that is left to the caller. Who has least goes first. There is an answer before it is over.
    pub seconds: u64,
    /// The job. Where the quota has no room, its older images are given up for the new one, all but the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

/// It is the caller's turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Sent in the header [`TICKET`] with each PUT. It ends with the commit, or when it was not used for a minute.
    pub ticket: String,
}

/// Why a request was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// For a person.
    pub error: String,
    /// The chunks that a manifest names and the store lacks; not more than [`NAMES_MAX`], so ask again when they are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Chunk>,
}
