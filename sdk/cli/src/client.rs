//! An HTTP client for Open Inference servers: HTTP/1.1, kept connections, deadlines; over TLS
//! and with a token where the server asks for them.

mod secure;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use wick_engine::{InferRequest, InferResponse};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::wire::{self, HEADER_LENGTH, Metadata};

use secure::Connector;
pub use secure::RemoteArgs;

/// Largest answer that is read: a guard against a server that never stops, far above
/// what models return.
const MAX_ANSWER: usize = 1 << 30;

/// Longest wait for a connection. Networks that need more are not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server and what is called on it.
#[derive(Clone)]
pub struct Server {
    http: Http,
    /// Scheme and authority, without a slash at the end.
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

/// Connections of one kind.
#[derive(Clone)]
enum Http {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Secure(Client<Connector, Full<Bytes>>),
}

/// A request in the form that goes over the wire, to be sent many times.
#[derive(Clone)]
pub struct Prepared {
    path: String,
    bytes: Bytes,
    header: Option<usize>,
}

/// What came back.
struct Answer {
    status: StatusCode,
    header: Option<usize>,
    body: Bytes,
}

/// How a kind of server tells why it refuses, and what helps then.
struct Words {
    /// The field with the text.
    text: &'static str,
    not_found: Option<&'static str>,
    busy: Option<&'static str>,
}

const INFERENCE: Words = Words {
    text: "error",
    not_found: Some("check the model's name"),
    busy: Some("the server is busy, loading or draining: try again"),
};

const HUB: Words = Words { text: "message", not_found: None, busy: None };

// === impl Server ===

impl Server {
    /// Take a URL apart into a server and, if the path names one, a model.
    ///
    /// # Errors
    /// It is no URL of a server, or TLS is not possible with what `remote` says.
    pub fn parse(
        url: &str,
        remote: &RemoteArgs,
        timeout: Duration,
    ) -> Outcome<(Self, Option<String>)> {
        let usage = |what: &str| {
            Failure::usage(format_args!("`{url}` {what}"))
                .help("write http://HOST:PORT or http://HOST:PORT/v2/models/NAME")
        };
        let uri: Uri = url.parse().map_err(|_| usage("is not a URL"))?;
        let authority = uri.authority().ok_or_else(|| usage("names no host"))?;
        let model = match uri.path().trim_matches('/') {
            "" | "v2" => None,
            path => {
                let rest = path.strip_prefix("v2/models/");
                let name = rest.and_then(|rest| rest.split('/').next());
                Some(name.ok_or_else(|| usage("has a path that is not a model's"))?.to_owned())
            }
        };
        let builder = Client::builder(TokioExecutor::new());
        let (scheme, http) = match uri.scheme_str() {
            Some("https") => ("https", Http::Secure(builder.build(remote.connector()?))),
            Some("http") => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
                ("http", Http::Plain(builder.build(connector)))
            }
            _ => return Err(usage("is neither http nor https")),
        };
        let authorization = remote.authorization()?;
        Ok((Self { http, base: format!("{scheme}://{authority}"), authorization, timeout }, model))
    }

    /// The only model that the server has.
    ///
    /// # Errors
    /// It has none or several, or does not say.
    pub async fn only_model(&self) -> Outcome<String> {
        let name_it = |what: &str| {
            Failure::usage(format_args!("{} {what}", self.base))
                .help("name the model after the URL: wick infer URL MODEL")
        };
        let names = match self.names(Method::GET, "/v2/models", "models").await? {
            Some(names) => names,
            // Triton and those like it.
            None => {
                let index = self.names(Method::POST, "/v2/repository/index", "").await?;
                index.ok_or_else(|| name_it("does not list its models"))?
            }
        };
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        match names[..] {
            [name] => Ok(name.to_owned()),
            [] => Err(name_it("has no model")),
            _ => Err(name_it(&format!("has several models: {}", names.join(", ")))),
        }
    }

    /// Model names in an answer: a list under `key`, or the answer itself; of names, or of
    /// objects with a name. None if the server has no such path.
    async fn names(&self, method: Method, path: &str, key: &str) -> Outcome<Option<Vec<String>>> {
        let body = if method == Method::POST { Bytes::from_static(b"{}") } else { Bytes::new() };
        let answer = self.call(method, path, body, None).await?;
        if answer.status != StatusCode::OK {
            return Ok(None);
        }
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let list = if key.is_empty() { &json } else { &json[key] };
        let name =
            |item: &Value| item.as_str().or_else(|| item["name"].as_str()).map(str::to_owned);
        Ok(list.as_array().map(|items| items.iter().filter_map(name).collect()))
    }

    /// # Errors
    /// The server is not there or has no such model.
    pub async fn metadata(&self, model: &str) -> Outcome<Metadata> {
        let path = format!("/v2/models/{model}");
        let answer = self.call(Method::GET, &path, Bytes::new(), None).await?;
        let body = self.accept(answer)?.body;
        serde_json::from_slice(&body).map_err(|error| self.strange(&error.to_string()))
    }

