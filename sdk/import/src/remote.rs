//! One file elsewhere: on a web server or in an object store. It is opened at a byte and gives a
//! stream; who asks decides what to do with it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use wick_package::RelPath;

use crate::download::plan::{self, Answer, Ask, Mark};
use crate::error::ImportError;

/// Longest part of a server's explanation that an error repeats.
const MAX_DETAIL: usize = 300;

/// A file elsewhere.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    Http { client: Client, url: Url, authorization: Option<HeaderValue> },
    Object { store: Arc<dyn ObjectStore>, key: Key, place: String },
}

/// Bytes on their way.
pub(crate) struct Stream {
    pub(crate) answer: Answer,
    pub(crate) body: BoxStream<'static, Result<Bytes, Broken>>,
}

/// A stream that broke off; why is of no use to anybody.
#[derive(Debug)]
pub(crate) struct Broken;

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The file is another than the one that was begun.
    Changed,
    /// It may work in a moment.
    Later {
        asked: Option<Duration>,
        error: ImportError,
    },
    Never(ImportError),
}

// === impl Remote ===

impl Remote {
    /// Open it for what was asked.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Stream, OpenError> {
        match self {
            Self::Http { client, url, authorization } => {
                let range = (ask.from > 0).then(|| format!("bytes={}-", ask.from));
                let headers = headers(authorization.as_ref(), range, ask.validator.as_deref());
                let response = client.get(url.clone()).headers(headers).send().await;
                self.answer(response)
            }
            Self::Object { store, key, .. } => {
                let range = (ask.from > 0).then_some(GetRange::Offset(ask.from));
                let options =
                    GetOptions { range, if_match: ask.validator.clone(), ..GetOptions::default() };
                let result = store.get_opts(key, options).await.map_err(|e| self.object(e))?;
                let answer = Answer {
                    start: result.range.start,
                    mark: Mark {
                        validator: plan::strong(result.meta.e_tag.as_deref(), None),
                        total: Some(result.meta.size),
                    },
                };
                let body = result.into_stream().map_err(|_| Broken).boxed();
                Ok(Stream { answer, body })
            }
        }
    }

    /// The first bytes of it, to see what it is.
    pub(crate) async fn head(&self, most: usize) -> Result<Vec<u8>, ImportError> {
        let end = most as u64;
        let gone = |error| match error {
            OpenError::Never(error) | OpenError::Later { error, .. } => error,
            OpenError::Changed => ImportError::Unreachable {
                place: self.to_string(),
                source: "it changes all the time".into(),
            },
        };
        let mut body = match self {
            Self::Http { client, url, authorization } => {
                let range = Some(format!("bytes=0-{}", end.saturating_sub(1)));
                let headers = headers(authorization.as_ref(), range, None);
                let response = client.get(url.clone()).headers(headers).send().await;
                match self.answer(response) {
                    Ok(stream) => stream.body,
                    // An empty file has no such range.
                    Err(OpenError::Never(ImportError::Refused { status: 416, .. })) => {
                        return Ok(Vec::new());
                    }
                    Err(error) => return Err(gone(error)),
                }
            }
            Self::Object { store, key, .. } => {
                let len = store.head(key).await.map_err(|e| gone(self.object(e)))?.size;
                let range = Range { start: 0, end: end.min(len) };
                if range.is_empty() {
                    return Ok(Vec::new());
                }
                let bytes = store.get_range(key, range).await;
                return Ok(bytes.map_err(|error| gone(self.object(error)))?.to_vec());
            }
        };
        let mut bytes = Vec::new();
        while bytes.len() < most {
            let Some(Ok(chunk)) = body.next().await else { break };
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(most);
        Ok(bytes)
    }

    /// The last part of its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Http { url, .. } => {
                let last = url.path_segments().and_then(|mut parts| parts.next_back());
                last.filter(|name| !name.is_empty()).unwrap_or("model.onnx")
            }
            Self::Object { key, .. } => key.filename().unwrap_or("model.onnx"),
        }
    }

    /// A file beside it.
    pub(crate) fn sibling(&self, path: &RelPath) -> Option<Self> {
        match self {
            Self::Http { client, url, authorization } => {
                // Every segment by itself, so that none reads like a host or a query.
                let mut sibling = url.clone();
                sibling.path_segments_mut().ok()?.pop().extend(path.as_str().split('/'));
                let (client, authorization) = (client.clone(), authorization.clone());
                Some(Self::Http { client, url: sibling, authorization })
            }
            Self::Object { store, key, place } => {
                let mut parts: Vec<_> = key.parts().map(|part| part.as_ref().to_owned()).collect();
                parts.pop();
                parts.extend(path.as_str().split('/').map(str::to_owned));
                let base = place.strip_suffix(key.as_ref())?;
                let key = Key::from_iter(parts);
                let place = format!("{base}{key}");
                Some(Self::Object { store: Arc::clone(store), key, place })
            }
        }
    }

    fn answer(&self, response: reqwest::Result<Response>) -> Result<Stream, OpenError> {
        let place = self.to_string();
        let response = response.map_err(|error| {
            // A redirect that is not followed won't be followed next time either.
            let never = error.is_redirect() || error.is_builder();
            let error = ImportError::Unreachable {
                place: place.clone(),
                source: Box::new(error.without_url()),
            };
            if never { OpenError::Never(error) } else { OpenError::Later { asked: None, error } }
        })?;
        let (status, headers) = (response.status(), response.headers());
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let validator = plan::strong(text(header::ETAG), text(header::LAST_MODIFIED));
        let (start, total) = match status {
            StatusCode::OK => (0, response.content_length()),
            StatusCode::PARTIAL_CONTENT => {
                let range = text(header::CONTENT_RANGE).and_then(plan::content_range);
                range.ok_or(OpenError::Changed)?
            }
            StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
                if text(header::CONTENT_RANGE).is_none_or(|range| range != "bytes */0") =>
            {
                return Err(OpenError::Changed);
            }
            status => {
                let asked = text(header::RETRY_AFTER).and_then(|text| text.parse().ok());
                return Err(refused(place, status, "", asked.map(Duration::from_secs)));
            }
        };
        let answer = Answer { start, mark: Mark { validator, total } };
        Ok(Stream { answer, body: response.bytes_stream().map_err(|_| Broken).boxed() })
    }

    fn object(&self, error: object_store::Error) -> OpenError {
        store_error(self.to_string(), &error)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, .. } => f.write_str(&shown(url)),
            Self::Object { place, .. } => f.write_str(place),
        }
    }
}

