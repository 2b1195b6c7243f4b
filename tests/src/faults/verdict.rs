//! What became of a job, against what is promised.
//!
//! | promise | how it is seen |
//! |---|---|
//! | the right result | exit code 7, each number what the one before makes of it |
//! | each line of output once | its output file, line by line |
//! | never two copies | the ledger: no run goes on after another has begun |
//! | no good image lost | the ledger: no step that is in an untouched image is done again |
//! | no hold that lasts | the event log |
//! | nothing left | processes, mounts and directories of the execution points, SPOOL |

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::cell::{Before, Cell};
use super::ledger::{Life, life};
use super::scene::{Lane, Scene};
use crate::events::{Exit, Kind};
use crate::host::Host;
use crate::roots::HtCondor;
use crate::users::User;
use crate::wait;

/// For a starter to give up a shadow that is gone, and a startd to clean up.
const CLEAN: Duration = Duration::from_secs(60);

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub cell: Cell,
    /// On which.
    pub version: HtCondor,
    /// What decided which bit flipped.
    pub seed: u64,
    /// In words.
    pub happened: String,
    /// Seconds of work done again because of the fault.
    pub lost: f64,
    /// Seconds from the job's end until nothing of it was left on the hosts.
    pub clean: f64,
    /// What was promised and not kept.
    pub broken: Vec<String>,
    /// The cell's own time.
    pub seconds: f64,
}

pub(super) fn judge(cell: &Cell, scene: &Scene<'_>, played: Result<Before, String>) -> Result<Row> {
    let mut broken = Vec::new();
    let ended = scene.over()?.unwrap_or_else(|| "it never ended".to_owned());
    let (before, error) = match played {
        Ok(before) => (Some(before), None),
        Err(error) => (None, Some(error)),
    };
    if let Some(error) = error {
        // What a fault has come to is told once.
        broken.push(error);
    }
    let code = scene.job.events()?.iter().find_map(|event| event.exit());
    if code != Some(Exit::Code(7)) && !broken.contains(&ended) {
        broken.push(ended);
    }
    let steps = scene.ledger.steps();
    let life = life(&steps);
    broken.extend(life.twice.clone());
    if code == Some(Exit::Code(7)) {
        broken.extend(result(scene).err().map(|error| format!("{error:#}")));
    } else {
        let _ = scene.job.remove();
    }
    let floor = before.map_or(0, |before| before.floor);
    if let Some((from, _)) = life.resumed.iter().find(|(from, _)| *from <= floor) {
        broken.push(format!(
            "a good image was lost: step {from} was done again, and {floor} was in one"
        ));
    }
    let begun = Instant::now();
    let clean = wait::until("the hosts to be clean", CLEAN, || {
        Ok(left(scene)?.is_empty().then_some(()))
    });
    if clean.is_err() {
        broken.push(format!("left behind: {}", left(scene)?.join(", ")));
        sweep(scene);
    }
    Ok(Row {
        cell: *cell,
        version: scene.pool.version(),
        seed: 0,
        happened: happened(scene, before, &life)?,
        lost: life.lost,
        clean: begun.elapsed().as_secs_f64(),
        broken,
        seconds: 0.0,
    })
}

/// The events after the fault, and how the job went on.
fn happened(scene: &Scene<'_>, before: Option<Before>, life: &Life) -> Result<String> {
    let events = scene.job.events()?;
    let after = before.map_or(0, |before| before.events);
    let mut words: Vec<&str> = Vec::new();
    for event in events.iter().skip(after) {
        words.push(match event.kind {
            Kind::Evicted => "evicted",
            Kind::Started => "started",
            Kind::ShadowException => "given back",
            Kind::Disconnected => "disconnected",
            Kind::Reconnected => "reconnected",
            Kind::Held => "held",
            Kind::Released => "released",
            Kind::Ended => "ended",
            _ => continue,
        });
    }
    let again = life.resumed.iter().find(|(from, last)| from <= last);
    let how = match again {
        Some((1, _)) => "begun again",
        Some(_) => "from an image before",
        None => "nothing done twice",
    };
    Ok(format!("{}; {how}", words.join(", ")))
}

fn result(scene: &Scene<'_>) -> Result<()> {
    let mut sum = 0;
    let numbers = scene.job.file("numbers")?;
    let mut count = 0;
    for (line, number) in numbers.lines().zip(1_u64..) {
        sum = (sum * 31 + number) % 1_000_003;
        ensure!(
            line == format!("{number} {sum}"),
            "line {number} of the result is {line:?}"
        );
        count = number;
    }
    ensure!(count > 0, "the result is empty");
    let output: String = (1..=count).map(|i| format!("line {i}\n")).collect();
    let found = scene.job.output()?;
    if found != output {
        let (found, wanted) = (found.lines().count(), output.lines().count());
        anyhow::bail!("the output has {found} lines and should have {wanted}, each once");
    }
    Ok(())
}

/// What is there of the job on the hosts.
fn left(scene: &Scene<'_>) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for host in [scene.here, scene.there] {
        let execute = format!("{}/execute", host.condor_dir());
        for entry in fs::read_dir(host.path(&execute))
            .into_iter()
            .flatten()
            .flatten()
        {
            left.push(format!(
                "{} in execute on {}",
                entry.file_name().to_string_lossy(),
                host.name
            ));
        }
        let mounts = host.read("/proc/1/mountinfo").unwrap_or_default();
        if mounts
            .lines()
            .any(|line| line.contains(&format!("{execute}/")))
        {
            left.push(format!("a mount on {}", host.name));
        }
        for name in processes(host)? {
            left.push(format!("{name} on {}", host.name));
        }
    }
    for path in scene.spooled()? {
        if !path.ends_with("filler") {
            left.push(format!(
                "{} in SPOOL",
                path.file_name().unwrap_or_default().to_string_lossy()
            ));
        }
    }
    Ok(left)
}

/// Of a job and of those who serve it.
fn processes(host: &Host) -> Result<Vec<String>> {
    let look = "ps -eo comm= | grep -E '^(criu|criu-.*|ld-linux.*|condor_exec.*|condor_starter|count.sh)$' | grep -v criu-pilot || true";
    let found = host.run(User::Root, "/", &["sh", "-c", look])?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// So that the next cell does not suffer.
fn sweep(scene: &Scene<'_>) {
    for host in [scene.here, scene.there] {
        let execute = format!("{}/execute", host.condor_dir());
        let sweep = format!(
            "pkill -9 -x 'criu|criu-starter|criu-transfer|condor_exec.exe|condor_starter|count.sh'; rm -rf {execute}/*"
        );
        let _ = scene.script(host, &sweep);
    }
    if scene.lane == Lane::Store {
        let _ = scene.job.remove();
    }
}
