//! The job in a pool of HTCondor: an access point, a site's own node, and a glidein without any capability.

use std::fs;

use anyhow::{Context, Result, bail};

use super::screen::Row;
use super::sieve::{self, Progress, Work};
use super::stage::{self, ARCHIVE, Stage, Told};
use super::watch::{Image, Look, World};
use crate::equipped::{equipped, survivor};
use crate::events::{Event, Kind};
use crate::host::Role;
use crate::job::Job;
use crate::pool::Pool;
use crate::roots::HtCondor;
use crate::spec::{Ep, Spec};
use crate::submit::Submit;
use crate::{binaries, logs};

/// Brings up the pool.
pub fn up(version: HtCondor) -> Result<Pool> {
    let spec = Spec::new(version)
        .ep(equipped(Ep::root())?)
        .ep(equipped(Ep::glidein())?);
    Pool::up(&spec)
}

fn job(work: Work) -> Result<Submit> {
    let sieve = binaries::sieve()?;
    let sieve = fs::read(&sieve).with_context(|| format!("read {}", sieve.display()))?;
    Ok(survivor("sieve", sieve, &work.arguments().join(" "))?
        .set("request_memory", "256")
        .set("request_disk", "524288"))
}

/// The pool with the job in it.
pub struct InPool<'p> {
    job: Job<'p>,
    /// What the log of the present start said when it was last there.
    told: Told,
    starts: usize,
    progress: Option<Progress>,
}

impl<'p> InPool<'p> {
    /// Submits the job.
    pub fn submit(pool: &'p Pool, work: Work) -> Result<Self> {
        Ok(Self {
            job: pool.submit(&job(work)?)?,
            told: Told::default(),
            starts: 0,
            progress: None,
        })
    }

    /// The job's name.
    pub fn id(&self) -> &str {
        &self.job.id
    }

    /// The stage on the host of the last start; what the log says is remembered, for the log goes before the job does.
    fn stage_on_host(&mut self) -> Stage {
        let Ok(log) = self.job.scratch(".criu/log") else {
            return self.told.stage_without_log();
        };
        self.told = Told::read(&log);
        if let Ok(output) = self.job.scratch(".criu/srv/.criu/stdout")
            && let Some(progress) = sieve::steps(&output).next_back()
        {
            self.progress = Some(progress);
        }
        self.told.stage()
    }

    /// How much of the archive there is, on the host or, once it is on its way, on the access point.
    fn moved(&self, stage: Stage, start: Option<&Event>) -> Option<u64> {
        let pool = self.job.pool();
        match stage {
            Stage::Packing => {
                let start = start?;
                let host = pool.host(start.host()?).ok()?;
                stage::unfinished_archive(&host.path(start.scratch_dir()?))
            }
            Stage::Leaving => {
                let (cluster, process) = self.job.id.split_once('.')?;
                // The schedd spreads clusters over 10,000 directories; the shadow writes into one that it renames at the end.
                let dir = format!(
                    "{}/spool/{}/{}/cluster{cluster}.proc{process}.subproc0.tmp/{ARCHIVE}",
                    pool.ap().condor_dir(),
                    cluster.parse::<u64>().ok()? % 10_000,
                    process.parse::<u64>().ok()? % 10_000
                );
                Some(fs::metadata(pool.ap().path(dir)).ok()?.len())
            }
            _ => None,
        }
    }
}

impl World for InPool<'_> {
    fn look(&mut self) -> Result<Look> {
        let events = self.job.events()?;
        if let Some(bad) = events
            .iter()
            .find(|event| matches!(event.kind, Kind::Held | Kind::Removed))
        {
            bail!("the job came to: {bad}");
        }
        let count = |kind| events.iter().filter(|event| event.kind == kind).count();
        let (starts, returns) = (count(Kind::Started), count(Kind::Evicted));
        if starts > self.starts {
            self.starts = starts;
            self.told = Told::default();
            self.progress = None;
        }
        let start = events.iter().rfind(|event| event.kind == Kind::Started);
        let turn = events.iter().rfind(|event| {
            matches!(
                event.kind,
                Kind::Submitted
                    | Kind::Started
                    | Kind::Evicted
                    | Kind::ShadowException
                    | Kind::Ended
            ) || event.is_input_on_its_way()
        });
        let on_host = start.filter(|start| turn == Some(*start));
        let stage = match turn.map(|event| event.kind) {
            None | Some(Kind::Submitted) => Stage::Idle,
            Some(Kind::Evicted | Kind::ShadowException) => Stage::Waiting,
            Some(Kind::Ended) => Stage::Ended,
            Some(Kind::Started) => self.stage_on_host(),
            Some(_) => Stage::Coming,
        };
        Ok(Look {
            host: on_host.and_then(Event::host).map(str::to_owned),
            starts,
            returns,
            stage,
            moved: self.moved(stage, on_host),
            progress: self.progress,
            exit: events.iter().find_map(Event::exit),
        })
    }

    fn rows(&self, look: &Look, now: &str) -> Vec<Row> {
        let hosts = self.job.pool().hosts();
        hosts
            .iter()
            .map(|host| {
                let (what, slot) = match host.role {
                    Role::AccessPoint => ("access point", ""),
                    Role::Root => ("a site's node, as root", "slot1@"),
                    Role::Glidein => ("a glidein, no capabilities", "slot1@"),
                };
                let is_there = match &look.host {
                    Some(name) => *name == host.name,
                    None => host.role == Role::AccessPoint,
                };
                Row {
                    name: format!("{slot}{}", host.name),
                    what: what.to_owned(),
                    now: is_there.then(|| format!("job {}: {now}", self.job.id)),
                }
            })
            .collect()
    }

    fn evict(&mut self) -> Result<String> {
        self.job.vacate()?;
        Ok(format!("condor_vacate_job {}", self.job.id))
    }

    fn image(&mut self) -> Result<Result<Image, String>> {
        let ad = self.job.ad()?;
        let value = |name: &str| {
            ad.lines().find_map(|line| {
                let (key, value) = line.split_once(" = ")?;
                (key == name).then(|| value.to_owned())
            })
        };
        let number = |name: &str| value(name).and_then(|value| value.parse::<f64>().ok());
        let generation = number("ChirpCRIUGeneration").unwrap_or(0.0);
        if generation != self.starts as f64 {
            let reason = value("ChirpCRIUReason").unwrap_or_else(|| "no reason given".to_owned());
            return Ok(Err(reason));
        }
        Ok(Ok(Image {
            bytes: number("ChirpCRIUBytes").unwrap_or(0.0) as u64,
            freeze_seconds: number("ChirpCRIUDumpSeconds").unwrap_or(0.0),
            pack_seconds: number("ChirpCRIUPackSeconds").unwrap_or(0.0),
        }))
    }

    fn output(&mut self) -> Result<String> {
        self.job.output()
    }

    fn logs(&mut self) -> String {
        let complaints = self.job.error().unwrap_or_default();
        format!(
            "{}--- the job's stderr\n{complaints}",
            logs::of_job(&self.job)
        )
    }
}
