//! `criu-transfer serve`: the images of many jobs on an access point.
//!
//! ```text
//!   listen     connections, TLS, time limits         -> requests
//!   http       requests                              -> owner, names and sizes that were checked
//!   admission  many uploads at once                  -> in turn, who has least time first
//!   keep       chunks, manifests                     -> verified, counted, committed, removed
//!   index      what is there                         in memory, made anew at each start
//!   backend    objects                               -> a directory, or an object store
//! ```
//!
//! One process serves one directory or prefix. `kill -9` at any instant loses nothing that was committed and shows nothing
//! that was not: see [`keep`] for each promise and what keeps it.

mod backend;
mod error;
mod owner;

mod index;
mod space;
mod verify;

mod keep;

mod http;
mod listen;

pub use error::StoreError;
pub use space::{NoRoom, Quotas};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use backend::Backend;
use keep::Store;

/// What to serve, where, and to whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the images lie.
    pub dir: PathBuf,
    /// Where to listen; port 0 stands for any.
    pub listen: SocketAddr,
    /// Whether everybody who can connect is the owner `anonymous`. On loopback only.
    pub anonymous: bool,
    /// How much may be kept.
    pub quotas: Quotas,
}

/// Serves until a signal says to end. `ready` is told the address once requests are answered.
pub fn serve(config: &Config, ready: impl FnOnce(SocketAddr)) -> Result<(), StoreError> {
    if config.anonymous && !config.listen.ip().is_loopback() {
        return Err(StoreError::Configuration {
            what: "--anonymous".into(),
            why: "only on a loopback address: whoever can connect could read and write all images"
                .into(),
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Files are read and written on these, frames verified.
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|source| StoreError::Open {
            what: "a runtime".into(),
            source,
        })?;
    runtime.block_on(async {
        let store = Store::open(Backend::directory(&config.dir)?, config.quotas).await?;
        let service = http::router(Arc::new(http::Service {
            store,
            anonymous: config.anonymous,
            budget: http::Budget::default(),
        }));
        listen::serve(config.listen, service, ready).await
    })
}
