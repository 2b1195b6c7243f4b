//! Memory for chunks on their way, used again: pages that are new to the kernel cost as much as the hash of what comes into
//! them, and an allocator gives back at once what is as large.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::workers::lock;

/// How many are kept for the next, and how much of one: a chunk of usual size.
const IDLE: usize = 32;
const IDLE_MAX: usize = 5 << 18;

type Idle = Arc<Mutex<Vec<Vec<u8>>>>;

/// Those that wait for their next use.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Idle);

/// One in use, with what it had before in it. Dropped, or when the last of its [`Bytes`] is, it waits for its next.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    idle: Idle,
}

impl Buffers {
    pub(crate) fn take(&self) -> Buffer {
        Buffer {
            bytes: lock(&self.0).pop().unwrap_or_default(),
            idle: Arc::clone(&self.0),
        }
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Bytes {
        Bytes::from_owner(buffer)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE && self.bytes.capacity() <= IDLE_MAX {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_its_last_user_is_gone_unless_there_is_too_much_of_it() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.resize(1000, 7);
        let place = buffer.as_ptr();
        let bytes = Bytes::from(buffer);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(buffers.take().is_empty());
        drop(part);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 1000));

        let mut large = buffers.take();
        large.reserve(IDLE_MAX + 1);
        drop(large);
        assert!(lock(&buffers.0).is_empty());
    }
}
