//! HTCondor's event logs: a job's own (`log` in its submit file) or a schedd's of all jobs (`EVENT_LOG`).
//!
//! ```text
//! 004 (012.000.000) 2026-01-02 03:04:05 Job was evicted.        head: kind, job, time, text
//! \t54630  -  Run Bytes Sent By Job                             details
//! ...                                                           end
//! 028 (012.000.000) 2026-01-02 03:04:05 Job ad information event triggered.
//! ChirpCRIUGeneration = 1                                       attributes, where the job asks for them
//! ...
//! ```

use std::fmt;

use classad::{ClassAd, Expr, Value};

/// What a job may say of itself after each event is a few lines; a megabyte of them is no log of HTCondor's.
const ATTRIBUTES_LIMIT: usize = 1 << 20;

/// The events that mean something to us, by HTCondor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 000
    Submitted,
    /// 001
    Started,
    /// 004
    Evicted,
    /// 005
    Ended,
    /// 007
    ShadowException,
    /// 009
    Removed,
    /// 012
    Held,
    /// 013
    Released,
    /// 022, and 024 where the connection could not be had again
    Disconnected,
    /// 023
    Reconnected,
    /// 028: attributes of the job's, right after another event
    Attributes,
    /// 040
    Transfer,
    /// Any other.
    Other(u16),
}

impl Kind {
    fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Submitted,
            1 => Self::Started,
            4 => Self::Evicted,
            5 => Self::Ended,
            7 => Self::ShadowException,
            9 => Self::Removed,
            12 => Self::Held,
            13 => Self::Released,
            22 | 24 => Self::Disconnected,
            23 => Self::Reconnected,
            28 => Self::Attributes,
            40 => Self::Transfer,
            other => Self::Other(other),
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// The job, `cluster.proc`.
    pub job: String,
    /// When, as written in the log.
    pub time: String,
    /// The rest of its first line.
    pub text: String,
    /// Its further lines, trimmed.
    pub details: Vec<String>,
}

impl Event {
    /// Of a start: the slot's host, without domain.
    pub fn host(&self) -> Option<&str> {
        // The alias in the address is in both versions' logs; the slot's name is not.
        let (_, alias) = self.text.split_once("alias=")?;
        let end = alias.find(['&', '>', '.']).unwrap_or(alias.len());
        Some(&alias[..end])
    }

    /// Of a start: the job's scratch directory on that host.
    pub fn scratch_dir(&self) -> Option<&str> {
        let dir = self
            .details
            .iter()
            .find_map(|line| line.strip_prefix("CondorScratchDir = "))?;
        Some(dir.trim_matches('"'))
    }

    /// Whether this is event 040 at the moment when the job's input leaves for a host.
    pub fn is_input_on_its_way(&self) -> bool {
        self.kind == Kind::Transfer && self.text.starts_with("Started transferring input files")
    }

    /// When, in seconds by the clock on the wall of the access point: a log does not tell its time zone.
    pub fn seconds(&self) -> Option<f64> {
        seconds_of(&self.time)
    }

    /// Of event 028: what the job's ad said.
    pub fn attributes(&self) -> ClassAd {
        let size: usize = self.details.iter().map(String::len).sum();
        if self.kind != Kind::Attributes || size > ATTRIBUTES_LIMIT {
            return ClassAd::new();
        }
        // One attribute that cannot be read, cut short or not, is no reason to know none.
        let mut ad = ClassAd::new();
        for line in &self.details {
            if let Some((name, value)) = line.split_once(" = ") {
                let _ = ad.insert_parsed(name, value);
            }
        }
        ad
    }

