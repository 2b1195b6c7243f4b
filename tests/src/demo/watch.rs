//! Looks at the job, draws what it sees, evicts twice, and measures.
//!
//! ```text
//!                  1/3, 2/3 done            image safe           first new step elsewhere
//! on a host ──────── evict ────────> leaving ──────> elsewhere ──────────> on a host
//! ```
//!
//! Where the job is and how it is evicted is the [`World`]'s business: a pool, or two hosts and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::screen::{Row, Screen};
use super::sieve::{self, Progress, Work};
use super::stage::Stage;
use super::table::{Amount, Eviction, megabytes};
use crate::events::Exit;

/// Between two looks; each is a few small files.
const PACE: Duration = Duration::from_millis(50);

/// Longer than any stage takes, even a wait for the first probe of a slot on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the job is evicted.
pub const EVICTIONS: usize = 2;

/// Where a job runs, is evicted and comes back.
pub trait World {
    /// What is to be seen now.
    fn look(&mut self) -> Result<Look>;
    /// The hosts, for the screen; `now` is what goes on where the job is.
    fn rows(&self, look: &Look, now: &str) -> Vec<Row>;
    /// What else has happened there.
    fn news(&mut self, _look: &Look) -> Result<Option<String>> {
        Ok(None)
    }
    /// Asks the job to leave its host, and says how it asked.
    fn evict(&mut self) -> Result<String>;
    /// The image that the last eviction left, or why there is none.
    fn image(&mut self) -> Result<Result<Image, String>>;
    /// All that the job has printed.
    fn output(&mut self) -> Result<String>;
    /// The logs that matter.
    fn logs(&mut self) -> String;
}

/// One look.
#[derive(Debug, Clone)]
pub struct Look {
    /// The host that has the job, if one has.
    pub host: Option<String>,
    /// How often a host has begun with the job.
    pub starts: usize,
    /// How often it is back from a host.
    pub returns: usize,
    /// Where it is in its round.
    pub stage: Stage,
    /// Bytes of the image that are already where they go.
    pub moved: Option<u64>,
    /// What it has printed on this host.
    pub progress: Option<Progress>,
    /// Its end.
    pub exit: Option<Exit>,
}

/// What an eviction left.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Size of the archive.
    pub bytes: u64,
    /// From the signal to CRIU's end.
    pub freeze_seconds: f64,
    /// From then to the archive.
    pub pack_seconds: f64,
    /// The way that it took: `spool`, `store`, or `hand`.
    pub lane: String,
}

/// An eviction under way.
struct Leaving {
    asked: Instant,
    from: String,
    /// What was done when this host began.
    begun: Amount,
    safe: Option<Duration>,
    image: Option<Image>,
}

/// What was seen until the job ended.
pub struct Seen {
    /// The evictions that the job went on after.
    pub evictions: Vec<Eviction>,
    /// What went otherwise than it should.
    pub problems: Vec<String>,
    /// The job's last words.
    pub result: String,
}

/// Watches until the job has ended.
pub fn watch(world: &mut dyn World, screen: &mut Screen, work: Work) -> Result<Seen> {
    let mut watch = Watch {
        work,
        evictions: Vec::new(),
        problems: Vec::new(),
        leaving: None,
        begun: Amount::default(),
        done: Amount::default(),
        last: None,
        changed: Instant::now(),
        stage_since: Instant::now(),
    };
    let (exit, look) = loop {
        let look = world.look()?;
        watch.take(&look, world, screen)?;
        if let Some(news) = world.news(&look)? {
            screen.note(&news);
        }
        let now = watch.now(&look);
        screen.show(&world.rows(&look, &now), look.progress);
        if let Some(exit) = look.exit {
            break (exit, look);
        }
        if watch.is_due(&look) {
            watch.evict(&look, world, screen)?;
        }
        if watch.changed.elapsed() > PATIENCE {
            bail!(
                "nothing has happened for {PATIENCE:?}, the job is {}",
                look.stage
            );
        }
        std::thread::sleep(PACE);
    };
    let seen = watch.judge(exit, &world.output()?, screen);
    screen.end(&world.rows(&look, &look.stage.to_string()), look.progress);
    Ok(seen)
}

struct Watch {
    work: Work,
    evictions: Vec<Eviction>,
    problems: Vec<String>,
    leaving: Option<Leaving>,
    /// What was done when the present host began.
    begun: Amount,
    /// What is done.
    done: Amount,
    last: Option<Look>,
    changed: Instant,
    stage_since: Instant,
}

