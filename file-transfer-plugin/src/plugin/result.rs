//! What HTCondor is told of each file: its ad in the output file.

use std::time::{SystemTime, UNIX_EPOCH};

use classad::{ClassAd, Value};

use super::Direction;
use super::request::Request;
use crate::remote::{Error, Moved, SCHEME};

/// The epoch log is no place for a novel.
const LONGEST: usize = 1000;

/// One file's transfer, from its beginning on.
pub(super) struct Transfer {
    request: Request,
    direction: Direction,
    start: i64,
}

impl Transfer {
    pub(super) fn begin(request: &Request, direction: Direction) -> Self {
        Self {
            request: request.clone(),
            direction,
            start: now(),
        }
    }

    /// It was done.
    pub(super) fn success(&self, moved: &Moved) -> ClassAd {
        let mut ad = self.ad();
        ad.insert("TransferSuccess", true);
        ad.insert("TransferFileBytes", int(moved.file_bytes));
        ad.insert("TransferTotalBytes", int(moved.sent_bytes));
        ad.insert("ConnectionTimeSeconds", moved.connect_seconds);
        // Mandatory in version 4, and there is nothing to say.
        ad.insert("TransferErrorData", Value::List(Vec::new()));
        ad.insert("DeveloperData", Value::from(developer(Some(moved))));
        ad
    }

    /// It was not.
    pub(super) fn failure(&self, error: &Error) -> ClassAd {
        let chain = chain(error);
        let mut ad = self.ad();
        ad.insert("TransferSuccess", false);
        let host = host_name();
        ad.insert(
            "TransferError",
            format!(
                "{chain} (criu-transfer {} on {host})",
                env!("CARGO_PKG_VERSION")
            ),
        );
        ad.insert("TransferFileBytes", 0);
        ad.insert("TransferTotalBytes", 0);
        ad.insert("ConnectionTimeSeconds", 0.0);
        ad.insert(
            "TransferErrorData",
            Value::from(vec![error_data(error, &chain)]),
        );
        ad.insert("DeveloperData", Value::from(developer(None)));
        ad
    }

    fn ad(&self) -> ClassAd {
        let mut ad = ClassAd::new();
        ad.insert("TransferUrl", self.request.url.as_str());
        // The whole path: the documentation wants it as it was given, and HTCondor itself takes the last part of it.
        ad.insert("TransferFileName", &*self.request.file.to_string_lossy());
        ad.insert("TransferProtocol", SCHEME);
        ad.insert("TransferType", self.direction.name());
        ad.insert("TransferStartTime", self.start);
        ad.insert("TransferEndTime", now());
        ad
    }
}

/// Free text for the epoch log: what a figure in a paper or a complaint is made of.
fn developer(moved: Option<&Moved>) -> ClassAd {
    let mut ad = ClassAd::new();
    ad.insert("CRIUTransferVersion", env!("CARGO_PKG_VERSION"));
    ad.insert("TransferLocalMachineName", host_name());
    let Some(moved) = moved else { return ad };
    ad.insert("TransferHostName", moved.server.as_str());
    ad.insert("Attempts", i64::from(moved.attempts));
    ad.insert("Connections", i64::from(moved.connections));
    ad.insert("Chunks", int(moved.chunks));
    ad.insert("ChunksMoved", int(moved.sent_chunks));
    ad.insert("Seconds", moved.seconds);
    let rate = |bytes: u64| bytes as f64 / moved.seconds.max(1e-3);
    ad.insert("BytesPerSecond", rate(moved.sent_bytes));
    // Chunks that were there already count for the job as moved.
    ad.insert("EffectiveBytesPerSecond", rate(moved.file_bytes));
    if let Some(digest) = &moved.digest {
        ad.insert("Digest", digest.to_string());
    }
    if let Some(generation) = moved.generation {
        ad.insert("Generation", int(generation));
    }
    ad
}

/// HTCondor's transfer_error_data.rst. Exactly one stanza, each attribute of it there.
fn error_data(error: &Error, chain: &str) -> ClassAd {
    let mut ad = ClassAd::new();
    let code = match error {
        Error::Parameter(_) | Error::Local { .. } | Error::Archive(_) => {
            let full = matches!(error, Error::Local { source, .. } if is_full(source));
            if full {
                ad.insert("ErrorType", "Transfer");
                ad.insert("FailedServer", host_name());
                ad.insert("FailureType", "NoSpace");
                6001
            } else {
                ad.insert("ErrorType", "Parameter");
                ad.insert("PluginVersion", env!("CARGO_PKG_VERSION"));
                ad.insert("PluginLaunched", true);
                1000
            }
        }
        Error::Resolution { name, .. } => {
            ad.insert("ErrorType", "Resolution");
            ad.insert("FailedName", name.as_str());
            let definitive = !error.is_transient();
            ad.insert(
                "FailureType",
                if definitive {
                    "Definitive"
                } else {
                    "PostContact"
                },
            );
            2000
        }
        Error::Contact { server, .. } => {
            ad.insert("ErrorType", "Contact");
            ad.insert("FailedServer", server.as_str());
            3000
        }
        Error::Authorization { server, token, .. } => {
            ad.insert("ErrorType", "Authorization");
            ad.insert("FailedServer", server.as_str());
            let which = if *token {
                "Authentication"
            } else {
                "Authorization"
            };
            ad.insert("FailureType", which);
            ad.insert("ShouldRefresh", *token);
            4000
        }
        Error::NotFound { server, .. } => {
            ad.insert("ErrorType", "Specification");
            ad.insert("FailedServer", server.as_str());
            5011
        }
        Error::Quota { server, .. } => transfer(&mut ad, server, "Quota", 6002),
        Error::Late { .. } => transfer(&mut ad, &host_name(), "TimedOut", 6003),
        Error::Stopped => transfer(&mut ad, &host_name(), "TimedOut", 6004),
        Error::Stalled { server, .. } => transfer(&mut ad, server, "TooSlow", 6005),
        Error::Busy { server, .. } => transfer(&mut ad, server, "TimedOut", 6006),
        Error::Broken { server, .. } => transfer(&mut ad, server, "TimedOut", 6007),
        Error::Damaged { server, .. } => transfer(&mut ad, server, "TimedOut", 6008),
        Error::Nonsense { server, .. } => transfer(&mut ad, server, "TimedOut", 6009),
    };
    let retry = match error {
        Error::Busy {
            retry_after: Some(after),
            ..
        } => int(after.as_secs()),
        error if error.is_transient() => 0,
        _ => -1,
    };
    // An integer: -1 never, 0 at any time, otherwise seconds.
    ad.insert("Retryable", retry);
    ad.insert("ErrorCode", code);
    ad.insert("ErrorString", chain);
    ad
}

