//! One job's events -> what it did at every moment of its life.
//!
//! ```text
//! submitted ──waiting──> input starts ──fetching──> executing ──computing──┬─> terminated: finished
//!     ^                                                                    ├─> image arrived: saved up to it
//!     └──────────────────────────── evicted, held, disconnected ───────────┴─> no image: lost
//! ```
//!
//! What a run's computing was worth is known only when the run is over, and what the job's ad says of its image comes
//! in an event of its own right behind the one that ends the run: so a run is judged when the next event arrives.

use serde::Serialize;

use file_transfer_plugin::attributes;

use crate::event_log::{Event, Kind};

/// Time zones differ by multiples of this.
const ZONE: f64 = 900.0;

/// Between the end of packing and HTCondor's transfer lie a chirp and an exit. A job that ran on for longer was
/// not frozen for good.
const LEAVES_WITHIN: f64 = 5.0;

/// What a second was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    /// No slot.
    Waiting,
    /// Input, and the image, on their way to the slot.
    Fetching,
    /// Computing in the run that ended the job.
    Finished,
    /// Computing whose slot was lost and whose result was not, for an image has it.
    Saved,
    /// Computing that has to be done again.
    Lost,
    /// Computing on a slot that was lost, where nothing tells what became of it.
    Unknown,
    /// Computing of a job that its user removed, or that still runs.
    Open,
    /// CRIU and the packing.
    Freezing,
    /// Output, or the image, on its way to the access point.
    Shipping,
}

/// A stretch of one job's life.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Span {
    pub(crate) doing: Doing,
    /// Seconds by the access point's clock.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The run it belongs to, from 0; none while waiting.
    pub(crate) run: Option<usize>,
}

/// One start of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Run {
    /// The slot's host.
    pub(crate) host: String,
    /// `GLIDEIN_Site` of the slot, where the job asked for it.
    pub(crate) site: Option<String>,
    /// Bytes of the image that it left, if it left one.
    pub(crate) image_bytes: Option<i64>,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It ended.
    Ended,
    /// Its user removed it.
    Removed,
    /// The log ends before it.
    Open,
}

/// One job's life.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Timeline {
    /// `cluster.proc`
    pub(crate) job: String,
    pub(crate) owner: Option<String>,
    pub(crate) spans: Vec<Span>,
    pub(crate) runs: Vec<Run>,
    /// Slots that it lost.
    pub(crate) evictions: u32,
    pub(crate) outcome: Outcome,
}

/// What the job's ad says of its newest image.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Image {
    /// When it was taken, in seconds since 1970.
    time: i64,
    bytes: i64,
    dump_seconds: f64,
    pack_seconds: f64,
}

/// A start that is not judged yet.
#[derive(Debug)]
struct Running {
    from: f64,
    /// The newest image when it began.
    before: Option<Image>,
    shipping: Option<f64>,
    shipped: Option<f64>,
    /// How it ended, when it has.
    end: Option<(Kind, f64)>,
}

/// Reads one job's events in their order.
#[derive(Debug)]
pub(crate) struct Reader {
    timeline: Timeline,
    /// Since when the job waits or fetches.
    idle: Option<(Doing, f64)>,
    running: Option<Running>,
    image: Option<Image>,
    /// The smallest distance of an event from the image time that it first told: the time zone, and some lag.
    lag: f64,
    /// Whether the log tells anything of images.
    tells: bool,
    last: f64,
}

impl Reader {
    pub(crate) fn new(job: &str) -> Reader {
        Reader {
            timeline: Timeline {
                job: job.to_owned(),
                owner: None,
                spans: Vec::new(),
                runs: Vec::new(),
                evictions: 0,
                outcome: Outcome::Open,
            },
            idle: None,
            running: None,
            image: None,
            lag: f64::INFINITY,
            tells: false,
            last: 0.0,
        }
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self, event: &Event) {
        if event.kind == Kind::Attributes {
            return self.learn(event);
        }
        let Some(now) = event.seconds() else {
            return;
        };
        self.last = self.last.max(now);
        if self.running.as_ref().is_some_and(|run| run.end.is_some()) {
            self.judge();
        }
        match event.kind {
            Kind::Submitted => self.idle = Some((Doing::Waiting, now)),
            Kind::Transfer => self.transfer(event, now),
            Kind::Started => self.start(event, now),
            // A connection that comes back changes nothing; one that does not ends in an eviction.
            Kind::Evicted | Kind::ShadowException | Kind::Held | Kind::Ended | Kind::Removed => {
                if let Some(run) = &mut self.running {
                    run.end = Some((event.kind, now));
                }
                match event.kind {
                    Kind::Ended => self.timeline.outcome = Outcome::Ended,
                    Kind::Removed => self.timeline.outcome = Outcome::Removed,
                    _ => {}
                }
                let over = self.timeline.outcome != Outcome::Open;
                if over && self.running.is_none() {
                    self.end_idle(now);
                }
            }
            _ => {}
        }
    }

