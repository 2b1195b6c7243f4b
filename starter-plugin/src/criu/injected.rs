//! Whether the memory that came through pipes is the memory that the job has.
//!
//! A pipe holds references to the job's own pages until they are read. CRIU runs system calls in the job by writing a few
//! bytes over the beginning of its first executable mapping, and puts them back; it does so again when the pages are on
//! their way and before the job runs. Read in that moment, the page would have CRIU's bytes. While the tree stands still
//! each such page is therefore compared with the job's.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use file_transfer_plugin::pack::Stream;

use super::ImageDir;
use super::wire::{Value, field};

const PAGE: u64 = 4096;

/// A pagemap of a process whose memory is all single pages: 2 GB of them are 8 MB.
const LIMIT: u64 = 256 << 20;

/// Two magic numbers.
const HEAD: usize = 8;

/// pagemap_head.pages_id; pagemap_entry.vaddr, .compat_nr_pages, .flags, .nr_pages.
const PAGES_ID: u64 = 1;
const VADDR: u64 = 1;
const COMPAT_PAGES: u64 = 2;
const FLAGS: u64 = 4;
const PAGES: u64 = 5;
/// The entry's pages are in the image.
const PRESENT: u64 = 4;

/// Whether every page that CRIU writes to is in the archive as it is in the job, seen through this `proc`.
pub(crate) fn is_clean(images: &ImageDir, proc: &Path, memory: &Stream) -> io::Result<bool> {
    for entry in fs::read_dir(images.file("."))? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| {
            let number = name.strip_prefix("pagemap-")?.strip_suffix(".img")?;
            number.parse::<u32>().ok()
        });
        let Some(pid) = pid else { continue };
        let process = proc.join(pid.to_string());
        let Some(address) = first_executable(BufReader::new(File::open(process.join("maps"))?))
        else {
            continue;
        };
        let mut pagemap = Vec::new();
        File::open(images.file(&format!("pagemap-{pid}.img")))?
            .take(LIMIT)
            .read_to_end(&mut pagemap)?;
        let Some((pages, at)) = place(&pagemap, address)? else {
            continue;
        };
        let mut there = vec![0; PAGE as usize];
        File::open(process.join("mem"))?.read_exact_at(&mut there, address)?;
        if memory.read_back(&format!("pages-{pages}.img"), at, PAGE)? != there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the first executable mapping begins.
fn first_executable(maps: impl BufRead) -> Option<u64> {
    maps.lines().map_while(Result::ok).find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let start = u64::from_str_radix(range.split('-').next()?, 16).ok()?;
        (rest.as_bytes().get(2) == Some(&b'x')).then_some(start)
    })
}

/// The image of pages and the offset in it at which the page of an address is, if it is in the image.
fn place(pagemap: &[u8], address: u64) -> io::Result<Option<(u64, u64)>> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut rest = pagemap.get(HEAD..).ok_or_else(|| odd("a short pagemap"))?;
    let (mut pages_id, mut at) = (None, 0);
    while !rest.is_empty() {
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| odd("a short pagemap"))?;
        let (message, after) = after
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| odd("a short pagemap"))?;
        rest = after;
        let number = |name| match field(message, name) {
            Ok(Some(Value::Number(number))) => Ok(Some(number)),
            Ok(_) => Ok(None),
            Err(what) => Err(odd(what)),
        };
        let Some(id) = pages_id else {
            pages_id = Some(number(PAGES_ID)?.unwrap_or(0));
            continue;
        };
        let start = number(VADDR)?.unwrap_or(0);
        let pages = match number(PAGES)? {
            Some(pages) => pages,
            None => number(COMPAT_PAGES)?.unwrap_or(0),
        };
        if number(FLAGS)?.unwrap_or(PRESENT) & PRESENT == 0 {
            continue;
        }
        let bytes = pages.saturating_mul(PAGE);
        if (start..start.saturating_add(bytes)).contains(&address) {
            return Ok(Some((id, at + (address - start))));
        }
        at += bytes;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::wire::push_varint;
    use super::*;

    fn message(fields: &[(u64, u64)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in fields {
            push_varint(&mut body, name << 3);
            push_varint(&mut body, *value);
        }
        let mut out = (body.len() as u32).to_le_bytes().to_vec();
        out.extend(body);
        out
    }

    #[test]
    fn a_page_is_found_behind_those_that_are_in_the_image() {
        let mut pagemap = vec![0; HEAD];
        pagemap.extend(message(&[(PAGES_ID, 7)]));
        pagemap.extend(message(&[(VADDR, 0x1000), (FLAGS, PRESENT), (PAGES, 2)]));
        pagemap.extend(message(&[(VADDR, 0x9000), (FLAGS, 1), (PAGES, 5)]));
        pagemap.extend(message(&[(VADDR, 0x20000), (COMPAT_PAGES, 3)]));
        assert_eq!(place(&pagemap, 0x2000).unwrap(), Some((7, 0x1000)));
        assert_eq!(place(&pagemap, 0x21000).unwrap(), Some((7, 0x3000)));
        assert_eq!(place(&pagemap, 0x9000).unwrap(), None);
        assert!(place(&pagemap[..pagemap.len() - 1], 0x40000).is_err());
    }

    #[test]
    fn the_first_executable_mapping_is_found() {
        let maps =
            "1000-2000 r--p 0 00:00 0 /a\n4000-5000 r-xp 0 00:00 0 /a\n6000-7000 r-xp 0 00:00 0\n";
        assert_eq!(first_executable(maps.as_bytes()), Some(0x4000));
    }
}
