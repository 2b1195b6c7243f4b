//! Tokens of an issuer: JWTs with the claims of SciTokens and WLCG.
//!
//! The subject is the owner, `storage.read` and `storage.modify` are what it may do (SciTokens' older `read` and `write` too),
//! and their paths are compared with where the owner's images would be on the issuer's storage: `/{sub}` unless configured.

use std::path::PathBuf;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::{Caller, Reach};
use crate::store::error::StoreError;
use crate::store::watched::Watched;

/// How far the clocks of issuer and store may be apart, in seconds.
const SKEW: u64 = 60;
/// What tokens are for that are for everybody: WLCG's and SciTokens' word for it.
const FOR_ALL: [&str; 2] = ["https://wlcg.cern.ch/jwt/v1/any", "ANY"];

/// An issuer whose tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The claim `iss`.
    pub issuer: String,
    /// Its public keys: a JWK set, or one key in PEM. Read again when it changes.
    pub keys: PathBuf,
    /// What the claim `aud` must name: this store.
    pub audiences: Vec<String>,
    /// Where an owner's images would be on its storage; `{sub}` stands for the subject.
    pub path: String,
}

pub(super) struct Issuer {
    config: IssuerConfig,
    keys: Watched<Keys>,
    /// What is behind the @ in the names of its owners.
    name: String,
}

enum Keys {
    Set(JwkSet),
    One(Algorithm, Box<DecodingKey>),
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    scope: String,
}

/// The issuer that a token names; nothing that is believed.
pub(super) fn named(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    let claims = jsonwebtoken::dangerous::insecure_decode::<Named>(token);
    claims.ok().map(|token| token.claims.iss)
}

impl Issuer {
    pub(super) fn open(config: &IssuerConfig) -> Result<Self, StoreError> {
        let name = config.issuer.split_once("://");
        let name = name.map_or(config.issuer.as_str(), |(_, name)| name);
        Ok(Self {
            keys: Watched::open(&[&config.keys], parse)?,
            name: name.trim_end_matches('/').to_owned(),
            config: config.clone(),
        })
    }

    pub(super) fn is(&self, issuer: &str) -> bool {
        self.config.issuer == issuer
    }

    /// Whose token it is, if it is one of this issuer's and in force.
    pub(super) fn caller(&self, token: &str) -> Result<Caller, StoreError> {
        // Why a token is refused is for the log of somebody who looks for it; the token itself is for no log.
        let refused = |why: &dyn std::fmt::Display| {
            tracing::debug!(issuer = %self.config.issuer, %why, "a token is refused");
            StoreError::Unauthorized
        };
        let head = decode_header(token).map_err(|error| refused(&error))?;
        let keys = self.keys.get();
        let keys = keys.of(head.kid.as_deref(), head.alg);
        let mut validation = Validation::new(head.alg);
        validation.leeway = SKEW;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        validation.set_issuer(&[&self.config.issuer]);
        let ours = self.config.audiences.iter().map(String::as_str);
        validation.set_audience(&ours.chain(FOR_ALL).collect::<Vec<_>>());
        let mut why: Option<StoreError> = None;
        for key in keys {
            match decode::<Claims>(token, &key, &validation) {
                Ok(token) => return self.of(token.claims),
                Err(error) => why = Some(refused(&error)),
            }
        }
        Err(why.unwrap_or_else(|| refused(&"no key of this name and algorithm")))
    }

    fn of(&self, Claims { sub, scope }: Claims) -> Result<Caller, StoreError> {
        // A subject with a slash could reach into the paths of another.
        if sub.contains('/') || sub.starts_with('.') {
            return Err(StoreError::Unauthorized);
        }
        // Two issuers may have an alice each.
        let owner = format!("{sub}@{}", self.name);
        let base = self.config.path.replace("{sub}", &sub);
        Ok(Caller {
            owner: owner.parse().map_err(|_| StoreError::Unauthorized)?,
            read: Reach::of(&scope, &["storage.read", "read"], &base),
            modify: Reach::of(&scope, &["storage.modify", "write"], &base),
            operator: false,
        })
    }
}

impl Keys {
    /// The keys that a token may be signed with.
    fn of(&self, name: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        match self {
            Self::One(of, key) if *of == algorithm => vec![(**key).clone()],
            Self::One(..) => Vec::new(),
            Self::Set(set) => {
                let named = |jwk: &&Jwk| {
                    name.is_none_or(|name| {
                        jwk.common.key_id.as_deref().is_none_or(|key| key == name)
                    })
                };
                let keys = set.keys.iter().filter(named);
                keys.filter_map(|jwk| DecodingKey::from_jwk(jwk).ok())
                    // Never a shared secret: the set is public.
                    .filter(|key| algorithm_of(key) == Some(algorithm))
                    .collect()
            }
        }
    }
}

fn algorithm_of(key: &DecodingKey) -> Option<Algorithm> {
    match key.family() {
        jsonwebtoken::AlgorithmFamily::Ec => Some(Algorithm::ES256),
        jsonwebtoken::AlgorithmFamily::Rsa => Some(Algorithm::RS256),
        _ => None,
    }
}

fn parse(files: &[Vec<u8>]) -> Result<Keys, String> {
    let file = &files[0];
    if let Ok(set) = serde_json::from_slice::<JwkSet>(file) {
        return Ok(Keys::Set(set));
    }
    let ec = DecodingKey::from_ec_pem(file).map(|key| (Algorithm::ES256, key));
    let rsa = || DecodingKey::from_rsa_pem(file).map(|key| (Algorithm::RS256, key));
    let (algorithm, key) = ec
        .or_else(|_| rsa())
        .map_err(|_| "it is neither a JWK set nor a public key in PEM")?;
    Ok(Keys::One(algorithm, Box::new(key)))
}
