//! The requests of the protocol, each once and without patience.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::{Answer, Ask, Connection};
use super::{Effort, Error, Remote};
use crate::manifest::{Digest, Limits};
use crate::protocol::{self, Admission, Chunk, Image, Job, Missing, Problem, Ticket};

/// The most of a list of images that is read: hundreds of jobs with two each are some hundred kilobytes.
const LIST_MAX: usize = 64 << 20;
/// A store that has nothing to send but words sends few.
const WORDS_MAX: usize = 64 << 10;
/// How much of a store's words is passed on.
const WHY_MAX: usize = 300;

pub(crate) struct Requests<'a> {
    connection: Connection<'a>,
    remote: &'a Remote,
    silence: Duration,
}

/// What came of a manifest.
pub(crate) enum Commit {
    /// The image is there.
    Done,
    /// These first.
    Missing(Vec<Chunk>),
}

impl<'a> Requests<'a> {
    pub(crate) fn new(remote: &'a Remote, effort: &'a Effort<'a>) -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::new(remote, effort)?,
            remote,
            silence: effort.stall(),
        })
    }

    /// Which of these chunks the store lacks.
    pub(crate) fn missing(&mut self, chunks: &[Chunk]) -> Result<Vec<Chunk>, Error> {
        let mut missing = Vec::new();
        for some in chunks.chunks(protocol::NAMES_MAX) {
            let question = Missing {
                chunks: some.to_vec(),
            };
            let answer: Missing = self.post("/v1/missing", &question, self.silence)?;
            missing.extend(answer.chunks);
        }
        Ok(missing)
    }

    /// Waits for our turn.
    pub(crate) fn admission(&mut self, admission: &Admission) -> Result<String, Error> {
        // A queue is silent: it has until our time is up.
        let wait = Duration::from_secs(admission.seconds) + self.silence;
        let ticket: Ticket = self.post("/v1/admission", admission, wait)?;
        Ok(ticket.ticket)
    }

    /// Sends a chunk.
    pub(crate) fn put_chunk(
        &mut self,
        chunk: Chunk,
        frame: Bytes,
        ticket: Option<&str>,
    ) -> Result<(), Error> {
        let path = format!("/v1/chunks/{chunk}");
        self.put(path, frame, ticket)
            .and_then(|answer| self.expect(answer))
            .map(drop)
    }

    /// Sends a manifest.
    pub(crate) fn commit(
        &mut self,
        job: &Job,
        digest: Digest,
        manifest: Bytes,
        ticket: Option<&str>,
    ) -> Result<Commit, Error> {
        let path = format!("/v1/jobs/{}/images/{digest}", encoded(job));
        let answer = self.put(path, manifest, ticket)?;
        if answer.status == StatusCode::CONFLICT {
            let problem: Problem = self.json(&answer.body)?;
            return Ok(Commit::Missing(problem.missing));
        }
        self.expect(answer)?;
        Ok(Commit::Done)
    }

    /// The images of a job, newest first, or all of the caller's.
    pub(crate) fn images(&mut self, job: Option<&Job>) -> Result<Vec<Image>, Error> {
        let path = match job {
            Some(job) => format!("/v1/jobs/{}/images", encoded(job)),
            None => "/v1/images".to_owned(),
        };
        let answer = self.get(path, LIST_MAX)?;
        self.json(&answer)
    }

    /// An image's manifest, the newest's if none is named.
    pub(crate) fn manifest(&mut self, job: &Job, digest: Option<Digest>) -> Result<Bytes, Error> {
        let which = digest.map_or_else(|| protocol::LATEST.to_owned(), |digest| digest.to_string());
        let path = format!("/v1/jobs/{}/images/{which}", encoded(job));
        let limit = usize::try_from(Limits::default().manifest).unwrap_or(usize::MAX);
        self.get(path, limit).map_err(|error| match error {
            Error::NotFound { server, .. } => Error::NotFound {
                server,
                what: format!("{job} {which}"),
            },
            error => error,
        })
    }

    /// A chunk's frame, as long as its name says.
    pub(crate) fn chunk(&mut self, chunk: Chunk) -> Result<Bytes, Error> {
        let limit = chunk.packed as usize;
        let frame = self.get(format!("/v1/chunks/{chunk}"), limit.max(WORDS_MAX))?;
        if frame.len() == limit {
            Ok(frame)
        } else {
            Err(self.damaged(chunk))
        }
    }

    pub(crate) fn damaged(&self, chunk: Chunk) -> Error {
        Error::Damaged {
            server: self.remote.url.server(),
            chunk: chunk.to_string(),
        }
    }

    /// Removes an image, or all of the job's.
    #[cfg(feature = "cli")]
    pub(crate) fn remove(&mut self, job: &Job, digest: Option<Digest>) -> Result<(), Error> {
        let mut path = format!("/v1/jobs/{}/images", encoded(job));
        if let Some(digest) = digest {
            let _ = write!(path, "/{digest}");
        }
        let answer = self.ask(Method::DELETE, path, Bytes::new(), None, WORDS_MAX)?;
        self.expect(answer).map(drop)
    }

    fn post<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        path: &str,
        question: &Q,
        silence: Duration,
    ) -> Result<A, Error> {
        let body = serde_json::to_vec(question).expect("names and numbers are JSON");
        let answer = self.connection.ask(&Ask {
            method: Method::POST,
            path: path.to_owned(),
            body: body.into(),
            ticket: None,
            limit: protocol::CONTROL_MAX,
            silence,
        })?;
        let answer = self.expect(answer)?;
        self.json(&answer)
    }

    fn get(&mut self, path: String, limit: usize) -> Result<Bytes, Error> {
        let answer = self.ask(Method::GET, path, Bytes::new(), None, limit)?;
        self.expect(answer)
    }

    fn put(&mut self, path: String, body: Bytes, ticket: Option<&str>) -> Result<Answer, Error> {
        self.ask(Method::PUT, path, body, ticket, protocol::CONTROL_MAX)
    }

    fn ask(
        &mut self,
        method: Method,
        path: String,
        body: Bytes,
        ticket: Option<&str>,
        limit: usize,
    ) -> Result<Answer, Error> {
        self.connection.ask(&Ask {
            method,
            path,
            body,
            ticket,
            limit,
            silence: self.silence,
        })
    }

    fn json<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Nonsense {
            server: self.remote.url.server(),
            why: plain(&error.to_string()),
        })
    }

    /// The body of an answer that is none of refusal.
    /// What somebody is told who has no token at all.
    fn no_token(&self) -> Option<String> {
        let none = matches!(self.remote.tokens.get(&self.remote.url), Ok(None));
        none.then(|| {
            let uid = rustix::process::geteuid().as_raw();
            format!(
                "a token is needed, and there is none, neither HTCondor's (_CONDOR_CREDS) nor in $BEARER_TOKEN, \
                 $BEARER_TOKEN_FILE or /tmp/bt_u{uid}"
            )
        })
    }

    fn expect(&self, answer: Answer) -> Result<Bytes, Error> {
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let server = self.remote.url.server();
        let status = answer.status.as_u16();
        // What stands between us and the store, a proxy perhaps, may answer in HTML.
        let why = match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) => plain(&problem.error),
            Err(_) => plain(answer.status.canonical_reason().unwrap_or("no reason")),
        };
        Err(match status {
            401 => Error::Authorization {
                server,
                why: self.no_token().unwrap_or(why),
                token: true,
            },
            403 => Error::Authorization {
                server,
                why,
                token: false,
            },
            404 => Error::NotFound { server, what: why },
            507 => Error::Quota { server, why },
            408 | 425 | 429 | 500.. => Error::Busy {
                server,
                status,
                why,
                retry_after: answer.retry_after,
            },
            _ => Error::Nonsense {
                server,
                why: format!("{status}: {why}"),
            },
        })
    }
}

/// A store's words as one line of bounded length.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WHY_MAX)
        .collect()
}

/// A job's name in a path.
fn encoded(job: &Job) -> String {
    let mut text = String::new();
    for byte in job.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_global_job_id_is_one_part_of_a_path() {
        let job = "ap.pool#12.0#1790000000".parse().unwrap();
        assert_eq!(encoded(&job), "ap.pool%2312.0%231790000000");
    }

    #[test]
    fn a_stores_words_are_one_line() {
        assert_eq!(plain("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(plain(&"x".repeat(5000)).len(), WHY_MAX);
    }
}
