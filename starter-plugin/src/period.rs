//! When the next image is due while the job runs.
//!
//! A slot can die without a signal. What is lost then is the work since the last image, and what images cost is the
//! time in which the job does not run. Daly's estimate of the interval that loses least of both together is
//!
//! ```text
//!   sqrt(2 C M) (1 + sqrt(C / 2M) / 3 + C / 18M) - C      for an image's cost C and a mean time M between losses
//! ```
//!
//! (J. T. Daly, Future Generation Computer Systems 22, 2006). C is measured on this job; M is the site's to say, in
//! the slot's `CRIUEvictionRate`, and half a day where it says nothing.

use std::time::Duration;

use classad::ClassAd;

use crate::budget;

/// Evictions of a slot in an hour: a number that a site or a pilot may publish.
const EVICTION_RATE: &str = "CRIUEvictionRate";

/// What a job asks for: seconds, or "10m".
const INTERVAL: &str = "CRIUInterval";

/// A slot of which nothing is known: one loss in half a day.
const MEAN_LIFE: f64 = 12.0 * 3600.0;

/// No job is frozen more often on its own account, whatever the arithmetic says.
const SHORTEST: f64 = 60.0;

/// An image's cost is at most this part of the time that an interval takes.
const OVERHEAD: f64 = 0.05;

/// A job's own choice is taken as it is, down to this.
const SHORTEST_CHOSEN: Duration = Duration::from_millis(100);

/// How the interval is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Interval {
    /// No periodic images.
    Never,
    /// The job or a person said it.
    Chosen(Duration),
    /// From what an image costs, and the mean time between losses in seconds.
    Measured { mean_life: f64 },
}

/// An interval that is none.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no interval; write seconds, or 10m, or 1h30m")]
pub(crate) struct NoInterval {
    text: String,
}

impl Interval {
    /// As the ads have it.
    pub(crate) fn of(job: &ClassAd, slot: Option<&ClassAd>) -> Result<Interval, NoInterval> {
        if let Some(seconds) = job.eval_real(INTERVAL) {
            let bad = || NoInterval {
                text: seconds.to_string(),
            };
            return Duration::try_from_secs_f64(seconds)
                .map(chosen)
                .map_err(|_| bad());
        }
        if let Some(text) = job.eval_str(INTERVAL) {
            return parse(&text).map(chosen);
        }
        let rate = slot.and_then(|slot| slot.eval_real(EVICTION_RATE));
        let mean_life = rate
            .filter(|rate| *rate > 0.0)
            .map_or(MEAN_LIFE, |rate| 3600.0 / rate);
        Ok(Interval::Measured { mean_life })
    }

    /// From the end of one image to the beginning of the next, when one costs that much.
    pub(crate) fn after(self, cost: Duration) -> Option<Duration> {
        match self {
            Interval::Never => None,
            Interval::Chosen(interval) => Some(interval),
            Interval::Measured { mean_life } => {
                let cost = cost.as_secs_f64();
                let shortest = SHORTEST.max(cost / OVERHEAD);
                Some(Duration::from_secs_f64(daly(cost, mean_life).max(shortest)))
            }
        }
    }
}

fn daly(cost: f64, mean_life: f64) -> f64 {
    let x = cost / (2.0 * mean_life);
    if x >= 1.0 {
        return mean_life;
    }
    (2.0 * cost * mean_life).sqrt() * (1.0 + x.sqrt() / 3.0 + x / 9.0) - cost
}

/// 0 says that no images are wanted.
fn chosen(interval: Duration) -> Interval {
    if interval.is_zero() {
        Interval::Never
    } else {
        Interval::Chosen(interval.max(SHORTEST_CHOSEN))
    }
}

/// "600", "10m", "1h30m".
pub(crate) fn parse(text: &str) -> Result<Duration, NoInterval> {
    let text = text.trim();
    let bad = || NoInterval {
        text: text.chars().take(40).collect(),
    };
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| bad()),
        Err(_) => humantime::parse_duration(text).map_err(|_| bad()),
    }
}

