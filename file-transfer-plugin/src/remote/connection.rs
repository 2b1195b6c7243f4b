//! One connection to a store: one request at a time, and made anew when it broke.
//!
//! Its caller is an ordinary thread: what is asynchronous lives and ends in here. Several connections are several threads,
//! which also share the work of verifying what comes.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::effort::Effort;
use super::watched::{Count, Enough, Watched, patiently};
use super::{Error, Remote};

/// One address of several gets this long.
const CONNECT: Duration = Duration::from_secs(10);
/// What may lie unsent in the kernel. Without a bound a slow network has megabytes there, and nothing moves, as far as we can
/// see, for minutes.
const UNSENT: u32 = 128 << 10;

pub(crate) struct Connection<'a> {
    remote: &'a Remote,
    effort: &'a Effort<'a>,
    runtime: Runtime,
    live: Option<Live>,
    /// Which of the host's addresses is next.
    turn: usize,
}

struct Live {
    sender: SendRequest<Full<Bytes>>,
    count: Count,
}

/// What is asked of the store.
pub(crate) struct Ask<'t> {
    pub(crate) method: Method,
    /// From the first slash on, encoded.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) ticket: Option<&'t str>,
    /// The longest answer.
    pub(crate) limit: usize,
    /// How long the store may be silent.
    pub(crate) silence: Duration,
}

/// What the store says to it.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(remote: &'a Remote, effort: &'a Effort<'a>) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::local("set up the network"))?;
        Ok(Self {
            remote,
            effort,
            runtime,
            live: None,
            turn: 0,
        })
    }

    /// Asks once. After an error the connection is gone, and the next request makes another.
    pub(crate) fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, Error> {
        let mut live = match self.live.take() {
            Some(live) if !live.sender.is_closed() => live,
            _ => self.connect()?,
        };
        let request = self.request(ask)?;
        let answer = {
            let work = exchange(&mut live.sender, request, ask.limit);
            let stopped = || self.effort.is_stopped();
            let deadline = self.effort.deadline();
            self.runtime.block_on(patiently(
                work,
                &live.count,
                ask.silence,
                deadline,
                &stopped,
            ))
        };
        let answer = match answer {
            Ok(answer) => answer.map_err(|source| Error::Broken {
                server: self.remote.url.server(),
                source,
            })?,
            Err(enough) => return Err(self.enough(enough, ask.silence)),
        };
        self.live = Some(live);
        Ok(answer)
    }

    fn enough(&self, enough: Enough, after: Duration) -> Error {
        match enough {
            Enough::Stalled => Error::Stalled {
                server: self.remote.url.server(),
                after,
            },
            Enough::Late => self.effort.late(),
            Enough::Stopped => Error::Stopped,
        }
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(&ask.path)
            .header(HOST, self.remote.url.server())
            .header(
                USER_AGENT,
                concat!("criu-transfer/", env!("CARGO_PKG_VERSION")),
            );
        // As it is now: the credmon may have renewed it since the last request.
        if let Some(token) = self.remote.tokens.get(&self.remote.url)? {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.secret()));
        }
        if let Some(ticket) = ask.ticket {
            request = request.header(crate::protocol::TICKET, ticket);
        }
        let bad = |error| Error::Parameter(format!("no request can be made of it: {error}"));
        request.body(Full::new(ask.body.clone())).map_err(bad)
    }

    fn connect(&mut self) -> Result<Live, Error> {
        let began = Instant::now();
        let addresses = self.addresses()?;
        let address = addresses[self.turn % addresses.len()];
        self.turn += 1;
        let count = Count::default();
        let work = self.handshake(address, count.clone());
        let stopped = || self.effort.is_stopped();
        let deadline = self.effort.deadline().min(began + CONNECT);
        let made = self
            .runtime
            .block_on(patiently(work, &count, CONNECT, deadline, &stopped));
        let sender = match made {
            Ok(made) => made,
            Err(Enough::Stopped) => return Err(Error::Stopped),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let sender = sender.map_err(|source| Error::Contact {
            server: format!("{} ({address})", self.remote.url.server()),
            source,
        })?;
        self.effort.connected(began.elapsed());
        Ok(Live { sender, count })
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let url = &self.remote.url;
        let unknown = |source| Error::Resolution {
            name: url.host.clone(),
            source,
        };
        let found = (url.host.as_str(), url.port).to_socket_addrs();
        let found: Vec<_> = found.map_err(unknown)?.collect();
        if found.is_empty() {
            return Err(unknown(io::ErrorKind::NotFound.into()));
        }
        Ok(found)
    }

    async fn handshake(
        &self,
        address: SocketAddr,
        count: Count,
    ) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Both are hints to the kernel; some gVisor-like sandboxes have neither.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        let _ = SockRef::from(&stream).set_keepalive(true);
        match &self.remote.tls {
            None => speak(stream, count).await,
            Some(config) => {
                let name =
                    ServerName::try_from(self.remote.url.host.clone()).map_err(io::Error::other)?;
                let tls = TlsConnector::from(Arc::clone(config));
                let watched = Watched {
                    inner: stream,
                    count,
                };
                speak(tls.connect(name, watched).await?, Count::default()).await
            }
        }
    }
}

/// Begins HTTP on a stream.
async fn speak<S>(stream: S, count: Count) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(Watched {
        inner: stream,
        count,
    });
    let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    // It runs whenever a request is waited for, and its error is that request's, too.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> io::Result<Answer> {
    sender.ready().await.map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = Limited::new(response.into_body(), limit).collect().await;
    Ok(Answer {
        status,
        retry_after,
        body: body.map_err(io::Error::other)?.to_bytes(),
    })
}
