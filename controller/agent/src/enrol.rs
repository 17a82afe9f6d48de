//! How a site joins its fleet and stays in it: requests to the hub over HTTPS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use serde::Serialize;
use wick_fleet::SiteName;
use wick_fleet::enrol::{Claim, ENROL, EnrolRequest, Enrolled, Problem, RENEW, RenewRequest};
use wick_package::Digest;

use crate::certificate;
use crate::keep::{Home, KeepError, SiteFile};
use crate::tls::{self, TlsError, cause, explain, unix_now};

/// Longest time for a connection, and for an answer: it is short.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// Longest answer: a chain of certificates, and a list of keys.
const MAX_ANSWER: usize = 256 << 10;

/// Longest part of a strange answer that is shown.
const SHOWN: usize = 200;

/// What a site enrols with.
#[derive(Debug, Clone)]
pub struct EnrolSettings {
    pub home: PathBuf,
    pub hub: String,
    /// Whom the hub's certificate is signed by, where the system does not know it; PEM.
    pub hub_ca: Option<String>,
    pub site: SiteName,
    pub token: String,
    pub labels: BTreeMap<String, String>,
    pub zone: Option<String>,
    pub memory: u64,
    pub disk: u64,
}

/// Why a site is not enrolled, or its certificate not renewed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("`{0}` is not the URL of a hub: write for instance https://hub.example:8443")]
    Url(String),
    #[error(
        "the token would be readable on its way to {0}: write https://, or use a hub on this machine"
    )]
    Plain(String),
    #[error("the request for a certificate can't be made")]
    Request(#[from] rcgen::Error),
    #[error("cannot reach the hub at {hub}{}", .why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Unreachable { hub: String, why: Option<String>, source: reqwest::Error },
    #[error("the hub refuses ({code}): {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("{hub} answers what no hub answers: {why}")]
    Answer { hub: String, why: String },
}

// === impl EnrolError ===

impl EnrolError {
    /// One word that stays the same.
    pub fn code(&self) -> &str {
        match self {
            Self::Keep(_) => "state",
            Self::Tls(_) | Self::Request(_) => "bad-key",
            Self::Url(_) | Self::Plain(_) => "usage",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Answer { .. } => "broken-answer",
        }
    }
}

/// Enrol a site: make its key, where it has none, and get a certificate for it. What it serves
/// already, it serves on.
///
/// # Errors
/// The hub can't be reached or refuses, or the folder can't be written.
pub async fn enrol(settings: &EnrolSettings) -> Result<SiteFile, EnrolError> {
    let home = Home::open(&settings.home)?;
    let _lock = home.lock()?;
    let (_, key) = home.own_key()?;
    let request = EnrolRequest {
        site: settings.site.clone(),
        token: settings.token.trim().to_owned(),
        csr: certificate::request(&settings.site, &key)?,
        place: Claim {
            labels: settings.labels.clone(),
            zone: settings.zone.clone(),
            memory: settings.memory,
            disk: settings.disk,
        },
    };
    let now = unix_now();
    let enrolled = post(&settings.hub, ENROL, settings.hub_ca.as_deref(), None, &request).await?;
    let site = SiteFile {
        site: settings.site.clone(),
        hub: settings.hub.clone(),
        hub_ca: settings.hub_ca.clone(),
        broker: enrolled.broker.clone(),
        certificate: enrolled.certificate.clone(),
        ca: enrolled.ca.clone(),
        obtained: now,
        not_after: enrolled.not_after,
        memory: settings.memory,
        disk: settings.disk,
        token: token_hash(&settings.token),
    };
    home.join(&site, &enrolled)?;
    Ok(site)
}

/// By what it is known which token a site has enrolled with.
pub fn token_hash(token: &str) -> String {
    Digest::of(token.trim().as_bytes()).to_string()
}

/// Get the next certificate for the same key, and keep it.
///
/// # Errors
/// The hub can't be reached or refuses, or the folder can't be written.
pub async fn renew(home: &Home) -> Result<SiteFile, EnrolError> {
    let site = home.site()?;
    let (key, pem) = home.key()?;
    let now = unix_now();
    let csr = certificate::request(&site.site, &pem)?;
    let request = RenewRequest::new(site.site.clone(), csr, now, &key);
    let ca = Some(site.ca.as_str());
    let enrolled = post(&site.hub, RENEW, site.hub_ca.as_deref(), ca, &request).await?;
    let site = SiteFile {
        broker: enrolled.broker,
        certificate: enrolled.certificate,
        ca: enrolled.ca,
        obtained: now,
        not_after: enrolled.not_after,
        ..site
    };
    home.know(&site)?;
    Ok(site)
}

async fn post(
    hub: &str,
    path: &str,
    hub_ca: Option<&str>,
    fleet_ca: Option<&str>,
    request: &impl Serialize,
) -> Result<Enrolled, EnrolError> {
    let url: Url = hub.parse().map_err(|_| EnrolError::Url(hub.to_owned()))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => return Err(EnrolError::Plain(hub.to_owned())),
        _ => return Err(EnrolError::Url(hub.to_owned())),
    }
    let url = url.join(path).map_err(|_| EnrolError::Url(hub.to_owned()))?;
    let unreachable = |source: reqwest::Error| {
        let why = cause(&source).and_then(|error| explain(error, unix_now(), u64::MAX));
        EnrolError::Unreachable { hub: hub.to_owned(), why, source: source.without_url() }
    };
    let answer = |why: String| EnrolError::Answer { hub: hub.to_owned(), why };
    let client = Client::builder()
        .tls_backend_preconfigured(tls::hub(hub_ca.into_iter().chain(fleet_ca))?)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .build()
        .map_err(unreachable)?;
    let body = serde_json::to_vec(request).map_err(|error| answer(error.to_string()))?;
    let sent = client.post(url).header("content-type", "application/json").body(body).send();
    let mut response = sent.await.map_err(unreachable)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(answer(format!("more than {MAX_ANSWER} bytes")));
        }
    }
    if status == StatusCode::OK {
        return serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Problem { code, message }) => {
            Err(EnrolError::Refused { status: status.as_u16(), code, message })
        }
        Err(_) => {
            let text = String::from_utf8_lossy(&bytes);
            let text: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            Err(answer(format!("status {status}, {text}")))
        }
    }
}
