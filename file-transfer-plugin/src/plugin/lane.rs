//! How the plugin carries a file: to a store by [`ship`], from there by [`fetch`].

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use classad::ClassAd;

use super::{Direction, Lane, Request};
use crate::fetch::fetch;
use crate::monitor::Log;
use crate::remote::{Effort, Error, Moved, Options, Remote, Requests, Tokens, Url};
use crate::ship::ship;

/// An ad of HTCondor's is some ten kilobytes.
const AD_MAX: u64 = 4 << 20;

/// Seconds in which nothing may work before a transfer is given up; for an administrator to set.
pub(crate) const PATIENCE: &str = "CRIU_TRANSFER_PATIENCE";

/// The way through a store.
#[derive(Clone, Debug)]
pub struct Store {
    tokens: Tokens,
    options: Options,
}

impl Store {
    /// With what the starter says in this process's environment.
    pub fn from_environment() -> Self {
        let job = ad(env::var_os("_CONDOR_JOB_AD").as_deref());
        let slot = ad(env::var_os("_CONDOR_MACHINE_AD").as_deref());
        let usual = Options::default();
        let patience = env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
        Self {
            tokens: Tokens::from_environment(),
            options: Options {
                within: within(job.as_ref(), slot.as_ref()),
                patience: patience.map_or(usual.patience, Duration::from_secs),
                ..usual
            },
        }
    }
}

impl Lane for Store {
    fn carry(&self, request: &Request, direction: Direction) -> Result<Moved, Error> {
        let remote = Remote::new(request.url.parse()?, self.tokens.clone())?;
        match direction {
            Direction::Upload => ship(&request.file, &remote, &self.options, &Log),
            Direction::Download => match self.newest_whole(&remote, &request.file)? {
                Some(moved) => Ok(moved),
                // The job starts for the first time, which is no error: HTCondor wants a file, so it gets an empty one.
                None => {
                    File::create(&request.file)
                        .map_err(Error::local(format!("make {}", request.file.display())))?;
                    let server = remote.url().server();
                    Ok(Moved {
                        server,
                        ..Moved::default()
                    })
                }
            },
        }
    }
}

impl Store {
    /// The newest image that is not damaged. None where all are, as for a job that has no image yet: held, it would wait
    /// for a person who cannot mend an image either.
    fn newest_whole(&self, remote: &Remote, file: &Path) -> Result<Option<Moved>, Error> {
        let newest = fetch(remote, file, &self.options, &Log);
        let mut damage = match newest {
            Err(error) if error.is_damage() && remote.url().digest.is_none() => error,
            newest => return newest,
        };
        let effort = Effort::new(&self.options, &Log);
        let mut requests = Requests::new(remote, &effort)?;
        let images = effort.persist(|| requests.images(remote.url().job.as_ref()))?;
        for older in images.iter().skip(1) {
            tracing::warn!("an older image is tried: {damage}");
            let url = Url {
                digest: Some(older.digest),
                ..remote.url().clone()
            };
            let remote = Remote::new(url, self.tokens.clone())?;
            damage = match fetch(&remote, file, &self.options, &Log) {
                Err(error) if error.is_damage() => error,
                fetched => return fetched,
            };
        }
        tracing::warn!("the job begins again: {damage}");
        Ok(None)
    }
}

/// The time for a transfer: what the slot gives a job that it vacates, less what the job wants at most. At an eviction part
/// of it is over already, which only the starter knows; it ends us then.
fn within(job: Option<&ClassAd>, slot: Option<&ClassAd>) -> Duration {
    let seconds = |ad: Option<&ClassAd>, name| {
        ad.and_then(|ad| ad.eval_int(name))
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
    };
    let given = [
        seconds(slot, "MachineMaxVacateTime"),
        seconds(job, "JobMaxVacateTime"),
    ];
    let given = given.into_iter().flatten().min();
    given.map_or(Options::default().within, Duration::from_secs)
}

/// An ad of the starter's. One that is not there or cannot be read is none: it only makes the plan coarser.
fn ad(path: Option<&OsStr>) -> Option<ClassAd> {
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        fs::File::open(path)?.take(AD_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read(Path::new(path?)).ok()?;
    ClassAd::parse_old_bytes(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_smaller_of_the_slots_and_the_jobs() {
        let ad = |text| Some(ClassAd::parse_old(text).unwrap());
        let seconds = |job: &Option<ClassAd>, slot: &Option<ClassAd>| {
            within(job.as_ref(), slot.as_ref()).as_secs()
        };
        let (slot, job) = (
            ad("MachineMaxVacateTime = 600"),
            ad("JobMaxVacateTime = 60"),
        );
        assert_eq!(seconds(&None, &None), 1800);
        assert_eq!(seconds(&None, &slot), 600);
        assert_eq!(seconds(&job, &slot), 60);
        // An expression that needs the other ad says nothing here.
        let open = ad("MachineMaxVacateTime = ifThenElse(TARGET.WantCRIU, 1, 2)");
        assert_eq!(seconds(&None, &open), 1800);
        assert_eq!(seconds(&None, &ad("MachineMaxVacateTime = -1")), 1800);
    }
}
