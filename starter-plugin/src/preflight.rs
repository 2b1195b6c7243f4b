//! What would make a dump succeed and its restore wrong.
//!
//! CRIU refuses most of what it cannot do, and the job runs on. What it does not
//! refuse has to be found before the freeze, by reading /proc.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Why the processes under `proc` must not be dumped, if there is a reason.
pub(crate) fn blocker(proc: &Path) -> Option<String> {
    let entries = fs::read_dir(proc).ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != 1)
        .find_map(|pid| {
            // A process that is gone by now blocks nothing.
            let maps = File::open(proc.join(pid.to_string()).join("maps")).ok()?;
            let name = mapped_memfd(BufReader::new(maps))?;
            Some(format!(
                "process {pid} has mapped a memfd ({name}); without privileges CRIU would \
                 restore its mapping and its descriptor apart, and data written through one \
                 would be missing in the other"
            ))
        })
}

/// The first memfd in a `maps` file.
fn mapped_memfd(maps: impl BufRead) -> Option<String> {
    maps.lines().map_while(Result::ok).find_map(|line| {
        // address perms offset dev inode path
        let path = line.splitn(6, ' ').nth(5)?.trim_start();
        let name = path.strip_prefix("/memfd:")?;
        Some(name.trim_end_matches(" (deleted)").to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_memfd_is_found_by_name() {
        let maps = "00400000-00401000 r-xp 00000000 fe:00 12 /srv/memfd:no\n\
                    7f00-7f01 rw-s 00000000 00:01 2063                       /memfd:ring (deleted)\n";
        assert_eq!(mapped_memfd(maps.as_bytes()).as_deref(), Some("ring"));
        assert_eq!(mapped_memfd("7f00-7f01 rw-p 0 00:00 0 \n".as_bytes()), None);
        let spaced = "7f00-7f01 rw-s 0 00:01 7   /memfd:a b (deleted)\n";
        assert_eq!(mapped_memfd(spaced.as_bytes()).as_deref(), Some("a b"));
    }
}
