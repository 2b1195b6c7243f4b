//! One row on one execution point: a job that counts, the loss of its slot, and what the job itself can tell of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::equipped::{survivor, survivor_with_store};
use crate::events::{Event, Exit, Kind};
use crate::host::Host;
use crate::job::Job;
use crate::pool::Pool;
use crate::store::{PLACE, Store};
use crate::users::User;
use crate::{logs, wait};
use anyhow::{Context, Result, bail, ensure};

use super::causes::Case;
use super::table::{Lane, Outcome, Row};

/// Counts until it is told to end; each step says when it was.
const STEPS: &str = "#!/bin/sh
if [ $1 -gt 0 ]; then dd if=/dev/urandom of=ballast bs=1M count=$1 2>/dev/null; fi
i=0
while [ ! -e stop ]; do
    i=$((i + 1))
    echo \"$i $(date +%s.%N) $$\" >>steps
    sleep 0.1
done
rm -f stop ballast
exit 7
";

const FILE: &str = ".criu/srv/steps";

/// Steps before the loss: two seconds of work.
const BEFORE: usize = 20;

/// Where images on the way are all that there is: time for one or two of them.
const WITH_IMAGES: usize = 60;

/// Their interval, in seconds; a job that does not choose has one of minutes.
const INTERVAL: &str = "3";

/// Steps after it that show that the job is alive.
const AFTER: usize = 3;

/// For a lease to run out, and a machine under load.
const LIMIT: Duration = Duration::from_secs(240);

/// What the job's own steps say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    /// Seconds of work done before the loss and done again after it.
    pub(super) lost: f64,
    /// Seconds between the last step before and the first new one after it.
    pub(super) away: f64,
    /// Steps that were there again after the loss.
    pub(super) kept: usize,
}

/// On `host`, and after the loss on `refuge`.
pub(super) fn measure(
    row: &Row,
    lane: Lane,
    pool: &Pool,
    host: &Host,
    refuge: &Host,
) -> Result<Measured> {
    let job = submit(row, lane, pool, host, refuge)?;
    let found = observe(row, lane, pool, &job, host);
    let found = found.with_context(|| logs::of_job(&job));
    if found.is_err() {
        // It must not stand in the way of others; that it fails too is of no interest.
        let _ = job.remove();
    }
    found
}

fn submit<'p>(
    row: &Row,
    lane: Lane,
    pool: &'p Pool,
    host: &Host,
    refuge: &Host,
) -> Result<Job<'p>> {
    let place = format!(
        "TARGET.Machine == ifThenElse((NumJobStarts ?: 0) == 0, \"{}\", \"{}\")",
        host.full_name(),
        refuge.full_name()
    );
    let ballast = row.ballast.to_string();
    let submit = match lane {
        Lane::Spool => survivor("steps.sh", STEPS, &ballast)?,
        Lane::Store => survivor_with_store("steps.sh", STEPS, &ballast, PLACE)?,
    };
    let submit = submit.set("request_disk", "1024").requiring(&place);
    let submit = if images_on_the_way(row) {
        submit.set("+CRIUInterval", INTERVAL)
    } else {
        submit
    };
    let lines = row.submit.iter();
    pool.submit(&lines.fold(submit, |submit, (key, value)| submit.set(key, *value)))
}

/// Nothing else saves work there; with a large image they would be all that the job does.
fn images_on_the_way(row: &Row) -> bool {
    row.outcome == Outcome::FromLastImage && row.ballast == 0
}

fn observe(row: &Row, lane: Lane, pool: &Pool, job: &Job<'_>, host: &Host) -> Result<Measured> {
    let first = started(job, 1)?;
    ensure!(
        first.host() == Some(&host.name),
        "it started elsewhere: {first}"
    );
    let file = path(&first)?;
    let enough = if images_on_the_way(row) {
        WITH_IMAGES
    } else {
        BEFORE
    };
    job.wait_scratch(FILE, |text| (lines(text).len() >= enough).then_some(()))?;
    let case = Case {
        pool,
        job: job.clone(),
        host,
    };
    let seen = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let look = || {
        // Gone with the slot: what was seen last is what was lost.
        if let Ok(text) = host.read(&file) {
            *seen.lock().expect("no thread panics") = lines(&text);
        }
    };
    let after = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                look();
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        let after = (row.cause)(&case).and_then(|()| aftermath(row, job, &seen));
        over.store(true, Ordering::Relaxed);
        after
    })?;
    let before = seen.into_inner().expect("no thread panics");
    match after {
        After::Gone => leaves_nothing(job, host, &first),
        After::Here => {
            end(job, host, &file)?;
            ensure!(starts(&job.events()?) == 1, "it was started again");
            whole(job)?;
            Ok(Measured {
                outcome: Outcome::RunsOn,
                lost: 0.0,
                away: 0.0,
                kept: before.len(),
            })
        }
        After::Elsewhere { start, steps } => {
            if row.outcome != Outcome::BeginsAgain {
                has_image(lane, job)?;
            }
            let place = start.host().context("the start names no host")?;
            end(job, pool.host(place)?, &path(&start)?)?;
            whole(job)?;
            compare(&before, &steps)
        }
    }
}

/// What was found when it was clear how it goes on.
enum After {
    Gone,
    Here,
    Elsewhere { start: Event, steps: Vec<Step> },
}

