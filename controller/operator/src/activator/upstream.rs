//! Connections to pods: HTTP/1.1 with a pool, HTTP/2 with one connection for all. Each thread has
//! its own, so that a request and its answer never change threads.
//!
//! A request that was not sent comes back in the error, and only that one may be sent again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::body::Outgoing;
use super::pod::Pod;

/// Longest wait for a connection: pods are a network away, not a continent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Idle connections of one thread to one pod; more are closed.
const MAX_IDLE: usize = 64;

/// How long a connection may have been idle. Less than what the worker closes them after, so
/// that a request does not meet a connection that ends just then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a pod may be silent, in the middle of a request, before it is asked whether it is
/// there; and how often before it is not.
const SILENCE: Duration = Duration::from_secs(10);
const PINGS: u32 = 3;

/// HTTP/2 windows, as the worker has them: a tensor fits one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The connections of one thread to one pod.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<Outgoing>>>,
    /// Held while the shared one is opened, so that it is opened once.
    opening: tokio::sync::Mutex<()>,
}

struct Idle {
    sender: http1::SendRequest<Outgoing>,
    since: Instant,
}

/// A connection that is in use, for HTTP/1.1.
pub struct Lease {
    sender: http1::SendRequest<Outgoing>,
    pod: Arc<Pod>,
    thread: usize,
}

/// Why there is no answer.
pub enum SendError {
    /// No connection: nothing was sent.
    Connect { request: Request<Outgoing>, error: io::Error },
    /// The connection ended before anything was sent.
    Unsent(Request<Outgoing>),
    /// Something may have been sent.
    Broken(hyper::Error),
}

/// Send a request over a connection of its own protocol.
pub async fn send(
    pod: &Arc<Pod>,
    thread: usize,
    request: Request<Outgoing>,
) -> Result<(Response<Incoming>, Option<Lease>), SendError> {
    if request.version() == Version::HTTP_2 {
        let mut sender = match pod.pools[thread].shared(pod.address).await {
            Ok(sender) => sender,
            Err(error) => return Err(SendError::Connect { request, error }),
        };
        let answer = sender.try_send_request(request).await.map_err(unsent)?;
        return Ok((answer, None));
    }
    let sender = match pod.pools[thread].take() {
        Some(sender) => sender,
        None => match open(pod.address).await {
            Ok(sender) => sender,
            Err(error) => return Err(SendError::Connect { request, error }),
        },
    };
    let mut lease = Lease { sender, pod: Arc::clone(pod), thread };
    let answer = lease.sender.try_send_request(request).await.map_err(unsent)?;
    Ok((answer, Some(lease)))
}

fn unsent(mut error: hyper::client::conn::TrySendError<Request<Outgoing>>) -> SendError {
    match error.take_message() {
        Some(request) => SendError::Unsent(request),
        None => SendError::Broken(error.into_error()),
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect(address);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
    stream.set_nodelay(true)?;
    // A node that is gone says nothing; without this its requests would wait for ever.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(&stream, SILENCE / PINGS)?;
    sockopt::set_tcp_keepcnt(&stream, PINGS)?;
    let most = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&stream, most)?;
    Ok(stream)
}

/// A new connection for HTTP/1.1.
async fn open(address: SocketAddr) -> io::Result<http1::SendRequest<Outgoing>> {
    let stream = connect(address).await?;
    let opened = http1::Builder::new().handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(io::Error::other)?;
    // It ends with its sender, and with its thread.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "a pod's connection ended early");
        }
    });
    Ok(sender)
}

// === impl Pool ===

impl Pool {
    /// An idle connection that is still open.
    fn take(&self) -> Option<http1::SendRequest<Outgoing>> {
        let mut idle = self.idle.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() > IDLE_TIMEOUT {
                // All others have been idle for longer.
                idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// The connection that all requests over HTTP/2 share.
    async fn shared(&self, address: SocketAddr) -> io::Result<http2::SendRequest<Outgoing>> {
        if let Some(sender) = self.open_shared() {
            return Ok(sender);
        }
        let _opening = self.opening.lock().await;
        if let Some(sender) = self.open_shared() {
            return Ok(sender);
        }
        let stream = connect(address).await?;
        let opened = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(SILENCE)
            .keep_alive_timeout(SILENCE)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = opened.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "a pod's connection ended early");
            }
        });
        *self.shared.lock() = Some(sender.clone());
        Ok(sender)
    }

    fn open_shared(&self) -> Option<http2::SendRequest<Outgoing>> {
        self.shared.lock().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }
}

// === impl Lease ===

impl Lease {
    /// The answer was read to its end: the next request may have the connection.
    pub fn give_back(self) {
        let Self { sender, pod, thread } = self;
        if sender.is_closed() {
            return;
        }
        let mut idle = pod.pools[thread].idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}
