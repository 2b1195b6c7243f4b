//! One cell of the product: a job, a stage, a fault, and what becomes of it.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::ground::{Ground, POINTS};
use super::injury::Fault;
use super::ledger::Ledger;
use super::scene::{Lane, Scene};
use super::stages::Stage;
use super::verdict::{self, Row};
use crate::equipped::survivor;
use crate::events::{Event, Kind};
use crate::host::Host;
use crate::roots::HtCondor;
use crate::store::Store;
use crate::submit::Submit;
use crate::{binaries, logs, wait};

/// Counts until it is told to end, and notes each step where all hosts see it.
const COUNT: &str = r#"#!/bin/sh
[ -e ballast ] || head -c 4000000 /dev/urandom >ballast
i=0 sum=0
while [ ! -e /shared/$1/stop ]; do
    i=$((i + 1)) sum=$(((sum * 31 + i) % 1000003))
    read -r host </etc/hostname
    : >/shared/$1/$i-$(date +%s.%N)-$host
    echo "$i $sum" >>numbers
    echo "line $i"
    sleep 0.1
done
rm -f ballast
exit 7
"#;

/// Steps before each eviction.
const ENOUGH: usize = 4;
/// And after all.
const AFTER: usize = 5;

/// For one start, one eviction, one end.
const LIMIT: Duration = Duration::from_secs(120);

/// A cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Where in its way the job is.
    pub stage: Stage,
    /// What happens to it there.
    pub fault: Fault,
    /// What moves its image.
    pub lane: Lane,
    /// 0: a site's own node, 1: a glidein.
    pub point: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stage, fault) = (self.stage.name(), self.fault.names().0);
        let (lane, point) = (self.lane.name(), POINTS[self.point]);
        write!(f, "{stage}/{fault}/{lane}/{point}")
    }
}

/// Those cells in which something can happen.
pub fn product() -> Vec<Cell> {
    let mut cells = Vec::new();
    for stage in Stage::ALL {
        for fault in Fault::ALL {
            for lane in [Lane::Spool, Lane::Store] {
                for point in 0..POINTS.len() {
                    let cell = Cell {
                        stage,
                        fault,
                        lane,
                        point,
                    };
                    if cell.makes_sense() {
                        cells.push(cell);
                    }
                }
            }
        }
    }
    cells
}

impl Cell {
    fn makes_sense(&self) -> bool {
        use Stage::*;
        let Cell { stage, lane, .. } = *self;
        let store = lane == Lane::Store;
        // Where the lane is of no consequence, the default one is tried.
        let spool = lane == Lane::Spool;
        match self.fault {
            Fault::KillCriu => spool && matches!(stage, Freezing | Dumping | Packing | Restoring),
            Fault::KillSupervisor => {
                let alive = !matches!(stage, Shipping | Committed | Fetching);
                alive && (spool || matches!(stage, Packed | Unpacking | RunningAgain))
            }
            Fault::KillPlugin | Fault::TokenRefused | Fault::KillStore => {
                store && matches!(stage, Shipping | Fetching)
                    || store
                        && self.fault != Fault::KillPlugin
                        && matches!(stage, Packed | Committed | RunningAgain)
            }
            Fault::KillStarter | Fault::KillShadow => {
                let there = stage != Committed;
                there && (spool || matches!(stage, Packed | Shipping | Fetching | RunningAgain))
            }
            Fault::FullScratch => {
                spool && !matches!(stage, Committed | Shipping)
                    || store && matches!(stage, Shipping | Fetching)
            }
            Fault::FullSpool => spool && matches!(stage, Packed | Shipping),
            Fault::FullStore => store && matches!(stage, Packed | Shipping),
            Fault::MemoryLimit => {
                spool && matches!(stage, Freezing | Dumping | Packing | Unpacking | Restoring)
            }
            Fault::BitFlipped | Fault::ChunkLost => {
                spool && matches!(stage, Packed | Committed | Unpacking | Restoring)
                    || store && matches!(stage, Packed | Committed | Fetching | Unpacking)
            }
            Fault::ManifestCut => matches!(stage, Packed | Committed),
            Fault::OlderImage => stage == Committed,
            Fault::NetworkCut => spool || matches!(stage, Packed | Shipping | Fetching),
            Fault::NetworkSlow => matches!(stage, Packed | Shipping | Fetching),
            Fault::NetworkFlaps => matches!(stage, Shipping | Fetching | RunningAgain | Packed),
            Fault::ClockAhead | Fault::ClockBehind => {
                spool && matches!(stage, Freezing | Packed | Unpacking | RunningAgain)
            }
            Fault::NoCriu | Fault::OtherCriu | Fault::BrokenCriu => stage == Committed,
        }
    }

