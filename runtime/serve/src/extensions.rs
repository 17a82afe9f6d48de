//! Triton's extensions of the protocol that its clients and tools ask for: statistics, the
//! model's configuration, and the repository. Names and forms are those of Triton's
//! documentation (extension_statistics, extension_model_configuration,
//! extension_model_repository).
//!
//! Loading and unloading by request is off unless the host turns it on: whoever reaches the
//! port could otherwise take a model away.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json as object};
use wick_engine::ModelKind;
use wick_package::{Datatype, Dim, TensorSpec};

use crate::auth::Grant;
use crate::body::{self, BodyLimits};
use crate::codec::{DecodeError, clip};
use crate::compression;
use crate::repository::{Live, ModelStatus, RepositoryError, State as ModelState};
use crate::respond::{Failure, json};
use crate::routes::{App, Target};

/// Bytes of a request to the repository: a few words.
const MAX_BODY: u64 = 64 << 10;

/// A number of events and their time together.
#[derive(Serialize)]
pub(crate) struct Duration {
    pub count: u64,
    pub ns: u64,
}

#[derive(Serialize)]
pub(crate) struct Statistics<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// Milliseconds since 1970 of the last success, 0 for none.
    pub last_inference: u64,
    pub inference_count: u64,
    pub execution_count: u64,
    pub inference_stats: InferenceStatistics,
    /// Batches are in the metric `wick_batch_size`; their times are not measured one by one.
    batch_stats: [(); 0],
}

#[derive(Serialize)]
pub(crate) struct InferenceStatistics {
    pub success: Duration,
    pub fail: Duration,
    pub queue: Duration,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
    pub cache_hit: Duration,
    pub cache_miss: Duration,
}

/// The model as Triton's `ModelConfig` says it. Shapes are whole: `max_batch_size` is 0, which
/// means that no dimension is left out of them.
pub(crate) struct Configuration<'a> {
    pub name: &'a str,
    pub platform: &'static str,
    pub backend: &'static str,
    /// How many of the newest versions are served.
    pub versions: u32,
    pub inputs: &'a [TensorSpec],
    pub outputs: &'a [TensorSpec],
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IndexRequest {
    /// Only models that are ready.
    ready: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ControlRequest {
    parameters: Map<String, Value>,
}

#[derive(Serialize)]
pub(crate) struct IndexEntry {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub state: &'static str,
    pub reason: String,
}

/// The paths of the extensions.
pub(crate) fn routes() -> Router<App> {
    let mut router = Router::new()
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router = router
            .route(&format!("{model}/stats"), get(statistics))
            .route(&format!("{model}/config"), get(configuration));
    }
    router
}

async fn statistics(State(app): State<App>, grant: Grant, target: Target) -> Response {
    statistics_of(&app, &grant, Some(&target.model), target.version.as_deref())
}

async fn all_statistics(State(app): State<App>, grant: Grant) -> Response {
    statistics_of(&app, &grant, None, None)
}

fn statistics_of(app: &App, grant: &Grant, model: Option<&str>, version: Option<&str>) -> Response {
    match counted(app, grant, model, version) {
        Ok(live) => {
            let all: Vec<_> = live.iter().map(|live| Statistics::of(live)).collect();
            json(StatusCode::OK, &object!({ "model_stats": all }))
        }
        Err(failure) => failure.into_response(),
    }
}

async fn configuration(State(app): State<App>, grant: Grant, target: Target) -> Response {
    match app.peek(&grant, &target.model, target.version.as_deref()) {
        Ok(live) => json(StatusCode::OK, &Configuration::of(&live).to_json()),
        Err(failure) => failure.into_response(),
    }
}

async fn index(State(app): State<App>, grant: Grant, request: Request) -> Response {
    let wanted: IndexRequest = match body_of(&app, request).await {
        Ok(wanted) => wanted,
        Err(failure) => return failure.into_response(),
    };
    json(StatusCode::OK, &entries(&app, &grant, wanted.ready))
}

