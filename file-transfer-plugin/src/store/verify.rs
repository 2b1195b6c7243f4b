//! A frame is believed when it unpacks to bytes of the hash that it is named by.
//!
//! As many at a time as there are cores, each with memory that is used again: the work is on the CPU, and pages that are new
//! to the kernel cost as much as the hash.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::error::StoreError;
use crate::frame::{self, Unpacker};
use crate::manifest::{Digest, Limits};
use crate::protocol::Chunk;
use crate::workers::{lock, threads};

/// Those who verify.
pub(super) struct Verifiers {
    turns: Semaphore,
    idle: Mutex<Vec<Verifier>>,
}

struct Verifier {
    unpacker: Unpacker,
    raw: Vec<u8>,
}

impl Verifiers {
    pub(super) fn new() -> Self {
        Self {
            turns: Semaphore::new(threads(0)),
            idle: Mutex::default(),
        }
    }

    /// Refuses a frame that is not the chunk, or not one frame of `raw` bytes.
    pub(super) async fn verify(
        self: &std::sync::Arc<Self>,
        chunk: Chunk,
        raw: u32,
        frame: Bytes,
    ) -> Result<(), StoreError> {
        let _turn = self.turns.acquire().await.map_err(|_| StoreError::Task)?;
        let all = std::sync::Arc::clone(self);
        let work = move || {
            let idle = lock(&all.idle).pop();
            let mut verifier = idle.map_or_else(Verifier::new, Ok)?;
            let right = verifier.is(chunk, raw as usize, &frame);
            lock(&all.idle).push(verifier);
            right.then_some(()).ok_or(StoreError::NotTheChunk)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| StoreError::Task)?
    }
}

impl Verifier {
    fn new() -> Result<Self, StoreError> {
        Ok(Self {
            unpacker: Unpacker::new().map_err(|_| StoreError::Task)?,
            raw: Vec::with_capacity(Limits::default().frame as usize),
        })
    }

    fn is(&mut self, chunk: Chunk, raw: usize, frame: &[u8]) -> bool {
        frame::codec_of(frame).is_some_and(|codec| {
            raw <= self.raw.capacity()
                && self.unpacker.unpack(codec, frame, raw, &mut self.raw)
                && Digest::of(&self.raw) == chunk.hash
        })
    }
}