    /// Whether it is on this version's point of its kind: one of both, the other on the other version.
    pub(super) fn is_chosen(&self, version: HtCondor, seed: u64) -> bool {
        let on_all = Cell { point: 0, ..*self }.to_string();
        let turn = u64::from(version == HtCondor::V25);
        (super::chance(seed, &on_all) >> 7).wrapping_add(turn) % 2 == self.point as u64
    }

    /// Images that are made before the one that the fault strikes at, or that it strikes at itself.
    fn images(&self) -> usize {
        let two = self.fault == Fault::OlderImage
            || self.fault.damages() && self.lane == Lane::Store && self.stage == Stage::Committed;
        if two { 2 } else { 1 }
    }

    /// Tries it; an error is one of the driver's.
    pub(super) fn run(&self, ground: &Ground, worker: usize, seed: u64) -> Result<Row> {
        let _alone;
        let _beside;
        if self.fault.is_everybodys(self.lane) {
            _alone = ground.everybody.write();
        } else {
            _beside = ground.everybody.read();
        }
        let begun = Instant::now();
        let (first, second) = ground.pair(worker)?;
        // The last image before the fault is made here, the job goes on there.
        let (here, there) = if self.images() == 2 {
            (second, first)
        } else {
            (first, second)
        };
        let scene = self.scene(ground, first, here, there, seed)?;
        let row = self.play(scene, first);
        row.map(|row| Row {
            seconds: begun.elapsed().as_secs_f64(),
            ..row
        })
    }

    fn scene<'p>(
        &self,
        ground: &'p Ground,
        first: &Host,
        here: &'p Host,
        there: &'p Host,
        seed: u64,
    ) -> Result<Scene<'p>> {
        let pool = &ground.pool;
        let store = Store::on(pool);
        let chance = super::chance(seed, &self.to_string());
        let name = format!("{chance:016x}-{}", super::unix_millis());
        let ledger = Ledger::make(&pool.shared().join(&name))?;
        let submit = self.submit(&store, first, here, there, &name)?;
        let job = pool.submit(&submit)?;
        Ok(Scene {
            pool,
            store,
            lane: self.lane,
            job,
            ledger,
            here,
            there,
            chance,
            older: None,
        })
    }

    fn submit(
        &self,
        store: &Store<'_>,
        first: &Host,
        here: &Host,
        there: &Host,
        name: &str,
    ) -> Result<Submit> {
        let starter = std::fs::read(binaries::paused()?.join("criu-starter"))?;
        let (a, b) = (here.full_name(), there.full_name());
        // It begins on the first; it is evicted and goes on where it may, once it is let out of the queue.
        let place = format!(
            "ifThenElse((NumJobStarts ?: 0) == 0, TARGET.Machine == \"{}\", \
             MY.Gate && (TARGET.Machine == \"{b}\" || (NumJobStarts > {} && TARGET.Machine == \"{a}\")))",
            first.full_name(),
            self.images(),
        );
        let place = if self.images() == 2 {
            format!("ifThenElse(NumJobStarts =?= 1, MY.Gate && TARGET.Machine == \"{a}\", {place})")
        } else {
            place
        };
        let submit = survivor("count.sh", COUNT, name)?
            .program("criu-starter", starter)
            .requiring(&place)
            .set("+Gate", "false");
        Ok(match self.lane {
            Lane::Spool => submit,
            Lane::Store => {
                let url = store.url();
                submit
                    .set("transfer_input_files", format!("count.sh, {url}"))
                    .set(
                        "transfer_output_remaps",
                        format!("\"checkpoint.criu={url}\""),
                    )
                    .set("+SpoolOnEvict", "false")
            }
        })
    }

    fn play(&self, mut scene: Scene<'_>, first: &Host) -> Result<Row> {
        let played = self.act(&mut scene, first);
        let played = played.map_err(|error| format!("{error:#}"));
        if std::env::var_os("FAULTS_LOGS").is_some() {
            eprintln!("{}", logs::of_job(&scene.job));
        }
        // Whatever came of it, the next cell finds the hosts as this one did.
        let _ = self.stage.let_go(&scene);
        let healed = match played {
            Ok(_) => Ok(()),
            // It may be up or down.
            Err(_) if self.fault == Fault::KillStore => {
                let _ = scene.store.kill();
                scene.store.start()
            }
            Err(_) => self.fault.heal(&scene),
        };
        let row = verdict::judge(self, &scene, played)?;
        self.fault.clear(&scene);
        scene.ledger.remove();
        healed.map(|()| row)
    }

    /// From the start to the job's end. The result is the last step that no fault can take away, and the number of
    /// events before the fault.
    fn act(&self, scene: &mut Scene<'_>, first: &Host) -> Result<Before> {
        self.fault.prepare(scene)?;
        running(scene, 1, first)?;
        scene.job.vacate()?;
        evicted(scene, 1)?;
        let mut floor = last_step(scene);
        if self.images() == 2 {
            if self.lane == Lane::Spool {
                scene.older = Some(std::fs::read(scene.image_in_spool()?)?);
            }
            gate(scene, true)?;
            running(scene, 2, scene.here)?;
            gate(scene, false)?;
            scene.job.vacate()?;
            evicted(scene, 2)?;
        } else if self.fault.damages() && !self.stage.is_before_commit() {
            // It is the only one.
            floor = 0;
        }
        let starts = self.images() + 1;
        if self.stage == Stage::Committed {
            self.fault.strike(scene, self.stage)?;
            let before = Before::new(scene, floor)?;
            gate(scene, true)?;
            self.aftermath(scene)?;
            return Ok(before);
        }
        if self.stage.is_before_commit() {
            gate(scene, true)?;
            running(scene, starts, scene.there)?;
            self.stage.arm(scene)?;
            scene.job.vacate()?;
        } else {
            self.stage.arm(scene)?;
            gate(scene, true)?;
        }
        self.stage.wait(scene)?;
        let before = Before::new(scene, floor)?;
        self.fault.strike(scene, self.stage)?;
        self.stage.let_go_for(self.fault, scene)?;
        self.aftermath(scene)?;
        Ok(before)
    }

    /// The fault ends, the job goes on, and is told to end.
    fn aftermath(&self, scene: &Scene<'_>) -> Result<()> {
        let lasts = self.fault.lasts();
        let struck = Instant::now();
        let events = |scene: &Scene<'_>| -> Result<usize> {
            let told = |event: &&Event| {
                matches!(
                    event.kind,
                    Kind::Evicted | Kind::ShadowException | Kind::Ended | Kind::Held
                )
            };
            Ok(scene.job.events()?.iter().filter(told).count())
        };
        let before = events(scene)?;
        while struck.elapsed() < lasts && events(scene)? == before {
            std::thread::sleep(Duration::from_millis(100));
        }
        if !lasts.is_zero() {
            self.fault.heal(scene)?;
        }
        let so_far = scene.ledger.steps().len();
        wait::until("steps after the fault", LIMIT, || {
            if let Some(end) = scene.over()? {
                bail!("{end}");
            }
            Ok((scene.ledger.steps().len() >= so_far + AFTER).then_some(()))
        })?;
        scene.ledger.stop()?;
        wait::until("its end", LIMIT, || Ok(scene.over()?.map(drop)))
    }
}