async fn load(State(app): State<App>, Path(model): Path<String>, request: Request) -> Response {
    let asked: ControlRequest = match controlled(&app, &model, request).await {
        Ok(asked) => asked,
        Err(failure) => return failure.into_response(),
    };
    let parameters = asked.parameters.keys().map(String::as_str);
    done(load_model(&app, &model, parameters).await)
}

async fn unload(State(app): State<App>, Path(model): Path<String>, request: Request) -> Response {
    if let Err(failure) = controlled::<ControlRequest>(&app, &model, request).await {
        return failure.into_response();
    }
    done(unload_model(&app, &model).await)
}

fn done(result: Result<(), Failure>) -> Response {
    match result {
        Ok(()) => StatusCode::OK.into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// The models whose statistics are asked for, with their counters up to date.
///
/// # Errors
/// The only one that is asked for is not there, or the token does not reach it.
pub(crate) fn counted(
    app: &App,
    grant: &Grant,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<Arc<Live>>, Failure> {
    let live = match model {
        Some(model) => {
            let live = app.peek(grant, model, version)?;
            // Without a version, all of them.
            if version.is_some() { vec![live] } else { app.repository.versions(model) }
        }
        None => {
            let mut names = app.repository.names();
            names.retain(|name| grant.allows(name));
            names.iter().flat_map(|name| app.repository.versions(name)).collect()
        }
    };
    live.iter().for_each(|live| app.repository.take_graphs(live));
    Ok(live)
}

/// The models of the repository, or those that are ready.
pub(crate) fn entries(app: &App, grant: &Grant, ready: bool) -> Vec<IndexEntry> {
    let statuses = app.repository.statuses().into_iter();
    statuses
        .filter(|model| !ready || model.state.is_ready())
        .filter(|model| grant.allows(&model.name))
        .map(IndexEntry::from)
        .collect()
}

/// Load a model by a request that was let in. `parameters` are the names of those that the
/// request has.
///
/// # Errors
/// The model is unknown, or it cannot be loaded.
pub(crate) async fn load_model(
    app: &App,
    model: &str,
    mut parameters: impl Iterator<Item = &str>,
) -> Result<(), Failure> {
    if let Some(key) = parameters.find(|key| *key == "config" || key.starts_with("file:")) {
        let key = clip(key);
        let text = format!(
            "`{key}` is not possible: a model is what its package says; change the package and \
             load it again"
        );
        return Err(DecodeError::Request(text).into());
    }
    // A client that leaves must not leave half a load behind.
    let (repository, name) = (app.repository.clone(), model.to_owned());
    let done = tokio::spawn(async move { repository.reload(&name).await }).await;
    finished(app, model, done)
}

/// Unload a model by a request that was let in.
///
/// # Errors
/// The model is unknown.
pub(crate) async fn unload_model(app: &App, model: &str) -> Result<(), Failure> {
    let (repository, name) = (app.repository.clone(), model.to_owned());
    let done = tokio::spawn(async move { repository.unload(&name).await }).await;
    finished(app, model, done)
}

fn finished(
    app: &App,
    model: &str,
    done: Result<Result<(), RepositoryError>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(RepositoryError::Unknown(_))) => app.repository.peek(model, None).map(drop),
        Ok(Err(error)) => {
            Err(Failure::NotLoaded { model: model.to_owned(), why: error.to_string() })
        }
        Err(error) => Err(Failure::Server(error.to_string())),
    }
}

/// The body of a request that changes the repository, if such requests are let in.
async fn controlled<T: for<'a> Deserialize<'a> + Default>(
    app: &App,
    model: &str,
    request: Request,
) -> Result<T, Failure> {
    let grant = Grant::of(request.extensions());
    if let Err(failure) = app.check_control(&grant, model) {
        body::discard(request.into_body()).await;
        return Err(failure);
    }
    body_of(app, request).await
}

/// A small JSON body; none is the default.
async fn body_of<T: for<'a> Deserialize<'a> + Default>(
    app: &App,
    request: Request<Body>,
) -> Result<T, Failure> {
    let limits = BodyLimits {
        max: MAX_BODY,
        whose: "requests to the repository".into(),
        timeout: app.body_timeout,
        align_at: 0,
    };
    let coding = match compression::of_request(request.headers()) {
        Ok(coding) => coding,
        Err(failure) => {
            body::discard(request.into_body()).await;
            return Err(failure);
        }
    };
    let (bytes, _held) =
        compression::read(coding, request.into_body(), &limits, &app.memory).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let parsed = serde_json::from_slice(&bytes);
    parsed.map_err(|error| {
        DecodeError::Request(format!("the body is not understood: {error}")).into()
    })
}

// === impl Statistics ===

impl<'a> Statistics<'a> {
    pub fn of(live: &'a Live) -> Self {
        let metrics = &live.metrics;
        let (success, failed) = (metrics.success.get(), metrics.failures());
        let took = |count, micros: u64| Duration { count, ns: micros.saturating_mul(1000) };
        let none = || Duration { count: 0, ns: 0 };
        Self {
            name: &live.name,
            version: &live.version,
            last_inference: metrics.last_success_ms(),
            inference_count: metrics.count.get(),
            execution_count: metrics.exec.get(),
            inference_stats: InferenceStatistics {
                success: took(success, metrics.request_us.get()),
                fail: took(failed, 0),
                queue: took(success + failed, metrics.queue_us.get()),
                // Tensors are read and written where they lie: that time is in the request's.
                compute_input: took(success, 0),
                compute_infer: took(success, metrics.compute_us.get()),
                compute_output: took(success, 0),
                cache_hit: none(),
                cache_miss: none(),
            },
            batch_stats: [],
        }
    }
}

// === impl IndexEntry ===

impl From<ModelStatus> for IndexEntry {
    fn from(model: ModelStatus) -> Self {
        let state = match model.state {
            ModelState::Ready | ModelState::Cold => "READY",
            ModelState::Loading | ModelState::Warming => "LOADING",
            ModelState::Draining => "UNLOADING",
            ModelState::Failed | ModelState::Unloaded => "UNAVAILABLE",
        };
        let reason = match (model.state, model.last_error) {
            (_, Some((_, text))) => text,
            (ModelState::Unloaded, None) => "unloaded".to_owned(),
            (ModelState::Cold, None) => "cold: the next request loads it".to_owned(),
            _ => String::new(),
        };
        Self { name: model.name, version: model.version, state, reason }
    }
}

// === impl Configuration ===

impl<'a> Configuration<'a> {
    pub fn of(live: &'a Live) -> Self {
        let model = &live.model;
        let (platform, backend) = match model.kind() {
            ModelKind::Passthrough => ("onnxruntime_onnx", "onnxruntime"),
            _ => ("", "wick"),
        };
        let (inputs, outputs) = (model.inputs(), model.outputs());
        Self { name: &live.name, platform, backend, versions: 1, inputs, outputs }
    }

    fn to_json(&self) -> Value {
        let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect::<Vec<_>>();
        object!({
            "name": self.name,
            "platform": self.platform,
            "backend": self.backend,
            "version_policy": { "latest": { "num_versions": self.versions } },
            "max_batch_size": 0,
            "input": tensors(self.inputs),
            "output": tensors(self.outputs),
        })
    }
}

fn tensor(spec: &TensorSpec) -> Value {
    let dims: Vec<i64> = spec.shape.iter().map(|dim| size(*dim)).collect();
    object!({ "name": spec.name, "data_type": datatype(spec.datatype), "dims": dims })
}

/// A dimension's size, -1 for any.
pub(crate) fn size(dim: Dim) -> i64 {
    match dim {
        Dim::Any => -1,
        Dim::Fixed(size) => i64::try_from(size).unwrap_or(i64::MAX),
    }
}

/// A datatype in the words of Triton's configuration.
pub(crate) fn datatype(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}
