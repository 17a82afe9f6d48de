//! The paths of the Open Inference Protocol, and what is beside it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::auth::Grant;
use crate::body::{self, BodyMemory};
use crate::compression;
use crate::edge;
use crate::extensions;
use crate::forward;
use crate::grpc;
use crate::infer;
use crate::metadata::{LiveJson, ModelJson, ModelReadyJson, ModelsJson, ReadyJson, ServerJson};
use crate::openapi;
use crate::page;
use crate::repository::{Live, Repository};
use crate::respond::{Failure, json};
use crate::settings::ServeSettings;

const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub repository: Repository,
    pub memory: Arc<BodyMemory>,
    pub max_body: u64,
    pub body_timeout: Duration,
    /// Whether requests may load and unload models.
    pub model_control: bool,
    /// Whether there is a page for people.
    pub page: bool,
}

/// `{model}`, or `{model}` and `{version}`.
#[derive(serde::Deserialize)]
pub(crate) struct Target {
    pub model: String,
    pub version: Option<String>,
}

// === impl App ===

impl App {
    pub fn new(repository: Repository, settings: &ServeSettings) -> Self {
        Self {
            repository,
            memory: BodyMemory::new(settings.max_body_memory),
            max_body: settings.max_body,
            body_timeout: settings.body_timeout,
            model_control: settings.model_control,
            page: settings.page,
        }
    }

    /// The model that a question is about.
    ///
    /// # Errors
    /// The token does not reach it, or see [`Repository::peek`].
    pub fn peek(
        &self,
        grant: &Grant,
        model: &str,
        version: Option<&str>,
    ) -> Result<Arc<Live>, Failure> {
        grant.check(model)?;
        self.repository.peek(model, version)
    }

    /// Let a request load and unload a model.
    ///
    /// # Errors
    /// The server or the token does not permit it.
    pub fn check_control(&self, grant: &Grant, model: &str) -> Result<(), Failure> {
        if !self.model_control {
            return Err(Failure::NoModelControl);
        }
        grant.check_control(model)
    }

    /// Whether a model takes requests.
    ///
    /// # Errors
    /// The token does not reach it, or see [`Repository::model_ready`].
    pub fn model_ready(
        &self,
        grant: &Grant,
        model: &str,
        version: Option<&str>,
    ) -> Result<bool, Failure> {
        grant.check(model)?;
        self.repository.model_ready(model, version)
    }
}

// === impl Target ===

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let target = Path::<Self>::from_request_parts(parts, state).await;
        // Only text that is not UTF-8 fails, and no model has such a name.
        target.map(|Path(target)| target).map_err(|_| Failure::unknown_path(parts.uri.path()))
    }
}

/// The whole HTTP interface over a repository, to be called in process.
pub fn router(repository: Repository, settings: &ServeSettings) -> Router {
    of(App::new(repository, settings), settings)
}

/// Every path, with the edge round them.
pub(crate) fn of(app: App, settings: &ServeSettings) -> Router {
    let mut router = Router::new()
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models", get(models))
        .route("/v2/openapi.json", get(openapi))
        .route("/metrics", get(metrics));
    if settings.page {
        router = router.route(page::PATH, get(page::answer));
    }
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router =
            router.route(model, get(metadata)).route(&format!("{model}/ready"), get(model_ready));
    }
    let mut router = router.merge(extensions::routes()).layer(from_fn(compression::layer));
    // Not below the layer: an inference compresses its answer itself.
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router = router.route(&format!("{model}/infer"), post(infer));
    }
    let router = router.merge(grpc::routes(&app));
    let router = router.method_not_allowed_fallback(wrong_method).fallback(elsewhere);
    // Round everything, what is merged above included.
    edge::guard(router.with_state(app), settings)
}

async fn server() -> Response {
    json(StatusCode::OK, &ServerJson::new())
}

async fn live() -> Response {
    json(StatusCode::OK, &LiveJson { live: true })
}

async fn ready(State(app): State<App>) -> Response {
    let ready = app.repository.is_ready();
    json(readiness(ready), &ReadyJson { ready })
}

async fn models(State(app): State<App>, grant: Grant) -> Response {
    let mut models = app.repository.names();
    models.retain(|model| grant.allows(model));
    json(StatusCode::OK, &ModelsJson { models })
}

async fn openapi(State(app): State<App>, grant: Grant) -> Response {
    let mut models = app.repository.names();
    models.retain(|model| grant.allows(model));
    json(StatusCode::OK, &openapi::document(&models, app.page))
}

async fn metrics(State(app): State<App>) -> Response {
    match app.repository.metrics_text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => Failure::Server(error.to_string()).into_response(),
    }
}

async fn metadata(State(app): State<App>, grant: Grant, target: Target) -> Response {
    match app.peek(&grant, &target.model, target.version.as_deref()) {
        Ok(live) => {
            let versions = app.repository.versions(&target.model);
            json(StatusCode::OK, &ModelJson::new(&live, &versions))
        }
        Err(failure) => failure.into_response(),
    }
}

async fn model_ready(State(app): State<App>, grant: Grant, target: Target) -> Response {
    let ready = match app.model_ready(&grant, &target.model, target.version.as_deref()) {
        Ok(ready) => ready,
        Err(failure) => return failure.into_response(),
    };
    json(readiness(ready), &ModelReadyJson { name: &target.model, ready })
}

async fn infer(State(app): State<App>, target: Target, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let grant = Grant::of(&head.extensions);
    infer_at(&app, &grant, &target.model, target.version.as_deref(), &head.headers, body).await
}

/// Answer an inference, if the token reaches its model.
pub(crate) async fn infer_at(
    app: &App,
    grant: &Grant,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    if let Err(failure) = grant.check(model) {
        body::discard(body).await;
        return failure.into_response();
    }
    infer::answer(app, model, version, headers, body).await
}

async fn wrong_method(method: Method) -> Response {
    Failure::Method { method }.into_response()
}

/// A path that is not the protocol's: a model's own, or nobody's.
async fn elsewhere(State(app): State<App>, request: Request) -> Response {
    let grpc = grpc::is_grpc(request.headers());
    if grpc || is_own(request.uri().path()) {
        let (head, body) = request.into_parts();
        body::discard(body).await;
        let failure = Failure::unknown_path(head.uri.path());
        return if grpc { grpc::unknown(&failure) } else { failure.into_response() };
    }
    if app.page && page::is_front_door(request.method(), request.uri().path()) {
        // A package that answers HTTP itself may have `/` for its own.
        if let Err(Failure::UnknownPath(_)) = app.repository.http_target("/") {
            return page::lead();
        }
    }
    let grant = Grant::of(request.extensions());
    forward::answer(&app, &grant, request).await
}

/// Whether a path is the server's own, also where nothing is there.
pub(crate) fn is_own(path: &str) -> bool {
    let below = |own: &str| {
        path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below("/v2") || below("/metrics")
}

fn readiness(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
