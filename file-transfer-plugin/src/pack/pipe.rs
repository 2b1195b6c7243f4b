//! Chunks of what comes through a pipe: memory, mostly, a page after the other.
//!
//! Where the pages of a process lie in memory is told in another image, which CRIU writes through a buffer and so often
//! later. Chunks that stay equal from one image to the next are therefore not cut at addresses but where the pages
//! themselves say so: a page ends a chunk if a few words of it, mixed, have some bits in common. A page that was added or
//! changed moves the cuts around it, and no others.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;

use super::PackError;
use super::write::Feed;
use crate::workers::lock;

/// What CRIU counts in, and where alone a chunk may be cut.
const PAGE: usize = 4096;
/// How much is read at a time: what of it is behind a cut has to be moved.
const READ: usize = 128 << 10;
/// The smallest chunk but the last, and the largest. In between one page in 192 ends one: a megabyte on average.
const LEAST: usize = 256 << 10;
const MOST: usize = 2 << 20;
const ONE_IN: u64 = 192;

/// A pipe, read to its end.
pub(super) struct Pipe<R> {
    name: PathBuf,
    state: Mutex<State<R>>,
}

struct State<R> {
    from: R,
    /// What was read behind the last cut.
    ahead: Vec<u8>,
    taken: usize,
    bytes: u64,
    ended: bool,
}

impl<R: Read> Pipe<R> {
    pub(super) fn new(name: PathBuf, from: R) -> Self {
        let state = State {
            from,
            ahead: Vec::new(),
            taken: 0,
            bytes: 0,
            ended: false,
        };
        Self {
            name,
            state: Mutex::new(state),
        }
    }

    /// How many bytes came.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }
}

impl<R: Read + Send> Feed for Pipe<R> {
    type Hand = ();

    fn hand(&self) {}

    fn next(&self, (): &mut (), raw: &mut Vec<u8>) -> Result<Option<usize>, PackError> {
        let mut state = lock(&self.state);
        state.fill(raw).map_err(|source| PackError::Read {
            path: self.name.clone(),
            source,
        })?;
        if raw.is_empty() {
            return Ok(None);
        }
        state.bytes += raw.len() as u64;
        state.taken += 1;
        Ok(Some(state.taken - 1))
    }
}

impl<R: Read> State<R> {
    fn fill(&mut self, raw: &mut Vec<u8>) -> io::Result<()> {
        raw.clear();
        raw.reserve(MOST);
        raw.append(&mut self.ahead);
        let mut looked = LEAST - PAGE;
        loop {
            while looked + PAGE <= raw.len() {
                if ends_chunk(&raw[looked..looked + PAGE]) {
                    let cut = looked + PAGE;
                    self.ahead.extend_from_slice(&raw[cut..]);
                    raw.truncate(cut);
                    return Ok(());
                }
                looked += PAGE;
            }
            if raw.len() == MOST || self.ended {
                return Ok(());
            }
            // Into memory that need not be set to zero before.
            let most = READ.min(MOST - raw.len()) as u64;
            self.ended = self.from.by_ref().take(most).read_to_end(raw)? == 0;
        }
    }
}

/// Looks at sixteen words of the page, one of each 256 bytes: a program's own structures repeat at its beginning.
fn ends_chunk(page: &[u8]) -> bool {
    // Odd constants of the splitmix64 generator.
    let mixed = page.chunks_exact(256).enumerate().fold(
        0x9E37_79B9_7F4A_7C15_u64,
        |mixed, (number, part)| {
            let at = number * 8;
            let word = u64::from_le_bytes(part[at..at + 8].try_into().expect("eight bytes"));
            (mixed ^ word)
                .wrapping_mul(0xBF58_476D_1CE4_E5B9)
                .rotate_left(27)
        },
    );
    (mixed ^ (mixed >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 32 < u64::from(u32::MAX) / ONE_IN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(pages: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; pages * PAGE];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]);
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
        let pipe = Pipe::new(PathBuf::from("pipe"), bytes);
        let mut all = Vec::new();
        let mut raw = Vec::new();
        while pipe.next(&mut (), &mut raw).unwrap() == Some(all.len()) {
            all.push(raw.clone());
        }
        assert_eq!(pipe.bytes(), bytes.len() as u64);
        all
    }

    #[test]
    fn chunks_are_all_of_it_and_of_bounded_size() {
        for pages in [0, 1, 63, 64, 65, 5000] {
            let mut bytes = noise(pages, 1);
            bytes.extend([1, 2, 3]);
            let chunks = chunks(&bytes);
            assert_eq!(chunks.concat(), bytes);
            for chunk in &chunks[..chunks.len() - 1] {
                assert!((LEAST..=MOST).contains(&chunk.len()) && chunk.len() % PAGE == 0);
            }
        }
        let zeros = vec![0; 5 * MOST];
        assert_eq!(chunks(&zeros).len(), 5);
    }

    #[test]
    fn a_changed_part_and_added_pages_leave_the_other_chunks_as_they_are() {
        let before = noise(20_000, 1);
        let mut after = before.clone();
        let changed = before.len() / 20;
        after[3 * changed..4 * changed].copy_from_slice(&noise(changed / PAGE, 2));
        after.splice(10 * changed..10 * changed, noise(7, 3));
        let known: std::collections::HashSet<_> = chunks(&before).into_iter().collect();
        let shared: usize = chunks(&after)
            .iter()
            .filter(|chunk| known.contains(*chunk))
            .map(Vec::len)
            .sum();
        // Each of the four edges costs a chunk, the longest at worst.
        let lost = after.len() - shared;
        assert!(lost <= changed + 4 * MOST, "{lost} of {}", after.len());
    }
}
