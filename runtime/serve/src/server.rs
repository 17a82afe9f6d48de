//! The listener: connections in, HTTP/1.1 and h2c on one port, and a shutdown that
//! finishes what was begun.
//!
//! ```text
//!  shutdown ──▶ not ready ──▶ `linger`: as before, but connections are not kept alive
//!           ──▶ stop accepting ──▶ idle connections close
//!                                            ──▶ requests in work finish, within
//!                                                `drain`; then the rest is cut off
//! ```

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Version;
use http::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::io::Prompt;
use crate::repository::Repository;
use crate::routes;
use crate::settings::ServeSettings;

/// Pause after the process ran out of file descriptors or memory for connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// HTTP/2 flow control windows: a picture or a tensor fits one without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How often a silent HTTP/2 client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Smallest buffer that the HTTP library takes.
const MIN_HEADERS: usize = 8 << 10;

/// The server's constructor.
#[derive(Debug)]
pub struct Server;

/// A server that listens and does not yet answer.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
    settings: ServeSettings,
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "{addr} is in use by another process: stop it, or choose another port (0 takes a free one)"
    )]
    InUse { addr: SocketAddr },
    #[error("this user may not listen on {addr}: choose a port from 1024 up")]
    Forbidden { addr: SocketAddr },
    #[error("cannot listen on {addr}")]
    Io { addr: SocketAddr, source: io::Error },
}

/// What a shutdown came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut off.
    pub cut_off: usize,
}

// === impl Server ===

impl Server {
    /// Listen, so that clients may connect; nothing is answered before
    /// [`Bound::serve`].
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(settings: ServeSettings) -> Result<Bound, BindError> {
        let addr = settings.addr;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { addr },
            io::ErrorKind::PermissionDenied => BindError::Forbidden { addr },
            _ => BindError::Io { addr, source },
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Bound { listener, addr, settings })
    }
}

// === impl Bound ===

impl Bound {
    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answer requests until `shutdown` is cancelled, the linger is over and the requests
    /// in work are done, or the drain time is over.
    pub async fn serve(self, repository: Repository, shutdown: CancellationToken) -> Drained {
        let router = routes::router(repository.clone(), &self.settings);
        let http = Arc::new(http(&self.settings));
        let places = Arc::new(Semaphore::new(self.settings.max_connections.max(1)));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let linger = self.settings.linger.min(self.settings.drain);
        let mut leave = std::pin::pin!(leave(&repository, &shutdown, linger));
        let lingered = loop {
            // Reap, so that the set stays as small as the number of connections.
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                // `accept` takes a place first and loses nothing when dropped.
                accepted = accept(&self.listener, &places) => accepted,
                // Polled on from turn to turn, so its clock is not set back.
                lingered = &mut leave => break lingered,
            };
            let Some((stream, place)) = accepted else { continue };
            let connection = Connection {
                stream: Prompt::new(stream, self.settings.header_timeout),
                place,
                router: router.clone(),
                http: Arc::clone(&http),
                watcher: graceful.watcher(),
                repository: repository.clone(),
            };
            connections.spawn(connection.run());
        };
        repository.drain();
        drop(self.listener);
        drain(graceful, connections, self.settings.drain.saturating_sub(lingered)).await
    }
}

/// Returns when the port may close: how long it stayed open after the call to shut down. A
/// server that is not ready has no requests to wait for.
async fn leave(
    repository: &Repository,
    shutdown: &CancellationToken,
    linger: Duration,
) -> Duration {
    shutdown.cancelled().await;
    let linger = if repository.is_ready() { linger } else { Duration::ZERO };
    repository.leave();
    tokio::time::sleep(linger).await;
    linger
}

/// The next connection, when there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Without it, the last packet of an answer waits for the client's
            // acknowledgement. A stream that refuses is closed already.
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            // One connection's mishap, or no descriptors: neither ends the server.
            if !is_of_the_connection(&error) {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn http(settings: &ServeSettings) -> Builder<TokioExecutor> {
    let headers = settings.max_headers.max(MIN_HEADERS);
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(headers);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(headers).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.max_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL);
    http
}

/// Let connections finish, and cut off those that take too long.
async fn drain(
    graceful: GracefulShutdown,
    mut connections: JoinSet<()>,
    time: Duration,
) -> Drained {
    let finished = tokio::time::timeout(time, graceful.shutdown()).await.is_ok();
    while connections.try_join_next().is_some() {}
    let cut_off = if finished { 0 } else { connections.len() };
    if cut_off > 0 {
        tracing::warn!(cut_off, "the drain time is over: connections with requests are cut off");
    }
    connections.shutdown().await;
    Drained { cut_off }
}

/// One client.
struct Connection {
    stream: Prompt<TcpStream>,
    place: OwnedSemaphorePermit,
    router: Router,
    http: Arc<Builder<TokioExecutor>>,
    watcher: Watcher,
    repository: Repository,
}

// === impl Connection ===

impl Connection {
    async fn run(self) {
        let Self { stream, place, router, http, watcher, repository } = self;
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (mut router, repository) = (router.clone(), repository.clone());
            async move {
                let is_http1 = request.version() <= Version::HTTP_11;
                // A router is always ready, and its clone is a reference.
                let mut answer = router.call(request.map(axum::body::Body::new)).await?;
                // The client's next request comes by a connection of its own, and so to a
                // server that stays. HTTP/2 has its own word for it, which the drain says.
                if is_http1 && repository.is_leaving() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(error, "connection ended early");
        }
        drop(place);
    }
}
