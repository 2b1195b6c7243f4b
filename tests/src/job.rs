//! A submitted job: what happened to it, and waiting for what is to happen.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::events::{self, Event, Exit, Kind};
use crate::pool::Pool;
use crate::submit::{ERROR, LOG, OUTPUT};
use crate::users::User;
use crate::{logs, wait};

/// How long a start, an eviction or an end of a quick job may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A job in a pool's queue.
#[derive(Debug, Clone)]
pub struct Job<'p> {
    pool: &'p Pool,
    /// `cluster.proc`
    pub id: String,
    /// Its directory on the access point.
    pub dir: String,
    user: User,
}

impl<'p> Job<'p> {
    pub(crate) fn new(pool: &'p Pool, id: &str, dir: String, user: User) -> Self {
        Self {
            pool,
            id: id.to_owned(),
            dir,
            user,
        }
    }

    /// What has happened to it so far.
    pub fn events(&self) -> Result<Vec<Event>> {
        let mut events = events::parse(&self.file(LOG).unwrap_or_default());
        events.retain(|event| event.job == self.id);
        Ok(events)
    }

    /// Waits until `condition` finds what it wants in the events; the logs that matter if it does not within `limit`.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T> {
        wait::until(what, limit, || Ok(condition(&self.events()?))).with_context(|| {
            format!(
                "job {} of pool {}\n{}",
                self.id,
                self.pool.name,
                logs::of_job(self)
            )
        })
    }

    /// As [`Self::wait`], but an end, a hold or a removal that `condition` does not take is an error at once.
    fn wait_alive<T>(&self, what: &str, condition: impl Fn(&[Event]) -> Option<T>) -> Result<T> {
        let found = self.wait(what, LIMIT, |events| {
            let last_word = events
                .iter()
                .rev()
                .find(|event| {
                    matches!(
                        event.kind,
                        Kind::Ended | Kind::Held | Kind::Removed | Kind::Released
                    )
                })
                .filter(|event| event.kind != Kind::Released);
            condition(events)
                .map(Ok)
                .or_else(|| last_word.map(|event| Err(event.to_string())))
        })?;
        found.map_err(|event| {
            let logs = logs::of_job(self);
            anyhow!(
                "waiting for {what}, job {} came to: {event}\n{logs}",
                self.id
            )
        })
    }

    /// Waits for the job's `nth` start (the first is 1), and names its host.
    pub fn wait_start(&self, nth: usize) -> Result<String> {
        self.wait_alive(&format!("start {nth}"), |events| {
            let start = events
                .iter()
                .filter(|event| event.kind == Kind::Started)
                .nth(nth.checked_sub(1)?)?;
            start.host().map(str::to_owned)
        })
    }

    /// Waits until the job has been evicted `count` times.
    pub fn wait_evicted(&self, count: usize) -> Result<Event> {
        self.wait_alive(&format!("eviction {count}"), |events| {
            events
                .iter()
                .filter(|event| event.kind == Kind::Evicted)
                .nth(count.checked_sub(1)?)
                .cloned()
        })
    }

    /// Waits until the job is held, and says why.
    pub fn wait_held(&self) -> Result<Event> {
        self.wait("a hold", LIMIT, |events| {
            events
                .iter()
                .rfind(|event| event.kind == Kind::Held)
                .cloned()
        })
    }

    /// Waits for the job's own end.
    pub fn wait_end(&self) -> Result<Exit> {
        self.wait_alive("its end", |events| events.iter().find_map(Event::exit))
    }

    /// Waits until a file in the running job's scratch directory has what `condition` wants.
    pub fn wait_scratch<T>(&self, file: &str, condition: impl Fn(&str) -> Option<T>) -> Result<T> {
        wait::until(&format!("{file} in the scratch directory"), LIMIT, || {
            let text = self.scratch(file).ok();
            Ok(text.and_then(|text| condition(&text)))
        })
        .with_context(|| {
            format!(
                "job {} of pool {}\n{}",
                self.id,
                self.pool.name,
                logs::of_job(self)
            )
        })
    }

    /// A file in the running job's scratch directory.
    pub fn scratch(&self, file: &str) -> Result<String> {
        let events = self.events()?;
        let start = events
            .iter()
            .rfind(|event| event.kind == Kind::Started)
            .context("it never started")?;
        let host = self
            .pool
            .host(start.host().context("the start names no host")?)?;
        let scratch = start
            .scratch_dir()
            .context("the start names no scratch directory")?;
        host.read(format!("{scratch}/{file}"))
    }

    /// `condor_vacate_job`: the soft-kill signal now, and back to the queue.
    pub fn vacate(&self) -> Result<()> {
        self.tool(&["condor_vacate_job", &self.id]).map(drop)
    }

    /// `condor_vacate_job -fast`: no signal, and nothing travels.
    pub fn vacate_fast(&self) -> Result<()> {
        self.tool(&["condor_vacate_job", "-fast", &self.id])
            .map(drop)
    }

    /// `condor_rm`
    pub fn remove(&self) -> Result<()> {
        self.tool(&["condor_rm", &self.id]).map(drop)
    }

    /// `condor_hold`
    pub fn hold(&self) -> Result<()> {
        self.tool(&["condor_hold", &self.id]).map(drop)
    }

    /// `condor_release`, and the event of it: until then the hold is the last that its log says.
    pub fn release(&self) -> Result<()> {
        let releases = |events: &[Event]| {
            let is_one = |event: &&Event| event.kind == Kind::Released;
            events.iter().filter(is_one).count()
        };
        let before = releases(&self.events()?);
        self.tool(&["condor_release", &self.id])?;
        self.wait("its release", LIMIT, |events| {
            (releases(events) > before).then_some(())
        })
    }

    /// Its ad as text, from the queue or the history.
    pub fn ad(&self) -> Result<String> {
        let ad = self.tool(&["condor_q", "-long", &self.id])?;
        if ad.contains("ClusterId") {
            Ok(ad)
        } else {
            self.tool(&["condor_history", "-long", "-limit", "1", &self.id])
        }
    }

    /// One attribute of its ad, as an expression.
    pub fn attribute(&self, name: &str) -> Result<Option<String>> {
        let ad = self.ad()?;
        Ok(ad.lines().find_map(|line| {
            let (key, value) = line.split_once(" = ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        }))
    }

    /// `condor_qedit`: an attribute of its ad becomes an expression, for starts to come.
    pub fn edit(&self, name: &str, expression: &str) -> Result<()> {
        self.tool(&["condor_qedit", &self.id, name, expression])
            .map(drop)
    }

    /// Which slots it matches and which clause keeps it from the others.
    pub fn analyze(&self) -> Result<String> {
        self.tool(&["condor_q", "-better-analyze", &self.id])
    }

    /// What it printed, once that came back.
    pub fn output(&self) -> Result<String> {
        self.file(OUTPUT)
    }

    /// What it printed as errors, once that came back.
    pub fn error(&self) -> Result<String> {
        self.file(ERROR)
    }

    /// A file of its directory on the access point.
    pub fn file(&self, name: &str) -> Result<String> {
        self.pool.ap().read(format!("{}/{name}", self.dir))
    }

    /// The pool it is in.
    pub fn pool(&self) -> &'p Pool {
        self.pool
    }

    fn tool(&self, args: &[&str]) -> Result<String> {
        self.pool.ap().run(self.user, &self.dir, args)
    }
}
