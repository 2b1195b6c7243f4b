//! The store's lane: images go to `criu-transfer serve` on the access point, by the `criu-transfer` beside us.
//!
//! ```text
//! soft kill   while it is packed, and in the time that the plan leaves: push ── done ──> nothing is left for HTCondor
//!                                                                            └─ not ──> the archive goes by spool
//! in passing  packed ──> push, while the job runs on ── done ──> announced: it is home
//!                                                    └─ not ──> the archive stays, and goes by spool at the soft kill
//! start       ls, and pull what is newer than SPOOL's; where it cannot be asked, the slot goes back a few times
//! end         nothing: HTCondor may start a job again after its end, so its images wait until it has left the queue,
//!             when the store's own `gc` takes them
//! ```
//!
//! A process of its own, so that its end is not the job's, and so that a node without a store carries no HTTP client.

use std::env;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

use classad::ClassAd;
use file_transfer_plugin::attributes;
use file_transfer_plugin::protocol::Image;
use nix::sys::signal::Signal;

use crate::job::Job;
use crate::sandbox::{Sandbox, WORK};
use crate::signals::Signals;
use crate::transfer::{NotDone, Transfer};

/// The program's name, beside ours.
pub(crate) const PROGRAM: &str = "criu-transfer";

/// What it had to say.
const LOG: &str = "transfer.log";

/// Where an image from the store is put.
const PULLED: &str = "pulled.criu";

/// Longer than any image is worth to a job that runs on: another is due by then.
pub(crate) const IN_PASSING: Duration = Duration::from_secs(3 * 3600);

/// The starter waits for us as long as it has to, and the job for its image.
const AT_THE_START: Duration = Duration::from_secs(3600);

/// How the newest image went home, as the job's ad has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Spool,
    Store,
}

impl Lane {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Lane::Spool => "spool",
            Lane::Store => "store",
        }
    }
}

/// A job's place in a store, and what gets there.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    program: PathBuf,
    url: String,
    work: PathBuf,
}

impl Store {
    /// Of a job that names one, on a slot with the program for it.
    pub(crate) fn of(job: &Job) -> Option<Store> {
        let ad = job.job_ad.as_ref();
        let in_ad = || ad?.eval_str(attributes::STORE);
        let named = job.store.clone().or_else(in_ad)?;
        let usable = || {
            let url = url(&named, ad).ok_or_else(|| format!("{named:?} is no URL of a store"))?;
            let program = beside().ok_or("there is no criu-transfer beside criu-starter")?;
            Ok::<_, String>((url, program))
        };
        match usable() {
            Ok((url, program)) => Some(Store {
                program,
                url,
                work: job.scratch.join(WORK),
            }),
            Err(why) => {
                tracing::warn!("images go by spool alone: {why}");
                None
            }
        }
    }

    /// The program, which may lie among the job's files.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Begins to send an archive, for at most so long.
    pub(crate) fn push(
        &self,
        archive: &Path,
        digest: &str,
        within: Duration,
    ) -> Result<Transfer, NotDone> {
        let url = with_digest(&self.url, digest);
        let args = [
            "push".as_ref(),
            "--json".as_ref(),
            archive.as_ref(),
            url.as_ref(),
        ];
        self.start(&args, within)
    }

    /// Begins to send an archive that is being written, to whoever is told what of it is there.
    pub(crate) fn push_along(
        &self,
        archive: &Path,
        within: Duration,
    ) -> Result<(Transfer, ChildStdin), NotDone> {
        let args = [
            "push".as_ref(),
            "--along".as_ref(),
            "--json".as_ref(),
            archive.as_ref(),
            self.url.as_ref(),
        ];
        Transfer::start_listening(&self.program, &args, &self.work.join(LOG), within)
    }

    fn start(&self, args: &[&OsStr], within: Duration) -> Result<Transfer, NotDone> {
        Transfer::start(&self.program, args, &self.work.join(LOG), within)
    }
}

/// Who asks a store for images at a job's start, and listens to HTCondor meanwhile.
pub(crate) struct Asking<'a> {
    pub(crate) store: &'a Store,
    pub(crate) signals: &'a Signals,
    pub(crate) vacate: Signal,
}

