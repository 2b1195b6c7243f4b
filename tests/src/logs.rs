//! The logs that matter when something did not happen in time.

use std::fs;

use crate::host::{Host, Role};
use crate::job::Job;
use crate::pool::Pool;

/// Lines of each log.
const TAIL: usize = 30;

/// The job's event log and the pool's logs.
pub fn of_job(job: &Job<'_>) -> String {
    let events = job.file(crate::submit::LOG).unwrap_or_default();
    format!(
        "{}{}",
        section("event log", &events, 2 * TAIL),
        of_pool(job.pool())
    )
}

/// The ends of the daemons' logs on all hosts.
pub fn of_pool(pool: &Pool) -> String {
    pool.hosts().iter().map(of_host).collect()
}

fn of_host(host: &Host) -> String {
    let mut text = String::new();
    for name in names(host) {
        let log = host
            .read(format!("{}/log/{name}", host.condor_dir()))
            .unwrap_or_default();
        text += &section(&format!("{} {name}", host.name), &log, TAIL);
    }
    text
}

/// Which logs of a host tell about jobs; the master's only where no daemon got as far as writing one.
fn names(host: &Host) -> Vec<String> {
    let wanted: &[&str] = match host.role {
        Role::AccessPoint => &["NegotiatorLog", "SchedLog", "ShadowLog"],
        Role::Root | Role::Glidein => &["StartLog", "StarterLog.slot"],
    };
    let dir = host.path(format!("{}/log", host.condor_dir()));
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            wanted.iter().any(|wanted| name.starts_with(wanted)) && !name.ends_with(".old")
        })
        .collect();
    if names.is_empty() {
        names = vec!["MasterLog".to_owned(), "master.out".to_owned()];
    }
    names.sort();
    names
}

fn section(title: &str, log: &str, lines: usize) -> String {
    let all: Vec<&str> = log.lines().collect();
    let tail = &all[all.len().saturating_sub(lines)..];
    format!("--- {title}\n{}\n", tail.join("\n"))
}
