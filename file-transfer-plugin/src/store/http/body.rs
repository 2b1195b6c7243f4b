//! Bodies: never longer than they say, never slower than is bearable, and never more of them in memory than the store may take.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::error::StoreError;
use crate::buffers::Buffers;

/// What all bodies together may take.
const ALL: usize = 96 << 20;
/// The unit in which it is given out.
const UNIT: usize = 1 << 10;
/// Slower than this all in all, and it is taken for one that only wants to hold our memory.
const SLOWEST: u64 = 64 << 10;

/// How bodies are read, and the memory for them. Who comes first is served first.
pub(crate) struct Bodies {
    memory: Semaphore,
    buffers: Buffers,
    pub(super) patience: Duration,
}

impl Bodies {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            memory: Semaphore::new(ALL / UNIT),
            buffers: Buffers::default(),
            patience,
        }
    }

    /// Waits for memory for `bytes`, or for all of it where that is more.
    pub(super) async fn memory(&self, bytes: usize) -> Result<SemaphorePermit<'_>, StoreError> {
        let units = bytes.min(ALL).div_ceil(UNIT) as u32;
        let permit = self.memory.acquire_many(units).await;
        permit.map_err(|_| StoreError::Task)
    }

    /// Reads a body of exactly `length` bytes.
    pub(super) async fn read(&self, mut body: Body, length: u64) -> Result<Bytes, StoreError> {
        let end = Instant::now() + self.patience + Duration::from_secs(length / SLOWEST);
        let mut bytes = self.buffers.take();
        bytes.clear();
        bytes.reserve_exact(length as usize);
        while !body.is_end_stream() {
            let next = timeout_at(end, timeout(self.patience, body.frame())).await;
            let Ok(Ok(next)) = next else {
                return Err(StoreError::Body);
            };
            let Some(frame) = next else { break };
            let frame = frame.map_err(|_| StoreError::Body)?;
            // Trailers say nothing to us.
            if let Ok(data) = frame.into_data() {
                if (bytes.len() + data.len()) as u64 > length {
                    return Err(StoreError::Body);
                }
                bytes.extend_from_slice(&data);
            }
        }
        if bytes.len() as u64 != length {
            return Err(StoreError::Body);
        }
        Ok(bytes.into())
    }
}

/// The length that a request says its body has.
pub(super) fn length(headers: &HeaderMap, most: u64) -> Result<u64, StoreError> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .ok_or(StoreError::Request("the request has no Content-Length"))?;
    if length > most {
        return Err(StoreError::TooLong(most));
    }
    Ok(length)
}
