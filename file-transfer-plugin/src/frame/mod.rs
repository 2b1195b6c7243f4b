//! One frame: bytes in, bytes out.
//!
//! Frames are whole and independent, so that any tool that reads zstd, or gzip, reads their concatenation.

mod gzip;
mod skip;
mod zst;

use std::fs::File;
use std::io;

use flate2::{Compress, Compression, Decompress};

use crate::manifest::{Codec, Digest};

pub(crate) use skip::{Skip, skips};

/// How much of a chunk is tried, and in how many places, before a level is chosen for it.
const SAMPLE: usize = 4 << 10;
const SAMPLES: usize = 8;
/// A prime that is no neighbour of a multiple of a page.
const UNEVEN: usize = 27_361;

/// zstd's checksum, which its bound is without.
const CHECKSUM: usize = 4;

/// The most bytes that a frame of `raw` bytes takes: zstd's bound, which is above gzip's.
pub(crate) fn bound(raw: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw) + CHECKSUM
}

/// How long the frame is that [`store`] makes of `raw` bytes.
pub(crate) fn stored(codec: Codec, raw: usize) -> usize {
    match codec {
        Codec::Zstd => zst::stored(raw),
        Codec::Gzip => gzip::stored(raw),
    }
}

/// Makes `out` a frame of the bytes themselves: its length follows from theirs.
pub(crate) fn store(codec: Codec, raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(stored(codec, raw.len()));
    match codec {
        Codec::Zstd => zst::store(raw, out),
        Codec::Gzip => gzip::store(raw, out),
    }
}

/// Makes `out` what is in the frame of `packed` bytes at `at`, `raw` bytes, if it is one of [`store`]'s: that needs no second
/// buffer. The frame's digest, or none if it is another.
pub(crate) fn read_stored(
    codec: Codec,
    file: &File,
    at: u64,
    packed: usize,
    raw: usize,
    out: &mut Vec<u8>,
) -> io::Result<Option<Digest>> {
    if codec != Codec::Zstd || packed != zst::stored(raw) {
        return Ok(None);
    }
    out.resize(raw, 0);
    zst::read_stored(file, at, out)
}

/// Makes frames; keeps its memory between them.
pub(crate) struct Packer {
    codec: Codec,
    zstd: zstd::bulk::Compressor<'static>,
    gzip: Compress,
    sample: Vec<u8>,
    tried: Vec<u8>,
}

impl Packer {
    /// The level is zstd's; gzip has none below 1 and above 9.
    pub(crate) fn new(codec: Codec, level: i32) -> io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        zstd.include_checksum(true)?;
        Ok(Self {
            codec,
            zstd,
            gzip: Compress::new(Compression::new(level.clamp(1, 9) as u32), false),
            sample: Vec::with_capacity(SAMPLE * SAMPLES),
            tried: Vec::with_capacity(bound(SAMPLE * SAMPLES)),
        })
    }

    /// Makes `out` the frame of `raw`.
    pub(crate) fn pack(&mut self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if self.is_noise(raw)? {
            store(self.codec, raw, out);
            return Ok(());
        }
        out.clear();
        out.reserve(bound(raw.len()));
        match self.codec {
            Codec::Zstd => self.zstd.compress_to_buffer(raw, out).map(|_| ()),
            Codec::Gzip => gzip::pack(&mut self.gzip, raw, out),
        }
    }

    /// Whether compressing is a waste: encrypted, compressed or random bytes, judged by samples. A wrong guess costs space,
    /// not correctness.
    fn is_noise(&mut self, raw: &[u8]) -> io::Result<bool> {
        if raw.len() < 2 * SAMPLE * SAMPLES {
            return Ok(false);
        }
        self.sample.clear();
        let parts = raw.chunks_exact(raw.len() / SAMPLES);
        for (number, part) in parts.enumerate() {
            // Somewhere in its part: at the same place in each, a pattern in memory could show one face only.
            let at = number * UNEVEN % (part.len() - SAMPLE);
            self.sample.extend(&part[at..at + SAMPLE]);
        }
        self.tried.clear();
        let packed = self
            .zstd
            .compress_to_buffer(&self.sample, &mut self.tried)?;
        Ok(packed * 12 > self.sample.len() * 11)
    }
}

/// Makes `out` the frame of a manifest: small, so at a better level. Its checksum alone tells whether it is damaged where the
/// caller knows no digest.
pub(crate) fn pack_manifest(codec: Codec, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    out.reserve(bound(raw.len()));
    match codec {
        Codec::Zstd => zst::pack_manifest(raw, out),
        Codec::Gzip => {
            let mut compress = Compress::new(Compression::default(), false);
            gzip::pack(&mut compress, raw, out)
        }
    }
}

