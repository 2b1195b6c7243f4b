//! One zstd frame: bytes in, bytes out.
//!
//! Frames are whole and independent, so that any tool that reads zstd reads their concatenation.

use std::io;

/// The first bytes of a skippable frame (RFC 8878, 3.1.2), which every zstd reader steps over.
const SKIPPABLE: u32 = 0x184D_2A50;
/// A skippable frame's header.
pub(crate) const SKIPPABLE_HEAD: usize = 8;
/// The first bytes of a frame.
const MAGIC: u32 = 0xFD2F_B528;
/// zstd's name for what is cut off, ZSTD_error_srcSize_wrong.
const SHORT: &str = "Src size is incorrect";
/// The largest block in a frame.
const BLOCK: usize = 128 << 10;
/// What stands before each block, and before the first of a stored frame.
const BLOCK_HEAD: usize = 3;
const STORED_HEAD: usize = 9;
/// How much of a chunk is tried, and in how many places, before a level is chosen for it.
const SAMPLE: usize = 4 << 10;
const SAMPLES: usize = 8;
/// A prime that is no neighbour of a multiple of a page.
const UNEVEN: usize = 27_361;

/// The most bytes that a frame of `raw` bytes takes.
pub(crate) fn bound(raw: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw)
}

/// Makes frames; keeps its memory between them.
pub(crate) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    sample: Vec<u8>,
    tried: Vec<u8>,
}

impl Packer {
    pub(crate) fn new(level: i32) -> io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(level)?;
        let tried = Vec::with_capacity(bound(SAMPLE * SAMPLES));
        Ok(Self {
            zstd,
            sample: Vec::with_capacity(SAMPLE * SAMPLES),
            tried,
        })
    }

    /// Makes `out` the frame of `raw`.
    pub(crate) fn pack(&mut self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        if self.is_noise(raw)? {
            store(raw, out);
            return Ok(());
        }
        out.reserve(bound(raw.len()));
        self.zstd.compress_to_buffer(raw, out)?;
        Ok(())
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

/// Makes `out` the frame of a manifest: small, so at a better level, and with a checksum, as nothing else tells whether it is
/// damaged where the caller knows no digest.
pub(crate) fn pack_manifest(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut zstd = zstd::bulk::Compressor::new(3)?;
    zstd.include_checksum(true)?;
    out.clear();
    // The checksum's four bytes come on top of the bound.
    out.reserve(bound(raw.len()) + 4);
    zstd.compress_to_buffer(raw, out)?;
    Ok(())
}

/// How long the frame is that [`store`] makes of `raw` bytes.
pub(crate) fn stored(raw: usize) -> usize {
    STORED_HEAD + raw + BLOCK_HEAD * raw.div_ceil(BLOCK)
}

/// Makes `out` a frame of blocks that are the bytes themselves: its length follows from theirs.
pub(crate) fn store(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(stored(raw.len()));
    out.extend(MAGIC.to_le_bytes());
    // One segment, its size in four bytes, no checksum: the manifest has a better one.
    out.push(0b1010_0000);
    out.extend((raw.len() as u32).to_le_bytes());
    let mut blocks = raw.chunks(BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let header = (block.len() as u32) << 3 | last;
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(block);
    }
}

/// A frame of `len` bytes in all that stands for nothing.
pub(crate) fn skippable(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    out[..4].copy_from_slice(&SKIPPABLE.to_le_bytes());
    out[4..8].copy_from_slice(&((len - SKIPPABLE_HEAD) as u32).to_le_bytes());
    out
}

/// How long the skippable frame is at whose beginning `bytes` are.
pub(crate) fn skippable_len(bytes: &[u8]) -> Option<u64> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let len = rest.first_chunk::<4>()?;
    (u32::from_le_bytes(*magic) == SKIPPABLE)
        .then(|| u64::from(u32::from_le_bytes(*len)) + SKIPPABLE_HEAD as u64)
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

/// Looks at the frame at the beginning of `bytes`.
pub(crate) fn first(bytes: &[u8]) -> First {
    if !bytes.starts_with(&MAGIC.to_le_bytes()) {
        return First::Bad;
    }
    let raw = zstd::zstd_safe::get_frame_content_size(bytes);
    match (zstd::zstd_safe::find_frame_compressed_size(bytes), raw) {
        (Ok(len), Ok(Some(raw))) => First::Whole(len, raw),
        (Err(code), _) if zstd::zstd_safe::get_error_name(code) == SHORT => First::Cut,
        _ => First::Bad,
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
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_packed_is_what_zstd_reads() {
        let mut packer = Packer::new(1).unwrap();
        let mut out = Vec::new();
        for len in [0, 1, 1000, BLOCK, BLOCK + 1, 1 << 20, (1 << 20) - 1] {
            for raw in [noise(len), vec![0; len], b"text ".repeat(len / 5)] {
                packer.pack(&raw, &mut out).unwrap();
                assert_eq!(zstd::decode_all(out.as_slice()).unwrap(), raw);
                assert!(out.len() <= bound(raw.len()), "{len}");
                assert!(
                    matches!(first(&out), First::Whole(all, size) if all == out.len() && size == raw.len() as u64)
                );
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_is_told_from_one_that_is_damaged() {
        let mut out = Vec::new();
        pack_manifest(&b"text ".repeat(100_000), &mut out).unwrap();
        for len in 5..out.len() {
            assert!(matches!(first(&out[..len]), First::Cut), "{len}");
        }
        // The type of the first block: there are three, this is the fourth.
        out[9] |= 0b110;
        assert!(matches!(first(&out), First::Bad));
    }

    #[test]
    fn noise_is_stored_and_half_noise_is_not() {
        let mut packer = Packer::new(1).unwrap();
        let mut out = Vec::new();
        packer.pack(&noise(1 << 20), &mut out).unwrap();
        assert_eq!(out.len(), stored(1 << 20));
        let half: Vec<u8> = noise(1 << 20)
            .chunks(4096)
            .flat_map(|page| [page, &[0; 4096]].concat())
            .take(1 << 20)
            .collect();
        packer.pack(&half, &mut out).unwrap();
        assert!(out.len() < 600_000, "{}", out.len());
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