fn transfer(ad: &mut ClassAd, server: &str, how: &str, code: i64) -> i64 {
    ad.insert("ErrorType", "Transfer");
    ad.insert("FailedServer", server);
    ad.insert("FailureType", how);
    code
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// An error with its causes, as one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += ": ";
        text += &error.to_string();
        next = error.source();
    }
    // It goes to terminals, too.
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect()
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types that HTCondor lets through to the shadow (condor_starter.V6.1/filter.cpp); what has another it drops.
    const TYPES: [(&str, char); 14] = [
        ("TransferSuccess", 'b'),
        ("TransferError", 's'),
        ("TransferProtocol", 's'),
        ("TransferType", 's'),
        ("TransferFileName", 's'),
        ("TransferFileBytes", 'i'),
        ("TransferTotalBytes", 'i'),
        ("TransferStartTime", 'i'),
        ("TransferEndTime", 'i'),
        ("ConnectionTimeSeconds", 'r'),
        ("TransferUrl", 's'),
        ("TransferErrorData", 'l'),
        ("DeveloperData", 'a'),
        ("TransferData", 'l'),
    ];

    fn transfer() -> Transfer {
        let request = Request {
            url: "criu://ap.pool/12.0".into(),
            file: "/scratch/checkpoint.criu".into(),
        };
        Transfer::begin(&request, Direction::Upload)
    }

    fn check(ad: &ClassAd) {
        for (name, value) in ad.iter() {
            let kind = TYPES.iter().find(|(known, _)| *known == name);
            let found = match value.literal() {
                Some(Value::Bool(_)) => 'b',
                Some(Value::Int(_)) => 'i',
                Some(Value::Real(_)) => 'r',
                Some(Value::Str(_)) => 's',
                _ if value.to_string().starts_with('{') => 'l',
                _ => 'a',
            };
            assert_eq!(kind.map(|(_, kind)| *kind), Some(found), "{name} = {value}");
        }
    }

    #[test]
    fn every_attribute_has_the_type_that_htcondor_lets_through() {
        check(&transfer().success(&Moved::default()));
        check(&transfer().failure(&Error::Stopped));
    }

    #[test]
    fn each_error_has_one_stanza_of_htcondors_and_says_whether_to_try_again() {
        let server = || "ap.pool:9622".to_owned();
        let broken = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let errors = [
            (Error::Parameter("no URL".into()), "Parameter", -1),
            (
                Error::Resolution {
                    name: "nowhere".into(),
                    source: std::io::ErrorKind::NotFound.into(),
                },
                "Resolution",
                -1,
            ),
            (
                Error::Contact {
                    server: server(),
                    source: broken(),
                },
                "Contact",
                0,
            ),
            (
                Error::Authorization {
                    server: server(),
                    why: "expired".into(),
                    token: true,
                },
                "Authorization",
                0,
            ),
            (
                Error::NotFound {
                    server: server(),
                    what: "12.0".into(),
                },
                "Specification",
                -1,
            ),
            (
                Error::Quota {
                    server: server(),
                    why: "alice has 10 GB".into(),
                },
                "Transfer",
                -1,
            ),
            (
                Error::Busy {
                    server: server(),
                    status: 503,
                    why: "full".into(),
                    retry_after: Some(std::time::Duration::from_secs(30)),
                },
                "Transfer",
                30,
            ),
        ];
        for (error, kind, retry) in errors {
            let ad = transfer().failure(&error);
            let Value::List(list) = ad.evaluate("TransferErrorData") else {
                panic!("no list in {ad}")
            };
            let [Value::Ad(data)] = &list[..] else {
                panic!("not one ad: {list:?}")
            };
            assert_eq!(data.eval_str("ErrorType").as_deref(), Some(kind));
            assert_eq!(data.eval_int("Retryable"), Some(retry), "{error}");
            assert!(data.eval_int("ErrorCode").is_some_and(|code| code > 0));
            let text = ad.eval_str("TransferError").unwrap();
            assert!(text.starts_with(&chain(&error)), "{text}");
        }
    }
}
