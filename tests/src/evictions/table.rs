//! Every way to lose a slot, and what has to come of it.

use anyhow::Result;

use super::causes::{self, Case};

/// What execution points a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// A site's own node.
    Root,
    /// A pilot's.
    Glidein,
}

impl Point {
    pub(super) const ALL: [Point; 2] = [Point::Root, Point::Glidein];

    pub(super) fn name(self) -> &'static str {
        match self {
            Point::Root => "root",
            Point::Glidein => "glidein",
        }
    }
}

/// How the image reaches the access point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// HTCondor's own transfer.
    Spool,
    /// The supervisor's own, to a store.
    Store,
}

impl Lane {
    pub(super) const ALL: [Lane; 2] = [Lane::Spool, Lane::Store];

    pub(super) fn name(self) -> &'static str {
        match self {
            Lane::Spool => "spool",
            Lane::Store => "store",
        }
    }
}

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Elsewhere, at the step where it stopped.
    GoesOn,
    /// Elsewhere, from an image on the way: HTCondor has given no signal or no time.
    FromLastImage,
    /// Elsewhere, from the beginning: there was no image.
    BeginsAgain,
    /// Where it is: it has not lost its slot.
    RunsOn,
    /// It is gone, and nothing of it is left.
    LeavesNothing,
}

impl Outcome {
    pub(super) fn words(self) -> &'static str {
        match self {
            Outcome::GoesOn => "goes on",
            Outcome::FromLastImage => "goes on from its last image",
            Outcome::BeginsAgain => "begins again",
            Outcome::RunsOn => "runs on",
            Outcome::LeavesNothing => "leaves nothing",
        }
    }
}

/// What else a row shares its time with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The job alone.
    Job,
    /// Its execution point, which is put up anew afterwards.
    Host,
    /// The whole access point: no other row runs at that time.
    AccessPoint,
}

/// One way to lose a slot.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// How it is brought about.
    pub(super) what: &'static str,
    pub(super) points: &'static [Point],
    pub(super) outcome: Outcome,
    /// With a store, where that makes a difference.
    pub(super) with_store: Option<Outcome>,
    pub(super) reach: Reach,
    /// Lines of HTCondor configuration on the execution point before the job comes.
    pub(super) config: &'static str,
    /// Lines of the submit file.
    pub(super) submit: &'static [(&'static str, &'static str)],
    /// MiB that the job writes into its sandbox first, to make its image take its time.
    pub(super) ballast: u32,
    /// Takes the slot away, and returns when that has begun to work.
    pub(super) cause: fn(&Case<'_>) -> Result<()>,
}

const BOTH: &[Point] = &Point::ALL;

/// What most rows are like.
const USUAL: Row = Row {
    name: "",
    what: "",
    points: BOTH,
    outcome: Outcome::GoesOn,
    with_store: None,
    reach: Reach::Host,
    config: "",
    submit: &[],
    ballast: 0,
    cause: |_| Ok(()),
};

/// Short enough to wait for, long enough for a machine under load.
const SHORT_LEASE: &[(&str, &str)] = &[("job_lease_duration", "20")];

