//! `criu://HOST[:PORT]/JOB[/checkpoint.criu]`: a job's images in a store.
//!
//! ```text
//! criu://ap.example.org/12.0                   the newest image of job 12.0; port 9622, TLS
//! criu://ap.example.org:8443/12.0/checkpoint.criu   the same; HTCondor names the file after the last part
//! criu://ap.example.org/12.0?digest=HEX        that image and no other
//! criu://ap.example.org/                       all of the caller's, for `ls`
//! criu_alice+criu://ap.example.org/12.0        with the token criu_alice.use
//! criu://localhost:9622/12.0?tls=no            without TLS: to this machine only
//! ```
//!
//! What stands before a `+` is HTCondor's handle for the token, as in its own URLs. There is no scheme like `criu+http`:
//! HTCondor takes the part after the plus for the scheme and would call another plugin.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Error;
use crate::manifest::Digest;
use crate::protocol::Job;

/// The scheme of our URLs.
pub const SCHEME: &str = "criu";

/// The port of a URL that names none: behind HTCondor's own, of which 9620 is the credd's before HTCondor 24.
pub const PORT: u16 = 9622;

/// The last part of a URL that stands for the image itself.
const FILE: &str = "checkpoint.criu";

/// The longest URL. HTCondor's own have no bound, an access point's log lines do.
const LONGEST: usize = 2000;

/// A store, and what is meant in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The name of the token to use, without `.use`.
    pub handle: Option<String>,
    /// The store's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS. Only a store on this very machine may not.
    pub tls: bool,
    /// The job, if one is meant.
    pub job: Option<Job>,
    /// The image, if not the newest.
    pub digest: Option<Digest>,
}

impl Url {
    /// Host and port.
    pub fn server(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The job that is meant.
    pub fn job(&self) -> Result<&Job, Error> {
        let missing = || Error::Parameter(format!("{self} names no job: criu://HOST[:PORT]/JOB"));
        self.job.as_ref().ok_or_else(missing)
    }
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| {
            let shown: String = text.escape_debug().take(200).collect();
            Error::Parameter(format!("{shown} is no URL of a store: {why}"))
        })
    }
}

fn parse(text: &str) -> Result<Url, String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    let (scheme, rest) = text.split_once("://").ok_or("no scheme")?;
    let (handle, scheme) = match scheme.rsplit_once('+') {
        Some((handle, scheme)) => (Some(handle), scheme),
        None => (None, scheme),
    };
    if scheme != SCHEME {
        return Err(format!("its scheme is not {}", SCHEME));
    }
    let is_word = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    if handle.is_some_and(|handle| !is_word(handle)) {
        return Err("its handle is no word".into());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match server.strip_prefix('[') {
        Some(six) => {
            let (host, port) = six.split_once(']').ok_or("its address does not end")?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "its address is none")?;
            (
                host,
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        None => match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, Some("")),
        },
    };
    let port = match port.ok_or("its port is none")? {
        "" => PORT,
        port => port.parse().map_err(|_| "its port is none")?,
    };
    if !is_word(host) && host.parse::<IpAddr>().is_err() {
        return Err("its host is none".into());
    }
    let mut parts = path.split('/');
    let job = match parts.next().filter(|part| !part.is_empty()) {
        Some(part) => Some(part.parse().map_err(|error| format!("{error}"))?),
        None => None,
    };
    match (parts.next(), parts.next()) {
        (None | Some("" | FILE), None) => {}
        _ => return Err(format!("after the job comes {FILE} or nothing")),
    }
    let mut url = Url {
        handle: handle.map(str::to_owned),
        host: host.to_owned(),
        port,
        tls: true,
        job,
        digest: None,
    };
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("digest", hex)) => {
                url.digest = Some(hex.parse().map_err(|error| format!("{error}"))?);
            }
            Some(("tls", "no")) if is_here(host) => url.tls = false,
            // A token in plain text is a token for everybody on the way.
            Some(("tls", "no")) => return Err("without TLS to this machine only".into()),
            _ => return Err(format!("it has no option {option:?}")),
        }
    }
    Ok(url)
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(handle) = &self.handle {
            write!(f, "{handle}+")?;
        }
        write!(f, "{}://{}/", SCHEME, self.server())?;
        if let Some(job) = &self.job {
            write!(f, "{job}")?;
        }
        let mut mark = '?';
        if let Some(digest) = &self.digest {
            write!(f, "{mark}digest={digest}")?;
            mark = '&';
        }
        if !self.tls {
            write!(f, "{mark}tls=no")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let digest = Digest::of(b"x");
        for text in [
            "criu://ap.example.org/12.0",
            "criu://ap.example.org:8443/ap#12.0#1790000000/checkpoint.criu",
            "criu_alice+criu://10.77.0.1/12.0",
            "criu://[::1]:9622/12.0?tls=no",
            "criu://localhost/",
            "criu://localhost",
            &format!("criu://h/j?digest={digest}"),
            &format!("criu://127.0.0.9/j?digest={digest}&tls=no"),
        ] {
            let url: Url = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(url.to_string().parse::<Url>().unwrap(), url, "{text}");
        }
        let url: Url = "criu://h:81/12.0/checkpoint.criu".parse().unwrap();
        assert_eq!((url.server().as_str(), url.tls), ("h:81", true));
        assert_eq!(url.job().unwrap().as_str(), "12.0");
    }

    #[test]
    fn what_is_no_url_of_a_store_is_refused() {
        for text in [
            "",
            "criu",
            "criu://",
            "criu:///12.0",
            "http://h/12.0",
            "criu+http://h/12.0",
            "../x+criu://h/12.0",
            "criu://user@h/12.0",
            "criu://h:0x/12.0",
            "criu://h:99999/12.0",
            "criu://[::1/12.0",
            "criu://[::1]9/12.0",
            "criu://h/../etc",
            "criu://h/12.0/other",
            "criu://h/12.0/checkpoint.criu/x",
            "criu://h/12.0?digest=12",
            "criu://h/12.0?verbose",
            "criu://h/1 2",
            "criu://h\n/12",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn without_tls_only_to_this_machine() {
        assert!("criu://ap.pool/12.0?tls=no".parse::<Url>().is_err());
        assert!("criu://10.0.0.1/12.0?tls=no".parse::<Url>().is_err());
        assert!("criu://localhost.evil/12.0?tls=no".parse::<Url>().is_err());
        assert!("criu://127.0.0.1/12.0?tls=no".parse::<Url>().is_ok());
    }
}