fn aftermath(row: &Row, job: &Job<'_>, seen: &Mutex<Vec<Step>>) -> Result<After> {
    match row.outcome {
        Outcome::LeavesNothing => {
            job.wait("its removal", LIMIT, |events| {
                let gone = events.iter().find(|event| event.kind == Kind::Removed);
                gone.map(drop)
            })?;
            Ok(After::Gone)
        }
        Outcome::RunsOn => {
            let count = || seen.lock().expect("no thread panics").len();
            let so_far = count();
            wait::until("steps after it", LIMIT, || {
                Ok((count() >= so_far + BEFORE).then_some(()))
            })?;
            Ok(After::Here)
        }
        Outcome::GoesOn | Outcome::FromLastImage | Outcome::BeginsAgain => {
            let start = started(job, 2)?;
            let steps = wait::until("steps on another slot", LIMIT, || {
                let before = seen.lock().expect("no thread panics").clone();
                // Not there before it is begun or thawed.
                let text = job.scratch(FILE).unwrap_or_default();
                let steps = lines(&text);
                Ok((steps.len() >= common(&before, &steps) + AFTER).then_some(steps))
            })?;
            Ok(After::Elsewhere { start, steps })
        }
    }
}

/// A step as the job has noted it.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    line: String,
    time: f64,
}

/// Whole lines alone: the last one may be half written.
fn lines(text: &str) -> Vec<Step> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let step = |line: &str| {
        let time = line.split(' ').nth(1)?.parse().ok()?;
        let line = line.to_owned();
        Some(Step { line, time })
    };
    whole.lines().filter_map(step).collect()
}

fn common(before: &[Step], after: &[Step]) -> usize {
    let pairs = before.iter().zip(after);
    pairs.take_while(|(old, new)| old == new).count()
}

fn compare(before: &[Step], after: &[Step]) -> Result<Measured> {
    let kept = common(before, after);
    let (Some(first), Some(last)) = (before.first(), before.last()) else {
        bail!("nothing was seen of its steps");
    };
    let lost = if kept == before.len() {
        0.0
    } else {
        // From the beginning, the first step is lost as well: a tenth of a second.
        last.time
            - kept
                .checked_sub(1)
                .map_or(first.time, |index| before[index].time)
    };
    // What was done between the last look and the freeze is kept, and is no step after it.
    let gap = after.windows(2).skip(kept.saturating_sub(1));
    let away = match kept {
        0 => after[0].time - last.time,
        _ => gap
            .map(|pair| pair[1].time - pair[0].time)
            .fold(0.0, f64::max),
    };
    let outcome = match kept {
        0 => Outcome::BeginsAgain,
        _ if kept == before.len() => Outcome::GoesOn,
        _ => Outcome::FromLastImage,
    };
    Ok(Measured {
        outcome,
        lost,
        away,
        kept,
    })
}

/// Waits for the `nth` start.
fn started(job: &Job<'_>, nth: usize) -> Result<Event> {
    job.wait(&format!("start {nth}"), LIMIT, |events| {
        let mut starts = events.iter().filter(|event| event.kind == Kind::Started);
        starts.nth(nth - 1).cloned()
    })
}

fn starts(events: &[Event]) -> usize {
    let started = |event: &&Event| event.kind == Kind::Started;
    events.iter().filter(started).count()
}

fn path(start: &Event) -> Result<String> {
    let scratch = start
        .scratch_dir()
        .context("the start names no scratch directory")?;
    Ok(format!("{scratch}/{FILE}"))
}

/// Tells the job to end, and waits until it has.
fn end(job: &Job<'_>, host: &Host, file: &str) -> Result<()> {
    let stop = file.strip_suffix("steps").context("the steps' file")?;
    host.write(format!("{stop}stop"), "", User::Root, 0o666)?;
    let exit = job.wait("its end", LIMIT, |events| {
        events.iter().find_map(Event::exit)
    })?;
    ensure!(exit == Exit::Code(7), "it ended with {exit:?}");
    Ok(())
}

/// Each step once and in order, from one process.
fn whole(job: &Job<'_>) -> Result<()> {
    let text = job.file("steps")?;
    for (number, step) in (1..).zip(lines(&text)) {
        let words: Vec<&str> = step.line.split(' ').collect();
        let number: u32 = number;
        ensure!(
            words.len() == 3 && words[0] == number.to_string() && words[2] == "2",
            "step {number} is {:?}:\n{text}",
            step.line
        );
    }
    Ok(())
}

/// An image is where this lane leaves it, and nowhere else.
fn has_image(lane: Lane, job: &Job<'_>) -> Result<()> {
    let spooled = !in_spool(job, "checkpoint.criu*")?.is_empty();
    let id = job.attribute("GlobalJobId")?.context("it has an id")?;
    let stored = Store::on(job.pool()).list(User::Alice, id.trim_matches('"'))?;
    let (expected, there) = (lane == Lane::Store, !stored.is_empty());
    ensure!(
        there == expected && spooled != expected,
        "in the store: {there}, in SPOOL: {spooled}; {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    Ok(())
}

/// The paths of a job's in SPOOL that have this name.
fn in_spool(job: &Job<'_>, name: &str) -> Result<String> {
    let ap = job.pool().ap();
    let spool = format!("{}/spool", ap.condor_dir());
    let (cluster, process) = job.id.split_once('.').context("a job's id")?;
    let its = format!("*cluster{cluster}.proc{process}.*");
    let args = ["find", &spool, "-path", &its, "-name", name];
    ap.run(User::Root, "/", &args)
}

fn leaves_nothing(job: &Job<'_>, host: &Host, start: &Event) -> Result<Measured> {
    let scratch = start.scratch_dir().context("no scratch directory")?;
    wait::until("all of it to go", LIMIT, || {
        let spooled = in_spool(job, "*")?;
        let there = std::fs::symlink_metadata(host.path(scratch)).is_ok();
        Ok((spooled.is_empty() && !there).then_some(()))
    })?;
    ensure!(job.file("checkpoint.criu").is_err(), "its image came home");
    Ok(Measured {
        outcome: Outcome::LeavesNothing,
        lost: 0.0,
        away: 0.0,
        kept: 0,
    })
}
