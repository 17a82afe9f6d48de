//! Running the graphs of the package.

use crate::{Result, Tensor, Tensors, host};

/// A graph of the package, ready to run.
#[derive(Debug)]
pub struct Graph {
    name: String,
    inner: host::Graph,
}

/// The graph that `wick.toml` gives this name.
///
/// # Errors
/// The package has no such graph, or it can't be loaded: an internal error. Natively:
/// [`testing::Graphs`](crate::testing::Graphs) gave this thread no such graph.
///
/// ```
/// use wick_guest::{Tensor, Tensors, graph, testing::Graphs};
///
/// let graphs = Graphs::new().fake("double", |inputs| {
///     let values: Vec<f32> = inputs.get("x")?.to_vec()?;
///     let doubled: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
///     Ok(Tensors::new().with("y", Tensor::new(&[2], doubled)?))
/// });
/// let _installed = graphs.install();
///
/// let out = graph("double")?.run([("x", Tensor::new(&[2], [1.0_f32, 4.0])?)])?;
/// assert_eq!(out.get("y")?.to_vec::<f32>()?, [2.0, 8.0]);
/// assert!(graph("halve").is_err());
/// # Ok::<(), wick_guest::Error>(())
/// ```
pub fn graph(name: &str) -> Result<Graph> {
    Ok(Graph { name: name.to_owned(), inner: host::Graph::load(name)? })
}

// === impl Graph ===

impl Graph {
    /// The name that it was found by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Run it on all its inputs and return all its outputs. No tensor's bytes pass
    /// through the handler's memory.
    ///
    /// # Errors
    /// An input is missing or does not fit (internal: the handler made it; see
    /// [`Error::with_kind`](crate::Error::with_kind) if the caller did), time ran out,
    /// or the backend failed. Inputs of graphs are FP16, FP32, FP64, BF16, UINT8, INT32
    /// or INT64; `wasi:nn` has no other datatypes.
    pub fn run<N, T>(&self, inputs: impl IntoIterator<Item = (N, T)>) -> Result<Tensors>
    where
        N: Into<String>,
        T: Into<Tensor>,
    {
        self.inner.run(&self.name, inputs.into_iter().collect())
    }
}
