//! What the host decides about the server. Every bound of it is here or a named
//! constant beside the code that keeps it.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;

use crate::auth::Auth;
use crate::tls::Tls;

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Address and port; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Most bytes of one request's body, whatever a package allows.
    pub max_body: u64,
    /// Most bytes that all bodies in memory may have together. A request past it is
    /// turned away with 503.
    pub max_body_memory: u64,
    /// Most bytes of one request's headers.
    pub max_headers: usize,
    /// Time that a client has for its headers. A connection that is kept alive
    /// without a request is closed after it, too.
    pub header_timeout: Duration,
    /// Time that a client has for its body.
    pub body_timeout: Duration,
    /// Time in which a client must take some of its answer. One that takes nothing is
    /// disconnected, at the latest after twice this time.
    pub write_timeout: Duration,
    /// Open connections; more wait in the listener's backlog.
    pub max_connections: usize,
    /// Open connections of one address (for IPv6, of one /64 network); more are closed at
    /// once.
    pub max_peer_connections: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Certificates. None: connections are not encrypted.
    pub tls: Option<Tls>,
    /// Who may call what. None: everybody may call everything.
    pub auth: Option<Auth>,
    /// Web pages of these origins may call from a browser; `*` stands for all. None: of no
    /// other origin than the server's own.
    pub cors_origins: Vec<HeaderValue>,
    /// Whether requests may load and unload models. Off: whoever reaches the port could
    /// otherwise take a model away.
    pub model_control: bool,
    /// Whether there is a page for people, at `/v2/page` and behind `/`.
    pub page: bool,
    /// Time from the call to shut down until the port closes, in which requests are answered
    /// though the server says that it is not ready: whoever spreads requests needs a moment to
    /// hear of it. Part of `drain`.
    pub linger: Duration,
    /// Time that requests have to finish when the server shuts down.
    pub drain: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body: 256 << 20,
            max_body_memory: 1 << 30,
            // hyper needs at least 8 KiB. Bodies are read in pieces of this size at
            // most, so it is also what fits a core's cache.
            max_headers: 128 << 10,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            max_connections: 4096,
            // Much for a program, and enough for a proxy through which all others come; still
            // it leaves places for them.
            max_peer_connections: 1024,
            max_streams: 256,
            tls: None,
            auth: None,
            cors_origins: Vec::new(),
            model_control: false,
            page: true,
            // A server that nobody spreads requests to ends at once.
            linger: Duration::ZERO,
            // Kubernetes gives a pod 30 seconds by default.
            drain: Duration::from_secs(25),
        }
    }
}
