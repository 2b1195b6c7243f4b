//! Connections: as many as there is memory for, each with limits on how long it may do nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::error::StoreError;

/// Connections at a time; further ones wait in the kernel. Each takes some 50 kB.
const CONNECTIONS: usize = 1024;
/// The headers of a request must be there within this time, counted from the answer to the last one.
const HEADERS: Duration = Duration::from_secs(30);
/// A client that takes no byte of an answer for so long is gone.
const WRITE: Duration = Duration::from_secs(60);
/// How much of a connection waits in memory.
const BUFFER: usize = 64 << 10;
/// Requests at a time on one connection.
const STREAMS: u32 = 16;
/// How long requests may go on when the store is told to end.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(
    address: SocketAddr,
    service: Router,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), StoreError> {
    let cannot = |source| StoreError::Open {
        what: address.to_string(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    ready(listener.local_addr().map_err(cannot)?);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let server = server();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, say. They become fewer by themselves.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Answers are small or long; neither is to wait for the other's acknowledgement.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        let connection = server
            .serve_connection_with_upgrades(TokioIo::new(limited(stream)), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
    Ok(())
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADERS)
        .keep_alive_timeout(HEADERS)
        .initial_stream_window_size(BUFFER as u32)
        .initial_connection_window_size(4 * BUFFER as u32)
        .max_send_buf_size(BUFFER)
        .max_header_list_size(16 << 10)
        .max_concurrent_streams(STREAMS);
    server
}

/// With a limit on how long a write waits. Reads have theirs where it is known what is to come.
fn limited<S: AsyncRead + AsyncWrite>(stream: S) -> std::pin::Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE));
    Box::pin(stream)
}