/// A URL without what may be secret in it: a password, and signatures in the query.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if !url.username().is_empty() || url.password().is_some() {
        // Every URL of a host can lose them.
        _ = url.set_username("");
        _ = url.set_password(None);
    }
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// An answer that is no file.
pub(crate) fn refused(
    place: String,
    status: StatusCode,
    detail: &str,
    asked: Option<Duration>,
) -> OpenError {
    let detail: String = detail.chars().take(MAX_DETAIL).flat_map(char::escape_debug).collect();
    let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
    let error = ImportError::Refused { place, status: status.as_u16(), detail };
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if again || status.is_server_error() {
        OpenError::Later { asked, error }
    } else {
        OpenError::Never(error)
    }
}

/// What an error of a store means. Its own messages repeat their sources, so the innermost one is
/// kept.
pub(crate) fn store_error(place: String, error: &object_store::Error) -> OpenError {
    use object_store::Error;
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let status = match error {
        Error::NotFound { .. } => Some(StatusCode::NOT_FOUND),
        Error::Unauthenticated { .. } => Some(StatusCode::UNAUTHORIZED),
        Error::PermissionDenied { .. } => Some(StatusCode::FORBIDDEN),
        Error::Precondition { .. } | Error::NotModified { .. } => return OpenError::Changed,
        // The status of a list is told only in words.
        _ => status_in(&text),
    };
    match status {
        Some(StatusCode::NOT_FOUND) => {
            OpenError::Never(ImportError::NotFound { path: place.into() })
        }
        Some(status) => refused(place, status, &text, None),
        None => {
            let source = text.chars().take(MAX_DETAIL).collect::<String>().into();
            let error = ImportError::Unreachable { place, source };
            OpenError::Later { asked: None, error }
        }
    }
}

/// The status in `… status code: 404 Not Found …`.
fn status_in(text: &str) -> Option<StatusCode> {
    let (_, rest) = text.split_once("status code: ")?;
    StatusCode::from_bytes(rest.as_bytes().get(..3)?).ok()
}

fn headers(
    authorization: Option<&HeaderValue>,
    range: Option<String>,
    validator: Option<&str>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let range = range.and_then(|range| HeaderValue::try_from(range).ok());
    let validator = validator.and_then(|validator| HeaderValue::try_from(validator).ok());
    // The file as it is: a length of compressed bytes would tell nothing.
    let identity = Some(HeaderValue::from_static("identity"));
    for (name, value) in [
        (header::AUTHORIZATION, authorization.cloned()),
        (header::RANGE, range),
        (header::IF_RANGE, validator),
        (header::ACCEPT_ENCODING, identity),
    ] {
        headers.extend(value.map(|value| (name, value)));
    }
    headers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_may_be_secret_in_an_address_is_not_shown() {
        let url = "https://user:pass@h/a/m.onnx?X-Amz-Signature=abc#frag".parse().unwrap();
        assert_eq!(shown(&url), "https://h/a/m.onnx");
    }

    #[test]
    fn a_status_is_read_from_a_stores_words() {
        let words = "Server returned non-2xx status code: 404 Not Found: <Error>";
        assert_eq!(status_in(words), Some(StatusCode::NOT_FOUND));
        for other in ["", "status code: ", "status code: ab", "dns error"] {
            assert_eq!(status_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_beside_another_is_on_the_same_host() {
        let client = crate::client::client(None).unwrap();
        let url = "http://h/a/b.onnx?x=1".parse().unwrap();
        let remote = Remote::Http { client, url, authorization: None };
        for path in ["w.bin", "d/w.bin", "http:/other/w", "?q"] {
            let sibling = remote.sibling(&path.parse().unwrap()).unwrap();
            assert!(sibling.to_string().starts_with("http://h/a/"), "{path}: {sibling}");
        }
    }

    proptest! {
        #[test]
        fn any_words_have_a_status_or_none(text: String) {
            status_in(&format!("status code: {text}"));
        }
    }
}
