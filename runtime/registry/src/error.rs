//! What can go wrong between here and a registry. Each says whose fault it is and what to do.

use std::time::Duration;

use wick_package::{Digest, LayoutError, OpenError, Reason};

use crate::settings::SettingsError;
use crate::store::StoreError;

/// Most platforms that an error lists.
const MAX_LISTED: usize = 16;

/// A transfer, or a question to a registry, that failed. What arrived before stays in the store,
/// so that another try goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot reach {host}")]
    Unreachable { host: String, source: reqwest::Error },
    #[error("{what}: the connection to {host} was cut")]
    Cut { host: String, what: String, source: Option<reqwest::Error> },
    #[error("{what}: {host} sent nothing for {} s", .after.as_secs())]
    Stalled { host: String, what: String, after: Duration },
    #[error("{what}: {host} wants to know who you are{}", Said(.said))]
    Unauthorized { host: String, what: String, said: String },
    #[error("{what}: {host} refuses the user or password that it was given{}", Said(.said))]
    BadCredentials { host: String, what: String, said: String },
    #[error("credentials for {host} can't be had: {why}")]
    Credentials { host: String, why: String },
    #[error("{what}: {host} does not permit it{}", Said(.said))]
    Forbidden { host: String, what: String, said: String },
    #[error("{what}: {host} has no such thing{}", Said(.said))]
    NotFound { host: String, what: String, said: String },
    #[error("{what}: {host} is asked too often{}", Later(.after))]
    Busy { host: String, what: String, after: Option<Duration> },
    #[error("{what}: {host} failed with status {status}{}", Said(.said))]
    Status { host: String, what: String, status: u16, said: String },
    #[error("{what}: {host} redirects {why}")]
    Redirect { host: String, what: String, why: String },
    #[error("{what}: {host} answers what no registry answers: {why}")]
    Answer { host: String, what: String, why: String },
    #[error("{what}: {host} sent {got} bytes instead of {want}")]
    Length { host: String, what: String, want: u64, got: u64 },
    #[error("{what}: what {host} sent has digest {got} instead of {want}")]
    Digest { host: String, what: String, want: Digest, got: Digest },
    #[error(
        "{name} at {host} has signatures of cosign under {tag} that the image does not bring: \
         sign or copy it with `cosign`, which joins them, or remove that tag"
    )]
    OtherSignatures { host: String, name: String, tag: String },
    #[error("{reference} is not for {wanted}: it is for {}", listed(.there))]
    Platform { reference: String, wanted: String, there: Vec<String> },
    #[error("{reference} is no image: it is of type `{media_type}`")]
    NotAnImage { reference: String, media_type: String },
    #[error("{reference} has {count} {what}: at most {most} are taken")]
    TooMany { reference: String, what: &'static str, count: u64, most: u64 },
    #[error("{reference} is no package: no layer has a wick.toml")]
    NotAPackage { reference: String },
    #[error(
        "the image for {platform} is not here, only others of the same index: pull it on such a \
         machine, or use `wick copy` from where it is"
    )]
    Incomplete { platform: String },
    #[error("the stored image is damaged")]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {what}")]
    Read { what: String, source: std::io::Error },
}

/// A registry's own words, where it has some.
struct Said<'a>(&'a str);

struct Later<'a>(&'a Option<Duration>);

// === impl RegistryError ===

impl RegistryError {
    /// Whether the same request may go well in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => is_passing(source),
            Self::Cut { .. } | Self::Stalled { .. } | Self::Busy { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// When the server wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// Whether it says that something is not there, as far as the caller may know.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Reason for RegistryError {
    fn code(&self) -> &'static str {
        match self {
            Self::Settings(_) => "bad-settings",
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Stalled { .. } => {
                "registry-unreachable"
            }
            Self::Unauthorized { .. } | Self::BadCredentials { .. } | Self::Credentials { .. } => {
                "unauthorized"
            }
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { .. } => "image-not-found",
            Self::Busy { .. } => "registry-busy",
            Self::Status { .. } | Self::Redirect { .. } | Self::Answer { .. } => "registry-failed",
            Self::Length { .. } | Self::Digest { .. } => "damaged-transfer",
            Self::OtherSignatures { .. } => "other-signatures",
            Self::Platform { .. } => "no-platform",
            Self::NotAnImage { .. } | Self::TooMany { .. } | Self::NotAPackage { .. } => {
                "unsuitable-image"
            }
            Self::Incomplete { .. } => "incomplete-image",
            Self::Layout(error) => error.code(),
            Self::Open(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Read { .. } => "unreadable-package",
        }
    }
}

// === impl Said, Later ===

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

impl std::fmt::Display for Later<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(after) => write!(f, ": it says to try again in {} s", after.as_secs()),
            None => f.write_str(": try again later"),
        }
    }
}

/// A wrong certificate is as wrong in a moment, and so is a host that speaks something else.
fn is_passing(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let tls =
                io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some();
            return !tls && io.kind() != std::io::ErrorKind::InvalidData;
        }
        source = cause.source();
    }
    error.is_timeout() || error.is_connect() || error.is_request()
}

fn listed(platforms: &[String]) -> String {
    match platforms {
        [] => "nothing".to_owned(),
        few if few.len() <= MAX_LISTED => few.join(", "),
        many => format!("{} and {} more", many[..MAX_LISTED].join(", "), many.len() - MAX_LISTED),
    }
}
