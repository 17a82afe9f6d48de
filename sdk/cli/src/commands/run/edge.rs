//! Who may connect and call: flags become settings of the server.

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderValue;
use wick_serve::{Auth, ReloadError, ServeSettings, Tls, TlsFiles};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::quantity;

/// Flags about clients.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Clients")]
pub struct EdgeArgs {
    /// Serve over TLS with this certificate (PEM, with those between it and its authority)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM); both are read again when they change
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve only clients with a certificate of one of these authorities (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Serve only requests with a token of this file; `wick token` makes one
    #[arg(long, value_name = "FILE", env = "WICK_TOKENS")]
    tokens: Option<PathBuf>,
    /// Let /metrics be read without a token
    #[arg(long, requires = "tokens")]
    open_metrics: bool,
    /// Let web pages of this origin call, such as `https://app.example`; `*` for all
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors_origin: Vec<HeaderValue>,
    /// Most open connections
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_connections: Option<usize>,
    /// Most open connections of one address
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_peer_connections: Option<usize>,
    /// Time in which a client must take some of its answer
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    write_timeout: Option<Duration>,
}

// === impl EdgeArgs ===

impl EdgeArgs {
    /// # Errors
    /// A file can't be read, or is not what it should be.
    pub fn apply(&self, settings: &mut ServeSettings) -> Outcome {
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let client_ca = self.tls_client_ca.clone();
            let files = TlsFiles { cert: cert.clone(), key: key.clone(), client_ca };
            settings.tls = Some(Tls::open(files).map_err(|error| failure(&error))?);
        }
        if let Some(file) = &self.tokens {
            let auth = Auth::open(file.clone(), self.open_metrics);
            settings.auth = Some(auth.map_err(|error| failure(&error))?);
            if settings.tls.is_none() && !settings.addr.ip().is_loopback() {
                tracing::warn!("tokens go over the network unencrypted: give --tls-cert, too");
            }
        }
        settings.cors_origins.clone_from(&self.cors_origin);
        settings.max_connections = self.max_connections.unwrap_or(settings.max_connections);
        settings.max_peer_connections =
            self.max_peer_connections.unwrap_or(settings.max_peer_connections);
        settings.write_timeout = self.write_timeout.unwrap_or(settings.write_timeout);
        Ok(())
    }

    /// How URLs of the server begin.
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }
}

fn failure(error: &ReloadError) -> Failure {
    let (exit, code) = match error {
        ReloadError::Read { .. } => (Exit::NotFound, "not-found"),
        ReloadError::TooLarge { .. } | ReloadError::Bad { .. } => (Exit::BadData, "bad-file"),
    };
    Failure::new(exit, code, error).caused_by(std::error::Error::source(error))
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = "write the origin as a browser does: https://app.example or http://localhost:3000";
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']));
    // A browser compares letter by letter, and writes small ones.
    if text != "*" && (!good || text.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Err(wrong.to_owned());
    }
    HeaderValue::from_str(text).map_err(|_| wrong.to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "must be a whole number from 1 up".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for good in ["*", "https://app.example", "http://localhost:3000", "http://[::1]:80"] {
            assert_eq!(origin(good).unwrap(), good);
        }
        let wrong = ["", "app.example", "https://", "https://a/", "https://A", "ws://a", "null"];
        for wrong in wrong {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
