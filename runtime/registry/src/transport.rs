//! One request and its answer: encryption, redirects, credentials, retries, limits. Knows statuses,
//! and nothing of images.
//!
//! Redirects are followed here and not by the HTTP client, so that it is on this page who gets
//! credentials: the origin that they were found for, and nobody it points to.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::header::{USER_AGENT, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::challenge;
use crate::content::Upload;
use crate::error::RegistryError;
use crate::progress::Progress;
use crate::rate::Rate;
use crate::retry::retry_after;
use crate::settings::{Settings, SettingsError};
use crate::tokens::Tokens;

/// Redirects in a row. Registries send one, to where the blobs lie.
const MAX_REDIRECTS: usize = 5;

/// Tries to reach a host at all: a name or port that was mistyped is there at no time. Downloads
/// that have begun have more patience.
const FIRST_CONTACTS: u32 = 3;

/// Bytes of an error's body that are looked at, and letters that are shown.
const MAX_ERROR: usize = 16 << 10;
const MAX_SAID: usize = 300;

/// Longest time that a registry may be silent after an upload: it checks what it got, which for
/// tens of gigabytes takes minutes.
const SETTLE: Duration = Duration::from_secs(300);

/// Connections that are kept for the next request to one host.
const IDLE_CONNECTIONS: usize = 8;

/// How we are named in a registry's log.
const AGENT: &str = concat!("wick/", env!("CARGO_PKG_VERSION"));

/// Sends requests.
pub(crate) struct Transport {
    client: Client,
    pub(crate) settings: Settings,
    pub(crate) tokens: Tokens,
    rate: Option<Rate>,
}

/// A request, to be sent as often as it takes.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// What it is for, for errors.
    pub(crate) what: String,
}

/// The body of a request.
pub(crate) enum Payload {
    None,
    Bytes(Bytes),
    Upload(Arc<Upload>),
}

/// To whom a request goes, and what it needs to be permitted.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// The registry's name, which credentials are kept under.
    pub(crate) registry: String,
    pub(crate) origin: String,
    /// For instance `repository:team/filetype:pull`.
    pub(crate) scope: String,
}

// === impl Call ===

impl Call {
    pub(crate) fn new(method: Method, url: Url, what: String) -> Self {
        Self { method, url, headers: HeaderMap::new(), payload: Payload::None, what }
    }

    fn host(&self) -> String {
        host_of(&self.url)
    }
}

// === impl Transport ===

impl Transport {
    pub(crate) fn new(settings: Settings) -> Result<Self, SettingsError> {
        let builder = Client::builder()
            .tls_backend_preconfigured(tls(&settings)?)
            .redirect(redirect::Policy::none())
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .http1_only();
        let client = builder.build().map_err(|source| SettingsError::Client { source })?;
        let rate = settings.rate.map(|bytes| Rate::new(bytes, Instant::now()));
        Ok(Self { client, settings, tokens: Tokens::default(), rate })
    }

    /// Send it with what the registry asks for, again after what passes by itself.
    pub(crate) async fn send(
        &self,
        call: &Call,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<Response, RegistryError> {
        self.patiently(progress, || self.attempt(call, access)).await
    }

    /// Send it and read the answer, which must be short. An answer that is cut is as much a
    /// failure as none: both are tried again within one count.
    pub(crate) async fn fetch(
        &self,
        call: &Call,
        access: &Access,
        limit: usize,
        progress: &Arc<dyn Progress>,
    ) -> Result<(HeaderMap, Bytes), RegistryError> {
        let ask = || async {
            let mut response = self.attempt(call, access).await?;
            let headers = std::mem::take(response.headers_mut());
            let bytes = self.read(response, &call.what, limit).await?;
            Ok((headers, bytes))
        };
        self.patiently(progress, ask).await
    }

    /// Do something until it goes well, or fails with what does not pass, or too often.
    pub(crate) async fn patiently<T, F>(
        &self,
        progress: &Arc<dyn Progress>,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failures += 1;
            if matches!(error, RegistryError::Unreachable { .. }) && failures == FIRST_CONTACTS {
                return Err(error);
            }
            self.pause(failures, error, progress).await?;
        }
    }

