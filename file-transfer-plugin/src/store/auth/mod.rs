//! Who asks, and what they may do: no token, no service.
//!
//! A token is one of an issuer's (a JWT, as HTCondor's credmon hands them to jobs), or one of the list that a private pool
//! keeps in a file. On a loopback address everybody can be let in as one owner, where that is asked for.

mod issuer;
mod list;
mod reach;
mod ring;

pub use issuer::IssuerConfig;
pub(super) use reach::Reach;

use std::path::PathBuf;

use issuer::Issuer;
use list::List;

use super::error::StoreError;
use super::owner::Owner;
use super::watched::Watched;

/// The owner of all images where everybody is let in.
const ANONYMOUS: &str = "anonymous";
/// No token is longer.
const TOKEN_MAX: usize = 16 << 10;

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Everybody who can connect, as the owner `anonymous`.
    pub anonymous: bool,
    /// Who has a token of this list.
    pub tokens: Option<PathBuf>,
    /// Who has a token of one of these.
    pub issuers: Vec<IssuerConfig>,
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) owner: Owner,
    pub(super) read: Reach,
    pub(super) modify: Reach,
    /// Sees what the others have, but does not get it.
    pub(super) operator: bool,
}

/// Lets in.
pub(super) struct Guard {
    anonymous: bool,
    list: Option<Watched<List>>,
    issuers: Vec<Issuer>,
}

impl Guard {
    pub(super) fn new(config: &AuthConfig) -> Result<Self, StoreError> {
        ring::install();
        let list = config.tokens.as_deref();
        let list = list.map(|path| Watched::open(&[path], list::parse));
        let issuers = config.issuers.iter().map(Issuer::open);
        let guard = Self {
            anonymous: config.anonymous,
            list: list.transpose()?,
            issuers: issuers.collect::<Result<_, _>>()?,
        };
        if !guard.anonymous && guard.list.is_none() && guard.issuers.is_empty() {
            return Err(StoreError::Configuration {
                what: "no --tokens and no --issuer".into(),
                why: "nobody could be let in".into(),
            });
        }
        Ok(guard)
    }

    /// Whose token this is.
    pub(super) fn caller(&self, token: Option<&str>) -> Result<Caller, StoreError> {
        let Some(token) = token else {
            if self.anonymous {
                return Ok(Caller {
                    owner: ANONYMOUS.parse().expect("a word is the name of an owner"),
                    read: Reach::All,
                    modify: Reach::All,
                    operator: true,
                });
            }
            return Err(StoreError::Unauthorized);
        };
        if token.len() > TOKEN_MAX {
            return Err(StoreError::Unauthorized);
        }
        if let Some(caller) = self.list.as_ref().and_then(|list| list.get().caller(token)) {
            return Ok(caller);
        }
        let named = issuer::named(token).ok_or(StoreError::Unauthorized)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.is(&named));
        issuer.ok_or(StoreError::Unauthorized)?.caller(token)
    }
}