impl Stage {
    /// On it goes, unless the fault is a network's own slowness.
    fn let_go_for(self, fault: Fault, scene: &Scene<'_>) -> Result<()> {
        match fault {
            Fault::NetworkSlow if self.rig(scene.lane).is_none() => Ok(()),
            _ => self.let_go(scene),
        }
    }
}

/// What was so before the fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// The last step that is in an image which the fault does not touch.
    pub(super) floor: u32,
    pub(super) events: usize,
}

impl Before {
    fn new(scene: &Scene<'_>, floor: u32) -> Result<Before> {
        Ok(Before {
            floor,
            events: scene.job.events()?.len(),
        })
    }
}

fn last_step(scene: &Scene<'_>) -> u32 {
    scene.ledger.steps().last().map_or(0, |step| step.number)
}

/// Waits until it has been started so often, and has done some steps since on that host.
fn running(scene: &Scene<'_>, starts: usize, host: &Host) -> Result<()> {
    let started = |event: &&Event| event.kind == Kind::Started;
    wait::until(&format!("steps of start {starts}"), LIMIT, || {
        if let Some(end) = scene.over()? {
            bail!("before any fault: {end}");
        }
        let begun = scene.job.events()?.iter().filter(started).count() >= starts;
        let steps = scene.ledger.steps();
        let run = steps.iter().rev();
        let run = run.take_while(|step| step.host == host.name).count();
        Ok((begun && run >= ENOUGH).then_some(()))
    })
}

fn evicted(scene: &Scene<'_>, count: usize) -> Result<()> {
    let evicted = |event: &&Event| event.kind == Kind::Evicted;
    wait::until(&format!("eviction {count}"), LIMIT, || {
        if let Some(end) = scene.over()? {
            bail!("before any fault: {end}");
        }
        let seen = scene.job.events()?.iter().filter(evicted).count();
        Ok((seen >= count).then_some(()))
    })
}

/// Lets it out of the queue, or not.
fn gate(scene: &Scene<'_>, open: bool) -> Result<()> {
    let is_open = if open { "true" } else { "false" };
    scene
        .job
        .edit("Gate", is_open)
        .context("cannot open the gate")
}
