//! What can go wrong between here and a store, in HTCondor's own classes.
//!
//! HTCondor wants to know of each failed transfer whose fault it may be (docs/apis/file-transfer-plugins: Parameter, Resolution,
//! Contact, Authorization, Specification, Transfer). The variants are these, so that no text has to be read for a decision.

use std::io;
use std::time::Duration;

use crate::unpack::ArchiveError;

/// Why an image did not get to a store or back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL, the token file or the like: nothing was sent.
    #[error("{0}")]
    Parameter(String),
    /// The host's name means nothing here.
    #[error("cannot resolve {name}")]
    Resolution {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers there, or not in TLS that can be trusted.
    #[error("cannot reach {server}")]
    Contact {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store does not know who this is, or does not let him.
    #[error("{server} refuses: {why}")]
    Authorization {
        /// Host and port.
        server: String,
        /// Its words.
        why: String,
        /// Whether it is the token itself that is not good, which another may be.
        token: bool,
    },
    /// The store knows no such image.
    #[error("{server} has no image {what}")]
    NotFound {
        /// Host and port.
        server: String,
        /// Job and digest.
        what: String,
    },
    /// No room for this owner.
    #[error("{server} has no room: {why}")]
    Quota {
        /// Host and port.
        server: String,
        /// Its words.
        why: String,
    },
    /// The store is busy or ill.
    #[error("{server} cannot now ({status}): {why}")]
    Busy {
        /// Host and port.
        server: String,
        /// HTTP's status.
        status: u16,
        /// Its words.
        why: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The store does not do what it should.
    #[error("{server} answers what it should not: {why}")]
    Nonsense {
        /// Host and port.
        server: String,
        /// What.
        why: String,
    },
    /// No byte went either way for too long.
    #[error("nothing moves between here and {server} for {} s", .after.as_secs())]
    Stalled {
        /// Host and port.
        server: String,
        /// For how long.
        after: Duration,
    },
    /// The connection broke in the middle.
    #[error("the connection to {server} broke")]
    Broken {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The time is up.
    #[error("the time is up after {} s", .after.as_secs())]
    Late {
        /// What was given.
        after: Duration,
    },
    /// Somebody wants us to end.
    #[error("stopped")]
    Stopped,
    /// The archive here is not good.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A chunk came that is not what its name says.
    #[error("chunk {chunk} from {server} is damaged")]
    Damaged {
        /// Host and port.
        server: String,
        /// The chunk's name.
        chunk: String,
    },
    /// A file here could not be read or written.
    #[error("cannot {what}")]
    Local {
        /// What could not be done.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Local { what, source }
    }

    /// Whether it is this image that is not good, or not whole, so that another may be.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Error::Damaged { .. } | Error::NotFound { .. } | Error::Nonsense { .. }
        )
    }

    /// Whether the same may work a little later: what a worker tries again on another connection, and what makes the plugin end
    /// with the code for "try again".
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Contact { .. }
            | Error::Busy { .. }
            | Error::Stalled { .. }
            | Error::Broken { .. }
            | Error::Late { .. }
            | Error::Stopped => true,
            // A resolver that does not answer, unlike one that says no.
            Error::Resolution { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            // A new one is on its way: credmons renew long before the end, so this one was late.
            Error::Authorization { token, .. } => *token,
            // Another copy may be good, and the network is the likelier culprit.
            Error::Damaged { .. } => true,
            _ => false,
        }
    }
}
