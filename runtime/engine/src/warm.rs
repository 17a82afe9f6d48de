//! Warming and probing: what must have worked before a model is called ready.

use std::time::Instant;

use wick_nn::{GraphHandle, Tensor};
use wick_package::{Dim, TensorSpec};

use crate::error::{InferError, LoadError};
use crate::handler;
use crate::model::{Model, within};
use crate::program::Program;
use crate::request::InferRequest;

/// Bytes of zeros that a graph is warmed with, at most: a graph with larger inputs
/// is not worth the memory.
const MAX_ZEROS: u64 = 256 << 20;

impl Model {
    /// Run the package's warm-up as `[warmup]` says: `request` through the handler,
    /// or zeros through each graph whose shapes are known.
    ///
    /// # Errors
    /// [`LoadError::Warmup`] with the reason of the request that failed.
    pub async fn warm(&self, request: Option<InferRequest>) -> Result<(), LoadError> {
        for _ in 0..self.manifest().warmup.requests {
            self.probe(request.clone()).await.map_err(|error| LoadError::Warmup {
                model: self.name().to_owned(),
                detail: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// One small inference that shows whether the model works: `request`, or zeros
    /// through each graph whose shapes are known. Bounded by `[limits] timeout`.
    ///
    /// # Errors
    /// The reason of the inference that failed.
    pub async fn probe(&self, request: Option<InferRequest>) -> Result<(), InferError> {
        let started = Instant::now();
        let deadline = started + self.limits().timeout;
        if let Some(request) = request {
            return self.infer(request, deadline).await.map(drop);
        }
        let zeros = async {
            for graph in &self.inner.guest.graphs {
                if let Some(inputs) = zeros(graph) {
                    graph.infer(inputs).await?;
                }
            }
            // A handler that can't even start is not ready.
            match &self.inner.program {
                Some(Program::Handler(pre)) => handler::instantiate(&self.inner, pre).await,
                _ => Ok(()),
            }
        };
        within(deadline, started, zeros).await
    }

    /// Make a fresh instance, ready to be called, and drop it: what a request pays
    /// before its handler runs. For benchmarks.
    ///
    /// # Errors
    /// The instance can't be made, or the model has no handler.
    #[doc(hidden)]
    pub async fn instantiate_once(&self) -> Result<(), InferError> {
        match &self.inner.program {
            Some(Program::Handler(pre)) => handler::instantiate(&self.inner, pre).await,
            _ => Err(self.wrong_kind("nothing")),
        }
    }
}

/// Inputs of zeros, if all shapes are known but for a leading dimension, which is
/// usually the batch.
fn zeros(graph: &GraphHandle) -> Option<Vec<(String, Tensor)>> {
    let mut total = 0_u64;
    let inputs = graph.inputs().iter();
    inputs
        .map(|spec| {
            let tensor = Tensor::zeros(spec.datatype, &shape(spec, MAX_ZEROS)?).ok()?;
            total += tensor.data().len() as u64;
            (total <= MAX_ZEROS).then(|| (spec.name.clone(), tensor))
        })
        .collect()
}

/// A concrete shape for a specification, of at most `limit` bytes.
fn shape(spec: &TensorSpec, limit: u64) -> Option<Vec<u64>> {
    let dims = spec.shape.iter().enumerate();
    let shape: Vec<u64> = dims
        .map(|(index, dim)| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Any => (index == 0).then_some(1),
        })
        .collect::<Option<_>>()?;
    let size = spec.datatype.size().unwrap_or(4) as u64;
    let bytes = shape.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(dim))?;
    (bytes <= limit).then_some(shape)
}

#[cfg(test)]
mod tests {
    use wick_package::Datatype;

    use super::*;

    #[track_caller]
    fn check(dims: &[Dim], want: Option<&[u64]>) {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: dims.to_vec() };
        assert_eq!(shape(&spec, MAX_ZEROS).as_deref(), want);
    }

    #[test]
    fn only_the_leading_dimension_is_guessed() {
        check(&[Dim::Any, Dim::Fixed(3)], Some(&[1, 3]));
        check(&[], Some(&[]));
        check(&[Dim::Fixed(1), Dim::Any], None);
        check(&[Dim::Fixed(1 << 40)], None);
        check(&[Dim::Fixed(u64::MAX), Dim::Fixed(2)], None);
    }
}
