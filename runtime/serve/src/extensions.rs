//! Triton's extensions of the protocol that its clients and tools ask for: statistics, the
//! model's configuration, and the repository. Names and forms are those of Triton's
//! documentation (extension_statistics, extension_model_configuration,
//! extension_model_repository).
//!
//! Loading and unloading by request is off unless the host turns it on: whoever reaches the
//! port could otherwise take a model away.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json as object};
use wick_engine::ModelKind;
use wick_package::{Datatype, Dim, TensorSpec};

use crate::body::{self, BodyLimits};
use crate::codec::DecodeError;
use crate::repository::{Live, ModelStatus, RepositoryError, State as ModelState};
use crate::respond::{Failure, json};
use crate::routes::{App, Target};

/// Bytes of a request to the repository: a few words.
const MAX_BODY: u64 = 64 << 10;

/// A number of events and their time together.
#[derive(Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

#[derive(Serialize)]
struct Statistics<'a> {
    name: &'a str,
    version: &'a str,
    /// Milliseconds since 1970 of the last success, 0 for none.
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: InferenceStatistics,
    /// Batches are in the metric `wick_batch_size`; their times are not measured one by one.
    batch_stats: [(); 0],
}

#[derive(Serialize)]
struct InferenceStatistics {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    cache_hit: Duration,
    cache_miss: Duration,
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
struct IndexEntry {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    state: &'static str,
    reason: String,
}

/// The paths of the extensions.
pub fn routes() -> Router<App> {
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

async fn statistics(State(app): State<App>, target: Target) -> Response {
    match app.repository.peek(&target.model, target.version.as_deref()) {
        Ok(live) => {
            // Without a version in the path, all of them.
            let lives = match target.version {
                Some(_) => vec![live],
                None => app.repository.versions(&target.model),
            };
            lives.iter().for_each(|live| app.repository.take_graphs(live));
            let all: Vec<_> = lives.iter().map(|live| Statistics::of(live)).collect();
            json(StatusCode::OK, &object!({ "model_stats": all }))
        }
        Err(failure) => failure.into_response(),
    }
}

async fn all_statistics(State(app): State<App>) -> Response {
    let names = app.repository.names();
    let live: Vec<_> = names.iter().flat_map(|name| app.repository.versions(name)).collect();
    live.iter().for_each(|live| app.repository.take_graphs(live));
    let all: Vec<_> = live.iter().map(|live| Statistics::of(live)).collect();
    json(StatusCode::OK, &object!({ "model_stats": all }))
}

async fn configuration(State(app): State<App>, target: Target) -> Response {
    match app.repository.peek(&target.model, target.version.as_deref()) {
        Ok(live) => json(StatusCode::OK, &configuration_of(&live)),
        Err(failure) => failure.into_response(),
    }
}

async fn index(State(app): State<App>, request: Request) -> Response {
    let wanted: IndexRequest = match body_of(&app, request).await {
        Ok(wanted) => wanted,
        Err(failure) => return failure.into_response(),
    };
    let statuses = app.repository.statuses().into_iter();
    let entries: Vec<_> = statuses
        .filter(|model| !wanted.ready || model.state.is_ready())
        .map(IndexEntry::from)
        .collect();
    json(StatusCode::OK, &entries)
}

async fn load(State(app): State<App>, Path(model): Path<String>, request: Request) -> Response {
    let asked: ControlRequest = match controlled(&app, request).await {
        Ok(asked) => asked,
        Err(failure) => return failure.into_response(),
    };
    let overrides =
        asked.parameters.keys().find(|key| *key == "config" || key.starts_with("file:"));
    if let Some(key) = overrides {
        let text = format!(
            "`{key}` is not possible: a model is what its package says; change the package and \
             load it again"
        );
        return Failure::from(DecodeError::Request(text)).into_response();
    }
    // A client that leaves must not leave half a load behind.
    let repository = app.repository.clone();
    let name = model.clone();
    let done = tokio::spawn(async move { repository.reload(&name).await }).await;
    finished(&app, &model, done)
}

async fn unload(State(app): State<App>, Path(model): Path<String>, request: Request) -> Response {
    if let Err(failure) = controlled::<ControlRequest>(&app, request).await {
        return failure.into_response();
    }
    let repository = app.repository.clone();
    let name = model.clone();
    let done = tokio::spawn(async move { repository.unload(&name).await }).await;
    finished(&app, &model, done)
}

fn finished(
    app: &App,
    model: &str,
    done: Result<Result<(), RepositoryError>, tokio::task::JoinError>,
) -> Response {
    match done {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(RepositoryError::Unknown(_))) => match app.repository.peek(model, None) {
            Err(failure) => failure.into_response(),
            Ok(_) => StatusCode::OK.into_response(),
        },
        Ok(Err(error)) => {
            Failure::NotLoaded { model: model.to_owned(), why: error.to_string() }.into_response()
        }
        Err(error) => Failure::Server(error.to_string()).into_response(),
    }
}

/// The body of a request that changes the repository, if such requests are let in.
async fn controlled<T: for<'a> Deserialize<'a> + Default>(
    app: &App,
    request: Request,
) -> Result<T, Failure> {
    if !app.model_control {
        body::discard(request.into_body()).await;
        return Err(Failure::NoModelControl);
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
        whose: "requests to the repository".to_owned(),
        timeout: app.body_timeout,
        align_at: 0,
    };
    let (bytes, _held) = body::read(request.into_body(), &limits, &app.memory).await?;
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
    fn of(live: &'a Live) -> Self {
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

/// The model as Triton's `ModelConfig` says it. Shapes are whole: `max_batch_size` is 0, which
/// means that no dimension is left out of them.
fn configuration_of(live: &Live) -> Value {
    let model = &live.model;
    let (platform, backend) = match model.kind() {
        ModelKind::Passthrough => ("onnxruntime_onnx", "onnxruntime"),
        _ => ("", "wick"),
    };
    let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect::<Vec<_>>();
    object!({
        "name": live.name,
        "platform": platform,
        "backend": backend,
        "version_policy": { "latest": { "num_versions": 1 } },
        "max_batch_size": 0,
        "input": tensors(model.inputs()),
        "output": tensors(model.outputs()),
    })
}

fn tensor(spec: &TensorSpec) -> Value {
    let dims: Vec<i64> = spec
        .shape
        .iter()
        .map(|dim| match dim {
            Dim::Any => -1,
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        })
        .collect();
    let datatype = match spec.datatype {
        Datatype::Bytes => "STRING".to_owned(),
        other => other.to_string(),
    };
    object!({ "name": spec.name, "data_type": format!("TYPE_{datatype}"), "dims": dims })
}
