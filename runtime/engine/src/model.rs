//! A loaded package that answers requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use wick_nn::{DeviceUse, GraphHandle};
use wick_package::{DeviceKind, Limits, Manifest, TensorSpec};

use crate::check;
use crate::engine::Engine;
use crate::error::{InferError, LoadError};
use crate::handler;
use crate::program::Program;
use crate::request::{InferRequest, InferResponse};
use crate::state::Guest;

/// A loaded package.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

/// How a model is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// No handler: tensors go straight to the only graph.
    Passthrough,
    /// A `wick:model` component.
    Handler,
    /// A `wasi:http` component: it answers HTTP itself.
    Http,
    /// A command, run to completion.
    Command,
}

/// A graph of a model, for metadata and metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct GraphStatus {
    pub name: String,
    #[serde(flatten)]
    pub device: DeviceUse,
}

pub(crate) struct Inner {
    pub engine: Engine,
    pub manifest: Manifest,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// None for a package without handler.
    pub program: Option<Program>,
    pub guest: Arc<Guest>,
}

/// Put the parts of a loaded package together. One without a handler has one graph.
pub(crate) fn new(
    engine: Engine,
    manifest: Manifest,
    program: Option<Program>,
    guest: Arc<Guest>,
) -> Model {
    // Only a package without handler may leave its tensors to its graph.
    let graph = guest.graphs.first().filter(|_| program.is_none());
    let or_graph = |written: &[TensorSpec], of_graph: &dyn Fn() -> Option<Vec<TensorSpec>>| {
        if written.is_empty() { of_graph().unwrap_or_default() } else { written.to_vec() }
    };
    let inputs = or_graph(&manifest.inputs, &|| Some(graph?.inputs().to_vec()));
    let outputs = or_graph(&manifest.outputs, &|| Some(graph?.outputs().to_vec()));
    let inner = Inner { engine, manifest, inputs, outputs, program, guest };
    Model { inner: Arc::new(inner) }
}

// === impl Model ===

impl Model {
    /// Answer one request. Inputs are checked against [`Model::inputs`]. Dropping
    /// the future stops guest and compute. Needs a tokio runtime with timers.
    ///
    /// # Errors
    /// See [`InferError`]. Never ends the process, whatever the guest does.
    pub async fn infer(
        &self,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<InferResponse, InferError> {
        let inner = &*self.inner;
        check::inputs(&inner.inputs, &request.inputs)?;
        check::wanted(&inner.outputs, &request.outputs)?;
        let started = Instant::now();
        let answer = async {
            match &inner.program {
                None => inner.pass_through(request).await,
                Some(Program::Handler(pre)) => handler::infer(inner, pre, request, deadline).await,
                Some(_) => Err(self.wrong_kind("tensors")),
            }
        };
        within(deadline, started, answer).await
    }

    pub fn name(&self) -> &str {
        &self.inner.guest.model
    }

    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.manifest.limits
    }

    pub fn kind(&self) -> ModelKind {
        match &self.inner.program {
            None => ModelKind::Passthrough,
            Some(Program::Handler(_)) => ModelKind::Handler,
            Some(Program::Http(_)) => ModelKind::Http,
            Some(Program::Command(_) | Program::Module(_)) => ModelKind::Command,
        }
    }

