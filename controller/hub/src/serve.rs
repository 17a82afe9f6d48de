//! The hub's API over HTTP, for people, their programs and sites that enrol. It shows what the loop has decided, and
//! hands on what is asked; it decides nothing but who may ask.

mod auth;
mod listen;
mod metrics;
mod read;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::sync::mpsc;
use wick_fleet::enrol::{ENROL, MAX_REQUEST, Problem, RENEW};

use crate::hub::Input;
use crate::shared::Shared;

pub use listen::{ListenError, Listener};

/// Largest policy of a dry run, as JSON.
const MAX_POLICY: usize = 64 << 20;

/// What there is to call: the document is this file.
const OPENAPI: &str = include_str!("serve/openapi.json");

/// What handlers have.
#[derive(Clone)]
pub(crate) struct Api {
    pub shared: Arc<Shared>,
    pub inputs: mpsc::Sender<Input>,
}

/// A request that was refused.
#[derive(Debug)]
pub(crate) struct Refused(pub Problem);

type Answer = Result<Response, Refused>;

/// Everything.
pub(crate) fn router(api: Api) -> Router {
    let dry = Router::new()
        .route("/v1/plan", get(read::plan).post(read::dry_run))
        .layer(DefaultBodyLimit::max(MAX_POLICY));
    Router::new()
        .route(ENROL, post(write::enrol))
        .route(RENEW, post(write::renew))
        .route("/v1/pull", post(write::pull))
        .route("/v1/status", get(read::status))
        .route("/v1/sites", get(read::sites))
        .route("/v1/sites/{site}", get(read::site))
        .route("/v1/sites/{site}/generations", get(read::generations))
        .route("/v1/sites/{site}/revoke", post(write::revoke))
        .route("/v1/rollouts", get(read::rollouts))
        .route("/v1/rollouts/{rollout}", get(read::rollout))
        .route("/v1/rollouts/{rollout}/{order}", post(write::order))
        .route("/v1/history", get(read::history))
        .route("/v1/audit", get(read::audit))
        .route("/v1/enrolments", post(write::enrolment))
        .route("/v1/tokens", get(read::tokens).post(write::make_token))
        .route("/v1/tokens/{name}", axum::routing::delete(write::drop_token))
        .route("/v1/keys/rotate", post(write::rotate))
        .route("/openapi.json", get(|| async { raw("application/json", OPENAPI) }))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .merge(dry)
        .with_state(api.clone())
        .merge(control(api))
}

/// What needs no token and says nothing of sites by name.
pub(crate) fn control(api: Api) -> Router {
    Router::new()
        .route("/livez", get(|| async { raw("text/plain", "ok\n") }))
        .route("/readyz", get(read::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(api)
}

fn raw(kind: &'static str, text: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], text.into()).into_response()
}

fn json(value: &impl Serialize) -> Response {
    // What is answered is plain data.
    raw("application/json", serde_json::to_vec(value).unwrap_or_default())
}

// === impl Refused ===

impl Refused {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self(crate::ask::problem(code, message))
    }

    fn status(&self) -> StatusCode {
        match self.0.code.as_str() {
            "token" => StatusCode::UNAUTHORIZED,
            "role" | "signature" | "revoked" | "clock" => StatusCode::FORBIDDEN,
            "unknown" => StatusCode::NOT_FOUND,
            "enrolled" | "phase" | "lint" | "policy" => StatusCode::CONFLICT,
            "csr" | "name" | "place" | "malformed" => StatusCode::BAD_REQUEST,
            "busy" => StatusCode::TOO_MANY_REQUESTS,
            "late" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<crate::store::StoreError> for Refused {
    fn from(error: crate::store::StoreError) -> Self {
        tracing::error!(%error, "a request can't be answered");
        Self::new("internal", error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status(), json(&self.0)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::OPENAPI;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let documented: BTreeSet<_> =
            document["paths"].as_object().unwrap().keys().cloned().collect();
        let source = include_str!("serve.rs");
        let mut routes: BTreeSet<String> = [super::ENROL, super::RENEW].map(str::to_owned).into();
        for part in source.split(".route(\"").skip(1) {
            let path = part.split('"').next().unwrap();
            routes.extend(path.starts_with('/').then(|| path.to_owned()));
        }
        assert_eq!(documented, routes);
        // What is referred to is there.
        for part in OPENAPI.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
