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
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::error::StoreError;

/// Connections at a time; further ones wait in the kernel. Each takes some 50 kB.
const CONNECTIONS: usize = 1024;
/// How much of a connection waits in memory.
const BUFFER: usize = 64 << 10;
/// Requests at a time on one connection.
const STREAMS: u32 = 16;
/// How long requests may go on when the store is told to end.
const GRACE: Duration = Duration::from_secs(10);

/// Where to listen, and how.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsAcceptor>,
    /// The headers of a request must be there within this time, counted from the answer to the last one; so must a handshake.
    /// A client that takes no byte of an answer for so long is gone.
    pub(super) patience: Duration,
}

impl Listener {
    /// Serves until SIGTERM or SIGINT.
    pub(super) async fn serve(
        self,
        service: Router,
        ready: impl FnOnce(SocketAddr),
    ) -> Result<(), StoreError> {
        let Self {
            address,
            tls,
            patience,
        } = self;
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
        let server = server(patience);
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
            let (server, tls, watcher) = (server.clone(), tls.clone(), graceful.watcher());
            tokio::spawn(async move {
                let _place = place;
                let done = match tls {
                    None => {
                        let stream = TokioIo::new(limited(stream, patience));
                        let connection = server.serve_connection(stream, service).into_owned();
                        watcher.watch(connection).await
                    }
                    Some(tls) => {
                        let Ok(Ok(stream)) = timeout(patience, tls.accept(stream)).await else {
                            return;
                        };
                        let stream = TokioIo::new(limited(stream, patience));
                        let connection = server.serve_connection(stream, service).into_owned();
                        watcher.watch(connection).await
                    }
                };
                if let Err(error) = done {
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
}

fn server(patience: Duration) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(BUFFER);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience)
        .keep_alive_timeout(patience)
        .initial_stream_window_size(BUFFER as u32)
        .initial_connection_window_size(4 * BUFFER as u32)
        .max_send_buf_size(BUFFER)
        .max_header_list_size(16 << 10)
        .max_concurrent_streams(STREAMS);
    server
}

/// With a limit on how long a write waits. Reads have theirs where it is known what is to come.
fn limited<S: AsyncRead + AsyncWrite>(
    stream: S,
    patience: Duration,
) -> std::pin::Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    Box::pin(stream)
}
