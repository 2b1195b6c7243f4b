//! What a job has noted of its own steps, outside of every sandbox.
//!
//! A step is an empty file, `STEP-SECONDS-HOST`, in a directory that all hosts share. No file of it is ever open for longer
//! than it takes to make it, so that none is in the job's image.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The notes of one job.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) dir: PathBuf,
}

/// One step, when and where it was done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) number: u32,
    pub(crate) time: f64,
    pub(crate) host: String,
}

impl Ledger {
    /// In the order of time.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut steps: Vec<Step> = entries
            .filter_map(|entry| parse(entry.file_name().to_str()?))
            .collect();
        steps.sort_by(|one, other| one.time.total_cmp(&other.time));
        steps
    }

    /// Tells the job to end.
    pub(crate) fn stop(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("stop"), "")?)
    }

    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.dir);
    }

    pub(crate) fn make(dir: &Path) -> Result<Ledger> {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?;
        Ok(Ledger {
            dir: dir.to_owned(),
        })
    }
}

fn parse(name: &str) -> Option<Step> {
    let mut words = name.splitn(3, '-');
    Some(Step {
        number: words.next()?.parse().ok()?,
        time: words.next()?.parse().ok()?,
        host: words.next()?.to_owned(),
    })
}

/// What the notes say of a job's life.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Life {
    /// The first step of each run but the first, and the last one before it.
    pub(crate) resumed: Vec<(u32, u32)>,
    /// Seconds of work that was done again.
    pub(crate) lost: f64,
    /// Steps of the last run.
    pub(crate) newest: usize,
    /// A step that only a second copy can have done.
    pub(crate) twice: Option<String>,
}

/// How soon a run that has not stopped does its next step. A job that went away and came back takes longer.
const NEXT: f64 = 2.0;

/// A run is a sequence of steps on one host. One that goes on after another has begun is a second copy.
pub(crate) fn life(steps: &[Step]) -> Life {
    let mut life = Life::default();
    let mut runs: Vec<Vec<&Step>> = Vec::new();
    for step in steps {
        let newest = runs.last().and_then(|run| run.last());
        if newest.is_some_and(|last| follows(last, step)) {
            runs.last_mut().expect("there is one").push(step);
            continue;
        }
        let older = runs.iter().rev().skip(1).filter_map(|run| run.last());
        for last in older {
            if follows(last, step) && step.time - last.time < NEXT {
                life.twice.get_or_insert_with(|| {
                    let Step { number, host, .. } = step;
                    format!("step {number} on {host} while the job ran elsewhere")
                });
            }
        }
        if let Some(last) = newest {
            life.resumed.push((step.number, last.number));
            let again = runs.iter().flatten();
            let again = again.filter(|done| done.number >= step.number);
            if let Some(first) = again.map(|done| done.time).reduce(f64::min) {
                life.lost += last.time - first;
            }
        }
        runs.push(vec![step]);
    }
    life.newest = runs.last().map_or(0, Vec::len);
    life
}

fn follows(last: &Step, step: &Step) -> bool {
    last.host == step.host && last.number + 1 == step.number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a1 b2`, half a second apart unless a blank more says that it is longer.
    fn steps(text: &str) -> Vec<Step> {
        let mut time = 0.0;
        let words = text.split(' ').filter_map(|word| {
            time += if word.is_empty() { 5.0 } else { 0.5 };
            let number = word.get(1..)?.parse().ok()?;
            let host = word[..1].to_owned();
            Some(Step { number, time, host })
        });
        words.collect()
    }

    #[test]
    fn a_job_that_moves_is_one_copy() {
        let found = life(&steps("a1 a2 a3  b4 b5  a6"));
        assert_eq!(found.resumed, [(4, 3), (6, 5)]);
        assert_eq!((found.lost, found.twice), (0.0, None));
    }

    #[test]
    fn work_done_again_is_lost_and_no_second_copy() {
        // On the host of the image, and with the step that follows it.
        let found = life(&steps("a1 a2 a3  b4 b5  a4 a5"));
        assert_eq!(found.resumed, [(4, 3), (4, 5)]);
        assert_eq!((found.lost, found.twice), (0.5, None));
    }

    #[test]
    fn two_at_once_are_seen() {
        assert!(life(&steps("a1 a2 b2 a3 b3 a4")).twice.is_some());
        let twice = "a1 a2 a3  b4 b5 a4 b6 a5";
        assert!(life(&steps(twice)).twice.is_some());
    }
}
