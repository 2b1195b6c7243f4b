//! The kill switch: `criu-exceptions.csv` beside the program or among a
//! glidein's files, of the form of OSPool's `pelican-exceptions.csv`:
//!
//! ```text
//! site,block_percent,reason
//! Site-A,100,image transfers overload its gateway
//! Site-B,25,trying it out
//! *,0,
//! ```
//!
//! The line of the site counts, else that of `*`. The reason is published.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "criu-exceptions.csv";

/// Why a pilot at this site is not to offer CRIU, if it is not.
///
/// `pilot` is the same at each question of one pilot's, and another for each pilot. The file beside the program counts
/// before those in `dirs`.
pub(crate) fn blocked(
    site: &str,
    pilot: &str,
    dirs: impl IntoIterator<Item = PathBuf>,
) -> Option<String> {
    let beside = env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
    let text = beside
        .into_iter()
        .chain(dirs)
        .find_map(|dir| fs::read_to_string(dir.join(FILE)).ok())?;
    let reason = decide(&text, site, percentile(pilot))?;
    Some(format!("switched off for this site: {reason}"))
}

fn decide(text: &str, site: &str, percentile: u32) -> Option<String> {
    let lines = || {
        text.lines().filter_map(|line| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let mut columns = line.splitn(3, ',').map(str::trim);
            let (name, percent) = (columns.next()?, columns.next()?);
            // The heading has no number, and a line that nobody understands blocks nothing.
            let percent: u32 = percent.trim_end_matches('%').parse().ok()?;
            Some((name, percent, columns.next().unwrap_or_default()))
        })
    };
    let (_, percent, reason) = lines()
        .find(|(name, ..)| *name == site)
        .or_else(|| lines().find(|(name, ..)| *name == "*"))?;
    let reason = reason.trim_matches('"');
    let reason = if reason.is_empty() {
        "no reason given"
    } else {
        reason
    };
    (percentile < percent).then(|| reason.to_owned())
}

/// FNV-1a, which is the same on every node.
fn percentile(text: &str) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u32::try_from((hash >> 32) % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "site,block_percent,reason\n\
                        Site-A,100,its gateway, they say, is slow\n\
                        Site-B, 25, \"trying\"\n\
                        Site-C,0,\n\
                        Site-D,many,what\n\
                        *,100,\n";

    #[test]
    fn a_sites_line_counts_before_that_of_all() {
        let decide = |site, percentile| decide(FILE, site, percentile);
        assert_eq!(
            decide("Site-A", 99).as_deref(),
            Some("its gateway, they say, is slow")
        );
        assert_eq!(decide("Site-B", 24).as_deref(), Some("trying"));
        assert_eq!(decide("Site-B", 25), None);
        assert_eq!(decide("Site-C", 0), None);
        assert_eq!(decide("Site-D", 0).as_deref(), Some("no reason given"));
        assert_eq!(decide("elsewhere", 99).as_deref(), Some("no reason given"));
        assert_eq!(super::decide("Site-A,100,x\n", "Site-B", 0), None);
    }

    #[test]
    fn a_percentage_of_glideins_is_that_percentage() {
        let blocked = (0..10_000)
            .filter(|number| percentile(&format!("/scratch/glide_{number:06x}")) < 25)
            .count();
        assert!((2_300..2_700).contains(&blocked), "{blocked}");
    }
}
