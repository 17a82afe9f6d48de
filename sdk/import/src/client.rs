//! The one HTTP client of all sources: rustls with the system's authorities or those that were
//! named, limits on waiting, and redirects that lose neither encryption nor secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector};
use reqwest::Client;
use reqwest::redirect::{Attempt, Policy};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::ImportError;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence of a server. Stores that fetch from colder ones need some tens of seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Most redirects of one request; as browsers have it, more or less.
const MAX_REDIRECTS: usize = 10;

/// Hands our client to `object_store`.
#[derive(Debug)]
pub(crate) struct Connector(pub(crate) Client);

// === impl Connector ===

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// Make the client; `cacert` names authorities to trust instead of the system's.
///
/// # Errors
/// The file holds no certificates.
pub(crate) fn client(cacert: Option<&Path>) -> Result<Client, ImportError> {
    let bad = |why: String| ImportError::Tls {
        path: cacert.map_or_else(PathBuf::new, Path::to_owned),
        why,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_root_certificates(roots(cacert)?)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(config)
        .user_agent(concat!("wick/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(Policy::custom(follow))
        // An address may have a secret in its query, which is not for whom it points to.
        .referer(false)
        .build()
        .map_err(|error| bad(error.to_string()))
}

fn roots(cacert: Option<&Path>) -> Result<RootCertStore, ImportError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = cacert else {
        // A system without authorities can still speak plain HTTP.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let bad = |why: String| ImportError::Tls { path: path.to_owned(), why };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}

/// Secrets in headers are dropped by the client itself when the host changes.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if was_secure && attempt.url().scheme() != "https" {
        return attempt.error("it redirects from https to plain http");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("it redirects more than {MAX_REDIRECTS} times"));
    }
    attempt.follow()
}
