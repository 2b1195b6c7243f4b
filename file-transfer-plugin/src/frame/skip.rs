//! What stands for nothing, so that a manifest may be shorter than its room.
//!
//! zstd has frames for that (RFC 8878, 3.1.2). In gzip it is empty members whose header has an extra field (RFC 1952,
//! 2.3.1.1), as many as their 64 kB need.

use crate::manifest::Codec;

/// How one of them is built: its first bytes, how many zeros follow, those, and its last bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Skip {
    magic: &'static [u8],
    /// The bytes of that number.
    width: usize,
    pub(crate) tail: &'static [u8],
}

impl Skip {
    pub(crate) fn of(codec: Codec) -> Self {
        match codec {
            Codec::Zstd => Self {
                magic: &[0x50, 0x2A, 0x4D, 0x18],
                width: 4,
                tail: &[],
            },
            Codec::Gzip => Self {
                // As any member's, but for the flag that there is an extra field.
                magic: &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff],
                width: 2,
                // Nothing, deflated; its checksum and its length.
                tail: &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            },
        }
    }

    /// What must be seen of it to tell its length.
    pub(crate) fn head(self) -> usize {
        self.magic.len() + self.width
    }

    /// The shortest there is.
    pub(crate) fn least(self) -> usize {
        self.head() + self.tail.len()
    }

    /// How long it is in all that begins with this head; none if it is another frame.
    pub(crate) fn len(self, head: &[u8]) -> Option<u64> {
        let number = head.strip_prefix(self.magic)?.get(..self.width)?;
        let zeros = number
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(zeros + self.least() as u64)
    }
}

/// Frames of `len` bytes in all, which are no fewer than the shortest has.
pub(crate) fn skips(codec: Codec, len: usize) -> Vec<u8> {
    let skip = Skip::of(codec);
    let (least, most) = (skip.least(), (1 << (8 * skip.width)) - 1);
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let left = len - out.len() - least;
        // So that what remains is enough for another.
        let zeros = if left <= most { left } else { most - least };
        out.extend(skip.magic);
        out.extend(&zeros.to_le_bytes()[..skip.width]);
        out.resize(out.len() + zeros, 0);
        out.extend(skip.tail);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_as_long_as_is_wanted_and_tell_it() {
        for codec in [Codec::Zstd, Codec::Gzip] {
            let skip = Skip::of(codec);
            for more in [
                0,
                1,
                21,
                22,
                23,
                0xfffe,
                0xffff,
                0x1_0000,
                0x1_0015,
                1 << 20,
            ] {
                let len = skip.least() + more;
                let bytes = skips(codec, len);
                assert_eq!(bytes.len(), len);
                let mut at = 0;
                while at < len {
                    at += skip.len(&bytes[at..]).unwrap() as usize;
                }
                assert_eq!(at, len, "{codec:?}");
            }
        }
        let mut nothing = Vec::new();
        let gzip = skips(Codec::Gzip, 300_000);
        let mut reader = flate2::read::MultiGzDecoder::new(gzip.as_slice());
        std::io::Read::read_to_end(&mut reader, &mut nothing).unwrap();
        assert_eq!(nothing, b"");
        let zstd = skips(Codec::Zstd, 300_000);
        assert_eq!(zstd::decode_all(zstd.as_slice()).unwrap(), b"");
    }
}
