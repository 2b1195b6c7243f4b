//! One job, where it begins and where the fault strikes, and what can be seen of it from outside.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::events::{Event, Exit, Kind};
use crate::host::Host;
use crate::job::Job;
use crate::pool::Pool;
use crate::store::Store;
use crate::users::User;

/// What moves the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// HTCondor's own transfer.
    Spool,
    /// HTCondor with our plugin, to a store.
    Store,
}

impl Lane {
    /// In tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Spool => "spool",
            Lane::Store => "store",
        }
    }
}

/// What a fault strikes at.
#[derive(Debug)]
pub(super) struct Scene<'p> {
    pub(super) pool: &'p Pool,
    pub(super) store: Store<'p>,
    pub(super) lane: Lane,
    pub(super) job: Job<'p>,
    pub(super) ledger: Ledger,
    /// Where the job begins.
    pub(super) here: &'p Host,
    /// Where it goes on, and where the fault strikes.
    pub(super) there: &'p Host,
    /// Chance, the same for the same seed.
    pub(super) chance: u64,
    /// An older image, kept to be put in place of a newer.
    pub(super) older: Option<Vec<u8>>,
}

impl Scene<'_> {
    /// The end of the job, in words, if there is one. Held counts, since nobody is there to release it, but for a transfer that
    /// failed: after a minute it is released by what `criu-pilot configure submit` prints.
    pub(super) fn over(&self) -> Result<Option<String>> {
        let over = |event: &Event| match event.kind {
            Kind::Ended => Some(match event.exit() {
                Some(Exit::Code(code)) => format!("it ended with code {code}"),
                Some(Exit::Signal(signal)) => format!("it ended with signal {signal}"),
                None => "it ended".to_owned(),
            }),
            Kind::Held => {
                let reason = event.details.join(" ");
                let of_transfer = reason.contains("Code 12 ") || reason.contains("Code 13 ");
                (!of_transfer).then(|| format!("held: {reason}"))
            }
            Kind::Removed => Some("it was removed".to_owned()),
            _ => None,
        };
        Ok(self.job.events()?.iter().find_map(over))
    }

    /// How many steps it has done since its last start, if that was where the fault strikes.
    pub(super) fn steps_there(&self) -> usize {
        let steps = self.ledger.steps();
        let run = steps.iter().rev();
        run.take_while(|step| step.host == self.there.name).count()
    }

    /// Its number in the queue.
    pub(super) fn cluster(&self) -> &str {
        self.job.id.split('.').next().unwrap_or_default()
    }

    /// Where HTCondor keeps its files on the access point.
    pub(super) fn spool_dir(&self) -> String {
        format!("{}/spool/{}", self.pool.ap().condor_dir(), self.cluster())
    }

    /// All files of it on the access point, as paths on the machine.
    pub(super) fn spooled(&self) -> Result<Vec<PathBuf>> {
        let dir = self.pool.ap().path(self.spool_dir());
        let mut found = Vec::new();
        let mut open = vec![dir];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// The image in SPOOL.
    pub(super) fn image_in_spool(&self) -> Result<PathBuf> {
        let spooled = self.spooled()?;
        let image = spooled
            .into_iter()
            .find(|path| path.ends_with("checkpoint.criu"));
        image.context("there is no image in SPOOL")
    }

    /// Runs a script on a host.
    pub(super) fn script(&self, host: &Host, script: &str) -> Result<String> {
        host.run(User::Root, "/", &["sh", "-c", script])
    }

    /// `kill -9` for what a script prints the numbers of; there must be some.
    pub(super) fn kill(&self, host: &Host, whom: &str) -> Result<()> {
        let kill = format!(
            "pids=$({whom}); [ -n \"$pids\" ] && ps -o pid,ppid,args -p $(echo $pids | tr ' ' ,) && kill -9 $pids"
        );
        let killed = self.script(host, &kill);
        let killed = killed.with_context(|| format!("nobody to kill: {whom}"))?;
        if std::env::var_os("FAULTS_LOGS").is_some() {
            eprintln!("killed {} on {}", killed.trim(), host.name);
        }
        ensure!(!killed.trim().is_empty(), "nobody was killed");
        Ok(())
    }
}
