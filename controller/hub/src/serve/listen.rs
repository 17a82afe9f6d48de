//! Connections to the API: over TLS, or plainly from this machine alone. All of it is bounded, since anybody may
//! knock.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{self, ServerConfig};

/// Connections at once: sites that renew, people, and a load of them that don't finish.
const MAX_CONNECTIONS: usize = 512;

/// Time for a handshake, for a request's head, and for a whole connection: a request is small, and a client that
/// wants more opens another.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(300);

/// After an error of the system's, such as no file handles left.
const BREATH: Duration = Duration::from_millis(100);

/// A port that is listened on.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("{} can't be read", .path.display())]
    File { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("the API's certificate can't be used")]
    Tls(#[from] rustls::Error),
    #[error(
        "without TLS tokens could be read on the way: listen on a loopback address, not on {0}"
    )]
    Plain(SocketAddr),
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ListenError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        |source| ListenError::File { path, source }
    };
    let chain =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(bad(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(bad(key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

// === impl Listener ===

impl Listener {
    /// # Errors
    /// The address is in use, the certificate is none, or tokens would be sent in plain.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<(&Path, &Path)>,
    ) -> Result<Self, ListenError> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(ListenError::Plain(address));
        }
        Self::bind_any(address, tls).await
    }

    /// The same for what has no secrets.
    ///
    /// # Errors
    /// The address is in use, or the certificate is none.
    pub async fn bind_any(
        address: SocketAddr,
        tls: Option<(&Path, &Path)>,
    ) -> Result<Self, ListenError> {
        let tls = tls.map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let socket = TcpListener::bind(address).await;
        Ok(Self { socket: socket.map_err(|source| ListenError::Bind { address, source })?, tls })
    }

    /// Where it listens, which the system chose if it was asked to.
    ///
    /// # Errors
    /// The system doesn't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answer until the future is dropped.
    pub async fn serve(self, router: Router) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let (tls, router) = (self.tls.clone(), router.clone());
            tokio::spawn(async move {
                // Whoever is late, or breaks off, hears nothing.
                let _ = tokio::time::timeout(LIFE, connection(stream, tls, router)).await;
                drop(place);
            });
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    // Small answers wait for nothing.
    let _ = stream.set_nodelay(true);
    match tls {
        None => answer(stream, router).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                answer(stream, router).await;
            }
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    let served =
        http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}