pub(super) const TABLE: &[Row] = &[
    Row {
        name: "condor_vacate_job",
        what: "by the job's owner",
        reach: Reach::Job,
        cause: causes::vacate_job,
        ..USUAL
    },
    Row {
        name: "condor_vacate_job -fast",
        what: "by the job's owner; no signal",
        outcome: Outcome::FromLastImage,
        reach: Reach::Job,
        cause: causes::vacate_job_fast,
        ..USUAL
    },
    Row {
        name: "condor_vacate",
        what: "by an administrator, of the machine",
        reach: Reach::Job,
        cause: causes::vacate_machine,
        ..USUAL
    },
    Row {
        name: "PREEMPT",
        what: "becomes true on the execution point",
        cause: |case| case.host.reconfigure("PREEMPT = True"),
        ..USUAL
    },
    Row {
        name: "RANK",
        what: "the machine prefers another user's job",
        config: "RANK = TARGET.Preferred =?= True",
        cause: causes::preferred_job,
        ..USUAL
    },
    Row {
        name: "condor_drain -graceful",
        what: "",
        cause: |case| causes::drain(case, "-graceful"),
        ..USUAL
    },
    Row {
        name: "condor_drain -quick",
        what: "",
        cause: |case| causes::drain(case, "-quick"),
        ..USUAL
    },
    Row {
        name: "condor_drain -fast",
        what: "no signal",
        outcome: Outcome::FromLastImage,
        cause: |case| causes::drain(case, "-fast"),
        ..USUAL
    },
    Row {
        name: "condor_off -graceful, startd",
        what: "",
        cause: |case| causes::off(case, "-graceful", "startd"),
        ..USUAL
    },
    Row {
        name: "condor_off -graceful, master",
        what: "",
        cause: |case| causes::off(case, "-graceful", "master"),
        ..USUAL
    },
    Row {
        name: "condor_off -peaceful, startd",
        what: "would wait for a job without max_job_retirement_time = 0",
        cause: |case| causes::off(case, "-peaceful", "startd"),
        ..USUAL
    },
    Row {
        name: "condor_off -peaceful, master",
        what: "waits for the job",
        outcome: Outcome::RunsOn,
        cause: |case| causes::off(case, "-peaceful", "master"),
        ..USUAL
    },
    Row {
        name: "condor_off -fast, startd",
        what: "no signal",
        outcome: Outcome::FromLastImage,
        cause: |case| causes::off(case, "-fast", "startd"),
        ..USUAL
    },
    Row {
        name: "condor_off -fast, master",
        what: "no signal",
        outcome: Outcome::FromLastImage,
        cause: |case| causes::off(case, "-fast", "master"),
        ..USUAL
    },
    Row {
        name: "SIGTERM to the master",
        what: "as a batch system or init does",
        cause: |case| case.host.signal("condor_master", "TERM"),
        ..USUAL
    },
    Row {
        name: "SIGKILL to the master",
        what: "nothing is lost where an image goes home before the startd ends: without the procd HTCondor cannot start the job again in place",
        outcome: Outcome::FromLastImage,
        cause: |case| case.host.signal("condor_master", "KILL"),
        ..USUAL
    },
    Row {
        name: "GLIDEIN_ToDie",
        what: "ten minutes away",
        points: &[Point::Glidein],
        cause: causes::glidein_to_die,
        ..USUAL
    },
    Row {
        name: "condor_hold, condor_release",
        what: "",
        reach: Reach::Job,
        cause: causes::hold_and_release,
        ..USUAL
    },
    Row {
        name: "condor_rm",
        what: "",
        outcome: Outcome::LeavesNothing,
        reach: Reach::Job,
        cause: |case| case.job.remove(),
        ..USUAL
    },
    Row {
        name: "periodic_vacate",
        what: "of the job; HTCondor's shadow waits for 20 s",
        reach: Reach::Job,
        submit: &[(
            "periodic_vacate",
            "JobStatus == 2 && NumJobStarts == 1 && time() - EnteredCurrentStatus > 5",
        )],
        ..USUAL
    },
    Row {
        name: "WANT_HOLD",
        what: "with PREEMPT on the execution point; HTCondor sends no file home, and the job is released",
        outcome: Outcome::FromLastImage,
        with_store: Some(Outcome::GoesOn),
        cause: causes::want_hold,
        ..USUAL
    },
    Row {
        name: "network cut for 5 s",
        what: "between access and execution point, within the lease",
        outcome: Outcome::RunsOn,
        cause: causes::short_cut,
        ..USUAL
    },
    Row {
        name: "network cut until the lease is over",
        what: "and healed afterwards; work goes on until the next image and may go on for the whole cut, and none of it is saved",
        outcome: Outcome::FromLastImage,
        submit: SHORT_LEASE,
        cause: causes::long_cut,
        ..USUAL
    },
    Row {
        name: "power lost",
        what: "on the execution point: all processes at once, and the cable",
        outcome: Outcome::FromLastImage,
        submit: SHORT_LEASE,
        cause: |case| case.host.lose_power(),
        ..USUAL
    },
    Row {
        name: "too little time",
        what: "MachineMaxVacateTime = 1, KILL at once, and an image of 512 MB",
        outcome: Outcome::BeginsAgain,
        config: "MachineMaxVacateTime = 1\nKILL = True",
        ballast: 512,
        cause: causes::vacate_machine,
        ..USUAL
    },
    Row {
        name: "schedd killed while the job runs",
        what: "and restarted by its master",
        outcome: Outcome::RunsOn,
        reach: Reach::AccessPoint,
        cause: causes::schedd_restarted,
        ..USUAL
    },
    Row {
        name: "schedd killed during the upload",
        what: "and restarted by its master",
        reach: Reach::AccessPoint,
        ballast: 24,
        cause: causes::schedd_restarted_during_upload,
        ..USUAL
    },
    Row {
        name: "access point rebooted",
        what: "all its processes at once, back after 5 s",
        outcome: Outcome::RunsOn,
        reach: Reach::AccessPoint,
        cause: causes::access_point_rebooted,
        ..USUAL
    },
];
