//! What became of every second of a pool's jobs, from the event logs that HTCondor writes anyway.
//!
//! | module | takes -> gives |
//! |---|---|
//! | `timeline` | one job's events -> what it did at each moment |
//! | `totals` | timelines -> sums, by user and by site |
//! | `page` | both -> one HTML file with a picture, which needs nothing else |

mod page;
mod timeline;
mod totals;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::event_log;
use timeline::{Doing, Reader, Timeline};
use totals::{Sums, Totals};

/// A schedd's log of all jobs is rotated at some megabytes; what is larger than this is none.
const LOG_LIMIT: u64 = 4 << 30;

/// What to report on, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Event logs of jobs or of a schedd; `-` is standard input. Without any, the
    /// schedd's EVENT_LOG
    logs: Vec<PathBuf>,
    /// Write a page with a picture of each job's life
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON: the timelines and the sums
    #[arg(long)]
    json: bool,
}

/// Reads, sums up, writes the page, and says the rest.
pub(crate) fn report(options: &Options) -> Result<String> {
    let logs = match options.logs.as_slice() {
        [] => vec![schedds_log()?],
        logs => logs.to_vec(),
    };
    let mut text = String::new();
    for log in &logs {
        text += &read(log)?;
        // An event that is still being written ends here, and not in the next log's first.
        text += "\n...\n";
    }
    let timelines = timelines(&text);
    if timelines.is_empty() {
        bail!(
            "no event of a job, with a date that has a year, in what was read; is it an event log of \
             HTCondor's in its text format (for a schedd's, EVENT_LOG_FORMAT_OPTIONS = ISO_DATE)?"
        );
    }
    let totals = Totals::of(&timelines);
    let mut said = if options.json {
        let all = serde_json::json!({ "totals": totals, "jobs": timelines });
        serde_json::to_string_pretty(&all)? + "\n"
    } else {
        in_words(&totals)
    };
    if let Some(path) = &options.html {
        fs::write(path, page::page(&timelines, &totals))
            .with_context(|| format!("cannot write {}", path.display()))?;
        if !options.json {
            writeln!(said, "\nThe picture: {}", path.display())?;
        }
    }
    Ok(said)
}

/// Each job's life, in the order in which they were submitted.
fn timelines(text: &str) -> Vec<Timeline> {
    let mut order = Vec::new();
    let mut readers: HashMap<String, Reader> = HashMap::new();
    for event in event_log::parse(text) {
        let reader = readers.entry(event.job.clone()).or_insert_with(|| {
            order.push(event.job.clone());
            Reader::new(&event.job)
        });
        reader.take(&event);
    }
    order
        .into_iter()
        .filter_map(|job| readers.remove(&job))
        .map(Reader::finish)
        // A cluster's own events (a DAG's, a factory's) have no life to tell.
        .filter(|timeline| !timeline.spans.is_empty())
        .collect()
}

fn read(path: &Path) -> Result<String> {
    let what = || format!("cannot read {}", path.display());
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(stdin())
    } else {
        Box::new(File::open(path).with_context(what)?)
    };
    let mut bytes = Vec::new();
    source
        .take(LOG_LIMIT + 1)
        .read_to_end(&mut bytes)
        .with_context(what)?;
    ensure!(
        bytes.len() as u64 <= LOG_LIMIT,
        "{} is larger than any event log",
        path.display()
    );
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn schedds_log() -> Result<PathBuf> {
    const ADVICE: &str = "name the jobs' logs: criu-pilot report job.log ...";
    let output = Command::new("condor_config_val")
        .arg("EVENT_LOG")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot ask condor_config_val for EVENT_LOG; {ADVICE}"))?;
    let path = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !path.trim().is_empty(),
        "this access point keeps no EVENT_LOG; {ADVICE}"
    );
    Ok(PathBuf::from(path.trim()))
}

fn in_words(totals: &Totals) -> String {
    let all = &totals.all;
    let mut text = totals.in_short() + "\n\n";
    let lines = [
        (Doing::Finished, "computed in runs that ended the job"),
        (
            Doing::Saved,
            "computed on slots that were lost, and saved by an image",
        ),
        (
            Doing::Lost,
            "computed on slots that were lost, and to be done again",
        ),
        (
            Doing::Unknown,
            "computed on slots that were lost; the log does not tell whether an image was kept",
        ),
        (
            Doing::Open,
            "computed by jobs that run still, or that were removed",
        ),
        (Doing::Freezing, "freezing and packing"),
        (
            Doing::Shipping,
            "moving images and output to the access point",
        ),
        (Doing::Fetching, "moving images and input to the slots"),
        (Doing::Waiting, "waiting for a slot"),
    ];
    for (doing, words) in lines {
        let seconds = all.of(doing);
        if seconds > 0.0 || matches!(doing, Doing::Saved | Doing::Lost) {
            text += &format!("{:>10}  {words}\n", duration(seconds));
        }
    }
    for (title, groups) in [("user", &totals.by_user), ("site", &totals.by_site)] {
        text += &format!(
            "\n{:>10} {:>10} {:>10} {:>6}  by {title}\n",
            "saved", "lost", "spent", "slots"
        );
        for (name, sums) in groups {
            text += &row(name, sums);
        }
    }
    if all.of(Doing::Unknown) > 0.0 {
        text += "\nWhat becomes of images is in a log whose jobs tell of them: `criu-pilot configure ap` and \
                 `configure submit`\nprint the lines for that.\n";
    }
    text
}

fn row(name: &str, sums: &Sums) -> String {
    format!(
        "{:>10} {:>10} {:>10} {:>6}  {name}\n",
        duration(sums.of(Doing::Saved)),
        duration(sums.of(Doing::Lost)),
        duration(sums.spent()),
        sums.evictions
    )
}

/// `95 s`, `12.5 min`, `3.2 h`
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6_000.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

fn bytes(count: i64) -> String {
    match count as f64 {
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}
