//! Requests for models that answer HTTP themselves.
//!
//! Where one such model is all there can be, it gets every path that is not the
//! server's own. Where there are several, each gets the paths below its name, and
//! sees them without it, so that a component need not know which of the two it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Limited;
use tracing::Instrument as _;

use crate::admission::Priority;
use crate::auth::Grant;
use crate::body;
use crate::gate::Permit;
use crate::metrics::micros;
use crate::repository::Live;
use crate::respond::{Failure, FailureClass};
use crate::routes::App;
use crate::trace;
use crate::turn::{Tally, admit};

/// Which model a path is for, and the path that it sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// The only model that answers HTTP.
    Only,
    Named {
        model: &'a str,
        path: &'a str,
    },
}

/// A guest's body that keeps its place in the model's door to its end.
struct Guarded<B> {
    body: B,
    _permit: Permit,
}

/// Answer a request for a path that is not the server's own.
pub(crate) async fn answer(app: &App, grant: &Grant, mut request: Request) -> Response {
    let target = app.repository.http_target(request.uri().path());
    let allowed = |live: &Live| grant.check(&live.name);
    let target = target.and_then(|target| allowed(&target.0).map(|()| target));
    let (live, prefix) = match target {
        Ok(target) => target,
        Err(failure) => {
            body::discard(request.into_body()).await;
            return failure.into_response();
        }
    };
    // Most see the path as it came.
    if prefix > 0 || !request.uri().path().starts_with('/') {
        *request.uri_mut() = without_prefix(request.uri(), prefix);
    }
    let span = trace::inference_over_http(&live, request.headers());
    answer_live(app, &live, request).instrument(span).await
}

async fn answer_live(app: &App, live: &Arc<Live>, request: Request) -> Response {
    let tally = Tally::new(live);
    let result = forward(app, live, request).await;
    let duration_us = micros(tally.elapsed());
    match result {
        Ok(response) => {
            let status = response.status();
            tracing::debug!(model = live.name, status = status.as_u16(), duration_us, "answered");
            if status.is_server_error() {
                tally.failed(FailureClass::Backend);
            } else if status.is_client_error() {
                tally.failed(FailureClass::Other);
            } else {
                tally.succeeded();
            }
            response
        }
        Err(failure) => {
            tally.failed(failure.class());
            failure.log(&live.name, duration_us);
            trace::failed(&failure);
            failure.into_response()
        }
    }
}

async fn forward(app: &App, live: &Arc<Live>, request: Request) -> Result<Response, Failure> {
    let limits = live.model.limits();
    let (max, whose) = live.body_limit(app.max_body);
    if http_body::Body::size_hint(request.body()).lower() > max {
        body::discard(request.into_body()).await;
        return Err(Failure::TooLarge { limit: max, whose });
    }
    let (permit, deadline) = admit(live, None, limits.timeout, Priority::DEFAULT).await?;
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let request = request.map(|body| Limited::new(body, max));
    let response = live.model.http(request, deadline).await?;
    Ok(response.map(|body| Body::new(Guarded { body, _permit: permit })))
}

/// Split a path into a model's name and what is below it.
pub(crate) fn route(path: &str, only: bool) -> Route<'_> {
    if only {
        return Route::Only;
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let (model, path) = path.split_at(path.find('/').unwrap_or(path.len()));
    Route::Named { model, path }
}

/// The address without the first `prefix` bytes of its path.
fn without_prefix(uri: &Uri, prefix: usize) -> Uri {
    let Some(rest) = uri.path_and_query().and_then(|all| all.as_str().get(prefix..)) else {
        return uri.clone();
    };
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let mut parts = uri.clone().into_parts();
    // A part of a good path is a good path.
    parts.path_and_query = PathAndQuery::try_from(rest).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

// === impl Guarded ===

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Guarded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_models_are_told_apart_by_the_first_part_of_the_path() {
        let named = |model, path| Route::Named { model, path };
        let table = [
            ("/a/b/c", named("a", "/b/c")),
            ("/a", named("a", "")),
            ("/a/", named("a", "/")),
            ("/", named("", "")),
            ("", named("", "")),
        ];
        for (path, want) in table {
            assert_eq!(route(path, false), want, "{path}");
            assert_eq!(route(path, true), Route::Only);
        }
    }

    #[test]
    fn a_model_sees_its_paths_without_its_name() {
        let table = [
            ("/a/b?q=/a", 2, "/b?q=/a"),
            ("/a?q", 2, "/?q"),
            ("/a", 2, "/"),
            ("/a/b", 0, "/a/b"),
            ("http://h:1/a/b", 2, "http://h:1/b"),
        ];
        for (uri, prefix, want) in table {
            assert_eq!(without_prefix(&uri.parse().unwrap(), prefix), want, "{uri}");
        }
    }
}
