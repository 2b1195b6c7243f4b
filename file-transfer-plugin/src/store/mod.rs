//! `criu-transfer serve`: the images of many jobs on an access point.
//!
//! ```text
//!   listen     connections, TLS, time limits         -> requests
//!   http       requests                              -> owner, names and sizes that were checked
//!   admission  many uploads at once                  -> in turn, who has least time first
//!   keep       chunks, manifests                     -> verified, counted, committed, removed
//!   index      what is there                         in memory, made anew at each start
//!   gc         what nobody will ask for again        -> removed, with the reason
//!   backend    objects                               -> a directory, or an object store
//! ```
//!
//! One process serves one directory or prefix. `kill -9` at any instant loses nothing that was committed and shows nothing
//! that was not: see `keep` for each promise and what keeps it.

mod backend;
mod error;
mod objects;
mod owner;
mod watched;

mod index;
mod metrics;
mod space;

mod keep;
mod load;
mod remove;

pub mod gc;
mod queue;

mod admission;
mod auth;
mod http;
mod listen;
mod tls;

pub use auth::{AuthConfig, IssuerConfig};
pub use error::StoreError;
pub use space::{NoRoom, Quotas};
pub use tls::TlsConfig;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backend::Backend;
use keep::Store;

/// Where images lie.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a directory.
    Directory(PathBuf),
    /// In an object store: `s3://BUCKET/PREFIX`.
    Objects(String),
}

/// What to serve, where, and to whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the images lie.
    pub place: Place,
    /// Where to listen; port 0 stands for any.
    pub listen: SocketAddr,
    /// Who is let in.
    pub auth: AuthConfig,
    /// With which certificate; without one on loopback only.
    pub tls: Option<TlsConfig>,
    /// How many upload at a time.
    pub uploads: usize,
    /// No byte for this long, and a client is taken for gone.
    pub patience: Duration,
    /// How much may be kept.
    pub quotas: Quotas,
    /// Which images go by themselves.
    pub policy: gc::Policy,
}

/// Serves until a signal says to end. `ready` is told the address once requests are answered.
pub fn serve(config: &Config, ready: impl FnOnce(SocketAddr)) -> Result<(), StoreError> {
    let refuse = |what: &str, why: &str| {
        let (what, why) = (what.into(), why.into());
        Err(StoreError::Configuration { what, why })
    };
    if !config.listen.ip().is_loopback() {
        if config.auth.anonymous {
            return refuse(
                "--anonymous",
                "on a loopback address only: whoever can connect reads and writes all images",
            );
        }
        if config.tls.is_none() {
            return refuse(
                "no --certificate and no --key",
                "on a loopback address only: tokens and images would be read on their way",
            );
        }
    }
    let guard = auth::Guard::new(&config.auth)?;
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Files are read and written on these, frames hashed.
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(|source| StoreError::Open {
            what: "a runtime".into(),
            source,
        })?;
    runtime.block_on(async {
        let backend = match &config.place {
            Place::Directory(dir) => Backend::directory(dir)?,
            Place::Objects(url) => objects::open(url)?,
        };
        let store = Store::open(backend, config.quotas).await?;
        tokio::spawn(Arc::clone(&store).collect_for_ever(config.policy));
        let turns = admission::Turns::new(config.uploads);
        tokio::spawn(Arc::clone(&turns).tick());
        let service = http::router(Arc::new(http::Service {
            store,
            guard,
            turns,
            bodies: http::Bodies::new(config.patience),
        }));
        let listener = listen::Listener {
            address: config.listen,
            tls,
            patience: config.patience,
        };
        listener.serve(service, ready).await
    })
}
