//! zstd frames (RFC 8878).

use std::io;

use super::First;

/// The first bytes of a frame.
pub(super) const MAGIC: u32 = 0xFD2F_B528;
/// zstd's name for what is cut off, ZSTD_error_srcSize_wrong.
const SHORT: &str = "Src size is incorrect";
/// The largest block in a frame.
const BLOCK: usize = 128 << 10;
/// What stands before each block, and before the first of a stored frame.
const BLOCK_HEAD: usize = 3;
const STORED_HEAD: usize = 9;

pub(super) fn stored(raw: usize) -> usize {
    STORED_HEAD + raw + BLOCK_HEAD * raw.div_ceil(BLOCK).max(1)
}

pub(super) fn store(raw: &[u8], out: &mut Vec<u8>) {
    out.extend(MAGIC.to_le_bytes());
    // One segment, its size in four bytes, no checksum: the manifest has a better one.
    out.push(0b1010_0000);
    out.extend((raw.len() as u32).to_le_bytes());
    let mut rest = raw;
    loop {
        let (block, more) = rest.split_at(rest.len().min(BLOCK));
        let last = u32::from(more.is_empty());
        let header = (block.len() as u32) << 3 | last;
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(block);
        if more.is_empty() {
            break;
        }
        rest = more;
    }
}

pub(super) fn pack_manifest(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut zstd = zstd::bulk::Compressor::new(3)?;
    zstd.include_checksum(true)?;
    zstd.compress_to_buffer(raw, out)?;
    Ok(())
}

pub(super) fn first(bytes: &[u8]) -> First {
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
