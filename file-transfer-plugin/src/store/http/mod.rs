//! Requests -> owners, names and sizes that were checked -> the store; and what went wrong -> status codes.

mod body;
mod chunks;
mod drain;
mod images;
mod page;
mod refuse;

pub(super) use body::Bodies;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::admission::Turns;
use super::auth::{Caller, Guard};
use super::error::StoreError;
use super::keep::Store;
use super::metrics;
use crate::protocol::TICKET;

/// What the handlers share.
pub(super) struct Service {
    pub(super) store: Arc<Store>,
    pub(super) guard: Guard,
    pub(super) turns: Arc<Turns>,
    pub(super) bodies: Bodies,
}

/// All routes.
pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(numbers))
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
        .layer(from_fn_with_state(Arc::clone(&service), drain::drain))
        .layer(from_fn_with_state(Arc::clone(&service), count))
        .with_state(service)
}

/// Somebody with a token, as programs send it.
impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = StoreError;

    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Self, StoreError> {
        service.guard.caller(credentials(&parts.headers, "Bearer"))
    }
}

/// Somebody with a token, as browsers send it: as a password.
struct Visitor(Caller);

impl FromRequestParts<Arc<Service>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Self, Response> {
        let basic = credentials(&parts.headers, "Basic").and_then(|basic| {
            let both = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
            both.split_once(':')
                .map(|(_, password)| password.to_owned())
        });
        let bearer = credentials(&parts.headers, "Bearer");
        let caller = service.guard.caller(basic.as_deref().or(bearer));
        caller.map(Self).map_err(|error| {
            let ask = [(
                header::WWW_AUTHENTICATE,
                "Basic realm=\"any name, and your token as the password\"",
            )];
            (ask, error).into_response()
        })
    }
}

fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (found, credentials) = header.split_once(' ')?;
    found
        .eq_ignore_ascii_case(scheme)
        .then_some(credentials.trim())
}

/// The ticket that a request carries.
fn ticket(headers: &HeaderMap) -> Option<&str> {
    headers.get(TICKET)?.to_str().ok()
}

async fn numbers(State(service): State<Arc<Service>>, _: Visitor) -> Response {
    let store = &service.store;
    let counts = service.turns.counts();
    let text = store
        .metrics
        .encode(&store.sums(None), store.free(), counts);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// Counts each request.
async fn count(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), begin.elapsed());
    // Methods are words of the client's; those that no route has are one.
    let known = ["GET", "PUT", "POST", "DELETE"].contains(&method.as_str());
    let method = if known { method.as_str() } else { "other" };
    service.store.metrics.request(method, status, took);
    tracing::debug!(
        method,
        path,
        status,
        seconds = took.as_secs_f64(),
        "answered"
    );
    response
}