/// What came of asking.
pub(crate) enum Asked<T> {
    Got(T),
    Not(NotDone),
    /// The slot is wanted back.
    Vacated,
}

impl Asking<'_> {
    /// The job's images.
    pub(crate) fn list(&self) -> Asked<Vec<Image>> {
        let args = ["ls", &self.store.url, "--json"].map(OsStr::new);
        match self.ask(&args) {
            Asked::Got(said) => match serde_json::from_slice(&said) {
                Ok(images) => Asked::Got(images),
                Err(error) => Asked::Not(NotDone::new(format!("criu-transfer ls: {error}"))),
            },
            Asked::Not(why) => Asked::Not(why),
            Asked::Vacated => Asked::Vacated,
        }
    }

    /// Gets one of them; where it is now.
    pub(crate) fn pull(&self, image: &Image, sandbox: &Sandbox) -> Asked<PathBuf> {
        let url = with_digest(&self.store.url, &image.digest.to_string());
        let to = sandbox.work().join(PULLED);
        match self.ask(&["pull".as_ref(), url.as_ref(), to.as_ref()]) {
            Asked::Got(_) => Asked::Got(to),
            Asked::Not(why) => Asked::Not(why),
            Asked::Vacated => Asked::Vacated,
        }
    }

    fn ask(&self, args: &[&OsStr]) -> Asked<Vec<u8>> {
        let mut transfer = match self.store.start(args, AT_THE_START) {
            Ok(transfer) => transfer,
            Err(why) => return Asked::Not(why),
        };
        loop {
            match transfer.wait(Some(self.signals.0.as_fd())) {
                Some(Ok(said)) => return Asked::Got(said),
                Some(Err(why)) => return Asked::Not(why),
                None => {}
            }
            // The others are for a job that does not run yet.
            while let Ok(Some(arrived)) = self.signals.next() {
                if arrived.signal == self.vacate {
                    return Asked::Vacated;
                }
            }
        }
    }
}

fn beside() -> Option<PathBuf> {
    let program = env::current_exe().ok()?.with_file_name(PROGRAM);
    program.is_file().then_some(program)
}

/// A store's URL with the job's name in it, which is the schedd's where the URL has none: `gc` knows it by that.
fn url(store: &str, ad: Option<&ClassAd>) -> Option<String> {
    let (place, query) = store.split_once('?').unwrap_or((store, ""));
    let place = place.trim_end_matches('/');
    let (_, server) = place.split_once("://")?;
    let place = if server.contains('/') {
        place.to_owned()
    } else {
        format!("{place}/{}", ad?.eval_str("GlobalJobId")?)
    };
    Some(if query.is_empty() {
        place
    } else {
        format!("{place}?{query}")
    })
}

fn with_digest(url: &str, digest: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}digest={digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_has_its_own_place_in_a_store() {
        let ad = ClassAd::parse_old("GlobalJobId = \"ap.pool#12.0#1790000000\"").unwrap();
        let of = |store| url(store, Some(&ad));
        let place = Some("criu://ap:9622/ap.pool#12.0#1790000000".to_owned());
        assert_eq!(of("criu://ap:9622"), place);
        assert_eq!(of("criu://ap:9622/"), place);
        let chosen = "criu://ap/mine";
        assert_eq!(of(chosen).as_deref(), Some(chosen));
        assert_eq!(
            of("criu://ap/mine/checkpoint.criu").as_deref(),
            Some("criu://ap/mine/checkpoint.criu")
        );
        let here = of("criu://localhost?tls=no").unwrap();
        assert_eq!(here, "criu://localhost/ap.pool#12.0#1790000000?tls=no");
        assert_eq!(with_digest(&here, "ab"), format!("{here}&digest=ab"));
        assert_eq!(with_digest(chosen, "ab"), "criu://ap/mine?digest=ab");
        assert_eq!(of("ap.example.org"), None);
        assert_eq!(url("criu://ap", None), None);
    }
}
