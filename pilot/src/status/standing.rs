//! How one job stands, from its ad alone.
//!
//! | fact | attributes |
//! |---|---|
//! | last image | `ChirpCRIUGeneration`, `ChirpCRIUTime`, `ChirpCRIUBytes`, set by criu-starter after each |
//! | work at risk | the time since that image or since the run began, whichever is later, if the job runs |
//! | evictions survived | slots lost (`NumJobStarts`, less the run that goes on or came to its end), at most one for each image |
//! | time saved | see [`Standing::saved`] |

use classad::ClassAd;
use file_transfer_plugin::attributes;

/// HTCondor's own names for these.
const STARTS: &str = "NumJobStarts";
const WALL_CLOCK: &str = "RemoteWallClockTime";
const LAST_WALL_CLOCK: &str = "LastRemoteWallClockTime";
const RUN_BEGAN: &str = "JobCurrentStartDate";
const VACATED: &str = "LastVacateTime";

/// Where a job is in its life, as HTCondor numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Running,
    Removed,
    Completed,
    Held,
    Sending,
    Suspended,
    Unknown,
}

impl State {
    fn of(job: &ClassAd) -> State {
        match job.eval_int("JobStatus") {
            Some(1) => State::Idle,
            Some(2) => State::Running,
            Some(3) => State::Removed,
            Some(4) => State::Completed,
            Some(5) => State::Held,
            Some(6) => State::Sending,
            Some(7) => State::Suspended,
            _ => State::Unknown,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Running => "running",
            State::Removed => "removed",
            State::Completed => "completed",
            State::Held => "held",
            State::Sending => "sending",
            State::Suspended => "suspended",
            State::Unknown => "unknown",
        }
    }

    fn has_slot(self) -> bool {
        matches!(self, State::Running | State::Sending | State::Suspended)
    }
}

/// The newest image of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Image {
    pub(crate) generation: i64,
    pub(crate) bytes: u64,
    /// When it was taken.
    pub(crate) time: i64,
    /// The access point's spool, or the store's URL.
    pub(crate) place: String,
}

/// Seconds that an image has saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) seconds: i64,
    /// Some lost slot left no image, and nobody knows what was lost with it.
    pub(crate) at_most: bool,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) job: String,
    pub(crate) owner: String,
    pub(crate) state: State,
    pub(crate) image: Option<Image>,
    /// Seconds of work that would be lost with the slot now.
    pub(crate) at_risk: i64,
    pub(crate) survived: i64,
    pub(crate) saved: Saved,
    /// Why the last attempt to freeze or thaw it failed.
    pub(crate) reason: Option<String>,
}

impl Standing {
    /// At a moment in seconds since 1970.
    pub(crate) fn of(job: &ClassAd, now: i64) -> Standing {
        let number = |name| job.eval_int(name).unwrap_or(0);
        let state = State::of(job);
        let image = image(job);
        let began = number(RUN_BEGAN);
        let safe = image.as_ref().map_or(began, |image| image.time.max(began));
        let is_last_run = state.has_slot() || state == State::Completed;
        let lost = (number(STARTS) - i64::from(is_last_run)).max(0);
        let survived = image.as_ref().map_or(0, |image| image.generation.min(lost));
        Standing {
            job: format!("{}.{}", number("ClusterId"), number("ProcId")),
            owner: job.eval_str("Owner").unwrap_or_default(),
            state,
            at_risk: if state.has_slot() && safe > 0 {
                (now - safe).max(0)
            } else {
                0
            },
            survived,
            saved: Saved {
                seconds: if survived > 0 {
                    saved(job, state, image.as_ref())
                } else {
                    0
                },
                at_most: survived > 0 && survived < lost,
            },
            reason: job
                .eval_str(attributes::JOB_REASON)
                .filter(|reason| !reason.is_empty()),
            image,
        }
    }
}

