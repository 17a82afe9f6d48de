//! What a request passes before anything of it is looked at: origins of web pages, tokens.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::auth::{Auth, Grant};
use crate::body;
use crate::codec::clip;
use crate::grpc;
use crate::respond::Failure;
use crate::settings::ServeSettings;

/// How long a browser may remember what it was permitted: long enough to ask rarely, short
/// enough for an origin that is taken out.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// Headers of answers that pages may read, beside those that they always may.
const EXPOSED: [HeaderName; 2] =
    [HeaderName::from_static("inference-header-content-length"), header::RETRY_AFTER];

/// Put the edge round all paths.
pub fn guard(router: Router, settings: &ServeSettings) -> Router {
    let router = match &settings.auth {
        None => router.layer(Extension(Grant::everything())),
        Some(auth) => router.layer(middleware::from_fn_with_state(auth.clone(), authorize)),
    };
    match cors(&settings.cors_origins) {
        // Outside: a browser asks without a token, and must be able to read a 401.
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Put into a request what it may do, or refuse it.
async fn authorize(State(auth): State<Auth>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let granted = grant(&auth, &head.uri, &mut head.headers);
    let mut request = Request::from_parts(head, body);
    match granted {
        Ok(grant) => {
            request.extensions_mut().insert(grant);
            next.run(request).await
        }
        Err(failure) => refuse(failure, request).await,
    }
}

/// What a request may do. Its token is taken from it: a model that answers HTTP itself could call others with it.
///
/// # Errors
/// See [`Auth::grant`].
pub fn grant(auth: &Auth, uri: &Uri, headers: &mut HeaderMap) -> Result<Grant, Failure> {
    let grant = auth.grant(uri.path(), headers)?;
    headers.remove(header::AUTHORIZATION);
    Ok(grant)
}

/// Refuse a body that is coded in another way than `chunked`, once. The HTTP library takes
/// `gzip, chunked` for chunked, and leaves the gzip to us.
pub fn wrong_coding(headers: &HeaderMap) -> Option<Response> {
    let mut all = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (all.next(), all.next()) {
        (None, _) => return None,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => return None,
        _ => {}
    }
    let mut response = Failure::TransferCoding.into_response();
    // Where the body ends may be another matter to a proxy: nothing after it is read.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

/// Answer a request that may not be made.
pub async fn refuse(failure: Failure, request: Request) -> Response {
    tracing::info!(path = clip(request.uri().path()), error = %failure, "refused");
    if grpc::is_grpc(request.headers()) {
        return grpc::refused(&failure);
    }
    body::discard(request.into_body()).await;
    failure.into_response()
}

/// None: no header is sent and no preflight answered, so browsers let no other origin in.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let origin = match origins {
        [] => return None,
        all if all.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        all => AllowOrigin::list(all.iter().cloned()),
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        // A list would have to name `Authorization`, which `*` does not stand for.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(CORS_MAX_AGE);
    Some(layer)
}

impl<S: Sync> FromRequestParts<S> for Grant {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use sha2::{Digest as _, Sha256};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_model_never_sees_the_token_that_opened_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens.toml");
        let hash: String = Sha256::digest("t").iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nmodels = [\"*\"]\n");
        std::fs::write(&file, entry).unwrap();
        let seen =
            |headers: HeaderMap| async move { format!("{:?}", headers.get("authorization")) };
        let router = || Router::new().route("/", get(seen));
        let auth = Some(Auth::open(file, false).unwrap());
        let guarded = ServeSettings { auth, ..ServeSettings::default() };
        // Without tokens the header is the model's own affair.
        for (settings, want) in
            [(guarded, "None"), (ServeSettings::default(), "Some(\"Bearer t\")")]
        {
            let request = Request::get("/").header("authorization", "Bearer t");
            let request = request.body(Body::empty()).unwrap();
            let answer = guard(router(), &settings).oneshot(request).await.unwrap();
            assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), want);
        }
    }
}
