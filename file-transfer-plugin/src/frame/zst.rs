//! zstd frames (RFC 8878).

use std::fs::File;
use std::io::{self, IoSliceMut};

use rustix::io::Errno;

use super::First;
use crate::manifest::Digest;

/// The first bytes of a frame.
pub(super) const MAGIC: u32 = 0xFD2F_B528;
/// zstd's name for what is cut off, ZSTD_error_srcSize_wrong.
const SHORT: &str = "Src size is incorrect";
/// The largest block in a frame.
const BLOCK: usize = 128 << 10;
/// What stands before each block, and before the first of a stored frame.
const BLOCK_HEAD: usize = 3;
const STORED_HEAD: usize = 9;
/// As many buffers as the kernel reads into at once, UIO_MAXIOV.
const MOST_PARTS: usize = 1024;

pub(super) fn stored(raw: usize) -> usize {
    STORED_HEAD + raw + BLOCK_HEAD * raw.div_ceil(BLOCK).max(1)
}

/// What stands before each block of a stored frame of `raw` bytes.
fn heads(raw: usize) -> Vec<Vec<u8>> {
    let blocks = raw.div_ceil(BLOCK).max(1);
    let head = |number: usize| {
        let mut head = Vec::with_capacity(STORED_HEAD + BLOCK_HEAD);
        if number == 0 {
            head.extend(MAGIC.to_le_bytes());
            // One segment, its size in four bytes, no checksum: nothing was compressed.
            head.push(0b1010_0000);
            head.extend((raw as u32).to_le_bytes());
        }
        let len = (raw - number * BLOCK).min(BLOCK) as u32;
        let last = u32::from(number + 1 == blocks);
        head.extend(&(len << 3 | last).to_le_bytes()[..BLOCK_HEAD]);
        head
    };
    (0..blocks).map(head).collect()
}

pub(super) fn store(raw: &[u8], out: &mut Vec<u8>) {
    let mut blocks = raw.chunks(BLOCK);
    for head in heads(raw.len()) {
        out.extend(head);
        out.extend(blocks.next().unwrap_or_default());
    }
}

/// Reads what may be the stored frame of as many bytes as `raw` has, each block to its place at once; its digest, if it is that.
pub(super) fn read_stored(file: &File, mut at: u64, raw: &mut [u8]) -> io::Result<Option<Digest>> {
    let expected = heads(raw.len());
    let mut found: Vec<_> = expected.iter().map(|head| vec![0; head.len()]).collect();
    let mut blocks = raw.chunks_mut(BLOCK);
    let mut parts = Vec::with_capacity(2 * found.len());
    for head in &mut found {
        parts.push(IoSliceMut::new(head));
        parts.extend(blocks.next().map(IoSliceMut::new));
    }
    let mut parts = parts.as_mut_slice();
    while !parts.is_empty() {
        let next = parts.len().min(MOST_PARTS);
        let count = match rustix::io::preadv(file, &mut parts[..next], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::INTR) => continue,
            other => other?,
        };
        at += count as u64;
        IoSliceMut::advance_slices(&mut parts, count);
    }
    if found != expected {
        return Ok(None);
    }
    let mut blocks = raw.chunks(BLOCK);
    let parts = found
        .iter()
        .flat_map(|head| [Some(head.as_slice()), blocks.next()]);
    Ok(Some(Digest::of_parts(parts.flatten())))
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
