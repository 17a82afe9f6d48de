//! Connections over TLS, and who the client says it is.

use std::future::Future;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CONNECT_TIMEOUT;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Port of `https` URLs that name none.
const HTTPS: u16 = 443;

/// Flags of commands that call a server.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Servers")]
pub struct RemoteArgs {
    /// Authorities whose servers are trusted (PEM); needed for https
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The client's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Token for a server that asks for one; better in the variable, which `ps` does not show
    #[arg(long, value_name = "TOKEN", env = "WICK_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Connects and shakes hands.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
}

/// A connection over TLS.
pub struct Stream(TlsStream<TcpStream>);

// === impl RemoteArgs ===

impl RemoteArgs {
    /// Of commands that have flags of their own for it.
    pub fn new(cacert: Option<PathBuf>, token: Option<String>) -> Self {
        Self { cacert, cert: None, key: None, token }
    }

    /// The value of `Authorization`.
    ///
    /// # Errors
    /// The token has letters that no header may have.
    pub fn authorization(&self) -> Outcome<Option<HeaderValue>> {
        let Some(token) = &self.token else { return Ok(None) };
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| Failure::usage("the token is not printable text"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// What an `https` URL is called with.
    ///
    /// # Errors
    /// No authority is given, or a file is not what it should be.
    pub fn connector(&self) -> Outcome<Connector> {
        let Some(cacert) = &self.cacert else {
            return Err(Failure::usage("https needs to know whom to trust")
                .help("give the server's authority, or its own certificate, with --cacert FILE"));
        };
        let mut roots = RootCertStore::empty();
        for cert in certificates(cacert)? {
            roots.add(cert).map_err(|error| bad(cacert, &error.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Exit::Failure, "tls", error))?
            .with_root_certificates(roots);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let secret = PrivateKeyDer::from_pem_file(key);
                let secret = secret.map_err(|error| bad(key, &error.to_string()))?;
                let own = config.with_client_auth_cert(chain, secret);
                own.map_err(|error| bad(key, &error.to_string()))?
            }
            _ => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector { tls: Arc::new(config).into() })
    }
}

fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(bad(path, "it holds no certificate in PEM")),
        Err(error) => Err(bad(path, &error.to_string())),
    }
}

fn bad(path: &Path, why: &str) -> Failure {
    let text = format!("{} cannot be used for TLS: {why}", path.display());
    Failure::new(Exit::BadData, "bad-file", text)
}

// === impl Connector ===

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Stream>> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(HTTPS);
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(TokioIo::new(Stream(stream)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
