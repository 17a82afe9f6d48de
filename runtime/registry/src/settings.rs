//! How registries are reached: what a user or an operator decides, nothing of it guessed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use crate::retry::Backoff;

/// Blobs that move at once. More do not help on one line, and a registry counts connections.
const PARALLEL: usize = 4;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Longest time without a byte before a connection counts as cut. Registries that fetch a blob
/// from elsewhere first may take that long.
const STALL: Duration = Duration::from_secs(30);

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Settings {
    pub plain_http: PlainHttp,
    /// Where images of a registry are looked for before the registry itself: its name, and
    /// hosts in order. Digests are checked all the same.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Files with certificates (PEM) that are trusted beside the system's.
    pub authorities: Vec<PathBuf>,
    pub credentials: Credentials,
    /// Blobs that move at once.
    pub parallel: usize,
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub stall_timeout: Duration,
    /// Most bytes of blobs a second that are read, of all downloads together. None: as fast as
    /// they come.
    pub rate: Option<NonZeroU64>,
    pub backoff: Backoff,
}

/// Which registries may be spoken to without encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlainHttp {
    #[default]
    Never,
    /// These, with their ports where they have one.
    Hosts(BTreeSet<String>),
    Always,
}

/// Where user names and passwords come from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Docker's and Podman's files, and the helpers that they name.
    #[default]
    Files,
    /// These for every registry that asks.
    /// For this registry, and for no other.
    Given { registry: String, user: String, password: String },
    /// None.
    Anonymous,
}

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the certificates of {path}")]
    Certificates { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{path} has no certificate: name a PEM file")]
    NoCertificate { path: PathBuf },
    #[error("a certificate cannot be used")]
    Certificate { source: rustls::Error },
    #[error("no HTTP client can be made with these settings")]
    Client { source: reqwest::Error },
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            plain_http: PlainHttp::default(),
            mirrors: BTreeMap::new(),
            authorities: Vec::new(),
            credentials: Credentials::default(),
            parallel: PARALLEL,
            connect_timeout: CONNECT,
            stall_timeout: STALL,
            rate: None,
            backoff: Backoff::default(),
        }
    }
}

// === impl PlainHttp ===

impl PlainHttp {
    pub(crate) fn permits(&self, host: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Hosts(hosts) => hosts.contains(host),
            Self::Always => true,
        }
    }
}

// === impl Credentials ===

impl std::fmt::Debug for Credentials {
    /// A password is in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files => f.write_str("Files"),
            Self::Given { registry, user, .. } => write!(f, "Given({user} at {registry})"),
            Self::Anonymous => f.write_str("Anonymous"),
        }
    }
}
