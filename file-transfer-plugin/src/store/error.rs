//! What the store could not do, and what that means to a client.

use std::io;
use std::path::PathBuf;

use object_store::path::Path;

use super::space::NoRoom;
use crate::manifest::ManifestError;
use crate::protocol::{BadName, Chunk};

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What the store is to serve or to use cannot be opened.
    #[error("cannot open {what}")]
    Open {
        /// A directory, a file, a URL.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that was configured cannot be used.
    #[error("{what}: {why}")]
    Configuration {
        /// The option, or the file and its line.
        what: String,
        /// Why.
        why: String,
    },
    /// Another process has the directory.
    #[error("{path} is served by another process")]
    Served {
        /// The directory.
        path: PathBuf,
    },
    /// The backend refused.
    #[error("cannot {what} {path}")]
    Backend {
        /// What was tried.
        what: &'static str,
        /// On which object.
        path: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// Chunks could not be brought to the disk.
    #[error("cannot bring the chunks to the disk")]
    Sync {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody knows who asks.
    #[error("a token is needed, and this is none that is valid now")]
    Unauthorized,
    /// The token is for something else.
    #[error("the token does not allow this")]
    Forbidden,
    /// There is no such image or chunk of the caller's.
    #[error("there is no such {what}")]
    NotFound {
        /// Of what.
        what: &'static str,
    },
    /// A manifest names chunks that are not there.
    #[error("{} chunks of the image are missing", chunks.len())]
    Missing {
        /// Which.
        chunks: Vec<Chunk>,
    },
    /// A name in a request is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A request makes no sense.
    #[error("{0}")]
    Request(&'static str),
    /// A body is longer than any that makes sense.
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
    /// A body did not come, or came too slowly.
    #[error("the body ended early or was too slow")]
    Body,
    /// A frame is not the chunk that it is said to be.
    #[error("the frame is not the chunk of this name")]
    NotTheChunk,
    /// A manifest is not that of the image that it is said to be.
    #[error("the manifest does not have this digest")]
    NotTheImage,
    /// A manifest cannot be believed.
    #[error("cannot believe the manifest: {0}")]
    Manifest(#[from] ManifestError),
    /// There is no room.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The turn of an upload would come too late.
    #[error("the turn would come in {needed} s, there are {seconds}")]
    TooLate {
        /// How long it would take, or longer.
        needed: u64,
        /// How long it may take.
        seconds: u64,
    },
    /// An owner wants too many turns at once.
    #[error("too many of your uploads wait already")]
    TooMany,
    /// Others wait for their turn.
    #[error("others wait for their turn: ask for one, the ticket is void or missing")]
    NoTurn,
    /// The same image is being committed by somebody else.
    #[error("this image is being committed by another request")]
    Busy,
    /// A task of ours died, which says nothing about the request.
    #[error("a task of the store ended early")]
    Task,
}

impl StoreError {
    pub(crate) fn backend(what: &'static str, path: &Path, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound { what: "object" },
            source => Self::Backend {
                what,
                path: path.to_string(),
                source,
            },
        }
    }

    /// Whether the file system said that it is full.
    pub(crate) fn is_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let io = error.downcast_ref::<io::Error>();
            if io.is_some_and(|error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// An error with all of its causes, for a log line.
pub(super) struct Chain<'a>(pub(super) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}
