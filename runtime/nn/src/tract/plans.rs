//! Plans that tract runs: one for all shapes, or one for each shape that comes.
//!
//! tract plans for dynamic dimensions by computing with their names. Some models
//! reshape by sizes that it can't follow so; those get a plan for each concrete
//! shape, made when it first comes, and kept for the latest few.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;
use tract_onnx::prelude::multithread::Executor;
use tract_onnx::prelude::*;
use wick_package::{Dim, TensorSpec};

use super::convert;
use crate::runner::panic_text;
use crate::tensor::{Shape, Tensor};

/// Plans that are kept. A server that sees more shapes than this in turn is better
/// off padding its inputs.
const MAX_PLANS: usize = 8;

/// The plans of a graph.
pub(super) enum Plans {
    Any(Arc<TypedSimplePlan>),
    PerShape(Box<PerShape>),
}

pub(super) struct PerShape {
    model: InferenceModel,
    inputs: Vec<TensorSpec>,
    executor: Executor,
    /// The latest last.
    made: Mutex<Vec<(Vec<Shape>, Arc<TypedSimplePlan>)>>,
}

// === impl Plans ===

impl Plans {
    /// Plan for all shapes if tract can, otherwise for each that comes.
    pub(super) fn new(
        model: InferenceModel,
        inputs: &[TensorSpec],
        executor: Executor,
    ) -> TractResult<Self> {
        let error = match plan(model.clone(), &executor) {
            Ok(plan) => return Ok(Self::Any(plan)),
            Err(error) => error,
        };
        let dims = inputs.iter().flat_map(|spec| &spec.shape);
        if dims.clone().all(|dim| matches!(dim, Dim::Fixed(_))) {
            return Err(error);
        }
        let made = Mutex::default();
        let per_shape = PerShape { model, inputs: inputs.to_vec(), executor, made };
        let rest = inputs.iter().flat_map(|spec| spec.shape.iter().skip(1));
        if rest.clone().all(|dim| matches!(dim, Dim::Fixed(_))) {
            // Only the batch is dynamic, so a first plan shows now what would fail.
            let shapes = inputs.iter().map(|spec| {
                let sizes = spec.shape.iter().map(|dim| match dim {
                    Dim::Fixed(size) => *size,
                    Dim::Any => 1,
                });
                sizes.collect()
            });
            per_shape.get(shapes.collect())?;
        }
        Ok(Self::PerShape(Box::new(per_shape)))
    }

    /// The plan for some inputs.
    pub(super) fn get(&self, inputs: &[Tensor]) -> TractResult<Arc<TypedSimplePlan>> {
        match self {
            Self::Any(plan) => Ok(Arc::clone(plan)),
            Self::PerShape(plans) => {
                plans.get(inputs.iter().map(|tensor| Shape::from_slice(tensor.shape())).collect())
            }
        }
    }
}

// === impl PerShape ===

impl PerShape {
    fn get(&self, shapes: Vec<Shape>) -> TractResult<Arc<TypedSimplePlan>> {
        {
            let mut made = self.made.lock();
            if let Some(index) = made.iter().position(|(of, _)| *of == shapes) {
                let entry = made.remove(index);
                let plan = Arc::clone(&entry.1);
                made.push(entry);
                return Ok(plan);
            }
        }
        // Made without the lock, as it takes a while: two requests may both make it.
        let mut model = self.model.clone();
        for (index, (spec, shape)) in self.inputs.iter().zip(&shapes).enumerate() {
            let datum_type = convert::datum_type(spec.datatype)
                .ok_or_else(|| TractError::msg(format!("tract lacks {}", spec.datatype)))?;
            let sizes: TVec<usize> =
                shape.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>()?;
            model.set_input_fact(index, InferenceFact::dt_shape(datum_type, sizes))?;
        }
        let plan = plan(model, &self.executor)?;
        let mut made = self.made.lock();
        if made.len() == MAX_PLANS {
            made.remove(0);
        }
        made.push((shapes, Arc::clone(&plan)));
        Ok(plan)
    }
}

fn plan(model: InferenceModel, executor: &Executor) -> TractResult<Arc<TypedSimplePlan>> {
    let make = || {
        let model = model.into_optimized()?;
        let options = RunOptions { executor: Some(executor.clone()), ..RunOptions::default() };
        TypedSimplePlan::new_with_options(model, &options)
    };
    catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|panic| Err(TractError::msg(panic_text(&*panic))))
}