    /// The job's life as far as the log goes.
    pub(crate) fn finish(mut self) -> Timeline {
        if self.running.as_ref().is_some_and(|run| run.end.is_none()) {
            let running = self.running.take().expect("just seen");
            self.push(Doing::Open, running.from, self.last);
        }
        if self.running.is_some() {
            self.judge();
        }
        if self.timeline.outcome == Outcome::Open {
            self.end_idle(self.last);
        }
        self.timeline
    }

    fn learn(&mut self, event: &Event) {
        let ad = event.attributes();
        if let Some(owner) = ad.eval_str("Owner") {
            self.timeline.owner = Some(owner);
        }
        if self.running.is_some()
            && let Some(run) = self.timeline.runs.last_mut()
            && let Some(site) = ad.eval_str("MachineAttrGLIDEIN_Site0")
        {
            run.site = Some(site);
        }
        self.tells = true;
        let (Some(time), Some(now)) = (ad.eval_int(attributes::JOB_TIME), event.seconds()) else {
            return;
        };
        if self.image.is_none_or(|image| image.time != time) {
            self.lag = self.lag.min(now - time as f64);
        }
        let seconds = |name| ad.eval_real(name).unwrap_or(0.0).clamp(0.0, 86_400.0);
        self.image = Some(Image {
            time,
            bytes: ad.eval_int(attributes::JOB_BYTES).unwrap_or(0),
            dump_seconds: seconds(attributes::JOB_DUMP_SECONDS),
            pack_seconds: seconds(attributes::JOB_PACK_SECONDS),
        });
    }

    fn transfer(&mut self, event: &Event, now: f64) {
        let starts = event.text.starts_with("Started");
        if event.text.contains("output") {
            if let Some(run) = &mut self.running {
                *(if starts {
                    &mut run.shipping
                } else {
                    &mut run.shipped
                }) = Some(now);
            }
        } else if starts && self.running.is_none() {
            self.end_idle(now);
            self.idle = Some((Doing::Fetching, now));
        }
    }

    fn start(&mut self, event: &Event, now: f64) {
        self.timeline.runs.push(Run {
            host: event.host().unwrap_or("?").to_owned(),
            ..Run::default()
        });
        self.end_idle(now);
        self.running = Some(Running {
            from: now,
            before: self.image,
            shipping: None,
            shipped: None,
            end: None,
        });
    }

    /// Says what a run that is over was worth.
    fn judge(&mut self) {
        let Some(run) = self.running.take() else {
            return;
        };
        let (how, end) = run.end.expect("only a run that is over is judged");
        // Without a transfer the job computed to the end.
        let stopped = run.shipping.unwrap_or(end).clamp(run.from, end);
        match how {
            Kind::Ended => self.push(Doing::Finished, run.from, stopped),
            Kind::Removed => self.push(Doing::Open, run.from, stopped),
            _ => {
                self.timeline.evictions += 1;
                self.lost_slot(&run, stopped);
            }
        }
        self.push(Doing::Shipping, stopped, end);
        if self.timeline.outcome == Outcome::Open {
            self.idle = Some((Doing::Waiting, end));
        }
    }

    fn lost_slot(&mut self, run: &Running, stopped: f64) {
        // What was on its way when the connection broke did not arrive.
        let cut_off = run.shipping.is_some() && run.shipped.is_none();
        let new = self.image.filter(|_| self.image != run.before && !cut_off);
        let Some(image) = new else {
            let doing = if self.tells {
                Doing::Lost
            } else {
                Doing::Unknown
            };
            return self.push(doing, run.from, stopped);
        };
        if let Some(run) = self.timeline.runs.last_mut() {
            run.image_bytes = Some(image.bytes);
        }
        let zone = (self.lag / ZONE).floor() * ZONE;
        let taken = (image.time as f64 + zone).clamp(run.from, stopped);
        let frozen = (taken - image.dump_seconds).max(run.from);
        let packed = (taken + image.pack_seconds).min(stopped);
        self.push(Doing::Saved, run.from, frozen);
        self.push(Doing::Freezing, frozen, packed);
        // The image's time is whole seconds, so some of what follows it is the rest of its second.
        let ran_on = run.shipping.is_none() || stopped - packed > LEAVES_WITHIN;
        let rest = if ran_on { Doing::Lost } else { Doing::Shipping };
        self.push(rest, packed, stopped);
    }