/// Opens frames; keeps its memory between them.
pub(crate) struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
    gzip: Decompress,
}

impl Unpacker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: zstd::bulk::Decompressor::new()?,
            gzip: Decompress::new(false),
        })
    }

    /// Makes `out` what is in a frame; whether that is one frame of `raw` bytes.
    ///
    /// Into room for `raw` bytes, or what room there is, and not one more, whatever the frame claims.
    pub(crate) fn unpack(
        &mut self,
        codec: Codec,
        frame: &[u8],
        raw: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        out.reserve_exact(raw);
        let whole = match codec {
            // Of no bytes zstd makes none, which is no frame.
            Codec::Zstd => !frame.is_empty() && self.zstd.decompress_to_buffer(frame, out).is_ok(),
            Codec::Gzip => gzip::unpack(&mut self.gzip, frame, out),
        };
        whole && out.len() == raw
    }
}

/// How the frame is compressed at whose beginning `bytes` are.
pub(crate) fn codec_of(bytes: &[u8]) -> Option<Codec> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    if begins(&zst::MAGIC.to_le_bytes()) {
        Some(Codec::Zstd)
    } else if begins(&gzip::MAGIC) {
        Some(Codec::Gzip)
    } else {
        None
    }
}

/// What the frame is at whose beginning `bytes` are: its own length and that of what is in it.
pub(crate) enum First {
    /// It is cut off: more bytes are needed.
    Cut,
    /// It is no frame, or does not tell its size.
    Bad,
    /// Its length and that of its contents.
    Whole(usize, u64),
}

