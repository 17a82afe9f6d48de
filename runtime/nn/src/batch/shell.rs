//! The threads that run batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use wick_package::{Batch, Dim};

use super::join::{join, rows_and_signature, split};
use super::{Batches, Pushed, RequestId};
use crate::backend::Cancel;
use crate::error::{InferError, LoadError};
use crate::runner::Runner;
use crate::tensor::Tensor;

/// Most requests that wait for a batch of one graph. The server's admission is far
/// below; the bound is for callers that have none.
const MAX_WAITING: usize = 1024;

type Answer = Result<Vec<Tensor>, InferError>;

/// Joins the requests of one graph. Dropping it ends its threads.
pub(crate) struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    runner: Arc<Runner>,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    batches: Batches<Request>,
    closed: bool,
}

struct Request {
    inputs: Vec<Tensor>,
    rows: u64,
    queued: Instant,
    member: Arc<Member>,
    answer: oneshot::Sender<Answer>,
}

/// A request as its caller and the worker both see it.
#[derive(Default)]
struct Member(Mutex<Membership>);

#[derive(Default)]
enum Membership {
    #[default]
    Waiting,
    Running(Arc<Run>),
    Left,
}

/// A batch that computes. It is cancelled when the last of its members has left.
struct Run {
    cancel: Cancel,
    /// Members that are still there, and one for the worker while it collects.
    left: AtomicUsize,
}

/// A caller's hold on its request; dropped early, it gives the request up.
struct Ticket<'b> {
    shared: &'b Shared,
    member: Arc<Member>,
    id: RequestId,
    rows: u64,
}

// === impl Batcher ===

impl Batcher {
    /// Start `workers` threads that run batches of the graph.
    ///
    /// # Errors
    /// The graph can't be batched: an input's first dimension is fixed.
    pub(crate) fn new(
        runner: Arc<Runner>,
        batch: Batch,
        workers: usize,
    ) -> Result<Self, LoadError> {
        check_batchable(&runner)?;
        let batches = Batches::new(u64::from(batch.max.get()), batch.delay, MAX_WAITING);
        let state = Mutex::new(State { batches, closed: false });
        let shared = Arc::new(Shared { runner, state, work: Condvar::new() });
        // Made first, so that it ends the threads if one of them can't be started.
        let batcher = Self { shared: Arc::clone(&shared) };
        for _ in 0..workers.max(1) {
            let shared = Arc::clone(&shared);
            let name = "wick-nn-batch".to_owned();
            let started = thread::Builder::new().name(name).spawn(move || shared.work());
            started.map_err(|source| LoadError::Io {
                graph: batcher.shared.runner.name.to_string(),
                path: "a thread for its batches".to_owned(),
                source,
            })?;
        }
        Ok(batcher)
    }

