//! What is sent as `Authorization`: tokens from the server that a registry names, kept for as long
//! as they last, or user and password.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};

use crate::challenge::Challenge;
use crate::credentials::{self, Secret};
use crate::error::RegistryError;
use crate::transport::{Call, Payload, Transport, host_of};

/// Life of a token whose server does not say, by the specification.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// A token is renewed this long before its end, so that it lasts for the request.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
const MARGIN: Duration = Duration::from_secs(10);

/// Longest answer of a token server. Tokens that list many repositories are some 10 KiB.
const MAX_ANSWER: usize = 1 << 20;

/// How a token server names us in its log.
const CLIENT: &str = "wick";

/// Tokens by what they are for.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Key, Token>>);

/// A registry's origin, and what may be done there.
type Key = (String, String);

struct Token {
    header: HeaderValue,
    /// None: as long as the process.
    until: Option<Instant>,
}

#[derive(serde::Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

// === impl Tokens ===

impl Tokens {
    /// What was good before, if it still is.
    pub(crate) fn known(&self, origin: &str, scope: &str) -> Option<HeaderValue> {
        let mut tokens = self.0.lock();
        let key = (origin.to_owned(), scope.to_owned());
        let token = tokens.get(&key)?;
        if token.until.is_some_and(|until| until <= Instant::now()) {
            tokens.remove(&key);
            return None;
        }
        Some(token.header.clone())
    }

    pub(crate) fn forget(&self, origin: &str, scope: &str) {
        self.0.lock().remove(&(origin.to_owned(), scope.to_owned()));
    }

    fn keep(&self, origin: &str, scope: &str, header: HeaderValue, life: Option<Duration>) {
        let until = life.map(|life| Instant::now() + life.saturating_sub(MARGIN));
        let key = (origin.to_owned(), scope.to_owned());
        self.0.lock().insert(key, Token { header, until });
    }
}

// === impl Transport ===

impl Transport {
    /// Answer a challenge of `registry`. None if nothing is known to answer it with.
    ///
    /// # Errors
    /// The token server refuses or can't be reached, or a credential helper fails.
    pub(crate) async fn answer(
        &self,
        challenge: &Challenge,
        registry: &str,
        origin: &str,
        scope: &str,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let secret = credentials::find(&self.settings.credentials, registry).await?;
        let (header, life) = match (challenge, secret) {
            (Challenge::Basic, Some(Secret::Password { user, password })) => {
                (basic(registry, &user, &password)?, None)
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope: asked }, secret) => {
                // What we know that we will need may be more than the challenge says: a blob
                // is mounted from one repository into another.
                let scopes = if scope.is_empty() { asked.as_deref().unwrap_or("") } else { scope };
                let service = service.as_deref();
                self.token(registry, realm, service, scopes, secret).await?
            }
        };
        self.tokens.keep(origin, scope, header.clone(), life);
        Ok(Some(header))
    }

    async fn token(
        &self,
        registry: &str,
        realm: &str,
        service: Option<&str>,
        scopes: &str,
        secret: Option<Secret>,
    ) -> Result<(HeaderValue, Option<Duration>), RegistryError> {
        let what = format!("a token for {registry}");
        let bad = |why: String| RegistryError::Answer {
            host: registry.to_owned(),
            what: what.clone(),
            why,
        };
        let mut url: Url =
            realm.parse().map_err(|_| bad(format!("`{realm}` is no URL for tokens")))?;
        let plain = url.scheme() == "http" && self.settings.plain_http.permits(&host_of(&url));
        if url.scheme() != "https" && !plain {
            return Err(bad(format!("passwords do not go to `{realm}`, which is not encrypted")));
        }
        let mut call = Call::new(Method::GET, url.clone(), what.clone());
        match secret {
            Some(Secret::RefreshToken(token)) => {
                let mut form = Url::parse("form:?").map_err(|_| bad(String::new()))?;
                let mut pairs = form.query_pairs_mut();
                pairs.append_pair("grant_type", "refresh_token");
                pairs.append_pair("client_id", CLIENT).append_pair("refresh_token", &token);
                pairs.append_pair("scope", scopes);
                if let Some(service) = service {
                    pairs.append_pair("service", service);
                }
                drop(pairs);
                call.method = Method::POST;
                let form = form.query().unwrap_or_default().to_owned();
                call.payload = Payload::Bytes(form.into());
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                call.headers.insert(CONTENT_TYPE, form);
            }
            other => {
                let mut pairs = url.query_pairs_mut();
                if let Some(service) = service {
                    pairs.append_pair("service", service);
                }
                for scope in scopes.split(' ').filter(|scope| !scope.is_empty()) {
                    pairs.append_pair("scope", scope);
                }
                drop(pairs);
                call.url = url;
                if let Some(Secret::Password { user, password }) = other {
                    call.headers.insert(AUTHORIZATION, basic(registry, &user, &password)?);
                }
            }
        }
        // The realm is no registry: it gets no token of ours, and a 401 is its last word.
        let response = Box::pin(self.send_plain(&call)).await?;
        let bytes = self.read(response, &call.what, MAX_ANSWER).await?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| bad("the token is not JSON".to_owned()))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| bad("the answer has no token".to_owned()))?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        let life = life.clamp(DEFAULT_LIFE, MAX_LIFE);
        Ok((secret_header(registry, &format!("Bearer {token}"))?, Some(life)))
    }
}

fn basic(registry: &str, user: &str, password: &str) -> Result<HeaderValue, RegistryError> {
    secret_header(registry, &format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn secret_header(registry: &str, text: &str) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| RegistryError::Credentials {
        host: registry.to_owned(),
        why: "a token or password has letters that no header may have".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
