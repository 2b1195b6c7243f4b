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
            let short: String = reason.chars().take(REASON_LIMIT).collect();
            ad.insert(attributes::REASON, short.as_str());
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