    /// # Errors
    /// The server is not there, or does not answer the request.
    pub async fn infer(&self, request: &Prepared) -> Outcome<InferResponse> {
        let body = request.bytes.clone();
        let answer = self.call(Method::POST, &request.path, body, request.header).await?;
        let answer = self.accept(answer)?;
        wire::decode(&answer.body, answer.header).map_err(|error| self.strange(&error))
    }

    /// Send a request and read its answer without looking into it; the status.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn measure(&self, request: &Prepared) -> Outcome<u16> {
        let body = request.bytes.clone();
        let answer = self.call(Method::POST, &request.path, body, request.header).await?;
        Ok(answer.status.as_u16())
    }

    /// Ask a hub. An answer without content is null.
    ///
    /// # Errors
    /// The hub is not there, or refuses.
    pub async fn hub(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer = self.call(method, path, body, None).await?;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status.is_success() {
            return Ok(json);
        }
        Err(self.refused(answer.status, &json, &HUB))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        header: Option<usize>,
    ) -> Outcome<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(header) = header {
            request = request.header(HEADER_LENGTH, header);
            request = request.header("content-type", "application/octet-stream");
        } else if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| {
            Failure::usage(format_args!("{}{path} is not a URL", self.base)).caused_by(Some(&error))
        })?;
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("{} did not answer within {:?}", self.base, self.timeout);
                Err(Failure::new(Exit::Unavailable, "timeout", text)
                    .help("give it more time with --timeout"))
            }
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Outcome<Answer> {
        let answer = self.http.request(request).await.map_err(|error| {
            Failure::new(Exit::Unavailable, "unreachable", format!("cannot reach {}", self.base))
                .caused_by(std::error::Error::source(&error))
                .help("start a server with `wick run PACKAGE`, or check the address")
        })?;
        let status = answer.status();
        let header = answer.headers().get(HEADER_LENGTH);
        let header = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| {
            Failure::new(Exit::Unavailable, "broken-answer", "the answer broke off")
                .caused_by(Some(&*error))
        })?;
        Ok(Answer { status, header, body: body.to_bytes() })
    }

    fn accept(&self, answer: Answer) -> Outcome<Answer> {
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Err(self.refused(answer.status, &json, &INFERENCE))
    }

    /// What a server answered that is no success.
    fn refused(&self, status: StatusCode, json: &Value, words: &Words) -> Failure {
        let text = json[words.text].as_str().map(str::to_owned);
        let text = text.unwrap_or_else(|| format!("{} answered {status}", self.base));
        let code = json["code"].as_str().unwrap_or("refused").to_owned();
        let (exit, help) = match status {
            StatusCode::UNAUTHORIZED => {
                (Exit::Refused, Some("give a token with --token or in WICK_TOKEN"))
            }
            StatusCode::NOT_FOUND => (Exit::NotFound, words.not_found),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                (Exit::Unavailable, words.busy)
            }
            _ => (Exit::Refused, None),
        };
        let failure = Failure::new(exit, code, text).detail("status", status.as_u16().into());
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }

    fn strange(&self, detail: &str) -> Failure {
        let text = format!("{} does not speak the Open Inference Protocol: {detail}", self.base);
        Failure::new(Exit::Unavailable, "not-open-inference", text)
    }
}

// === impl Http ===

impl Http {
    async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Secure(client) => client.request(request).await,
        }
    }
}

// === impl Prepared ===

impl Prepared {
    pub fn new(model: &str, request: &InferRequest, binary: bool) -> Self {
        let body = wire::encode(request, binary);
        let path = format!("/v2/models/{model}/infer");
        Self { path, bytes: body.bytes, header: body.header }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Outcome<(String, Option<String>)> {
        let (server, model) = Server::parse(url, &RemoteArgs::default(), Duration::from_secs(1))?;
        Ok((server.base, model))
    }

    #[test]
    fn urls_name_a_server_and_perhaps_a_model() {
        let base = "http://edge:8080".to_owned();
        for url in ["http://edge:8080", "http://edge:8080/", "http://edge:8080/v2"] {
            assert_eq!(parse(url).unwrap(), (base.clone(), None), "{url}");
        }
        let named = (base, Some("cat".to_owned()));
        assert_eq!(parse("http://edge:8080/v2/models/cat").unwrap(), named);
        assert_eq!(parse("http://edge:8080/v2/models/cat/infer").unwrap(), named);
    }

    #[test]
    fn other_urls_are_usage_errors() {
        for url in ["https://edge", "ws://edge", "http://edge/other", "http://", "http:// x"] {
            assert_eq!(parse(url).unwrap_err().exit(), Exit::Usage, "{url}");
        }
    }
}
