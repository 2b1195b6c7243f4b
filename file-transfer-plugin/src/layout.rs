//! Where each byte of the entries lies in the tar: one function for the writer, the reader and the verifier.
//!
//! The tar is wholly determined by the manifest's entries, up to the contents of the files. So a reader never parses tar
//! headers from outside: it works out what they must be, knows for each frame which file it belongs to, and may treat the
//! frames in any order.
//!
//! ```text
//!   frame     | manifest.json | hole |      0      |   1   |   2   |      3      |
//!   piece                            | head | head |     data      | pad | end   |
//!   entry                            |  0   |              1            |
//! ```

use crate::manifest::{Entry, Kind, MANIFEST};

/// Tar's unit.
pub(crate) const BLOCK: u64 = 512;
/// The end of a tar: two blocks of zeros.
const END: u64 = 2 * BLOCK;
/// Files of this size and more get frames of their own, cut at multiples of the chunk size from their beginning, so that an
/// unchanged file is made of unchanged chunks. Smaller ones share frames with their neighbours.
pub(crate) const OWN_FRAME: u64 = 64 << 10;

/// A run of bytes in the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Whose.
    pub entry: usize,
    /// What it is.
    pub what: What,
    /// How many bytes.
    pub len: u64,
}

/// What the bytes of a piece are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The entry's headers, from this offset on.
    Head(u64),
    /// The file's contents, from this offset on.
    Data(u64),
    /// Zeros up to the next block.
    Pad,
    /// The end of the tar.
    End,
}

impl Piece {
    /// Cuts the first `len` bytes off.
    fn take(&mut self, len: u64) -> Piece {
        let first = Piece { len, ..*self };
        self.len -= len;
        self.what = match self.what {
            What::Head(at) => What::Head(at + len),
            What::Data(at) => What::Data(at + len),
            same => same,
        };
        first
    }
}

/// All pieces of the tar after the manifest, in order.
pub(crate) fn pieces(entries: &[Entry]) -> impl Iterator<Item = Piece> {
    let end = Piece {
        entry: entries.len(),
        what: What::End,
        len: END,
    };
    entries
        .iter()
        .enumerate()
        .flat_map(|(index, entry)| of_entry(index, entry))
        .chain([end])
}

fn of_entry(entry: usize, of: &Entry) -> impl Iterator<Item = Piece> {
    let head = head(of).len() as u64;
    let (whole, parts) = match &of.kind {
        Kind::File {
            size,
            extents: None,
        } => (Some((0, *size)), [].as_slice()),
        Kind::File {
            extents: Some(extents),
            ..
        } => (None, extents.as_slice()),
        _ => (None, [].as_slice()),
    };
    let data = whole.into_iter().chain(parts.iter().copied());
    let stored = stored(of);
    [Piece {
        entry,
        what: What::Head(0),
        len: head,
    }]
    .into_iter()
    .chain(data.map(move |(at, len)| Piece {
        entry,
        what: What::Data(at),
        len,
    }))
    .chain([Piece {
        entry,
        what: What::Pad,
        len: stored.next_multiple_of(BLOCK) - stored,
    }])
    .filter(|piece| piece.len > 0)
}

/// How long the tar is after the manifest.
pub(crate) fn length(entries: &[Entry]) -> u64 {
    pieces(entries).fold(0, |sum, piece| sum.saturating_add(piece.len))
}

/// How many bytes of a file's contents are in the tar.
pub(crate) fn stored(entry: &Entry) -> u64 {
    match &entry.kind {
        Kind::File {
            size,
            extents: None,
        } => *size,
        Kind::File {
            extents: Some(extents),
            ..
        } => extents.iter().map(|(_, len)| len).sum(),
        _ => 0,
    }
}

/// The sizes of the frames that the writer makes of the entries.
pub(crate) fn cut(entries: &[Entry], chunk: u32) -> Vec<u32> {
    let chunk = u64::from(chunk);
    let mut frames = Vec::new();
    let mut shared = 0;
    let flush = |shared: &mut u64, frames: &mut Vec<u32>| {
        while *shared > 0 {
            let len = (*shared).min(chunk);
            frames.push(len as u32);
            *shared -= len;
        }
    };
    for piece in pieces(entries) {
        match piece.what {
            What::Data(at) if piece.len >= OWN_FRAME => {
                flush(&mut shared, &mut frames);
                let (mut at, mut left) = (at, piece.len);
                while left > 0 {
                    let len = left.min(chunk - at % chunk);
                    frames.push(len as u32);
                    at += len;
                    left -= len;
                }
            }
            _ => {
                if shared + piece.len > chunk {
                    flush(&mut shared, &mut frames);
                }
                shared += piece.len;
            }
        }
    }
    flush(&mut shared, &mut frames);
    frames
}

