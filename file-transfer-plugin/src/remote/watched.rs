//! A stream that counts, so that silence can be told from slowness.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often it is looked whether anything moves, and whether somebody wants us to end.
const TICK: Duration = Duration::from_millis(200);

/// How many bytes went either way.
#[derive(Clone, Debug, Default)]
pub(super) struct Count(Arc<AtomicU64>);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

pub(super) struct Watched<T> {
    pub(super) inner: T,
    pub(super) count: Count,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.count.add(buffer.filled().len() - before);
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &poll {
            self.count.add(*written);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Why work was not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    /// Nothing moved.
    Stalled,
    /// The time is up.
    Late,
    /// Somebody said so.
    Stopped,
}

/// Waits for `work` until `deadline`, as long as bytes move at least every `stall`.
pub(super) async fn patiently<F: Future>(
    work: F,
    count: &Count,
    stall: Duration,
    deadline: Instant,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<F::Output, Enough> {
    let mut work = pin!(work);
    let mut last = (count.get(), Instant::now());
    loop {
        if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
            return Ok(done);
        }
        let now = Instant::now();
        if stopped() {
            return Err(Enough::Stopped);
        }
        if now >= deadline {
            return Err(Enough::Late);
        }
        if count.get() != last.0 {
            last = (count.get(), now);
        } else if now - last.1 >= stall {
            return Err(Enough::Stalled);
        }
    }
}