    /// The package's `[[input]]`, or its graph's inputs if it writes none.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inner.inputs
    }

    /// The package's `[[output]]`, or its graph's outputs if it writes none.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.inner.outputs
    }

    /// Where each graph really runs.
    pub fn graphs(&self) -> Vec<GraphStatus> {
        let graphs = self.inner.guest.graphs.iter();
        graphs
            .map(|graph| GraphStatus {
                name: graph.name().to_owned(),
                device: graph.device().clone(),
            })
            .collect()
    }

    /// Bytes of the model files that its graphs are made of.
    pub fn weights_len(&self) -> u64 {
        self.inner.guest.graphs.iter().map(GraphHandle::file_len).sum()
    }

    /// Bytes of the model files of its graphs on each device beside the processor, by the device's
    /// [place](wick_nn::Device::place).
    pub fn on_devices(&self) -> BTreeMap<String, u64> {
        let guest = &self.inner.guest;
        let own = guest.graphs.iter().map(|graph| (graph.clone(), graph.file_len()));
        let mut devices = BTreeMap::new();
        for (graph, bytes) in own.chain(guest.brought.kept()) {
            let device = &graph.device().device;
            if device.kind != DeviceKind::Cpu {
                *devices.entry(device.place()).or_default() += bytes;
            }
        }
        devices
    }

    /// The most inferences that have failed in a row of a graph on a device beside the processor.
    pub fn failures_on_devices(&self) -> u32 {
        let graphs = self.inner.guest.graphs.iter();
        let on_device = graphs.filter(|graph| graph.device().device.kind != DeviceKind::Cpu);
        on_device.map(GraphHandle::failures_in_a_row).max().unwrap_or(0)
    }

    /// Give back what takes most memory: graphs, sessions, and instances that wait to be
    /// used again. Nothing may be in work. The model answers again after
    /// [`Model::wake`].
    pub fn rest(&self) {
        self.inner.guest.graphs.iter().for_each(GraphHandle::rest);
        self.inner.guest.brought.clear();
        if let Some(Program::Http(instances)) = &self.inner.program {
            instances.clear();
        }
    }

    /// Load the graphs of a model that rests, all at once.
    ///
    /// # Errors
    /// A model file has changed meanwhile, or can't be loaded any more.
    pub async fn wake(&self) -> Result<(), LoadError> {
        let graphs = self.inner.guest.graphs.iter();
        try_join_all(graphs.map(GraphHandle::wake)).await?;
        Ok(())
    }

    /// Whether its model files are still those that it was loaded from.
    pub fn is_unchanged(&self) -> bool {
        self.inner.guest.graphs.iter().all(GraphHandle::is_unchanged)
    }

    /// What each graph has done since it was loaded, by its name.
    pub fn graph_stats(&self) -> Vec<(String, wick_nn::GraphStats)> {
        let graphs = self.inner.guest.graphs.iter();
        graphs.map(|graph| (graph.name().to_owned(), graph.stats())).collect()
    }

    pub(crate) fn wrong_kind(&self, with: &str) -> InferError {
        let call = match self.kind() {
            ModelKind::Passthrough | ModelKind::Handler => "tensors",
            ModelKind::Http => "its own HTTP routes",
            ModelKind::Command => "arguments, as a command",
        };
        let name = self.name();
        InferError::BadInput(format!("model `{name}` is not called with {with}, but with {call}"))
    }
}

impl Inner {
    async fn pass_through(&self, request: InferRequest) -> Result<InferResponse, InferError> {
        let Some(graph) = self.guest.graphs.first() else {
            return Err(InferError::Unavailable("the model has no graph".into()));
        };
        let outputs = graph.infer(request.inputs).await?;
        let model = &*self.guest.model;
        let outputs = check::outputs(&self.outputs, &request.outputs, outputs)
            .map_err(|detail| InferError::Backend(format!("graph of model `{model}`: {detail}")))?;
        Ok(InferResponse { parameters: Vec::new(), outputs })
    }
}

/// Bound a piece of work by its deadline.
pub(crate) async fn within<T>(
    deadline: Instant,
    started: Instant,
    work: impl Future<Output = Result<T, InferError>>,
) -> Result<T, InferError> {
    // A timer is looked at only when the work waits.
    if started >= deadline {
        return Err(InferError::Deadline(Duration::ZERO));
    }
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(result) => result,
        Err(_) => Err(InferError::Deadline(started.elapsed())),
    }
}

impl From<wick_nn::InferError> for InferError {
    fn from(error: wick_nn::InferError) -> Self {
        match error {
            wick_nn::InferError::BadInput(text) => Self::BadInput(text),
            wick_nn::InferError::Cancelled => Self::Cancelled,
            wick_nn::InferError::Unloaded(_) | wick_nn::InferError::Busy(_) => {
                Self::Unavailable(error.to_string())
            }
            wick_nn::InferError::Backend { .. } => Self::Backend(error.to_string()),
        }
    }
}
