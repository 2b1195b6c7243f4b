//! gzip members (RFC 1952), with a header that says nothing.

use std::io;

use flate2::{Compress, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::First;

/// The first bytes of any member.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Deflated; no flags, no time, no level, no system.
pub(super) const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The checksum and the length, four bytes each.
const TAIL: usize = 8;
/// The largest block that is the bytes themselves, and what stands before each.
const BLOCK: usize = 0xffff;
const BLOCK_HEAD: usize = 5;

pub(super) fn stored(raw: usize) -> usize {
    HEAD.len() + raw + BLOCK_HEAD * raw.div_ceil(BLOCK).max(1) + TAIL
}

pub(super) fn store(raw: &[u8], out: &mut Vec<u8>) {
    out.extend(HEAD);
    let mut rest = raw;
    loop {
        let (block, more) = rest.split_at(rest.len().min(BLOCK));
        let length = block.len() as u16;
        out.push(u8::from(more.is_empty()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
        if more.is_empty() {
            break;
        }
        rest = more;
    }
    out.extend(tail(raw));
}

/// Into `out`, which has room for all that it may take.
pub(super) fn pack(compress: &mut Compress, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend(HEAD);
    compress.reset();
    let status = compress.compress_vec(raw, out, FlushCompress::Finish)?;
    if status == Status::StreamEnd && out.len() + TAIL <= out.capacity() {
        out.extend(tail(raw));
    } else {
        out.clear();
        store(raw, out);
    }
    Ok(())
}

/// Whether it is one member, whole, which fits into `out`.
pub(super) fn unpack(decompress: &mut Decompress, frame: &[u8], out: &mut Vec<u8>) -> bool {
    let body = frame.strip_prefix(&HEAD);
    let Some((deflated, last)) = body.and_then(|body| body.split_last_chunk::<TAIL>()) else {
        return false;
    };
    decompress.reset(false);
    let status = decompress.decompress_vec(deflated, out, FlushDecompress::Finish);
    matches!(status, Ok(Status::StreamEnd))
        && decompress.total_in() == deflated.len() as u64
        && *last == tail(out)
}

pub(super) fn first(bytes: &[u8], most: u64) -> First {
    let Some(deflated) = bytes.strip_prefix(&HEAD) else {
        return if HEAD.starts_with(bytes) {
            First::Cut
        } else {
            First::Bad
        };
    };
    // A member does not tell its length: it must be opened to find its end.
    let mut decompress = Decompress::new(false);
    let mut room = vec![0; 64 << 10];
    loop {
        let before = (decompress.total_in(), decompress.total_out());
        let rest = &deflated[before.0 as usize..];
        let status = decompress.decompress(rest, &mut room, FlushDecompress::None);
        let (read, found) = (decompress.total_in(), decompress.total_out());
        let len = HEAD.len() + read as usize + TAIL;
        match status {
            Err(_) => return First::Bad,
            Ok(Status::StreamEnd) if len > bytes.len() => return First::Cut,
            Ok(Status::StreamEnd) => return First::Whole(len, found),
            Ok(_) if found > most => return First::Whole(len, found),
            Ok(_) if (read, found) == before => return First::Cut,
            Ok(_) => {}
        }
    }
}

fn tail(raw: &[u8]) -> [u8; TAIL] {
    let mut crc = Crc::new();
    crc.update(raw);
    let mut tail = [0; TAIL];
    tail[..4].copy_from_slice(&crc.sum().to_le_bytes());
    tail[4..].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    tail
}
