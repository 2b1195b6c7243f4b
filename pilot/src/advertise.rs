//! The probe's answer as attributes of the slot's ad, as STARTD_CRON reads them.

use std::time::SystemTime;

use classad::ClassAd;
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::Fingerprint;

/// An ad stays far below the 4 KiB where glidein scripts cut a line.
const REASON_LIMIT: usize = 500;

/// The slot's attributes.
pub(crate) fn slot_ad(probe: &Result<Fingerprint, String>) -> ClassAd {
    let mut ad = match probe {
        Ok(fingerprint) => {
            let mut ad = fingerprint.to_slot_ad();
            ad.insert(attributes::HAS_CRIU, true);
            ad
        }
        Err(reason) => {
            let mut ad = ClassAd::new();
            ad.insert(attributes::HAS_CRIU, false);
            ad.insert(attributes::REASON, shortened(reason).as_str());
            ad
        }
    };
    ad.insert(attributes::PILOT_VERSION, env!("CARGO_PKG_VERSION"));
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    ad.insert(attributes::PROBE_TIME, now);
    ad
}

/// The beginning says what was tried, the end what an admin can change.
fn shortened(reason: &str) -> String {
    let letters: Vec<char> = reason
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if letters.len() <= REASON_LIMIT {
        return letters.into_iter().collect();
    }
    let middle = " ... ";
    let head = REASON_LIMIT / 3;
    let tail = REASON_LIMIT - head - middle.len();
    letters[..head]
        .iter()
        .copied()
        .chain(middle.chars())
        .chain(letters[letters.len() - tail..].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_keeps_both_ends_and_one_line() {
        let reason = format!("criu failed:\n{}; set it to 1", "x".repeat(5000));
        let short = shortened(&reason);
        assert_eq!(short.chars().count(), REASON_LIMIT);
        assert!(short.starts_with("criu failed: x") && short.ends_with("; set it to 1"));
        assert_eq!(shortened("a\tb"), "a b");
    }
}
