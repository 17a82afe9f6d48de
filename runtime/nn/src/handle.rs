//! What callers hold of a graph: loaded, or at rest until it is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::task;
use wick_package::{GraphName, TensorSpec};

use crate::arrange::arrange;
use crate::backend::{Cancel, DeviceUse, Refusal};
use crate::batch::Batcher;
use crate::compute::{Compute, Shift};
use crate::error::{InferError, LoadError};
use crate::nn::Recipe;
use crate::runner::Runner;
use crate::stats::{Counters, GraphStats};
use crate::tensor::Tensor;

/// A graph that anybody may call at once. Clones share it; the last one to be dropped
/// unloads it. One that came from a file can give its memory back, and be loaded again:
/// [`GraphHandle::rest`] and [`GraphHandle::wake`].
#[derive(Clone)]
pub struct GraphHandle {
    inner: Arc<Inner>,
}

struct Inner {
    name: GraphName,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    device: DeviceUse,
    counters: Arc<Counters>,
    compute: Arc<Compute>,
    /// None for bytes that only their sender has.
    recipe: Option<Recipe>,
    /// None while the graph rests.
    loaded: RwLock<Option<Loaded>>,
    /// Inferences that failed in the backend since one succeeded.
    failures: AtomicU32,
}

/// What takes memory.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub runner: Arc<Runner>,
    pub batcher: Option<Arc<Batcher>>,
}

/// A request's hold on its place in the queue or on its running inference. Dropped
/// early, it gives up the one and stops the other.
struct Ticket {
    cancel: Cancel,
    /// Taken by the thread that runs it. A job whose turn never comes, since the device hangs, keeps neither its
    /// inputs nor the graph.
    job: Arc<Mutex<Option<Job>>>,
}

/// An inference that waits for its turn: its inputs, and what runs it.
type Job = (Vec<Tensor>, Arc<Runner>);

// === impl GraphHandle ===

impl GraphHandle {
    /// `passed_over` is what the package would have had rather.
    pub(crate) fn new(
        loaded: Loaded,
        compute: Arc<Compute>,
        recipe: Option<Recipe>,
        passed_over: Vec<Refusal>,
    ) -> Self {
        let runner = &loaded.runner;
        let inner = Inner {
            name: runner.name.clone(),
            inputs: runner.graph.inputs().to_vec(),
            outputs: runner.graph.outputs().to_vec(),
            device: DeviceUse { refused: passed_over, ..runner.graph.device().clone() },
            counters: Arc::clone(&runner.counters),
            compute,
            recipe,
            loaded: RwLock::new(Some(loaded)),
            failures: AtomicU32::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The graph's name in its package.
    pub fn name(&self) -> &str {
        self.inner.name.as_str()
    }

    /// Inputs in the model's order.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inner.inputs
    }

    /// Outputs in the model's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.inner.outputs
    }

    /// Where it runs, or ran when it was loaded last.
    pub fn device(&self) -> &DeviceUse {
        &self.inner.device
    }

    /// What it has done since it was loaded.
    pub fn stats(&self) -> GraphStats {
        self.inner.counters.snapshot()
    }

    /// Bytes of its model's file.
    pub fn file_len(&self) -> u64 {
        self.inner.recipe.as_ref().map_or(0, Recipe::file_len)
    }

    /// Give the memory of graph and sessions back. Inferences that run end first, and
    /// then it is free; new ones fail until [`GraphHandle::wake`]. A graph whose bytes are
    /// in no file stays.
    pub fn rest(&self) {
        if self.inner.recipe.is_some() {
            let loaded = self.inner.loaded.write().take();
            drop(loaded);
        }
    }

    /// Load a graph that rests, from the same file, for the same backend and device.
    ///
    /// # Errors
    /// [`LoadError::Changed`] if the file is another one now, or whatever loading says.
    pub async fn wake(&self) -> Result<(), LoadError> {
        let Some(recipe) = &self.inner.recipe else { return Ok(()) };
        if self.inner.loaded.read().is_some() {
            return Ok(());
        }
        let (recipe, counters) = (recipe.clone(), Arc::clone(&self.inner.counters));
        let made = task::spawn_blocking(move || recipe.make(counters)).await;
        let loaded = made.map_err(|error| LoadError::Invalid {
            graph: self.name().to_owned(),
            backend: self.device().backend.clone(),
            detail: error.to_string(),
        })??;
        self.inner.failures.store(0, Ordering::Relaxed);
        *self.inner.loaded.write() = Some(loaded);
        Ok(())
    }

    /// How many inferences have failed in the backend since it was loaded or one succeeded.
    pub fn failures_in_a_row(&self) -> u32 {
        self.inner.failures.load(Ordering::Relaxed)
    }

    /// Whether its file is still the one that it was loaded from.
    pub fn is_unchanged(&self) -> bool {
        self.inner.recipe.as_ref().is_none_or(Recipe::is_unchanged)
    }

    /// Run one inference. Inputs may come in any order; outputs come in the
    /// model's order. Dropping the future cancels the inference. One that has been so quick
    /// until now that waking a thread would take longer runs where it was called.
    ///
    /// # Errors
    /// See [`InferError`]. The graph goes on working after each of them.
    pub async fn infer(
        &self,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, InferError> {
        let inputs = arrange(&self.inner.name, &self.inner.inputs, inputs)?;
        let loaded = self.inner.loaded.read().clone();
        let Some(Loaded { runner, batcher }) = loaded else {
            return Err(InferError::Unloaded(self.name().to_owned()));
        };
        let result = match batcher {
            Some(batcher) => batcher.infer(inputs).await,
            None if runner.is_quick(&inputs) => runner.run(&inputs, &Cancel::default()),
            None => self.alone(runner, inputs).await,
        };
        if !matches!(result, Err(InferError::Cancelled)) {
            self.inner.counters.answered(result.is_ok());
        }
        match &result {
            Ok(_) => self.inner.failures.store(0, Ordering::Relaxed),
            Err(InferError::Backend { .. }) => {
                self.inner.failures.fetch_add(1, Ordering::Relaxed);
            }
            // It says nothing of the backend.
            Err(_) => {}
        }
        let names = self.outputs().iter().map(|spec| spec.name.clone());
        result.map(|outputs| names.zip(outputs).collect())
    }

    /// One inference as one job of the compute threads.
    async fn alone(
        &self,
        runner: Arc<Runner>,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, InferError> {
        let failed = Arc::clone(&runner);
        let job = Arc::new(Mutex::new(Some((inputs, runner))));
        let ticket = Ticket { cancel: Cancel::default(), job };
        let (answer, answered) = oneshot::channel();
        let (cancel, place, queued) =
            (ticket.cancel.clone(), Arc::clone(&ticket.job), Instant::now());
        let job = move |shift: &Shift<'_>| {
            let Some((inputs, runner)) = place.lock().take() else { return };
            runner.counters.queued(queued.elapsed());
            let outcome = runner.run(&inputs, &cancel);
            // Whoever unloads the graph after the answer expects its memory back.
            drop(runner);
            shift.ends();
            // Nobody may be waiting any more; then there is nothing to do.
            _ = answer.send(outcome);
        };
        let busy = |_| InferError::Busy(self.name().to_owned());
        self.inner.compute.submit(job).map_err(busy)?;
        let lost = |_| failed.failed("the inference ended without an answer");
        self.inner.compute.hear(answered).await.map_err(lost)?
    }
}

// === impl Ticket ===

impl Drop for Ticket {
    fn drop(&mut self) {
        // After the answer both are without effect.
        self.job.lock().take();
        self.cancel.cancel();
    }
}
