//! The built-in backend: tract, pure Rust, nothing to install.
//!
//! It runs on the CPU. It lacks BF16 and some operators, and is slow at int8;
//! such models are refused with the advice to use ONNX Runtime. Panics inside it
//! are errors.

mod convert;
mod model;
mod plans;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tract_onnx::prelude::multithread::Executor;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval;
use wick_package::{DeviceKind, TensorSpec};

use self::plans::Plans;
use crate::backend::{
    Backend, Cancel, Device, DeviceUse, Found, Graph, GraphOptions, GraphSource, Session,
};
use crate::error::{InferError, LoadError};
use crate::runner::panic_text;
use crate::tensor::Tensor;

/// What the backend is called in `wick.toml` and in reports.
pub(crate) const NAME: &str = "tract";

/// The detail of a refusal that ONNX Runtime would not make.
pub(crate) const REFUSAL: &str = "tract cannot run it";

/// The library's version: the one that the manifest of this crate pins.
const VERSION: &str = "0.23.9";

/// The tract backend.
#[derive(Debug, Default)]
pub(crate) struct Tract {
    /// Threads shared by all graphs that use the same number of them.
    executors: Mutex<HashMap<usize, Executor>>,
}

struct TractGraph {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    plans: Plans,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    device: DeviceUse,
}

struct TractSession {
    shared: Arc<Shared>,
    /// Of the plan that ran last. Absent after an error, which may have left values
    /// of half a run in it.
    state: Option<TypedSimpleState>,
}

/// Marks an evaluation that was stopped on purpose.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
struct Stopped;

// === impl Tract ===

impl Backend for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &str {
        VERSION
    }

    fn find(&self, kinds: &[DeviceKind]) -> Found {
        let devices = kinds.contains(&DeviceKind::Cpu).then(|| Device::cpu(NAME));
        Found { devices: devices.into_iter().collect(), refused: Vec::new() }
    }

    fn load(
        &self,
        source: &GraphSource,
        device: &Device,
        options: &GraphOptions,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let executor = self.executor(options.threads);
        let loaded = catch_unwind(AssertUnwindSafe(|| model::load(source, executor)));
        let loaded =
            loaded.unwrap_or_else(|panic| Err(source.invalid(NAME, panic_text(&*panic))))?;
        let device = DeviceUse {
            backend: NAME.to_owned(),
            backend_version: VERSION.to_owned(),
            device: device.clone(),
            share: 1.0,
            threads: options.threads,
            refused: Vec::new(),
        };
        let shared = Shared {
            name: source.name.to_string(),
            plans: loaded.plans,
            inputs: loaded.inputs,
            outputs: loaded.outputs,
            device,
        };
        Ok(Arc::new(TractGraph { shared: Arc::new(shared) }))
    }
}

impl Tract {
    fn executor(&self, threads: usize) -> Executor {
        if threads <= 1 {
            // Named, so that a plan never runs on what an earlier one left behind.
            return Executor::SingleThread;
        }
        let mut executors = self.executors.lock();
        let make = || Executor::multithread_with_name(threads, "wick-tract");
        executors.entry(threads).or_insert_with(make).clone()
    }
}

// === impl TractGraph ===

impl Graph for TractGraph {
    fn inputs(&self) -> &[TensorSpec] {
        &self.shared.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.shared.outputs
    }

    fn device(&self) -> &DeviceUse {
        &self.shared.device
    }

    fn session(&self) -> Result<Box<dyn Session>, InferError> {
        Ok(Box::new(TractSession { shared: Arc::clone(&self.shared), state: None }))
    }
}

// === impl TractSession ===

impl Session for TractSession {
    fn run(&mut self, inputs: &[Tensor], cancel: &Cancel) -> Result<Vec<Tensor>, InferError> {
        let plan = self.shared.plans.get(inputs).map_err(|error| self.failed(chain(&error)))?;
        let inputs = inputs.iter().zip(&self.shared.inputs).map(|(tensor, spec)| {
            convert::to_tract(tensor)
                .map_err(|text| InferError::BadInput(format!("input `{}` {text}", spec.name)))
        });
        let inputs: TVec<TValue> = inputs.collect::<Result<_, _>>()?;
        let outputs = self.evaluate(&plan, inputs, cancel)?;
        let specs = &self.shared.outputs;
        let outputs = outputs.into_iter().zip(specs).map(|(value, spec)| {
            convert::from_tract(value, spec.datatype)
                .map_err(|text| self.failed(format!("output `{}` {text}", spec.name)))
        });
        outputs.collect()
    }
}

impl TractSession {
    fn evaluate(
        &mut self,
        plan: &Arc<TypedSimplePlan>,
        inputs: TVec<TValue>,
        cancel: &Cancel,
    ) -> Result<TVec<TValue>, InferError> {
        let mut state = match self.state.take() {
            Some(state) if Arc::ptr_eq(state.plan(), plan) => state,
            _ => plan.spawn().map_err(|error| self.failed(chain(&error)))?,
        };
        let result = state.run_plan_with_eval(inputs, |context, op_state, node, inputs| {
            if cancel.is_cancelled() {
                return Err(TractError::from(Stopped));
            }
            eval(context, op_state, node, inputs)
        });
        match result {
            Ok(outputs) => {
                self.state = Some(state);
                Ok(outputs)
            }
            Err(error) if error.is::<Stopped>() => Err(InferError::Cancelled),
            Err(error) => Err(self.failed(chain(&error))),
        }
    }

    fn failed(&self, detail: String) -> InferError {
        let backend = NAME.to_owned();
        InferError::Backend { graph: self.shared.name.clone(), backend, detail }
    }
}

/// An error and its causes on one line.
fn chain(error: &TractError) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // tract repeats causes in the texts of what wraps them.
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::VERSION;

    #[test]
    fn the_version_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"tract-onnx\"\nversion = \"{VERSION}\"\n")));
    }
}