    /// Run checked inputs in the model's order as part of a batch.
    pub(crate) async fn infer(&self, inputs: Vec<Tensor>) -> Answer {
        let runner = &self.shared.runner;
        let (rows, signature) = rows_and_signature(&inputs).ok_or_else(|| {
            let text = "all inputs must have the same first dimension, as it is batched";
            InferError::BadInput(format!("graph `{}`: {text}", runner.name))
        })?;
        let (answer, answered) = oneshot::channel();
        let member = Arc::new(Member::default());
        let queued = Instant::now();
        let request = Request { inputs, rows, queued, member: Arc::clone(&member), answer };
        let pushed = self.shared.state.lock().batches.push(queued, signature, rows, request);
        let id = match pushed {
            Pushed::Wake(id) => {
                self.shared.work.notify_one();
                id
            }
            Pushed::Joined(id) => id,
            Pushed::Full => return Err(InferError::Busy(runner.name.to_string())),
        };
        let _ticket = Ticket { shared: &self.shared, member, id, rows };
        answered.await.map_err(|_| runner.failed("the inference ended without an answer"))?
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

/// Inputs must take any number of rows. Outputs are not looked at: their declared
/// shapes are often vague, and what comes back is checked.
fn check_batchable(runner: &Runner) -> Result<(), LoadError> {
    let fixed = runner.graph.inputs().iter().find(|spec| spec.shape.first() != Some(&Dim::Any));
    let Some(spec) = fixed else { return Ok(()) };
    Err(LoadError::Unsupported {
        graph: runner.name.to_string(),
        need: "a dynamic first dimension of every input for `batch`".to_owned(),
        detail: format!(
            "`{}` is {}: export the model with one, or remove `batch`",
            spec.name,
            spec.shape_text()
        ),
    })
}

// === impl Shared ===

impl Shared {
    fn work(&self) {
        while let Some(requests) = self.next() {
            self.run(requests);
        }
    }

    fn next(&self) -> Option<Vec<Request>> {
        let mut state = self.state.lock();
        loop {
            if let Some(requests) = state.batches.take(Instant::now()) {
                return Some(requests);
            }
            match state.batches.next_deadline() {
                Some(deadline) => _ = self.work.wait_until(&mut state, deadline),
                None if state.closed => return None,
                None => self.work.wait(&mut state),
            }
        }
    }

    /// Run requests together. If that fails, each runs alone, so that one bad
    /// request is not the failure of the others.
    fn run(&self, requests: Vec<Request>) {
        let run = Arc::new(Run { cancel: Cancel::default(), left: AtomicUsize::new(1) });
        let joined = |request: &Request| request.member.join(&run);
        let requests: Vec<Request> = requests.into_iter().filter(joined).collect();
        run.leave();
        if requests.is_empty() {
            return;
        }
        let now = Instant::now();
        let waited = requests.iter().map(|request| now - request.queued);
        waited.for_each(|waited| self.runner.counters.queued(waited));
        match self.compute(&requests, &run.cancel) {
            Ok(parts) => {
                for (request, part) in requests.into_iter().zip(parts) {
                    // Whoever has left does not listen.
                    _ = request.answer.send(Ok(part));
                }
            }
            Err(error) if requests.len() == 1 => {
                requests
                    .into_iter()
                    .for_each(|request| _ = request.answer.send(Err(error.clone())));
            }
            Err(InferError::Cancelled) => {}
            Err(error) => {
                let graph = self.runner.name.as_str();
                tracing::warn!(graph, %error, "a batch failed; its requests run alone");
                requests.into_iter().for_each(|request| self.run(vec![request]));
            }
        }
    }

    /// Outputs of each request.
    fn compute(
        &self,
        requests: &[Request],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Tensor>>, InferError> {
        let rows: Vec<u64> = requests.iter().map(|request| request.rows).collect();
        self.runner.counters.batched(rows.iter().sum());
        if let [request] = requests {
            return Ok(vec![self.runner.run(&request.inputs, cancel)?]);
        }
        let inputs = (0..requests[0].inputs.len()).map(|index| {
            let parts = requests.iter().map(|request| &request.inputs[index]);
            join(parts).ok().flatten().ok_or_else(|| self.runner.failed("a batch is too large"))
        });
        let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
        let outputs = self.runner.run(&inputs, cancel)?;
        let mut parts: Vec<Vec<Tensor>> = requests.iter().map(|_| Vec::new()).collect();
        for (output, spec) in outputs.iter().zip(self.runner.graph.outputs()) {
            let split = split(output, &rows).ok_or_else(|| {
                let name = &spec.name;
                self.runner.failed(format!("output `{name}` is not batched: remove `batch`"))
            })?;
            parts.iter_mut().zip(split).for_each(|(part, tensor)| part.push(tensor));
        }
        Ok(parts)
    }
}

// === impl Member ===

impl Member {
    /// Take part in a run, unless the caller has left.
    fn join(&self, run: &Arc<Run>) -> bool {
        let mut membership = self.0.lock();
        if matches!(*membership, Membership::Left) {
            return false;
        }
        run.left.fetch_add(1, Ordering::SeqCst);
        *membership = Membership::Running(Arc::clone(run));
        true
    }

    fn leave(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), Membership::Left);
        if let Membership::Running(run) = before {
            run.leave();
        }
    }
}

// === impl Run ===

impl Run {
    fn leave(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cancel.cancel();
        }
    }
}

// === impl Ticket ===

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // After the answer both are without effect.
        self.member.leave();
        let request = self.shared.state.lock().batches.remove(self.id, self.rows);
        // Freed here, outside the lock.
        drop(request);
    }
}
