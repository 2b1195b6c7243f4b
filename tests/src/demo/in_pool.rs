//! The job in a pool of HTCondor: an access point, a site's own node, a glidein without any capability, and an older node.
//!
//! The access point has a store, which the job is told of as it leaves its first slot: the first image goes by SPOOL, the
//! second by the store. The older node lacks AVX2, as far as its slot's ad says. At the second eviction it is the only one
//! that is free: the job, which may have used AVX2, waits, and says why; then the other node is free again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::screen::Row;
use super::sieve::{self, Progress, Work};
use super::stage::{self, ARCHIVE, Stage, Told};
use file_transfer_plugin::attributes;

use super::watch::{Image, Look, World};
use crate::equipped::{equipped, pilot_says, survivor};
use crate::events::{Event, Kind};
use crate::host::{Host, Role};
use crate::job::Job;
use crate::pool::Pool;
use crate::roots::HtCondor;
use crate::scratch::Scratch;
use crate::spec::{Ep, Spec};
use crate::store::{PLACE, Store, TOKEN};
use crate::submit::{LOG, Submit};
use crate::users::User;
use crate::{binaries, logs, machine};

/// The older node.
const OLDER: &str = "ep3";

/// What its probe finds, and what another CPU would have shown.
const OLDER_CPU: &str = r#"#!/bin/sh
"${0%/*}/criu-pilot" "$@" | sed '/^CRIUCpuFeatures/s/\bavx2,//'
"#;

/// What brings images to the store.
const TRANSFER: &str = "criu-transfer";

/// The eviction after which nothing but the older node is free.
const REFUSED_AFTER: usize = 2;

/// Brings up the pool.
pub fn up(version: HtCondor) -> Result<Pool> {
    let node = |ep: Ep, open: &str| -> Result<Ep> {
        Ok(equipped(ep)?.config(format!(
            "OPEN = {open}\nSTART = ($(START)) && $(OPEN)\n\
             STARTER_JOB_ENVIRONMENT = \"BEARER_TOKEN_FILE={TOKEN}\""
        )))
    };
    let probe = machine::target_dir().join("older-cpu");
    fs::write(&probe, OLDER_CPU)?;
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755))?;
    let older = node(Ep::root(), "False")?
        .install(probe, "older-cpu")
        .config("STARTD_CRON_CRIU_EXECUTABLE = $(POOL_LIBEXEC)/older-cpu");
    let spec = Spec::new(version)
        .ep(node(Ep::root(), "True")?)
        .ep(node(Ep::glidein(), "True")?)
        .ep(older);
    let pool = Pool::up(&spec)?;
    Store::up(&pool)?;
    Ok(pool)
}

fn open(host: &Host, is_open: bool) -> Result<()> {
    host.reconfigure(if is_open {
        "OPEN = True"
    } else {
        "OPEN = False"
    })
}

/// A page with a picture of the job's life.
pub fn picture(job: &InPool<'_>, page: &Path) -> Result<()> {
    let log = page.with_extension("log");
    fs::write(&log, job.job.file(LOG)?).context("keep the job's log")?;
    let words = ["report", "--html"].map(Path::new);
    pilot_says(&[words[0], words[1], page, &log].map(|word| word.to_str().unwrap_or_default()))
        .map(drop)
}

fn job(work: Work) -> Result<Submit> {
    let sieve = binaries::sieve()?;
    let sieve = fs::read(&sieve).with_context(|| format!("read {}", sieve.display()))?;
    // Off unless somebody wants a report of the job's own log.
    let printed = pilot_says(&["configure", "submit"])?;
    let reported = printed
        .lines()
        .find_map(|line| line.strip_prefix("# job_ad_information_attrs = "))
        .context("configure submit says nothing of reports")?;
    Ok(survivor("sieve", sieve, &work.arguments().join(" "))?
        .program(TRANSFER, fs::read(binaries::dir()?.join(TRANSFER))?)
        .set("transfer_input_files", format!("sieve, {TRANSFER}"))
        .set("job_ad_information_attrs", reported)
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
    /// The node that is not free, and since when.
    closed: Option<(String, u64)>,
}

impl<'p> InPool<'p> {
    /// Submits the job.
    pub fn submit(pool: &'p Pool, work: Work) -> Result<Self> {
        Ok(Self {
            job: pool.submit(&job(work)?)?,
            told: Told::default(),
            starts: 0,
            progress: None,
            closed: None,
        })
    }

    /// Leaves the older node as the only one that could take the job.
    fn leave_only_the_older(&mut self) -> Result<()> {
        let pool = self.job.pool();
        let here = self
            .job
            .events()?
            .iter()
            .rfind(|event| event.kind == Kind::Started)
            .and_then(Event::host)
            .context("it is nowhere")?
            .to_owned();
        let other = ["ep1", "ep2"]
            .into_iter()
            .find(|name| *name != here)
            .context("no other node")?;
        open(pool.host(other)?, false)?;
        open(pool.host(OLDER)?, true)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        self.closed = Some((other.to_owned(), since));
        Ok(())
    }

    /// Why the job does not match the older node, once the negotiator has tried.
    fn refusal(&self, since: u64) -> Result<Option<String>> {
        let tried: Option<u64> = self
            .job
            .attribute("LastRejMatchTime")?
            .and_then(|time| time.parse().ok());
        if tried.is_none_or(|tried| tried <= since) {
            return Ok(None);
        }
        let dir = Scratch::new("demo-refusal")?;
        let (job, slots) = (dir.path().join("job"), dir.path().join("slots"));
        fs::write(&job, self.job.ad()?)?;
        let ap = self.job.pool().ap();
        fs::write(
            &slots,
            ap.run(User::Root, "/", &["condor_status", "-long"])?,
        )?;
        let [job, slots] = [&job, &slots].map(|path| path.to_str().unwrap_or_default());
        let said = pilot_says(&["where", "--job-ad", job, "--slots", slots])?;
        let line = said.lines().find(|line| line.contains("lacks"));
        Ok(line.map(|line| line.trim_start_matches([' ', '1']).to_owned()))
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
                    Role::Root if host.name == OLDER => ("an older node, without AVX2", "slot1@"),
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

    fn news(&mut self, look: &Look) -> Result<Option<String>> {
        let Some((other, since)) = &self.closed else {
            return Ok(None);
        };
        ensure!(
            look.returns < REFUSED_AFTER || look.host.as_deref() != Some(OLDER),
            "the older node was not refused"
        );
        if look.returns < REFUSED_AFTER {
            return Ok(None);
        }
        let Some(reason) = self.refusal(*since)? else {
            return Ok(None);
        };
        open(self.job.pool().host(other)?, true)?;
        let news = format!("{OLDER} is free and refused ({reason}); now {other} is free too");
        self.closed = None;
        Ok(Some(news))
    }

    fn evict(&mut self) -> Result<String> {
        if self.starts == 1 {
            // Its starter has the ad of before.
            self.job.edit(attributes::STORE, &format!("\"{PLACE}\""))?;
        }
        if self.starts == REFUSED_AFTER {
            self.leave_only_the_older()?;
        }
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
            lane: value("ChirpCRIULane")
                .unwrap_or_default()
                .trim_matches('"')
                .to_owned(),
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
