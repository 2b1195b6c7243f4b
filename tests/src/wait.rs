//! Waiting for conditions, never for time to pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at. Low, since most conditions are one small file.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks at `condition` until it gives a value or fails; an error naming `what` once `limit` has passed.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("gave up after {limit:?} waiting for {what}");
        }
        std::thread::sleep(INTERVAL);
    }
}