impl Watch {
    fn take(&mut self, look: &Look, world: &mut dyn World, screen: &mut Screen) -> Result<()> {
        let before = self.last.replace(look.clone());
        let news = before.as_ref().is_none_or(|before| {
            (before.starts, before.returns, before.stage) != (look.starts, look.returns, look.stage)
        });
        if news {
            self.stage_since = Instant::now();
        }
        let moved = |look: &Look| (look.moved, look.progress.map(|progress| progress.step));
        if news || before.as_ref().map(moved) != Some(moved(look)) {
            self.changed = Instant::now();
        }
        let host = look.host.as_deref().unwrap_or("the access point");
        if let Some(leaving) = &mut self.leaving
            && leaving.safe.is_none()
            && look.returns > self.evictions.len()
        {
            let took = leaving.asked.elapsed();
            leaving.safe = Some(took);
            match world.image()? {
                Ok(image) => {
                    screen.note(&format!(
                        "safe after {:.1} s: {} by {} (freezing {:.1} s, packing {:.1} s)",
                        took.as_secs_f64(),
                        megabytes(image.bytes),
                        image.lane,
                        image.freeze_seconds,
                        image.pack_seconds
                    ));
                    leaving.image = Some(image);
                }
                Err(reason) => {
                    screen.note(&format!("{} left no image: {reason}", leaving.from));
                    self.problems
                        .push(format!("{} left no image: {reason}", leaving.from));
                }
            }
        }
        if let Some(progress) = look.progress {
            self.advance(look, progress, screen);
        }
        if news && look.stage == Stage::Packing {
            screen.note(&format!(
                "{host}: frozen after step {}, packing the image",
                self.done.steps
            ));
        }
        let shown = match look.stage {
            Stage::Waiting | Stage::Coming => look.starts > 0,
            Stage::Unpacking | Stage::Thawing => look.starts > 1,
            _ => false,
        };
        if news && shown {
            screen.note(&format!("{host}: {}", look.stage));
        }
        Ok(())
    }

    /// The job is seen at `progress`.
    fn advance(&mut self, look: &Look, progress: Progress, screen: &mut Screen) {
        let seen = Amount {
            steps: progress.step,
            seconds: progress.seconds,
        };
        let host = look.host.clone().unwrap_or_default();
        let is_elsewhere = look.starts > self.evictions.len() + 1;
        if !is_elsewhere || look.stage != Stage::Running {
            // On the old host, or still frozen on the new one, whose copy of the output shows the very last step.
            if seen.steps > self.done.steps {
                if self.done.steps == 0 {
                    screen.note(&format!("{host}: running from the beginning"));
                }
                self.done = seen;
            }
            return;
        }
        if seen.steps == self.done.steps {
            return;
        }
        let Some(leaving) = self.leaving.take() else {
            return;
        };
        // Steps that are printed a second time were lost, the one that shows it included.
        let is_back = seen.steps < self.done.steps;
        let kept = if is_back {
            Amount {
                steps: seen.steps - 1,
                seconds: seen.seconds.min(self.done.seconds),
            }
        } else {
            self.done
        };
        let took = leaving.asked.elapsed();
        screen.note(&format!(
            "{host}: step {} after {:.1} s, {}",
            seen.steps,
            took.as_secs_f64(),
            if is_back {
                "work was lost"
            } else {
                "nothing was lost"
            }
        ));
        // Without one there is a problem on record already.
        let image = leaving.image.unwrap_or_default();
        self.evictions.push(Eviction {
            from: leaving.from,
            to: host,
            kept,
            lost: self.done.since(kept),
            lost_without: self.done.since(leaving.begun),
            lane: image.lane,
            image_bytes: image.bytes,
            freeze_seconds: image.freeze_seconds,
            pack_seconds: image.pack_seconds,
            safe_seconds: leaving.safe.unwrap_or(took).as_secs_f64(),
            progress_seconds: took.as_secs_f64(),
        });
        self.begun = kept;
        self.done = seen;
    }

    fn is_due(&self, look: &Look) -> bool {
        let next = self.evictions.len() as u64 + 1;
        let share = self.work.steps() * next / (EVICTIONS as u64 + 1);
        self.leaving.is_none()
            && self.evictions.len() < EVICTIONS
            && look.stage == Stage::Running
            && self.done.steps >= share
    }

    fn evict(&mut self, look: &Look, world: &mut dyn World, screen: &mut Screen) -> Result<()> {
        let from = look.host.clone().unwrap_or_default();
        let asked = Instant::now();
        let how = world.evict()?;
        screen.note(&format!(
            "{from}: eviction {} after step {}: {how}",
            self.evictions.len() + 1,
            self.done.steps
        ));
        self.leaving = Some(Leaving {
            asked,
            from,
            begun: self.begun,
            safe: None,
            image: None,
        });
        Ok(())
    }

    /// The stage, with what is known of it.
    fn now(&self, look: &Look) -> String {
        let mut now = look.stage.to_string();
        if look.stage != Stage::Running {
            now += &format!(", {:.1} s", self.stage_since.elapsed().as_secs_f64());
        }
        if let Some(bytes) = look.moved {
            now += &format!(", {}", megabytes(bytes));
        }
        now
    }

    fn judge(mut self, exit: Exit, output: &str, screen: &mut Screen) -> Seen {
        let result = output.lines().next_back().unwrap_or("").to_owned();
        screen.note(&format!("the job has ended: {result}"));
        if exit != Exit::Code(0) || !result.ends_with(": correct") {
            self.problems
                .push(format!("the job ended with {exit:?}, saying {result:?}"));
        }
        if !sieve::steps(output)
            .map(|progress| progress.step)
            .eq(1..=self.work.steps())
        {
            self.problems
                .push("its output does not have each step once and in order".to_owned());
        }
        if self.evictions.len() < EVICTIONS {
            self.problems.push(format!(
                "it went on after {} evictions, not {EVICTIONS}",
                self.evictions.len()
            ));
        }
        for eviction in &self.evictions {
            if eviction.lost.steps > 0 {
                self.problems.push(format!(
                    "{} steps were lost with {}",
                    eviction.lost.steps, eviction.from
                ));
            }
            if eviction.from == eviction.to {
                self.problems
                    .push(format!("it came back to {}", eviction.from));
            }
        }
        Seen {
            evictions: self.evictions,
            problems: self.problems,
            result,
        }
    }
}
