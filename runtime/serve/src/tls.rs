//! TLS and mutual TLS: certificate, key and the authorities of clients, from files that are
//! read again when they change.
//!
//! A connection keeps the certificate that it began with. Nothing here knows HTTP, except that
//! both of its versions are offered (ALPN).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::reload::{ReloadError, Reloaded};

/// What is offered to clients, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those between it and its authority.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authorities of clients' certificates. With it, a client without one is refused.
    pub client_ca: Option<PathBuf>,
}

/// Accepts TLS connections.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<Reloaded<Arc<ServerConfig>>>,
}

// === impl Tls ===

impl Tls {
    /// Read the files.
    ///
    /// # Errors
    /// One of them can't be read, or they are not a certificate, its key, and authorities.
    pub fn open(files: TlsFiles) -> Result<Self, ReloadError> {
        let mut paths = vec![files.cert, files.key];
        paths.extend(files.client_ca);
        Ok(Self { config: Reloaded::open("TLS certificate", paths, config)? })
    }

    /// Read the files again when they change, until `stop` is cancelled.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        self.config.keep(stop).await;
    }

    /// Shake hands. How long that may take is the caller's to say.
    ///
    /// # Errors
    /// The client speaks no TLS, or has no good certificate.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let config = Arc::clone(&*self.config.current());
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// The configuration of certificate, key and, where given, clients' authorities.
fn config(files: &[Vec<u8>]) -> Result<Arc<ServerConfig>, String> {
    let [cert, key, client_ca @ ..] = files else { return Err("files are missing".to_owned()) };
    let chain = certificates(cert, "certificate file")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("the key file holds no private key in PEM ({error})"))?;
    let provider = Arc::new(ring::default_provider());
    let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let clients = match client_ca.first() {
        None => versions.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file, "file of clients' authorities")? {
                roots.add(authority).map_err(|error| error.to_string())?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            versions.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    let mut config = clients
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key do not go together ({error})"))?;
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("the {what} holds no certificate in PEM")),
        Err(error) => Err(format!("the {what} is not PEM ({error})")),
    }
}
