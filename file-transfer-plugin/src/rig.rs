//! What a build for tests lets be done to it: to stand still at a stage, so that a fault strikes exactly there, and to be
//! wrong about the time.
//!
//! Whoever wants a stop puts a file of the stage's name into [`DIR`]. The first process that comes to that stage renames
//! it to `STAGE.here`, and goes on when that file is gone. `DIR/clock` holds the seconds by which the clock is ahead.
//!
//! Without the feature `pause-points`, which no released program has, nothing of this exists.

use std::time::SystemTime;

/// Where the files are. Not to be had from the environment: CRIU's script has none.
pub const DIR: &str = "/criu-rig";

/// Stands still here, if that is wanted.
#[cfg(feature = "pause-points")]
pub fn stop(stage: &str) {
    let dir = std::path::Path::new(DIR);
    let here = dir.join(format!("{stage}.here"));
    if std::fs::rename(dir.join(stage), &here).is_ok() {
        while here.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Stands still here, if that is wanted.
#[cfg(not(feature = "pause-points"))]
#[inline(always)]
pub fn stop(_stage: &str) {}

/// The time.
#[cfg(feature = "pause-points")]
pub fn now() -> SystemTime {
    let ahead = std::fs::read_to_string(format!("{DIR}/clock"));
    let ahead: i64 = ahead
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let by = std::time::Duration::from_secs(ahead.unsigned_abs());
    let now = SystemTime::now();
    if ahead < 0 { now - by } else { now + by }
}

/// The time.
#[cfg(not(feature = "pause-points"))]
#[inline(always)]
pub fn now() -> SystemTime {
    SystemTime::now()
}
