//! Graphs for native tests of a handler.
//!
//! ```
//! use wick_guest::{Request, Response, Result, Tensor, Tensors, graph, handler};
//! use wick_guest::testing::Graphs;
//!
//! #[handler]
//! fn infer(request: Request) -> Result<Response> {
//!     Ok(graph("sum")?.run([("x", request.input("x")?)])?.into())
//! }
//!
//! let graphs = Graphs::new().fake("sum", |inputs| {
//!     let sum: f32 = inputs.get("x")?.view::<f32>()?.iter().sum();
//!     Ok(Tensors::new().with("y", Tensor::new(&[1], [sum])?))
//! });
//! let _installed = graphs.install();
//!
//! let request = Request::new().with_input("x", Tensor::new(&[2], [1.0_f32, 2.0])?);
//! assert_eq!(infer(request)?.get("y")?.to_vec::<f32>()?, [3.0]);
//! # Ok::<(), wick_guest::Error>(())
//! ```

#[cfg(feature = "real")]
mod real;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::{Error, Result, Tensors};

/// Runs a graph.
pub(crate) type Run = Rc<dyn Fn(&Tensors) -> Result<Tensors>>;

/// The graphs of a package that does not exist, by name.
#[derive(Clone, Default)]
pub struct Graphs(BTreeMap<String, Run>);

/// As long as this lives, [`graph`](crate::graph()) finds its graphs on this thread;
/// afterwards those that were there before.
#[must_use = "the graphs are gone as soon as this is dropped"]
pub struct Installed {
    before: Graphs,
    // A guard belongs to the thread whose graphs it restores; `Rc` keeps it there.
    _thread: std::marker::PhantomData<Rc<()>>,
}

thread_local! {
    static CURRENT: RefCell<Graphs> = RefCell::default();
}

// === impl Graphs ===

impl Graphs {
    /// No graphs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// These, and one that a function stands in for.
    #[must_use]
    pub fn fake(
        mut self,
        name: impl Into<String>,
        run: impl Fn(&Tensors) -> Result<Tensors> + 'static,
    ) -> Self {
        self.0.insert(name.into(), Rc::new(run));
        self
    }

    /// These, and a model file on the best backend of this machine. Needs the feature
    /// `real`, as a dev-dependency:
    ///
    /// ```toml
    /// [dev-dependencies]
    /// wick-guest = { version = "0.1", features = ["real"] }
    /// ```
    ///
    /// # Errors
    /// The file can't be read or no backend runs it.
    #[cfg(feature = "real")]
    pub fn real(mut self, name: &str, path: impl AsRef<std::path::Path>) -> Result<Self> {
        self.0.insert(name.to_owned(), real::load(name, path.as_ref())?);
        Ok(self)
    }

    /// Make them the graphs of this thread.
    pub fn install(self) -> Installed {
        let before = CURRENT.replace(self);
        Installed { before, _thread: std::marker::PhantomData }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        CURRENT.replace(std::mem::take(&mut self.before));
    }
}

pub(crate) fn find(name: &str) -> Result<Run> {
    let found = CURRENT.with_borrow(|graphs| graphs.0.get(name).cloned());
    found.ok_or_else(|| {
        Error::internal(format_args!(
            "this thread has no graph `{name}`: install one with wick_guest::testing::Graphs"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, graph};

    #[test]
    fn graphs_nest_and_end_with_their_guard() {
        let constant = |value: u8| {
            move |_: &Tensors| Ok(Tensors::new().with("y", Tensor::new(&[1], [value])?))
        };
        let run = || -> Result<Vec<u8>> { graph("g")?.run::<&str, Tensor>([])?.get("y")?.to_vec() };
        let message = run().unwrap_err().to_string();
        assert!(message.contains("no graph `g`: install"), "{message}");
        let _outer = Graphs::new().fake("g", constant(1)).install();
        {
            let _inner = Graphs::new().fake("g", constant(2)).install();
            assert_eq!(run().unwrap(), [2]);
        }
        assert_eq!(run().unwrap(), [1]);
    }
}
