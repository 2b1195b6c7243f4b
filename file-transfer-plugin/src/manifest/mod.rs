//! `manifest.json`, the first file in `checkpoint.criu`: what the image is, how the job goes on, and all the other bytes by
//! their hash.
//!
//! It is written last and read first. Its own hash, the archive's [`Digest`], therefore commits to everything. `format` is
//! checked before anything else is believed; how much is read at all is bounded by [`Limits`], how deep by serde_json (128).

mod check;
mod name;
mod resume;

pub use check::Limits;
pub use name::Name;
pub use resume::{Affinity, Input, Resume};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

/// The format that is written. A change that an older reader would get wrong gets a new number, and a new fixture.
///
/// Since format 2 a frame has the hash of its own bytes, before it had that of its contents. So a store can tell that a frame
/// is what it is said to be without opening it.
pub const FORMAT: u32 = 2;

/// The manifest's own name in the archive.
pub const MANIFEST: &str = "manifest.json";

/// Why a manifest cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not the JSON that it should be.
    #[error("the manifest cannot be read: {0}")]
    Unreadable(String),
    /// It was written by a later version of this program.
    #[error("the archive has format {found}, this program reads up to {FORMAT}")]
    Future {
        /// The format found.
        found: u32,
    },
    /// It is of before frames had names in a store.
    #[error(
        "the archive has format {found}, stores take {FORMAT}: restore the job from it, its next image can go there"
    )]
    Nameless {
        /// The format found.
        found: u32,
    },
    /// It would take more than the caller allows.
    #[error("the archive has {found} {what}, allowed are {allowed}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// How much may be.
        allowed: u64,
    },
    /// A path that could lead elsewhere.
    #[error("the archive has an unsafe path {path}: {why}")]
    UnsafePath {
        /// The path.
        path: Name,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Its parts contradict each other.
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// serde's own words may quote the manifest: without what a terminal would obey, and not at length.
fn unreadable(error: serde_json::Error) -> ManifestError {
    let text = error.to_string();
    ManifestError::Unreadable(text.escape_debug().take(200).collect())
}

/// What the caller of a pack says about the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many images of this job there have been, with this one.
    pub generation: u64,
    /// When it was taken, in seconds since 1970.
    pub created: i64,
    /// What the image needs of a slot.
    pub fingerprint: Fingerprint,
    /// What the supervisor needs to go on.
    pub resume: Resume,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of its writer.
    pub format: u32,
    /// What the image is.
    pub head: Head,
    /// What is in it.
    pub contents: Contents,
}

/// Everything in the archive beside the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Files and the like, in the order in which they lie there; a directory before what is in it.
    pub entries: Vec<Entry>,
    /// What was there and is not in the archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How frames are compressed, that of the manifest included.
    #[serde(default, skip_serializing_if = "Codec::is_default")]
    pub codec: Codec,
    /// The frames after the manifest, which together make up the rest of the tar.
    pub frames: Vec<Frame>,
}

/// How frames are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// As zstd frames, which `tar --zstd` reads.
    #[default]
    Zstd,
    /// As gzip members, which `tar -z` reads, on systems that have no zstd.
    Gzip,
}

impl Codec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// There is no such codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither zstd nor gzip")]
pub struct UnknownCodec(String);

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        match name {
            "zstd" => Ok(Self::Zstd),
            "gzip" => Ok(Self::Gzip),
            other => Err(UnknownCodec(other.to_owned())),
        }
    }
}

/// One file, directory, link or fifo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the archive; the first part names the tree.
    pub path: Name,
    /// Permission bits and the sticky bit.
    pub mode: u32,
    /// When it was last written, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Extended attributes of the user's name space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(Name, Name)>,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is. Devices are not among it, nor sockets: CRIU makes those anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Its length.
        size: u64,
        /// Offset and length of each part that is no hole, if it has holes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extents: Option<Vec<(u64, u64)>>,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Name,
    },
    /// A further name of an earlier file.
    Link {
        /// The path of that file in the archive.
        to: Name,
    },
    /// A named pipe.
    Fifo,
}

/// Something that was not packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path, as it would have been in the archive.
    pub path: Name,
    /// Why not.
    pub why: String,
}

/// A frame: a chunk of the tar, named by the hash of its bytes, so that it can be verified and shipped by itself.
///
/// What is in it follows from its bytes. That the compressor made no mistake is told by the checksum in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(Digest, u32, u32)", from = "(Digest, u32, u32)")]
pub struct Frame {
    /// The hash of its bytes, as they are in the archive.
    pub hash: Digest,
    /// How many bytes it has before compression.
    pub raw: u32,
    /// How many bytes it takes in the archive.
    pub packed: u32,
}

impl From<Frame> for (Digest, u32, u32) {
    fn from(frame: Frame) -> Self {
        (frame.hash, frame.raw, frame.packed)
    }
}

impl From<(Digest, u32, u32)> for Frame {
    fn from((hash, raw, packed): (Digest, u32, u32)) -> Self {
        Self { hash, raw, packed }
    }
}

/// A blake3 hash: the name of a chunk, and of a whole archive when it is its manifest's. Written in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// A text that is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no blake3 hash in hex")]
pub struct BadDigest;

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of bytes that lie in several places.
    pub(crate) fn of_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        // One digest has one spelling, or an equal one would not be found by its text.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(BadDigest);
        }
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| BadDigest)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl Manifest {
    /// Reads a manifest. Its claims are not checked yet; opening an archive does that.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if !(1..=FORMAT).contains(&format) {
            return Err(ManifestError::Future { found: format });
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// Whether the hashes of its frames are of what is in them.
    pub(crate) fn hashes_contents(&self) -> bool {
        self.format == 1
    }

    /// Refuses an archive whose frames have no names in a store.
    #[cfg(any(feature = "remote", feature = "store"))]
    pub(crate) fn check_names(&self) -> Result<(), ManifestError> {
        if self.hashes_contents() {
            let found = self.format;
            return Err(ManifestError::Nameless { found });
        }
        Ok(())
    }

    /// The bytes that go into the archive, of which the digest is taken.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, strings and lists of them are JSON")
    }
}
