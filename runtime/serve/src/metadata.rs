//! What the server says of itself and of its models.

use std::sync::Arc;

use serde::Serialize;
use wick_engine::{GraphStatus, ModelKind};
use wick_package::TensorSpec;

use crate::repository::{Live, State};

/// Extensions of the Open Inference Protocol that are served.
const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

#[derive(Serialize)]
pub struct ServerJson {
    pub name: &'static str,
    pub version: &'static str,
    pub extensions: [&'static str; EXTENSIONS.len()],
}

#[derive(Serialize)]
pub struct LiveJson {
    pub live: bool,
}

#[derive(Serialize)]
pub struct ReadyJson {
    pub ready: bool,
}

#[derive(Serialize)]
pub struct ModelsJson {
    pub models: Vec<String>,
}

#[derive(Serialize)]
pub struct ModelReadyJson<'a> {
    pub name: &'a str,
    pub ready: bool,
}

#[derive(Serialize)]
pub struct ModelJson<'a> {
    pub name: &'a str,
    /// Those that answer requests, newest first.
    pub versions: Vec<&'a str>,
    pub platform: &'static str,
    pub inputs: &'a [TensorSpec],
    pub outputs: &'a [TensorSpec],
    properties: PropertiesJson<'a>,
}

#[derive(Serialize)]
struct PropertiesJson<'a> {
    kind: &'static str,
    /// `ready`, or `cold` if the next request loads it.
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Each with the backend and the device in use and its share of the nodes.
    graphs: Vec<GraphStatus>,
}

impl ServerJson {
    pub fn new() -> Self {
        Self { name: "wick", version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS }
    }
}

impl<'a> ModelJson<'a> {
    pub fn new(live: &'a Live, versions: &'a [Arc<Live>]) -> Self {
        let model = &live.model;
        let (kind, platform) = match model.kind() {
            ModelKind::Passthrough => ("passthrough", "onnx_onnxv1"),
            ModelKind::Handler => ("handler", "wick_handler"),
            ModelKind::Http => ("http", "wasi_http"),
            ModelKind::Command => ("command", "wasi_cli"),
        };
        Self {
            name: &live.name,
            versions: versions.iter().map(|live| live.version.as_str()).collect(),
            platform,
            inputs: model.inputs(),
            outputs: model.outputs(),
            properties: PropertiesJson {
                kind,
                state: if live.is_cold() { State::Cold } else { State::Ready },
                description: model.manifest().description.as_deref(),
                graphs: model.graphs(),
            },
        }
    }
}
