//! What CRIU counted in a dump: how long the job stood still.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::wire::{Value, field};

/// CRIU's file in its working directory, written when all is over.
pub(crate) const FILE: &str = "stats-dump";

/// A handful of numbers.
const LIMIT: u64 = 64 << 10;

/// Two magic numbers and the message's length.
const HEAD: usize = 12;

/// stats_entry.dump, dump_stats_entry.frozen_time in microseconds.
const DUMP: u64 = 1;
const FROZEN: u64 = 2;

/// From the moment when all of the tree's processes stood still to the moment when they ran again.
pub(crate) fn frozen(path: &Path) -> Option<Duration> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LIMIT).read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Duration> {
    let message = bytes.get(HEAD..)?;
    let Ok(Some(Value::Bytes(dump))) = field(message, DUMP) else {
        return None;
    };
    let Ok(Some(Value::Number(microseconds))) = field(dump, FROZEN) else {
        return None;
    };
    Some(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frozen_time_is_read_and_a_cut_file_has_none() {
        let mut bytes = vec![0; HEAD];
        // dump { freezing_time: 300, frozen_time: 30000 }
        bytes.extend([0x0a, 7, 0x08, 0xac, 0x02, 0x10, 0xb0, 0xea, 0x01]);
        assert_eq!(parse(&bytes), Some(Duration::from_millis(30)));
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), None, "{length}");
        }
    }
}
