//! The listener: connections in, HTTP/1.1 and HTTP/2 on one port, plain or over TLS, and a
//! shutdown that finishes what was begun.
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

use http::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::awake::{Awake, Place};
use crate::eager::Eager;
use crate::edge;
use crate::front::Front;
use crate::io::Prompt;
use crate::peers::{PeerPlace, Peers};
use crate::repository::Repository;
use crate::settings::ServeSettings;
use crate::stall::{Unread, WriteTimeout};
use crate::tls::Tls;

/// Pause after the process ran out of file descriptors or memory for connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// HTTP/2 flow control windows: a picture or a tensor fits one without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// HTTP/2 streams that a client has reset before they were looked at. More, and the connection
/// ends: nobody opens streams only to reset them.
const MAX_RESET_STREAMS: usize = 20;

/// HTTP/2 streams that were reset since the client broke the protocol on them. A client that
/// does so again and again is no client.
const MAX_BROKEN_STREAMS: usize = 128;

/// Bytes of one HTTP/2 answer that wait to be written: what a connection's window takes at
/// once would be more, and for all streams together too much.
const MAX_SEND_BUFFER: usize = 256 << 10;

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
        let front = Arc::new(Front::new(repository.clone(), &self.settings));
        let http = Arc::new(http(&self.settings));
        let places = Arc::new(Semaphore::new(self.settings.max_connections.max(1)));
        let peers = Peers::new(self.settings.max_peer_connections);
        // Without it clients are answered as well, if later.
        let awake = Place::new().ok().map(Arc::new);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let _reloads = reloads(&self.settings, &shutdown);
        let (tended, stop) = (repository.clone(), shutdown.child_token());
        // Ends with this future, however that ends.
        let _tending = stop.clone().drop_guard();
        tokio::spawn(async move { tended.tend(stop).await });
        // Whoever shakes hands may do so until the port closes.
        let closing = CancellationToken::new();
        let _closed = closing.clone().drop_guard();
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
            let Some((stream, peer, place)) = accepted else { continue };
            // Whoever has too many is closed at once, and learns it so.
            let Some(peer_place) = peers.enter(peer.ip()) else { continue };
            let connection = Connection {
                _places: (place, peer_place),
                front: Arc::clone(&front),
                http: Arc::clone(&http),
                watcher: graceful.watcher(),
                repository: repository.clone(),
                header_timeout: self.settings.header_timeout,
                write_timeout: self.settings.write_timeout,
            };
            let stream = Awake::new(stream, awake.clone());
            let stream = WriteTimeout::new(stream, self.settings.write_timeout);
            match self.settings.tls.clone() {
                None => connections.spawn(Eager::new(connection.run(stream))),
                Some(tls) => {
                    let secure = connection.secure(stream, tls, closing.clone());
                    connections.spawn(Eager::new(secure))
                }
            };
        };
        closing.cancel();
        repository.drain();
        drop(self.listener);
        drain(graceful, connections, self.settings.drain.saturating_sub(lingered)).await
    }
}

/// Read files of the settings again when they change. Dropping the set ends it.
fn reloads(settings: &ServeSettings, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(tls) = &settings.tls {
        tasks.spawn(tls.clone().keep(stop.clone()));
    }
    if let Some(auth) = &settings.auth {
        tasks.spawn(auth.clone().keep(stop.clone()));
    }
    tasks
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
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Without it, the last packet of an answer waits for the client's
            // acknowledgement. A stream that refuses is closed already.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, place))
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
    // A silent HTTP/2 client is asked whether it is there. In the middle of headers it cannot
    // answer, so both together are the time for them.
    let silence = settings.header_timeout / 2;
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
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_BROKEN_STREAMS)
        .keep_alive_interval(silence)
        .keep_alive_timeout(silence);
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
    /// Held to its end.
    _places: (OwnedSemaphorePermit, PeerPlace),
    front: Arc<Front>,
    http: Arc<Builder<TokioExecutor>>,
    watcher: Watcher,
    header_timeout: Duration,
    write_timeout: Duration,
    repository: Repository,
}

// === impl Connection ===

impl Connection {
    /// Shake hands first, in the time that a client has for its headers.
    async fn secure(
        self,
        stream: WriteTimeout<Awake<TcpStream>>,
        tls: Tls,
        stop: CancellationToken,
    ) {
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.header_timeout, tls.accept(stream)) => shaken,
            // No request has been begun.
            () = stop.cancelled() => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let Self { _places, front, http, watcher, repository, header_timeout, write_timeout } =
            self;
        let unread = Arc::new(Unread::default());
        let answers = Arc::clone(&unread);
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let streams = request.version() == http::Version::HTTP_2;
            let unread = streams.then(|| Arc::clone(&answers));
            let refused = edge::wrong_coding(request.headers());
            let (front, repository) = (Arc::clone(&front), repository.clone());
            async move {
                let is_http1 = request.version() <= http::Version::HTTP_11;
                let mut answer = match refused {
                    Some(answer) => answer,
                    None => front.answer(request.map(axum::body::Body::new)).await,
                };
                // The client's next request comes by a connection of its own, and so to a
                // server that stays. HTTP/2 has its own word for it, which the drain says.
                if is_http1 && repository.is_leaving() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(match unread {
                    Some(unread) => unread.watch(answer),
                    None => answer,
                })
            }
        });
        let stream = TokioIo::new(Prompt::new(stream, header_timeout));
        let connection = http.serve_connection(stream, service).into_owned();
        tokio::select! {
            done = watcher.watch(connection) => if let Err(error) = done {
                tracing::debug!(error, "connection ended early");
            },
            () = unread.stuck(write_timeout) => {
                tracing::debug!("connection ended: the client does not take its answers");
            }
        }
    }
}
