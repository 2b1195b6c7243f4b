//! Images: what is there, here is one, give me one, away with it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::error::StoreError;
use super::super::keep::Committed;
use super::{Caller, Service, body};
use crate::manifest::{Digest, Limits};
use crate::protocol::{Image, Job, LATEST};

/// What a manifest takes in memory when it was read, as a multiple of its text: hashes are half as long, names have a head.
const READ: usize = 3;

pub(super) async fn of_owner(
    State(service): State<Arc<Service>>,
    Caller(owner): Caller,
) -> Json<Vec<Image>> {
    Json(service.store.images(&owner))
}

pub(super) async fn of_job(
    State(service): State<Arc<Service>>,
    Caller(owner): Caller,
    Path(job): Path<String>,
) -> Result<Json<Vec<Image>>, StoreError> {
    let job: Job = job.parse()?;
    Ok(Json(service.store.images_of(&owner, &job)))
}

pub(super) async fn commit(
    State(service): State<Arc<Service>>,
    Caller(owner): Caller,
    Path((job, digest)): Path<(String, String)>,
    headers: HeaderMap,
    from: Body,
) -> Result<StatusCode, StoreError> {
    let job: Job = job.parse()?;
    let digest = one(&digest)?;
    let length = body::length(&headers, Limits::default().manifest)?;
    let _memory = service.budget.take(length as usize * READ).await?;
    let manifest = body::read(from, length).await?;
    let done = service.store.commit(&owner, &job, digest, manifest).await?;
    Ok(match done {
        Committed::Now => StatusCode::CREATED,
        Committed::Before => StatusCode::OK,
    })
}

pub(super) async fn manifest(
    State(service): State<Arc<Service>>,
    Caller(owner): Caller,
    Path((job, digest)): Path<(String, String)>,
) -> Result<Response, StoreError> {
    let job: Job = job.parse()?;
    let digest = match digest.as_str() {
        LATEST => None,
        digest => Some(one(digest)?),
    };
    let manifest = service.store.manifest(&owner, &job, digest).await?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, manifest).into_response())
}

pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    Caller(owner): Caller,
    Path((job, digest)): Path<(String, String)>,
) -> Result<StatusCode, StoreError> {
    let (job, digest) = (job.parse()?, one(&digest)?);
    let store = &service.store;
    store.remove_images(&owner, &job, Some(digest)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_all(
    State(service): State<Arc<Service>>,
    Caller(owner): Caller,
    Path(job): Path<String>,
) -> Result<StatusCode, StoreError> {
    let job = job.parse()?;
    service.store.remove_images(&owner, &job, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn one(digest: &str) -> Result<Digest, StoreError> {
    let digest = digest.parse();
    digest.map_err(|_| StoreError::Request("no digest of an image"))
}
