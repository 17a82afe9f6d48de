//! Runs a graph: takes a session from the pool, catches panics, counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use wick_package::{DeviceKind, GraphName};

use crate::backend::{Cancel, Graph, Session};
use crate::error::InferError;
use crate::quick::{self, Quick};
use crate::stats::Counters;
use crate::tensor::Tensor;

/// A graph and its free sessions.
pub(crate) struct Runner {
    pub name: GraphName,
    pub graph: Arc<dyn Graph>,
    /// The graph's, also after it has rested.
    pub counters: Arc<Counters>,
    quick: Quick,
    /// At most as many as inferences ran at once, which the compute threads bound.
    free: Mutex<Vec<Box<dyn Session>>>,
}

// === impl Runner ===

impl Runner {
    pub(crate) fn new(name: GraphName, graph: Arc<dyn Graph>, counters: Arc<Counters>) -> Self {
        Self { name, graph, counters, quick: Quick::default(), free: Mutex::default() }
    }

    /// Whether [`Runner::run`] can be expected to be over before another thread would have
    /// begun it. Devices beside the processor have others who wait for them.
    pub(crate) fn is_quick(&self, inputs: &[Tensor]) -> bool {
        self.graph.device().device.kind == DeviceKind::Cpu && self.quick.expects(size(inputs))
    }

    /// Run on checked inputs in the model's order. Blocks.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        cancel: &Cancel,
    ) -> Result<Vec<Tensor>, InferError> {
        if cancel.is_cancelled() {
            return Err(InferError::Cancelled);
        }
        let pooled = self.free.lock().pop();
        let mut session = match pooled {
            Some(session) => session,
            None => self.graph.session()?,
        };
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| session.run(inputs, cancel)));
        let took = start.elapsed();
        self.counters.executed(took);
        // What a graph refuses at once says nothing of how long it computes.
        if matches!(result, Ok(Ok(_))) || took > quick::QUICK {
            self.quick.took(size(inputs), took);
        }
        let outputs = match result {
            Ok(result) => {
                self.free.lock().push(session);
                result?
            }
            // What a session holds after a panic is unknown: it is dropped.
            Err(panic) => return Err(self.failed(panic_text(&*panic))),
        };
        self.check(outputs)
    }

    /// An error of this graph's backend.
    pub(crate) fn failed(&self, detail: impl Into<String>) -> InferError {
        InferError::Backend {
            graph: self.name.to_string(),
            backend: self.graph.device().backend.clone(),
            detail: detail.into(),
        }
    }

    fn check(&self, outputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
        let specs = self.graph.outputs();
        if outputs.len() != specs.len() {
            let text = format!("it gave {} outputs of {}", outputs.len(), specs.len());
            return Err(self.failed(text));
        }
        for (output, spec) in outputs.iter().zip(specs) {
            if output.datatype() != spec.datatype {
                let text = format!(
                    "output `{}` is {}, and the model declares {}",
                    spec.name,
                    output.datatype(),
                    spec.datatype
                );
                return Err(self.failed(text));
            }
        }
        Ok(outputs)
    }
}

/// Bytes of all inputs.
fn size(inputs: &[Tensor]) -> usize {
    inputs.iter().map(|input| input.data().len()).sum()
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}