    /// Wait before the next try, or give the error back if there is none.
    pub(crate) async fn pause(
        &self,
        failures: u32,
        error: RegistryError,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        if !error.is_transient() {
            return Err(error);
        }
        let asked = error.retry_after();
        let Some(pause) = self.settings.backoff.pause(failures, asked, fastrand::f64()) else {
            return Err(error);
        };
        tracing::debug!(%error, ?pause, failures, "trying again");
        progress.waiting(&error.to_string(), pause);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Send it once without credentials of ours.
    pub(crate) async fn send_plain(&self, call: &Call) -> Result<Response, RegistryError> {
        let response = self.once(call, None).await?;
        self.check(response, call, call.headers.contains_key(AUTHORIZATION)).await
    }

    /// Send it once, with what the registry asks for.
    pub(crate) async fn attempt(
        &self,
        call: &Call,
        access: &Access,
    ) -> Result<Response, RegistryError> {
        let known = self.tokens.known(&access.origin, &access.scope);
        let sent = known.is_some();
        let response = self.once(call, known).await?;
        // Whoever the registry points to gets no answer to a challenge: it would be told the
        // registry's password.
        let elsewhere = response.url().origin() != call.url.origin();
        if elsewhere || response.status() != StatusCode::UNAUTHORIZED {
            return self.check(response, call, sent && !elsewhere).await;
        }
        self.tokens.forget(&access.origin, &access.scope);
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let texts: Vec<_> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        let Some(challenge) = challenge::parse(&texts.join(", ")) else {
            return self.check(response, call, false).await;
        };
        let Access { registry, origin, scope } = access;
        match self.answer(&challenge, registry, origin, scope).await? {
            None => self.check(response, call, false).await,
            Some(header) => {
                let response = self.once(call, Some(header)).await?;
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.tokens.forget(origin, scope);
                }
                self.check(response, call, true).await
            }
        }
    }

