//! Images: what is there, here is one, give me one, away with it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::auth::Caller;
use super::super::error::StoreError;
use super::super::keep::Committed;
use super::{Service, body, ticket};
use crate::manifest::{Digest, Limits};
use crate::protocol::{Image, Job, LATEST};

/// What a manifest takes in memory when it was read, as a multiple of its text: hashes are half as long, names have a head.
const READ: usize = 3;

pub(super) async fn of_owner(
    State(service): State<Arc<Service>>,
    caller: Caller,
) -> Json<Vec<Image>> {
    let mut images = service.store.images(&caller.owner);
    images.retain(|image| caller.read.job(&image.job));
    Json(images)
}

pub(super) async fn of_job(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Json<Vec<Image>>, StoreError> {
    let job = readable(&caller, &job)?;
    Ok(Json(service.store.images_of(&caller.owner, &job)))
}

pub(super) async fn commit(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path((job, digest)): Path<(String, String)>,
    headers: HeaderMap,
    from: Body,
) -> Result<StatusCode, StoreError> {
    let (job, digest) = (modifiable(&caller, &job)?, one(&digest)?);
    let owner = &caller.owner;
    let length = body::length(&headers, Limits::default().manifest)?;
    let _memory = service.bodies.memory(length as usize * READ).await?;
    let manifest = service.bodies.read(from, length).await?;
    let done = service.store.commit(owner, &job, digest, manifest).await?;
    service.turns.end(owner, ticket(&headers));
    Ok(match done {
        Committed::Now => StatusCode::CREATED,
        Committed::Before => StatusCode::OK,
    })
}

pub(super) async fn manifest(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path((job, digest)): Path<(String, String)>,
) -> Result<Response, StoreError> {
    let job = readable(&caller, &job)?;
    let digest = match digest.as_str() {
        LATEST => None,
        digest => Some(one(digest)?),
    };
    let manifest = service.store.manifest(&caller.owner, &job, digest).await?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, manifest).into_response())
}

pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path((job, digest)): Path<(String, String)>,
) -> Result<StatusCode, StoreError> {
    let (job, digest) = (modifiable(&caller, &job)?, one(&digest)?);
    let store = &service.store;
    let removed = store.remove_images(&caller.owner, &job, Some(digest));
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_all(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<StatusCode, StoreError> {
    let job = modifiable(&caller, &job)?;
    let removed = service.store.remove_images(&caller.owner, &job, None);
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}

fn readable(caller: &Caller, job: &str) -> Result<Job, StoreError> {
    let job: Job = job.parse()?;
    let may = caller.read.job(&job);
    may.then_some(job).ok_or(StoreError::Forbidden)
}

fn modifiable(caller: &Caller, job: &str) -> Result<Job, StoreError> {
    let job: Job = job.parse()?;
    let may = caller.modify.job(&job);
    may.then_some(job).ok_or(StoreError::Forbidden)
}

fn one(digest: &str) -> Result<Digest, StoreError> {
    let digest = digest.parse();
    digest.map_err(|_| StoreError::Request("no digest of an image"))
}