    fn end_idle(&mut self, now: f64) {
        if let Some((doing, since)) = self.idle.take() {
            let run = (doing == Doing::Fetching).then_some(self.timeline.runs.len());
            self.add(doing, since, now, run);
        }
    }

    fn push(&mut self, doing: Doing, from: f64, to: f64) {
        let run = self.timeline.runs.len().checked_sub(1);
        self.add(doing, from, to, run);
    }

    fn add(&mut self, doing: Doing, from: f64, to: f64, run: Option<usize>) {
        if to > from {
            self.timeline.spans.push(Span {
                doing,
                from,
                to,
                run,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::parse;

    fn timeline(log: &str) -> Timeline {
        let mut reader = Reader::new("7.0");
        for event in parse(log) {
            reader.take(&event);
        }
        reader.finish()
    }

    fn spans(timeline: &Timeline) -> Vec<(Doing, f64, f64)> {
        let start = timeline.spans[0].from;
        timeline
            .spans
            .iter()
            .map(|span| (span.doing, span.from - start, span.to - start))
            .collect()
    }

    fn event(number: u16, second: u32, text: &str) -> String {
        let (minute, second) = (second / 60, second % 60);
        format!("{number:03} (007.000.000) 2026-01-02 03:{minute:02}:{second:02} {text}\n...\n")
    }

    const HOST: &str = "Job executing on host: <10.0.0.2:9618?alias=ep1.pool&noUDP>";

    /// 03:00:00 of that day in UTC; the log's clock is two hours ahead.
    const THREE_O_CLOCK: i64 = 1_767_322_800;

    fn image(at_second: i64, second: u32) -> String {
        let time = THREE_O_CLOCK - 7_200 + at_second;
        let ad = format!(
            "Job ad information event triggered.\nOwner = \"alice\"\n{} = {time}\n{} = 1000\n{} = 2.0\n{} = 1.0",
            attributes::JOB_TIME,
            attributes::JOB_BYTES,
            attributes::JOB_DUMP_SECONDS,
            attributes::JOB_PACK_SECONDS
        );
        event(28, second, &ad)
    }

    #[test]
    fn an_image_that_arrived_saves_what_was_computed() {
        let log = [
            event(0, 0, "Job submitted from host: <10.0.0.1>"),
            event(40, 10, "Started transferring input files"),
            event(1, 12, HOST),
            event(40, 112, "Started transferring output files"),
            event(40, 120, "Finished transferring output files"),
            event(4, 121, "Job was evicted."),
            image(110, 121),
            event(1, 130, HOST),
            event(40, 150, "Started transferring output files"),
            event(5, 151, "Job terminated."),
        ]
        .concat();
        let timeline = timeline(&log);
        use Doing::*;
        assert_eq!(
            spans(&timeline),
            [
                (Waiting, 0.0, 10.0),
                (Fetching, 10.0, 12.0),
                (Saved, 12.0, 108.0),
                (Freezing, 108.0, 111.0),
                (Shipping, 111.0, 112.0),
                (Shipping, 112.0, 121.0),
                (Waiting, 121.0, 130.0),
                (Finished, 130.0, 150.0),
                (Shipping, 150.0, 151.0),
            ]
        );
        assert_eq!(timeline.owner.as_deref(), Some("alice"));
        assert_eq!(timeline.runs[0].image_bytes, Some(1000));
        assert_eq!((timeline.evictions, timeline.outcome), (1, Outcome::Ended));
    }

    #[test]
    fn an_image_that_never_arrived_saves_nothing() {
        let log = [
            event(0, 0, "Job submitted"),
            event(1, 10, HOST),
            event(40, 112, "Started transferring output files"),
            event(4, 121, "Job was evicted."),
            image(110, 121),
        ]
        .concat();
        let found = spans(&timeline(&log));
        assert_eq!(found[1], (Doing::Lost, 10.0, 112.0));
    }

    #[test]
    fn what_follows_the_last_periodic_image_is_lost() {
        let log = [
            event(0, 0, "Job submitted"),
            event(1, 10, HOST),
            event(6, 70, "Image size of job updated: 1"),
            image(60, 70),
            event(4, 100, "Job was evicted."),
        ]
        .concat();
        let found = spans(&timeline(&log));
        assert_eq!(found[1], (Doing::Saved, 10.0, 58.0));
        assert_eq!(found[3], (Doing::Lost, 61.0, 100.0));
    }

    #[test]
    fn a_log_that_tells_nothing_of_images_is_not_believed_either_way() {
        let log = [
            event(0, 0, "Job submitted"),
            event(1, 10, HOST),
            event(4, 100, "Job was evicted."),
        ]
        .concat();
        assert_eq!(spans(&timeline(&log))[1], (Doing::Unknown, 10.0, 100.0));
    }
}
