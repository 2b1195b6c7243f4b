//! What the writer of an archive tells whoever sends it meanwhile: a line for each frame that lies in the temporary file, and
//! one when the archive has its name.
//!
//! ```text
//! frame HASH-PACKED RAW AT
//! complete DIGEST
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::mpsc::Sender;

use crate::manifest::{Digest, Frame};
use crate::protocol::Chunk;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A frame was written.
    Frame {
        /// Its description.
        frame: Frame,
        /// Where it begins.
        at: u64,
    },
    /// All were; the archive is in its place.
    Complete(Digest),
}

/// A line that is none of these.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no word about an archive: {0:?}")]
pub struct BadWord(String);

/// Tells of a frame. Who has stopped listening wants to know nothing.
pub(super) fn tell(somebody: Option<&Sender<Word>>, frame: Frame, at: u64) {
    if let Some(somebody) = somebody {
        let _ = somebody.send(Word::Frame { frame, at });
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Frame { frame, at } => {
                write!(f, "frame {} {} {at}", Chunk::from(*frame), frame.raw)
            }
            Word::Complete(digest) => write!(f, "complete {digest}"),
        }
    }
}

impl FromStr for Word {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let word = || match text.split(' ').collect::<Vec<_>>()[..] {
            ["frame", chunk, raw, at] => {
                let Chunk { hash, packed } = chunk.parse().ok()?;
                let raw = raw.parse().ok()?;
                let frame = Frame { hash, raw, packed };
                let at = at.parse().ok()?;
                Some(Word::Frame { frame, at })
            }
            ["complete", digest] => digest.parse().ok().map(Word::Complete),
            _ => None,
        };
        word().ok_or_else(|| BadWord(text.chars().take(200).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let frame = Frame {
            hash: Digest::of(b"x"),
            raw: 1 << 20,
            packed: 70,
        };
        let words = [
            Word::Frame { frame, at: 1 << 40 },
            Word::Complete(frame.hash),
        ];
        for word in words {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        let [frame, complete] = words.map(|word| word.to_string());
        for bad in [
            "",
            "frame",
            &frame[1..],
            &format!("{frame} 1"),
            &format!("{frame}-1"),
            &complete[..40],
        ] {
            assert!(bad.parse::<Word>().is_err(), "{bad}");
        }
    }
}
