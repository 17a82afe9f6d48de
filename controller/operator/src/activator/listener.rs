//! The port of one Model: connections in, HTTP/1.1 and HTTP/2 on one port, and their end when
//! clients shall go another way.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::forward;
use super::model::Model;
use super::shared::Shared;

/// Pause after the process ran out of file descriptors or memory for connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take for a request's head, or be silent between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// HTTP/2 streams of one client; a burst over one connection fits.
const MAX_STREAMS: u32 = 1024;

/// HTTP/2 streams that a client has reset before they were looked at.
const MAX_RESET_STREAMS: usize = 50;

/// Bytes of one answer that wait to be written; more are not read from the pod.
const MAX_SEND_BUFFER: usize = 256 << 10;

/// HTTP/2 windows, as the worker has them.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How many connections may wait to be accepted: a burst of new clients to a cold model.
const BACKLOG: u32 = 4096;

/// The address that stands for all of this machine's: that of IPv6, by which IPv4 comes too; that of
/// IPv4 where the kernel has no other.
pub fn everywhere() -> IpAddr {
    every(|address| std::net::TcpListener::bind((address, 0)).map(drop))
}

fn every(try_bind: impl Fn(IpAddr) -> io::Result<()>) -> IpAddr {
    let six = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match try_bind(six) {
        Ok(()) => six,
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Listen at an address.
///
/// # Errors
/// The port is taken, or may not be.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // A port that was closed just now may be taken again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Take connections until this is dropped or the activator ends.
pub async fn listen(listener: TcpListener, shared: Arc<Shared>, model: Arc<Model>) {
    let http = Arc::new(http());
    loop {
        let accepted = tokio::select! {
            // Takes a place first, and loses nothing when dropped.
            accepted = accept(&listener, &shared) => accepted,
            // A flag, which stays.
            () = shared.draining.cancelled() => return,
        };
        let Some((stream, place)) = accepted else { continue };
        let (thread, handle) = shared.thread();
        let connection = Connection {
            shared: Arc::clone(&shared),
            model: Arc::clone(&model),
            thread,
            _place: place,
        };
        // It belongs to the thread that it is served on, with its readiness.
        let Ok(stream) = stream.into_std() else { continue };
        let served = connection.serve(stream, Arc::clone(&http));
        handle.spawn(shared.connections.track_future(served));
    }
}

async fn accept(
    listener: &TcpListener,
    shared: &Shared,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(&shared.places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // A stream that refuses is closed already.
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
            if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .keep_alive_interval(HEAD_TIMEOUT / 2)
        .keep_alive_timeout(HEAD_TIMEOUT / 2);
    http
}

/// One client.
struct Connection {
    shared: Arc<Shared>,
    model: Arc<Model>,
    thread: usize,
    /// Held to its end.
    _place: OwnedSemaphorePermit,
}

/// Whether a client has sent a request: one that has just connected is let have one, since it
/// came before it could know.
#[derive(Default)]
struct Asked {
    yes: AtomicBool,
    first: Notify,
}

// === impl Connection ===

impl Connection {
    async fn serve(self, stream: std::net::TcpStream, http: Arc<Builder<TokioExecutor>>) {
        let Self { shared, model, thread, _place } = self;
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let asked = Arc::new(Asked::default());
        let (draining, closing) = (shared.draining.clone(), model.closing());
        let service = {
            let asked = Arc::clone(&asked);
            service_fn(move |request: Request<Incoming>| {
                asked.note();
                let (shared, model) = (Arc::clone(&shared), Arc::clone(&model));
                async move {
                    let http1 = request.version() != Version::HTTP_2;
                    let mut answer = forward::answer(&shared, &model, thread, request).await;
                    // HTTP/2 has its own word for it.
                    if http1 && (model.is_closing() || shared.draining.is_cancelled()) {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ending = async {
            tokio::select! {
                // A flag, which stays.
                () = draining.cancelled() => {}
                // Looks at the present value first.
                () = asked.and_closing(closing) => {}
            }
        };
        tokio::pin!(ending);
        let ended = tokio::select! {
            // Polled on below.
            ended = connection.as_mut() => ended,
            () = ending.as_mut() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a client's connection ended early");
        }
    }
}

// === impl Asked ===

impl Asked {
    fn note(&self) {
        if !self.yes.swap(true, Ordering::AcqRel) {
            self.first.notify_one();
        }
    }

    /// Returns when connections shall close and a request has come.
    async fn and_closing(&self, mut closing: tokio::sync::watch::Receiver<bool>) {
        if !self.yes.load(Ordering::Acquire) {
            self.first.notified().await;
        }
        if closing.wait_for(|closing| *closing).await.is_err() {
            // The Model is no more, and said so before.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_is_listened_on_by_ipv4() {
        let without = |address: IpAddr| match address {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        assert_eq!(every(without).to_string(), "0.0.0.0");
        assert_eq!(every(|_| Ok(())).to_string(), "::");
    }
}