    /// Of an end: how.
    pub fn exit(&self) -> Option<Exit> {
        if self.kind != Kind::Ended {
            return None;
        }
        self.details.iter().find_map(|line| {
            let number = |after: &str| {
                let (_, rest) = line.split_once(after)?;
                rest.split(')').next()?.trim().parse().ok()
            };
            number("(return value ")
                .map(Exit::Code)
                .or_else(|| number("(signal ").map(Exit::Signal))
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.time, self.job, self.text)?;
        self.details
            .iter()
            .try_for_each(|line| write!(f, " | {line}"))
    }
}

/// All events of a log that are written to their end.
pub fn parse(log: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut open: Option<Event> = None;
    for line in log.lines() {
        if line == "..." {
            events.extend(open.take());
        } else if let Some(event) = &mut open {
            event.details.push(line.trim().to_owned());
        } else {
            open = head(line);
        }
    }
    events
}

/// `2026-01-02 03:04:05`, with a fraction where the log is kept so. Logs older than HTCondor 8.9 do not tell the year.
fn seconds_of(time: &str) -> Option<f64> {
    let whole = time.split('.').next().filter(|whole| whole.len() == 19)?;
    let fraction: f64 = time[whole.len()..].parse().unwrap_or(0.0);
    let literal = Value::from(whole.replace(' ', "T").as_str());
    let seconds = Expr::parse(&format!("int(absTime({literal}))")).ok()?;
    let seconds = ClassAd::new().evaluate_expr(&seconds).as_int()?;
    Some(seconds as f64 + fraction)
}

/// `001 (012.000.000) 2026-01-02 03:04:05 Job executing on host: <...>`
fn head(line: &str) -> Option<Event> {
    let (number, rest) = line.split_once(" (")?;
    let (ids, rest) = rest.split_once(") ")?;
    let mut ids = ids.split('.').map(str::parse::<u64>);
    let (cluster, process) = (ids.next()?.ok()?, ids.next()?.ok()?);
    let mut words = rest.splitn(3, ' ');
    let time = format!("{} {}", words.next()?, words.next()?);
    Some(Event {
        kind: Kind::from_number(number.parse().ok()?),
        job: format!("{cluster}.{process}"),
        time,
        text: words.next().unwrap_or_default().to_owned(),
        details: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
000 (007.000.000) 2026-01-02 03:04:05 Job submitted from host: <10.77.0.1:9618?addrs=10.77.0.1-9618&alias=ap.pool&noUDP>
...
001 (007.000.000) 2026-01-02 03:04:06 Job executing on host: <10.77.0.2:9618?addrs=10.77.0.2-9618&alias=ep1.pool&noUDP>
\tSlotName: slot1@ep1.pool
...
005 (007.000.000) 2026-01-02 03:04:07 Job terminated.
\t(1) Normal termination (return value 3)
...
005 (007.001.000) 2026-01-02 03:04:07 Job terminated.
\t(0) Abnormal termination (signal 9)
\t(0) No core file
...
004 (007.000.000) 2026-01-02 03:04:08 Job was evi";

    #[test]
    fn an_event_that_is_still_being_written_is_not_seen() {
        assert_eq!(parse(LOG).len(), 4);
    }

    #[test]
    fn a_start_names_its_host() {
        let events = parse(LOG);
        assert_eq!(
            (events[1].kind, events[1].host()),
            (Kind::Started, Some("ep1"))
        );
    }

    #[test]
    fn times_are_seconds_with_their_fraction() {
        assert_eq!(seconds_of("1970-01-02 00:00:01"), Some(86_401.0));
        assert_eq!(seconds_of("1970-01-01 00:00:01.250"), Some(1.25));
        assert_eq!(seconds_of("01/02 03:04:05"), None);
    }

    #[test]
    fn attributes_are_read_one_by_one() {
        let text = "028 (007.000.000) 2026-01-02 03:04:08 Job ad information event triggered.\n\
                    ChirpCRIUGeneration = 2\nOwner = \"alice\"\nBroken = (\n...\n";
        let ad = parse(text)[0].attributes();
        assert_eq!(ad.eval_int("ChirpCRIUGeneration"), Some(2));
        assert_eq!(ad.eval_str("Owner").as_deref(), Some("alice"));
    }

    #[test]
    fn an_end_tells_code_from_signal() {
        let events = parse(LOG);
        assert_eq!(events[2].exit(), Some(Exit::Code(3)));
        assert_eq!(events[3].exit(), Some(Exit::Signal(9)));
        assert_eq!(events[3].job, "7.1");
    }
}