/// Looks at the frame at the beginning of `bytes`, of whose contents more than `most` bytes are too many in any case.
pub(crate) fn first(codec: Codec, bytes: &[u8], most: u64) -> First {
    match codec {
        Codec::Zstd => zst::first(bytes),
        Codec::Gzip => gzip::first(bytes, most),
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks_exact(256);
    // The inner fold has no exit, so that it becomes vector instructions.
    blocks
        .by_ref()
        .all(|block| block.iter().fold(0, |or, byte| or | byte) == 0)
        && blocks.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    const CODECS: [Codec; 2] = [Codec::Zstd, Codec::Gzip];

    fn read(codec: Codec, frame: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        match codec {
            Codec::Zstd => zstd::stream::copy_decode(frame, &mut raw).unwrap(),
            Codec::Gzip => {
                let mut reader = flate2::read::GzDecoder::new(frame);
                io::Read::read_to_end(&mut reader, &mut raw).unwrap();
            }
        }
        raw
    }

    #[test]
    fn what_is_packed_is_what_everybody_reads() {
        const BLOCK: usize = 128 << 10;
        for codec in CODECS {
            let mut packer = Packer::new(codec, 1).unwrap();
            let mut unpacker = Unpacker::new().unwrap();
            let (mut out, mut back) = (Vec::new(), Vec::new());
            for len in [0, 1, 1000, BLOCK, BLOCK + 1, 1 << 20, (1 << 20) - 1] {
                for raw in [noise(len), vec![0; len], b"text ".repeat(len / 5)] {
                    packer.pack(&raw, &mut out).unwrap();
                    assert_eq!(read(codec, &out), raw);
                    assert!(out.len() <= bound(raw.len()), "{len}");
                    assert_eq!(codec_of(&out), Some(codec));
                    assert!(unpacker.unpack(codec, &out, raw.len(), &mut back));
                    assert_eq!(back, raw);
                    assert!(
                        matches!(first(codec, &out, u64::MAX), First::Whole(all, size) if all == out.len() && size == raw.len() as u64)
                    );
                    store(codec, &raw, &mut out);
                    assert_eq!(read(codec, &out), raw);
                    assert_eq!(out.len(), stored(codec, raw.len()));
                    assert!(out.len() <= bound(raw.len()), "{len}");
                }
            }
        }
    }

    /// Or the next image of a job would share no chunk with this one.
    #[test]
    fn a_frame_does_not_depend_on_those_before_it() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let chunks: Vec<&[u8]> = program.chunks(300_000).take(60).collect();
        for codec in CODECS {
            let mut used = Packer::new(codec, 1).unwrap();
            let (mut once, mut again) = (Vec::new(), Vec::new());
            for (number, chunk) in chunks.iter().enumerate() {
                let other = chunks[number * 7 % chunks.len()];
                used.pack(&other[..other.len() / 3], &mut once).unwrap();
                used.pack(chunk, &mut once).unwrap();
                let mut new = Packer::new(codec, 1).unwrap();
                new.pack(chunk, &mut again).unwrap();
                assert!(once == again, "{codec:?}: chunk {number}");
            }
        }
    }

    #[test]
    fn what_is_not_one_frame_of_that_size_is_refused() {
        let raw = b"text ".repeat(10_000);
        for codec in CODECS {
            let mut unpacker = Unpacker::new().unwrap();
            let (mut frame, mut out) = (Vec::new(), Vec::new());
            let mut packer = Packer::new(codec, 1).unwrap();
            packer.pack(&raw, &mut frame).unwrap();
            let mut is = |frame: &[u8], len| {
                // A buffer of no more than the room that is meant.
                out = Vec::new();
                unpacker.unpack(codec, frame, len, &mut out)
            };
            assert!(is(&frame, raw.len()));
            assert!(!is(&frame, raw.len() - 1));
            assert!(!is(&frame, raw.len() + 1));
            assert!(!is(&frame[..frame.len() - 1], raw.len()));
            assert!(!is(b"", 0));
            let longer = [frame.as_slice(), b"x"].concat();
            assert!(!is(&longer, raw.len()));
        }
    }

    #[test]
    fn a_stored_frame_is_read_to_its_place_and_no_other_is_taken_for_one() {
        let mut frame = Vec::new();
        for len in [0, 1, 128 << 10, (128 << 10) + 1, 1 << 20] {
            let raw = noise(len);
            store(Codec::Zstd, &raw, &mut frame);
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&frame, 5).unwrap();
            let mut found = vec![1; len];
            let mut read =
                |packed| read_stored(Codec::Zstd, &file, 5, packed, len, &mut found).unwrap();
            assert_eq!(read(frame.len()), Some(Digest::of(&frame)));
            assert_eq!(read(frame.len() - 1), None);
            assert_eq!(found, raw);
            // The frame's head, and its first block's.
            for at in [4, 9] {
                file.write_all_at(&[!frame[at]], 5 + at as u64).unwrap();
                let read = read_stored(Codec::Zstd, &file, 5, frame.len(), len, &mut found);
                assert_eq!(read.unwrap(), None);
                file.write_all_at(&frame, 5).unwrap();
            }
            file.set_len(4 + frame.len() as u64).unwrap();
            let cut = read_stored(Codec::Zstd, &file, 5, frame.len(), len, &mut found);
            assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_is_told_from_one_that_is_damaged() {
        let raw = b"text ".repeat(2_000);
        for codec in CODECS {
            let mut out = Vec::new();
            pack_manifest(codec, &raw, &mut out).unwrap();
            for len in 5..out.len() {
                let cut = first(codec, &out[..len], u64::MAX);
                assert!(matches!(cut, First::Cut), "{codec:?} {len}");
            }
            // The type of the first block: there are three, this is the fourth.
            let block = if codec == Codec::Zstd { 7 } else { 10 };
            out[block] |= 0b110;
            assert!(matches!(first(codec, &out, u64::MAX), First::Bad));
        }
    }

    #[test]
    fn a_manifest_that_is_a_bomb_is_not_opened_to_its_end() {
        let mut out = Vec::new();
        pack_manifest(Codec::Gzip, &vec![0; 8 << 20], &mut out).unwrap();
        let found = first(Codec::Gzip, &out, 1 << 20);
        assert!(matches!(found, First::Whole(_, size) if size > 1 << 20 && size < 2 << 20));
    }

    #[test]
    fn noise_is_stored_and_half_noise_is_not() {
        let half: Vec<u8> = noise(1 << 20)
            .chunks(4096)
            .flat_map(|page| [page, &[0; 4096]].concat())
            .take(1 << 20)
            .collect();
        for codec in CODECS {
            let mut packer = Packer::new(codec, 1).unwrap();
            let mut out = Vec::new();
            packer.pack(&noise(1 << 20), &mut out).unwrap();
            assert_eq!(out.len(), stored(codec, 1 << 20));
            packer.pack(&half, &mut out).unwrap();
            assert!(out.len() < 600_000, "{}", out.len());
        }
    }

    #[test]
    fn a_single_byte_is_seen_among_zeros() {
        for len in [0, 1, 255, 256, 257, 4096] {
            assert!(is_zero(&vec![0; len]));
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert!(!is_zero(&bytes));
            }
        }
    }
}
