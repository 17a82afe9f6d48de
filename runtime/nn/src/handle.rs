//! What callers hold of a loaded graph.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wick_package::TensorSpec;

use crate::arrange::arrange;
use crate::backend::{Cancel, DeviceUse};
use crate::batch::Batcher;
use crate::compute::Compute;
use crate::error::InferError;
use crate::runner::Runner;
use crate::stats::GraphStats;
use crate::tensor::Tensor;

/// A loaded graph that anybody may call at once. Clones share it; the last one to
/// be dropped unloads it.
#[derive(Clone)]
pub struct GraphHandle {
    inner: Arc<Inner>,
}

struct Inner {
    runner: Arc<Runner>,
    compute: Arc<Compute>,
    batcher: Option<Batcher>,
}

/// A request's hold on its place in the queue or on its running inference. Dropped
/// early, it gives up the one and stops the other.
struct Ticket {
    cancel: Cancel,
    /// Taken by the thread that runs it.
    inputs: Arc<Mutex<Option<Vec<Tensor>>>>,
}

// === impl GraphHandle ===

impl GraphHandle {
    pub(crate) fn new(
        runner: Arc<Runner>,
        compute: Arc<Compute>,
        batcher: Option<Batcher>,
    ) -> Self {
        Self { inner: Arc::new(Inner { runner, compute, batcher }) }
    }

    /// The graph's name in its package.
    pub fn name(&self) -> &str {
        self.inner.runner.name.as_str()
    }

    /// Inputs in the model's order.
    pub fn inputs(&self) -> &[TensorSpec] {
        self.inner.runner.graph.inputs()
    }

    /// Outputs in the model's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        self.inner.runner.graph.outputs()
    }

    /// Where it runs.
    pub fn device(&self) -> &DeviceUse {
        self.inner.runner.graph.device()
    }

    /// What it has done since it was loaded.
    pub fn stats(&self) -> GraphStats {
        self.inner.runner.counters.snapshot()
    }

    /// Run one inference. Inputs may come in any order; outputs come in the
    /// model's order. Dropping the future cancels the inference.
    ///
    /// # Errors
    /// See [`InferError`]. The graph goes on working after each of them.
    pub async fn infer(
        &self,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, InferError> {
        let runner = &self.inner.runner;
        let inputs = arrange(&runner.name, runner.graph.inputs(), inputs)?;
        let result = match &self.inner.batcher {
            Some(batcher) => batcher.infer(inputs).await,
            None => self.alone(inputs).await,
        };
        if !matches!(result, Err(InferError::Cancelled)) {
            runner.counters.answered(result.is_ok());
        }
        let names = self.outputs().iter().map(|spec| spec.name.clone());
        result.map(|outputs| names.zip(outputs).collect())
    }

    /// One inference as one job of the compute threads.
    async fn alone(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
        let ticket =
            Ticket { cancel: Cancel::default(), inputs: Arc::new(Mutex::new(Some(inputs))) };
        let (answer, answered) = oneshot::channel();
        let (runner, cancel) = (Arc::clone(&self.inner.runner), ticket.cancel.clone());
        let (place, queued) = (Arc::clone(&ticket.inputs), Instant::now());
        let job = move || {
            let Some(inputs) = place.lock().take() else { return };
            runner.counters.queued(queued.elapsed());
            // Nobody may be waiting any more; then there is nothing to do.
            _ = answer.send(runner.run(&inputs, &cancel));
        };
        let busy = |_| InferError::Busy(self.name().to_owned());
        self.inner.compute.submit(job).map_err(busy)?;
        let lost = |_| self.inner.runner.failed("the inference ended without an answer");
        answered.await.map_err(lost)?
    }
}

// === impl Ticket ===

impl Drop for Ticket {
    fn drop(&mut self) {
        // After the answer both are without effect.
        self.inputs.lock().take();
        self.cancel.cancel();
    }
}
