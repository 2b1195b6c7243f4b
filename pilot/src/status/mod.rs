//! How the jobs that want to survive stand: what they have saved, and what they would lose now.

mod standing;
mod table;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use classad::ClassAd;

use crate::ads;
use standing::Standing;

const EXAMPLES: &str = "\
Examples:
  criu-pilot status                     your jobs with WantCRIU in the queue
  criu-pilot status 12.0 --watch
  criu-pilot status --all --history 50 --json
  condor_q -long > jobs; criu-pilot status --job-ads jobs

How hours saved are counted: HTCondor's RemoteWallClockTime is the wall clock of
all runs that have ended. Less the last run of a job that is complete, and less
what passed between the last image and the loss of its slot, that is work which
the job did not have to do again. Where a slot was lost without an image, it is
a bound, shown as \"<\".";

/// A listing of the whole queue asks the schedd this often.
const PERIOD: u64 = 10;

/// Which jobs, and how to show them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// One job or cluster, also if it has left the queue
    job: Option<String>,
    /// Read the jobs' ads, as `condor_q -long` and `condor_history -long` print them,
    /// from a file
    #[arg(long, value_name = "FILE", conflicts_with = "job")]
    job_ads: Option<PathBuf>,
    /// Everybody's jobs
    #[arg(long)]
    all: bool,
    /// With the last N jobs that left the queue; 100 if N is not given
    #[arg(long, value_name = "N")]
    history: Option<Option<u32>>,
    /// Show it again every SECONDS; 10 if not given
    #[arg(long, value_name = "SECONDS", conflicts_with = "job_ads")]
    watch: Option<Option<u64>>,
    /// Print JSON: a list with an object for each job
    #[arg(long)]
    json: bool,
}

/// Prints it, once or until somebody has seen enough.
pub(crate) fn show(options: &Options) -> Result<()> {
    let text = text(options)?;
    let Some(seconds) = options.watch else {
        return print(&text);
    };
    let period = Duration::from_secs(seconds.unwrap_or(PERIOD).max(1));
    let clear = if io::stdout().is_terminal() && !options.json {
        "\x1b[H\x1b[J"
    } else {
        ""
    };
    print(&format!("{clear}{text}"))?;
    loop {
        thread::sleep(period);
        // A schedd that is busy once is no reason to look away.
        let text = self::text(options).unwrap_or_else(|error| format!("{error:#}\n"));
        print(&format!("{clear}{text}"))?;
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has gone, and there is nobody left to show it to.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.context("cannot write"),
    }
}

fn text(options: &Options) -> Result<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let mut jobs = Vec::new();
    for text in listings(options)? {
        for block in ads::blocks(&text) {
            let job = ClassAd::parse_old_bytes(block).context("cannot read a job's ad")?;
            if options.job.is_some() || wants_criu(&job) {
                // As of when the schedd said it, which may be long ago.
                let now = job.eval_int("ServerTime").unwrap_or(now);
                jobs.push((Standing::of(&job, now), now));
            }
        }
    }
    if jobs.is_empty() {
        match &options.job {
            Some(job) => bail!("there is no job {job} in the queue, nor in the history"),
            None if !options.json => {
                return Ok("no jobs with WantCRIU = true here; `criu-pilot configure submit` says how to make one\n".into());
            }
            None => {}
        }
    }
    Ok(if options.json {
        table::json(&jobs)
    } else {
        table::table(&jobs)
    })
}

fn wants_criu(job: &ClassAd) -> bool {
    job.eval_bool("WantCRIU") == Some(true)
}

fn listings(options: &Options) -> Result<Vec<Vec<u8>>> {
    if let Some(file) = &options.job_ads {
        return Ok(vec![ads::read(file)?]);
    }
    let mut arguments = vec!["-long"];
    let ours = ["-constraint", "WantCRIU =?= true"];
    match &options.job {
        Some(job) => arguments.push(job),
        None => arguments.extend(ours),
    }
    if options.all {
        arguments.push("-allusers");
    }
    let queue = ads::ask("condor_q", &arguments)?;
    let history = match (options.history, &options.job) {
        (_, Some(job)) if queue.trim_ascii().is_empty() => {
            ads::ask("condor_history", &["-long", job])?
        }
        (Some(count), None) => {
            let limit = count.unwrap_or(100).to_string();
            ads::ask(
                "condor_history",
                &[&["-long", "-limit", &limit][..], &ours].concat(),
            )?
        }
        _ => Vec::new(),
    };
    Ok(vec![queue, history])
}