/// The wall clock of the runs that ended with the loss of their slot, less what came after the last image of these: what
/// the job would have had to do again. HTCondor adds a run to `RemoteWallClockTime` when it ends.
fn saved(job: &ClassAd, state: State, image: Option<&Image>) -> i64 {
    let seconds = |name| job.evaluate(name).as_real().unwrap_or(0.0) as i64;
    let last = if state == State::Completed {
        seconds(LAST_WALL_CLOCK)
    } else {
        0
    };
    let tail = image.map_or(0, |image| (seconds(VACATED) - image.time).max(0));
    (seconds(WALL_CLOCK) - last - tail).max(0)
}

fn image(job: &ClassAd) -> Option<Image> {
    let number = |name| job.eval_int(name);
    let generation = number(attributes::JOB_GENERATION).filter(|generation| *generation > 0)?;
    let remaps = job.eval_str("TransferOutputRemaps").unwrap_or_default();
    let store = remaps
        .split(';')
        .filter_map(|remap| remap.split_once('='))
        .map(|(_, url)| url.trim())
        .find(|url| url.starts_with("criu") && url.contains("://"));
    Some(Image {
        generation,
        bytes: number(attributes::JOB_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or(0),
        time: number(attributes::JOB_TIME).unwrap_or(0),
        place: store.unwrap_or("spool").to_owned(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW: i64 = 1_790_010_000;

    /// It lost two slots after an hour each, the images took 10 s, and it runs again for 600 s.
    pub(crate) fn job(more: &str) -> ClassAd {
        let text = format!(
            "ClusterId = 12\nProcId = 3\nOwner = \"alice\"\nJobStatus = 2\nNumJobStarts = 3\n\
             RemoteWallClockTime = 7200.0\nLastVacateTime = {vacated}\nJobCurrentStartDate = {began}\n\
             ChirpCRIUGeneration = 2\nChirpCRIUBytes = 120000000\nChirpCRIUTime = {taken}\n{more}",
            vacated = NOW - 700,
            taken = NOW - 710,
            began = NOW - 600,
        );
        ClassAd::parse_old(&text).unwrap()
    }

    #[test]
    fn a_run_after_two_evictions_has_saved_what_came_before_their_images() {
        let standing = Standing::of(&job(""), NOW);
        assert_eq!(
            (standing.job.as_str(), standing.state),
            ("12.3", State::Running)
        );
        assert_eq!((standing.at_risk, standing.survived), (600, 2));
        assert_eq!(
            standing.saved,
            Saved {
                seconds: 7190,
                at_most: false
            }
        );
        assert_eq!(standing.image.unwrap().place, "spool");
    }

    #[test]
    fn what_a_completed_jobs_last_run_did_was_not_saved() {
        let standing = Standing::of(
            &job("JobStatus = 4\nRemoteWallClockTime = 9000\nLastRemoteWallClockTime = 1800"),
            NOW,
        );
        assert_eq!(standing.saved.seconds, 7190);
        assert_eq!((standing.at_risk, standing.survived), (0, 2));
    }

    #[test]
    fn a_slot_that_left_no_image_makes_it_a_bound() {
        let standing = Standing::of(&job("NumJobStarts = 5"), NOW);
        assert_eq!(standing.survived, 2);
        assert!(standing.saved.at_most);
    }

    #[test]
    fn a_job_without_an_image_has_saved_nothing_and_risks_its_whole_run() {
        let mut job = job("");
        job.remove(attributes::JOB_GENERATION);
        let standing = Standing::of(&job, NOW);
        assert_eq!(
            (standing.at_risk, standing.survived, standing.saved.seconds),
            (600, 0, 0)
        );
        assert_eq!(standing.image, None);
    }

    #[test]
    fn an_image_of_this_run_bounds_what_is_at_risk() {
        let standing = Standing::of(&job(&format!("ChirpCRIUTime = {}", NOW - 60)), NOW);
        assert_eq!(standing.at_risk, 60);
        let idle = Standing::of(&job("JobStatus = 1"), NOW);
        assert_eq!((idle.at_risk, idle.survived), (0, 2));
    }

    #[test]
    fn an_image_in_a_store_is_there() {
        let remaps =
            "TransferOutputRemaps = \"a=b;checkpoint.criu=criu://ap.example:8443/alice/12.3\"";
        assert_eq!(
            Standing::of(&job(remaps), NOW).image.unwrap().place,
            "criu://ap.example:8443/alice/12.3"
        );
    }
}