/// Before the slot's announced end there must be time for an image, for its way home and for an estimate that was
/// too good. What the job does in this time is lost, so it is no longer than that.
const LEAD: f64 = 180.0;

/// When to take the last image of a slot that has said when it ends, in seconds since 1970.
pub(crate) fn before_the_end(slot: &ClassAd, cost: Duration) -> Option<i64> {
    let lead = LEAD.max(3.0 * cost.as_secs_f64());
    budget::end(slot).map(|end| end - lead as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(text: &str) -> ClassAd {
        ClassAd::parse_old(text).unwrap()
    }

    fn of(job: &str, slot: &str) -> Interval {
        Interval::of(&ad(job), Some(&ad(slot))).unwrap()
    }

    #[test]
    fn a_job_chooses_in_seconds_or_in_words() {
        let minutes = Interval::Chosen(Duration::from_secs(600));
        for job in [
            "CRIUInterval = 600",
            "CRIUInterval = \"600\"",
            "CRIUInterval = \"600.0\"",
            "CRIUInterval = \"10m\"",
        ] {
            assert_eq!(of(job, "A = 1"), minutes, "{job}");
        }
        assert_eq!(of("CRIUInterval = 0", "A = 1"), Interval::Never);
        assert_eq!(
            of("CRIUInterval = 0.001", "A = 1"),
            Interval::Chosen(SHORTEST_CHOSEN)
        );
    }

    #[test]
    fn nonsense_is_named() {
        for job in [
            "CRIUInterval = -5",
            "CRIUInterval = \"soon\"",
            "CRIUInterval = 1.0E300",
        ] {
            let error = Interval::of(&ad(job), None).unwrap_err();
            assert!(error.to_string().contains("is no interval"), "{error}");
        }
    }

    #[test]
    fn the_site_says_how_often_slots_are_lost() {
        assert_eq!(
            of("A = 1", "CRIUEvictionRate = 2"),
            Interval::Measured { mean_life: 1800.0 }
        );
        let unknown = Interval::Measured {
            mean_life: MEAN_LIFE,
        };
        assert_eq!(of("A = 1", "CRIUEvictionRate = 0"), unknown);
        assert_eq!(of("A = 1", "B = 1"), unknown);
    }

    #[test]
    fn the_interval_is_dalys_within_bounds() {
        let after = |cost: f64, mean_life: f64| {
            Interval::Measured { mean_life }
                .after(Duration::from_secs_f64(cost))
                .unwrap()
                .as_secs_f64()
        };
        // sqrt(2 * 10 * 43200) = 929.5, and what the higher order adds and takes.
        assert!((919.0..930.0).contains(&after(10.0, MEAN_LIFE)));
        // An image that costs nothing is not taken all the time.
        assert_eq!(after(0.0, MEAN_LIFE), SHORTEST);
        // One that costs much takes at most a twentieth of the time, where slots live shorter than that, too.
        assert_eq!(after(100.0, 10.0), 2000.0);
    }

    #[test]
    fn the_interval_loses_less_than_others_do() {
        // Expected loss per second of work: images, and half an interval a loss.
        let loss = |interval: f64, cost: f64, life: f64| cost / interval + (interval / 2.0) / life;
        for (cost, life) in [(3.0, 43200.0), (30.0, 43200.0), (20.0, 7200.0)] {
            let best = Interval::Measured { mean_life: life }
                .after(Duration::from_secs_f64(cost))
                .unwrap()
                .as_secs_f64();
            for other in [best * 0.5, best * 0.8, best * 1.25, best * 2.0] {
                assert!(
                    loss(best, cost, life) < loss(other, cost, life),
                    "{best} against {other}"
                );
            }
        }
    }

    #[test]
    fn the_last_image_is_taken_in_time() {
        let slot = ad("GLIDEIN_ToDie = 10000");
        let before = |seconds| before_the_end(&slot, Duration::from_secs(seconds));
        assert_eq!(before(10), Some(9820));
        assert_eq!(before(1000), Some(7000));
        assert_eq!(before_the_end(&ad("A = 1"), Duration::ZERO), None);
    }
}
