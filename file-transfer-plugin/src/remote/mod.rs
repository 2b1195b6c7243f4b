//! A store, as its clients see it.
//!
//! ```text
//!   Url, Tokens ──> Remote ──> Connection  one request at a time, in its caller's thread
//!                      │            │      no byte for 30 s: another connection
//!                      │        requests   what protocol.rs says, a function each
//!                      └── Effort ──────── how long to go on: the time left, and the patience
//! ```
//!
//! Everything that comes is bounded before it is kept and verified before it is used.

mod connection;
mod effort;
mod error;
mod requests;
mod tls;
mod token;
mod url;
mod watched;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use effort::Effort;
pub use error::Error;
pub(crate) use requests::{Commit, Requests};
pub use token::{Token, Tokens};
pub use url::{PORT, SCHEME, Url};

use crate::manifest::Digest;

/// A store and who asks it.
#[derive(Clone, Debug)]
pub struct Remote {
    url: Url,
    tokens: Tokens,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Remote {
    /// Nothing is sent yet.
    pub fn new(url: Url, tokens: Tokens) -> Result<Self, Error> {
        let tls = if url.tls { Some(tls::config()?) } else { None };
        Ok(Self { url, tokens, tls })
    }

    /// What is meant.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

/// How to go about a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The time for all of it.
    pub within: Duration,
    /// How long nothing at all may work before it is given up, though there is time.
    pub patience: Duration,
    /// How long no byte may move on a connection before another is made.
    pub stall: Duration,
    /// Connections at once, each with up to two chunks in memory.
    pub connections: usize,
}

impl Default for Options {
    /// Four connections fill a path that one, cut down by a lost packet, does not. Two minutes outlast a store that is started
    /// anew.
    fn default() -> Self {
        Self {
            within: Duration::from_secs(1800),
            patience: Duration::from_secs(120),
            stall: Duration::from_secs(30),
            connections: 4,
        }
    }
}

/// What a transfer came to.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Moved {
    /// The size of the archive.
    pub file_bytes: u64,
    /// What of it went over the network.
    pub sent_bytes: u64,
    /// What of that went before the archive was complete.
    pub ahead_bytes: u64,
    /// How many chunks the image has.
    pub chunks: u64,
    /// How many of them went over the network.
    pub sent_chunks: u64,
    /// Tries, the one that worked included.
    pub attempts: u32,
    /// Connections that were made.
    pub connections: u32,
    /// Until the first connection stood.
    pub connect_seconds: f64,
    /// In all.
    pub seconds: f64,
    /// Host and port.
    pub server: String,
    /// The image, if there was one.
    pub digest: Option<Digest>,
    /// Its number.
    pub generation: Option<u64>,
}

impl Moved {
    pub(crate) fn of(remote: &Remote, effort: &Effort<'_>) -> Self {
        Self {
            attempts: effort.attempts(),
            connections: effort.connections(),
            connect_seconds: effort.connect_seconds(),
            seconds: effort.elapsed().as_secs_f64(),
            server: remote.url.server(),
            ..Self::default()
        }
    }
}
