//! Chunks: which are missing, here is one, give me one.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use object_store::GetResultPayload;
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::super::auth::Caller;
use super::super::error::StoreError;
use super::super::space::NoRoom;
use super::{Service, body, ticket};
use crate::frame;
use crate::manifest::Limits;
use crate::protocol::{Admission, CONTROL_MAX, Chunk, Missing, NAMES_MAX, Ticket};

/// How much of a file is read at a time.
const READ: usize = 128 << 10;

/// A request that is JSON.
async fn json<T: for<'a> Deserialize<'a>>(
    service: &Service,
    headers: &HeaderMap,
    from: Body,
) -> Result<T, StoreError> {
    let length = body::length(headers, CONTROL_MAX as u64)?;
    let bytes = service.bodies.read(from, length).await?;
    serde_json::from_slice(&bytes)
        .map_err(|_| StoreError::Request("the body is not the JSON that it should be"))
}

pub(super) async fn admission(
    State(service): State<Arc<Service>>,
    caller: Caller,
    headers: HeaderMap,
    from: Body,
) -> Result<Json<Ticket>, StoreError> {
    if !caller.modify.anywhere() {
        return Err(StoreError::Forbidden);
    }
    let owner = &caller.owner;
    let Admission {
        bytes,
        seconds,
        job,
    } = json(&service, &headers, from).await?;
    // Said at once, not after a wait: another way takes time, too.
    let room = || {
        service
            .store
            .reserve(owner, bytes, service.turns.promised(owner))
    };
    if let Err(refused) = room().await {
        match (refused, &job) {
            (NoRoom::Owner { .. }, Some(job)) if caller.modify.job(job) => {
                service.store.give_up_older(owner, job).await?;
                drop(room().await?);
            }
            _ => return Err(refused.into()),
        }
    }
    let ticket = service.turns.wait(owner, bytes, seconds).await?;
    Ok(Json(Ticket { ticket }))
}

pub(super) async fn missing(
    State(service): State<Arc<Service>>,
    caller: Caller,
    headers: HeaderMap,
    from: Body,
) -> Result<Json<Missing>, StoreError> {
    if !caller.modify.anywhere() {
        return Err(StoreError::Forbidden);
    }
    let _memory = service.bodies.memory(CONTROL_MAX).await?;
    let Missing { chunks } = json(&service, &headers, from).await?;
    if chunks.len() > NAMES_MAX {
        return Err(StoreError::Request("too many names in one request"));
    }
    let chunks = service.store.missing(&caller.owner, &chunks);
    Ok(Json(Missing { chunks }))
}

pub(super) async fn put(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    from: Body,
) -> Result<StatusCode, StoreError> {
    if !caller.modify.anywhere() {
        return Err(StoreError::Forbidden);
    }
    let owner = &caller.owner;
    let chunk: Chunk = name.parse()?;
    let most = frame::bound(Limits::default().frame as usize) as u64;
    if u64::from(chunk.packed) > most {
        return Err(StoreError::Request("no chunk has this size"));
    }
    let length = body::length(&headers, most)?;
    if length != u64::from(chunk.packed) {
        return Err(StoreError::NotTheChunk);
    }
    service.turns.r#use(owner, ticket(&headers), length)?;
    let _memory = service.bodies.memory(length as usize).await?;
    let reserved = service.store.reserve(owner, length, (0, 0)).await?;
    let frame = service.bodies.read(from, length).await?;
    service.store.metrics.received.inc_by(length);
    // It is there where it was sent again, because its answer was lost.
    if !service.store.has(owner, chunk) {
        let put = service.store.put_chunk(owner, chunk, frame, reserved);
        put.await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn get(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, StoreError> {
    if !caller.read.anywhere() {
        return Err(StoreError::Forbidden);
    }
    let chunk: Chunk = name.parse()?;
    let got = service.store.chunk(&caller.owner, chunk).await?;
    service.store.metrics.sent.inc_by(chunk.packed.into());
    // Not through memory as a whole: a client that reads slowly would keep it there.
    let body = match got.payload {
        GetResultPayload::File(file, _) => {
            let file = tokio::fs::File::from_std(file);
            Body::from_stream(ReaderStream::with_capacity(file, READ))
        }
        GetResultPayload::Stream(stream) => Body::from_stream(stream),
    };
    let headers = [
        (header::CONTENT_LENGTH, chunk.packed.to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    Ok((headers, body).into_response())
}