/// The pieces of each frame, given the frames' sizes.
pub(crate) fn split(
    entries: &[Entry],
    frames: impl Iterator<Item = u32>,
) -> impl Iterator<Item = Vec<Piece>> {
    let mut pieces = pieces(entries);
    let mut rest: Option<Piece> = None;
    frames.map(move |len| {
        let mut left = u64::from(len);
        let mut mine = Vec::new();
        while left > 0 {
            let Some(mut piece) = rest.take().or_else(|| pieces.next()) else {
                break;
            };
            let first = piece.take(piece.len.min(left));
            left -= first.len;
            mine.push(first);
            rest = (piece.len > 0).then_some(piece);
        }
        mine
    })
}

/// The headers of an entry, with all that stands before its contents.
pub(crate) fn head(entry: &Entry) -> Vec<u8> {
    let path = entry.path.as_bytes();
    let mut records = Vec::new();
    let mut map = Vec::new();
    let mut name = path.to_vec();
    let mut link: &[u8] = b"";
    let mut size = stored(entry);
    let kind = match &entry.kind {
        Kind::Dir => {
            name.push(b'/');
            b'5'
        }
        Kind::File { extents: None, .. } => b'0',
        Kind::File {
            size: real,
            extents: Some(extents),
        } => {
            // GNU's sparse format 1.0: the true name and size stand in records, the map before the contents.
            map = sparse_map(*real, extents);
            size += map.len() as u64;
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", path);
            record(
                &mut records,
                b"GNU.sparse.realsize",
                real.to_string().as_bytes(),
            );
            name = b"GNUSparseFile.0/".to_vec();
            name.extend(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
            b'0'
        }
        Kind::Symlink { target } => {
            link = target.as_bytes();
            b'2'
        }
        Kind::Link { to } => {
            link = to.as_bytes();
            b'1'
        }
        Kind::Fifo => b'6',
    };
    if name.len() > 100 {
        record(&mut records, b"path", &name);
    }
    if link.len() > 100 {
        record(&mut records, b"linkpath", link);
    }
    if size > OCTAL_MAX {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    let seconds = entry.mtime_ns.div_euclid(1_000_000_000);
    let nanos = entry.mtime_ns.rem_euclid(1_000_000_000);
    if nanos != 0 || seconds < 0 || seconds as u64 > OCTAL_MAX {
        record(
            &mut records,
            b"mtime",
            decimal_time(entry.mtime_ns).as_bytes(),
        );
    }
    for (key, value) in &entry.xattrs {
        record(
            &mut records,
            &[b"SCHILY.xattr.", key.as_bytes()].concat(),
            value.as_bytes(),
        );
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        out.extend(header(
            b"././@PaxHeader",
            b'x',
            0o644,
            records.len() as u64,
            0,
            b"",
        ));
        out.extend(&records);
        pad(&mut out);
    }
    out.extend(header(&name, kind, entry.mode, size, seconds, link));
    out.extend(map);
    out
}

/// The tar entry of the manifest: its header, its text and the zeros up to the next block.
pub(crate) fn manifest(json: &[u8], created: i64) -> Vec<u8> {
    let mut out = header(
        MANIFEST.as_bytes(),
        b'0',
        0o644,
        json.len() as u64,
        created,
        b"",
    );
    out.extend(json);
    pad(&mut out);
    out
}

/// The manifest's text out of its tar entry, if it is one.
pub(crate) fn manifest_of(tar: &[u8]) -> Option<&[u8]> {
    let (head, rest) = tar.split_at_checked(BLOCK as usize)?;
    let size = u64::from_str_radix(std::str::from_utf8(&head[124..135]).ok()?, 8).ok()?;
    let created = i64::from_str_radix(std::str::from_utf8(&head[136..147]).ok()?, 8).ok()?;
    if rest.len() as u64 != size.next_multiple_of(BLOCK) {
        return None;
    }
    let json = &rest[..size as usize];
    (manifest(json, created) == tar).then_some(json)
}

/// The largest number that eleven octal digits hold.
const OCTAL_MAX: u64 = (1 << 33) - 1;

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
}

fn header(name: &[u8], kind: u8, mode: u32, size: u64, seconds: i64, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let mut text = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    // What does not fit stands in a record; what is left here is for tars that do not know records.
    text(0, &name[..name.len().min(100)]);
    text(100, format!("{mode:07o}").as_bytes());
    text(108, b"0000000");
    text(116, b"0000000");
    text(
        124,
        format!("{:011o}", if size > OCTAL_MAX { 0 } else { size }).as_bytes(),
    );
    text(
        136,
        format!("{:011o}", seconds.clamp(0, OCTAL_MAX as i64)).as_bytes(),
    );
    text(148, b"        ");
    text(156, &[kind]);
    text(157, &link[..link.len().min(100)]);
    text(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// A pax record: its own length in decimal, a blank, `key=value`, a line feed.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut digits = 1;
    while (rest + digits).to_string().len() > digits {
        digits += 1;
    }
    out.extend((rest + digits).to_string().as_bytes());
    out.push(b' ');
    out.extend(key);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

fn decimal_time(ns: i64) -> String {
    let (sign, ns) = if ns < 0 {
        ("-", ns.unsigned_abs())
    } else {
        ("", ns.unsigned_abs())
    };
    format!("{sign}{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn sparse_map(size: u64, extents: &[(u64, u64)]) -> Vec<u8> {
    // A file that ends in a hole ends with an empty part, as GNU tar writes it itself.
    let last = extents.last().map_or(0, |(at, len)| at + len);
    let end = (last < size).then_some((size, 0));
    let parts = extents.len() + usize::from(end.is_some());
    let mut map = format!("{parts}\n").into_bytes();
    for (at, len) in extents.iter().copied().chain(end) {
        map.extend(format!("{at}\n{len}\n").as_bytes());
    }
    pad(&mut map);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Name;

    fn file(path: &str, size: u64, extents: Option<Vec<(u64, u64)>>) -> Entry {
        let kind = Kind::File { size, extents };
        Entry {
            path: Name::from(path),
            mode: 0o644,
            mtime_ns: 1,
            xattrs: Vec::new(),
            kind,
        }
    }

    fn entries() -> Vec<Entry> {
        let dir = Entry {
            kind: Kind::Dir,
            ..file("srv", 0, None)
        };
        let holes = Some(vec![(100_000, 100_000), (3 << 20, 5)]);
        vec![
            dir,
            file("srv/a", 5, None),
            file("srv/b", 3 << 20, None),
            file("srv/c", 4 << 20, holes),
        ]
    }

    #[test]
    fn frames_make_up_the_tar_and_large_files_have_their_own() {
        let entries = entries();
        for chunk in [64 << 10, 100_000, 1 << 20] {
            let frames = cut(&entries, chunk);
            assert!(frames.iter().all(|len| (1..=chunk).contains(len)));
            assert_eq!(
                frames.iter().map(|len| u64::from(*len)).sum::<u64>(),
                length(&entries)
            );
            let split: Vec<_> = split(&entries, frames.iter().copied()).collect();
            for (frame, pieces) in frames.iter().zip(&split) {
                assert_eq!(
                    u64::from(*frame),
                    pieces.iter().map(|piece| piece.len).sum::<u64>()
                );
                let own = pieces
                    .iter()
                    .any(|piece| piece.entry == 2 && matches!(piece.what, What::Data(_)));
                assert!(!own || pieces.len() == 1, "{pieces:?}");
            }
            let offsets = split.iter().flatten().filter_map(|piece| match piece.what {
                What::Data(at) if piece.entry == 2 => Some(at),
                _ => None,
            });
            assert!(offsets.into_iter().all(|at| at % u64::from(chunk) == 0));
        }
    }

    #[test]
    fn any_other_cut_covers_the_same_bytes() {
        let entries = entries();
        let length = length(&entries);
        for size in [1u32, 511, 513, 70_000] {
            let frames = (0..length.div_ceil(size.into())).map(|_| size);
            let total: u64 = split(&entries, frames)
                .flatten()
                .map(|piece| piece.len)
                .sum();
            assert_eq!(total, length);
        }
    }

    #[test]
    fn a_record_counts_the_digits_of_its_own_length() {
        for len in 0..1200 {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; len]);
            let text = String::from_utf8(out).unwrap();
            let (number, _) = text.split_once(' ').unwrap();
            assert_eq!(number.parse(), Ok(text.len()));
        }
    }

    #[test]
    fn the_manifest_is_found_in_its_tar_entry_only() {
        let tar = manifest(b"{}", 5);
        assert_eq!(manifest_of(&tar), Some(b"{}".as_slice()));
        assert_eq!(manifest_of(&tar[..512]), None);
        assert_eq!(manifest_of(&[tar.clone(), vec![0; 512]].concat()), None);
        for at in 0..tar.len() {
            let mut other = tar.clone();
            other[at] ^= 1;
            assert!(
                manifest_of(&other).is_none_or(|json| json != b"{}"),
                "byte {at}"
            );
        }
    }

    #[test]
    fn times_before_1970_are_written_as_tar_reads_them() {
        assert_eq!(decimal_time(-1), "-0.000000001");
        assert_eq!(decimal_time(-1_000_000_001), "-1.000000001");
        assert_eq!(decimal_time(1_500_000_000), "1.500000000");
    }
}
