//! The jobs in the queue of this host's schedd, as `condor_q` tells them.

use std::collections::HashSet;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::error::StoreError;
use crate::protocol::Job;

/// A schedd with a hundred thousand jobs needs half a minute.
const PATIENCE: Duration = Duration::from_secs(300);

/// All jobs of all users.
#[derive(Debug)]
pub(super) struct Queue(HashSet<String>);

impl Queue {
    /// Asks. An answer that is none is an error: nothing may be removed because of it.
    pub(super) async fn ask() -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open {
            what: "the queue with condor_q".into(),
            source,
        };
        let asked = Command::new("condor_q")
            .args(["-allusers", "-af", "ClusterId", "ProcId", "GlobalJobId"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(PATIENCE, asked)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            let why = format!("{}: {}", output.status, last.join("; "));
            return Err(failed(io::Error::other(why)));
        }
        Ok(Self::of(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The jobs of an answer.
    pub(super) fn of(answer: &str) -> Self {
        let mut jobs = HashSet::new();
        for line in answer.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some(cluster), Some(proc)) = (words.next(), words.next()) {
                jobs.insert(format!("{cluster}.{proc}"));
                jobs.extend(words.next().map(ToOwned::to_owned));
            }
        }
        Self(jobs)
    }

    /// Whether a name is that of a job which is not there. A name that no schedd gives says nothing.
    pub(super) fn lacks(&self, job: &Job) -> bool {
        let name = job.as_str();
        let number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let numbers = |id: &str| {
            id.split_once('.')
                .is_some_and(|(cluster, proc)| number(cluster) && number(proc))
        };
        let parts: Vec<&str> = name.split('#').collect();
        let of_a_schedd = match parts[..] {
            [id] => numbers(id),
            [_, id, date] => numbers(id) && number(date),
            _ => false,
        };
        of_a_schedd && !self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_schedd_gives_can_be_missed() {
        let queue = Queue::of("12 0 ap.example#12.0#1790000000\n13 7 ap.example#13.7#1790000001\n");
        let lacks = |name: &str| queue.lacks(&name.parse().unwrap());
        for there in ["12.0", "13.7", "ap.example#12.0#1790000000"] {
            assert!(!lacks(there), "{there}");
        }
        for gone in ["12.1", "7.0", "ap.example#12.0#1790000009"] {
            assert!(lacks(gone), "{gone}");
        }
        for other in ["mine", "12", "12.x", "a#b", "ap#12.0", "run-12.0"] {
            assert!(!lacks(other), "{other}");
        }
    }
}
