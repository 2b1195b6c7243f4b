//! Requests -> owners, names and sizes that were checked -> the store; and what went wrong -> status codes.

mod body;
mod chunks;
mod drain;
mod images;
mod refuse;

pub(super) use body::Budget;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::routing::{get, post, put};

use super::error::StoreError;
use super::keep::Store;
use super::owner::Owner;

/// What the handlers share.
pub(super) struct Service {
    pub(super) store: Arc<Store>,
    pub(super) anonymous: bool,
    pub(super) budget: Budget,
}

/// All routes.
pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/images", get(images::of_owner))
        .route("/v1/missing", post(chunks::missing))
        .route("/v1/admission", post(chunks::admission))
        .route("/v1/chunks/{chunk}", put(chunks::put).get(chunks::get))
        .route(
            "/v1/jobs/{job}/images",
            get(images::of_job).delete(images::remove_all),
        )
        .route(
            "/v1/jobs/{job}/images/{digest}",
            put(images::commit)
                .get(images::manifest)
                .delete(images::remove),
        )
        .fallback(|| async { StoreError::NotFound { what: "page" } })
        .layer(axum::middleware::from_fn(drain::drain))
        .with_state(service)
}

/// Who asks.
pub(super) struct Caller(pub(super) Owner);

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = StoreError;

    async fn from_request_parts(_: &mut Parts, service: &Arc<Service>) -> Result<Self, StoreError> {
        if service.anonymous {
            let owner = "anonymous".parse();
            return Ok(Self(owner.expect("a word is the name of an owner")));
        }
        Err(StoreError::Unauthorized)
    }
}