    /// Send it and follow redirects. The credentials stay with the first origin.
    async fn once(
        &self,
        call: &Call,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = call.url.clone();
        let mut authorization = authorization;
        let redirect = |why: String| RegistryError::Redirect {
            host: call.host(),
            what: call.what.clone(),
            why,
        };
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(call, url.clone(), authorization.as_ref()).await?;
            let location = response.headers().get(LOCATION);
            let follows = matches!(call.method, Method::GET | Method::HEAD);
            let (true, Some(location)) = (response.status().is_redirection() && follows, location)
            else {
                return Ok(response);
            };
            let next = location.to_str().ok().and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| redirect("to what is no URL".to_owned()))?;
            if next.scheme() != "https" && next.scheme() != url.scheme() {
                return Err(redirect(format!("to {}, which is not encrypted", host_of(&next))));
            }
            if next.origin() != url.origin() {
                authorization = None;
            }
            url = next;
        }
        Err(redirect(format!("more than {MAX_REDIRECTS} times")))
    }

    async fn exchange(
        &self,
        call: &Call,
        url: Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let same = url.origin() == call.url.origin();
        let host = host_of(&url);
        let mut request = self.client.request(call.method.clone(), url);
        for (name, value) in &call.headers {
            // A token server gets its password by these; whoever it points to does not.
            if same || *name != AUTHORIZATION {
                request = request.header(name, value);
            }
        }
        request = request.header(USER_AGENT, AGENT);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let stall = self.settings.stall_timeout;
        let stalled =
            || RegistryError::Stalled { host: host.clone(), what: call.what.clone(), after: stall };
        let sent = match &call.payload {
            Payload::None => tokio::time::timeout(stall, request.send()).await,
            Payload::Bytes(bytes) => {
                let sending = request.body(bytes.clone()).send();
                tokio::time::timeout(stall, sending).await
            }
            Payload::Upload(upload) => {
                let sending = request.body(upload.body()).send();
                tokio::select! {
                    sent = sending => Ok(sent),
                    // Dropping the request ends the upload, which is made anew.
                    () = upload.stalled(stall, SETTLE) => return Err(stalled()),
                }
            }
        };
        let sent = sent.map_err(|_elapsed| stalled())?;
        sent.map_err(|source| {
            // The address of a redirect may be signed, which is as good as a password.
            let source = source.without_url();
            if let Payload::Upload(upload) = &call.payload
                && let Some(error) = upload.take_failure()
            {
                return error;
            }
            let what = call.what.clone();
            match source.is_connect() {
                true => RegistryError::Unreachable { host, source },
                false => RegistryError::Cut { host, what, source: Some(source) },
            }
        })
    }

    async fn check(
        &self,
        response: Response,
        call: &Call,
        sent: bool,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = host_of(response.url());
        let what = call.what.clone();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| retry_after(text, SystemTime::now()));
        let said = self.read_some(response).await;
        Err(match status {
            StatusCode::UNAUTHORIZED if sent => RegistryError::BadCredentials { host, what, said },
            StatusCode::UNAUTHORIZED => RegistryError::Unauthorized { host, what, said },
            StatusCode::FORBIDDEN => RegistryError::Forbidden { host, what, said },
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, what, said },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::Busy { host, what, after },
            StatusCode::SERVICE_UNAVAILABLE if after.is_some() => {
                RegistryError::Busy { host, what, after }
            }
            other => RegistryError::Status { host, what, status: other.as_u16(), said },
        })
    }

    /// Read a body that must be short.
    pub(crate) async fn read(
        &self,
        mut response: Response,
        what: &str,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let host = host_of(response.url());
        let long =
            |why: String| RegistryError::Answer { host: host.clone(), what: what.to_owned(), why };
        let told = response.content_length();
        if let Some(len) = told
            && len > limit as u64
        {
            return Err(long(format!("{len} bytes, and at most {limit} are read")));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response, what).await? {
            if bytes.len() + chunk.len() > limit {
                return Err(long(format!("more than the {limit} bytes that are read")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The next bytes of a body; none at its end.
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
        what: &str,
    ) -> Result<Option<Bytes>, RegistryError> {
        let host = host_of(response.url());
        let what = what.to_owned();
        let after = self.settings.stall_timeout;
        match tokio::time::timeout(after, response.chunk()).await {
            Err(_elapsed) => Err(RegistryError::Stalled { host, what, after }),
            Ok(Err(source)) => {
                let source = Some(source.without_url());
                Err(RegistryError::Cut { host, what, source })
            }
            Ok(Ok(chunk)) => Ok(chunk),
        }
    }

    /// Wait until bytes of a blob are paid for, where there is a limit.
    pub(crate) async fn pay(&self, count: u64) {
        let wait = self.rate.as_ref().map(|rate| rate.read(count, Instant::now()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// What an error says, in a line. Its words are another's, so signs that a terminal obeys
    /// are left out.
    async fn read_some(&self, response: Response) -> String {
        let Ok(bytes) = self.read(response, "an error", MAX_ERROR).await else {
            return String::new();
        };
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let Ok(Errors { errors }) = serde_json::from_slice(&bytes) else {
            return String::new();
        };
        let texts = errors.iter().map(|one| match one.message.as_str() {
            "" => one.code.as_str(),
            message => message,
        });
        let text = texts.collect::<Vec<_>>().join("; ");
        text.chars().filter(|letter| !letter.is_control()).take(MAX_SAID).collect()
    }
}

/// Host and port, for errors.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The system's authorities and those of the settings.
fn tls(settings: &Settings) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore::empty();
    // Where the system has none, only what is named is trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in &settings.authorities {
        let certificates = |source| SettingsError::Certificates { path: path.clone(), source };
        let mut count = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(certificates)? {
            let added = roots.add(certificate.map_err(certificates)?);
            added.map_err(|source| SettingsError::Certificate { source })?;
            count += 1;
        }
        if count == 0 {
            return Err(SettingsError::NoCertificate { path: path.clone() });
        }
    }
    let provider = Arc::new(ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|source| SettingsError::Certificate { source })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
