//! Names that come in URLs, checked before they become paths or keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::manifest::{Digest, Frame};

/// A text that is no name of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// No job.
    #[error("no name of a job: 1 to 200 letters, digits and _-.#@:+, not beginning with a dot")]
    Job,
    /// No chunk.
    #[error("no name of a chunk: the blake3 hash of its frame, a minus, the frame's length")]
    Chunk,
}

/// The longest name of a job.
const JOB_MAX: usize = 200;

/// What a job is called in the store: its GlobalJobId, `cluster.proc`, or any other word that its owner chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Job(String);

impl Job {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Job {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Job {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.#@:+".contains(&byte);
        let good = (1..=JOB_MAX).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(plain);
        if good {
            Ok(Self(text))
        } else {
            Err(BadName::Job)
        }
    }
}

impl From<Job> for String {
    fn from(job: Job) -> Self {
        job.0
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A frame of an archive as the store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Chunk {
    /// The hash of the frame.
    pub hash: Digest,
    /// The length of the frame.
    pub packed: u32,
}

impl From<Frame> for Chunk {
    fn from(Frame { hash, packed, .. }: Frame) -> Self {
        Self { hash, packed }
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.packed)
    }
}

impl FromStr for Chunk {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let (hash, packed) = text.split_once('-').ok_or(BadName::Chunk)?;
        let name = Self {
            hash: hash.parse().map_err(|_| BadName::Chunk)?,
            packed: packed.parse().map_err(|_| BadName::Chunk)?,
        };
        // One chunk has one spelling: no plus sign, no zero in front.
        if name.packed > 0 && name.to_string() == text {
            Ok(name)
        } else {
            Err(BadName::Chunk)
        }
    }
}

impl From<Chunk> for String {
    fn from(chunk: Chunk) -> Self {
        chunk.to_string()
    }
}

impl TryFrom<String> for Chunk {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_names_that_are_no_paths() {
        for good in ["12.0", "ap.example#12.0#1790000000", "a", &"x".repeat(200)] {
            assert_eq!(good.parse::<Job>().map(String::from), Ok(good.to_owned()));
        }
        let long = "x".repeat(201);
        for bad in [
            "", ".", "..", ".x", "a/b", "a\\b", "a b", "a%2fb", "ä", "a\0", &long,
        ] {
            assert_eq!(bad.parse::<Job>(), Err(BadName::Job), "{bad:?}");
        }
    }

    #[test]
    fn a_chunk_has_one_spelling() {
        let hash = Digest::of(b"x");
        let chunk = Chunk { hash, packed: 70 };
        assert_eq!(chunk.to_string().parse(), Ok(chunk));
        for bad in ["", "-", "+70", "-070", "-+70", "-0", "-4294967296", "-70-"] {
            let text = format!("{hash}{bad}");
            assert_eq!(text.parse::<Chunk>(), Err(BadName::Chunk), "{text}");
        }
        let upper = chunk.to_string().to_uppercase();
        assert_eq!(upper.parse::<Chunk>(), Err(BadName::Chunk));
    }
}
