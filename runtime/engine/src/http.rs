//! A `wasi:http` guest: it gets a request, answers with a head, and streams its
//! body while it runs on. No server is here; whoever has one calls [`Model::http`].

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use crate::engine::Slot;
use crate::error::InferError;
use crate::failure::failed;
use crate::model::{Inner, Model, within};
use crate::output::Output;
use crate::program::Program;
use crate::state::{self, State};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Body of a guest's answer.
pub type HttpBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why the guest failed. Set before its body ends, which otherwise would look whole.
type Failure = Arc<OnceLock<InferError>>;

type Head = Result<http::Response<WasiBody>, ErrorCode>;

/// A guest on its way through one request.
struct Running {
    store: Store<State>,
    output: Arc<Output>,
    /// Dropped last, after the store.
    _slot: Slot,
}

/// The body of an answer. Dropped before its end, it stops the guest.
struct GuestBody {
    body: WasiBody,
    task: JoinHandle<Result<(), InferError>>,
    failure: Failure,
    ended: bool,
}

/// Stops a guest whose head nobody waits for any more.
struct StopOnDrop(Option<JoinHandle<Result<(), InferError>>>);

impl Model {
    /// Answer one HTTP request. The head comes back as soon as the guest has sent
    /// it; the body streams while the guest runs, until `deadline`. Dropping the
    /// future, or the body before its end, stops the guest.
    ///
    /// # Errors
    /// See [`InferError`]. The request has no `Host`, or the guest fails before its
    /// head; after it, the body ends with an error.
    pub async fn http<B>(
        &self,
        request: http::Request<B>,
        deadline: Instant,
    ) -> Result<http::Response<HttpBody>, InferError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if !matches!(self.inner.program, Some(Program::Http(_))) {
            return Err(self.wrong_kind("HTTP requests of its own"));
        }
        let started = Instant::now();
        within(deadline, started, start(Arc::clone(&self.inner), request, deadline)).await
    }
}

async fn start<B>(
    model: Arc<Inner>,
    request: http::Request<B>,
    deadline: Instant,
) -> Result<http::Response<HttpBody>, InferError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let slot = model.engine.slot().await;
    let output = Output::new(model.guest.model.clone(), false);
    let state = State::new(&model.guest, &output, &[])
        .map_err(|error| InferError::Unavailable(format!("{error:#}")))?;
    let store = state::store(model.engine.wasm(), state, deadline);
    let mut running = Running { store, output, _slot: slot };
    let request = request.map(|body| {
        body.map_err(|error| {
            wasmtime_wasi_http::Error::InternalError(Some(error.into().to_string()))
        })
    });
    let (sender, head) = oneshot::channel();
    let mut http = running.store.data_mut().http();
    let bad = |error: wasmtime::Error| InferError::BadInput(format!("{error:#}"));
    let request = http.new_incoming_request(Scheme::Http, request).map_err(bad)?;
    let answer = http.new_response_outparam(sender).map_err(bad)?;
    let failure = Failure::default();
    let told = Arc::clone(&failure);
    let task = tokio::spawn(async move {
        let Some(Program::Http(pre)) = &model.program else { return Ok(()) };
        let called = running.call(&model, pre, request, answer, started);
        let ended = within(deadline, started, called).await.inspect_err(|error| {
            let model = &*model.guest.model;
            tracing::warn!(model, %error, "an HTTP guest failed");
            // It is set once, here.
            _ = told.set(error.clone());
        });
        // The body ends with the store, so its failure is told before.
        drop(running);
        ended
    });
    respond(head, task, failure).await
}

type Request = wasmtime::component::Resource<wasmtime_wasi_http::p2::types::HostIncomingRequest>;
type Answer = wasmtime::component::Resource<wasmtime_wasi_http::p2::types::HostResponseOutparam>;

impl Running {
    async fn call(
        &mut self,
        model: &Inner,
        pre: &ProxyPre<State>,
        request: Request,
        answer: Answer,
        started: Instant,
    ) -> Result<(), InferError> {
        let called = async {
            let proxy = pre.instantiate_async(&mut self.store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut self.store, request, answer).await
        };
        called.await.map_err(|error| {
            let limits = &self.store.data().limits;
            failed(&model.guest.model, &error, limits, &self.output, started.elapsed())
        })
    }
}

async fn respond(
    head: oneshot::Receiver<Head>,
    task: JoinHandle<Result<(), InferError>>,
    failure: Failure,
) -> Result<http::Response<HttpBody>, InferError> {
    let mut task = StopOnDrop(Some(task));
    let received = head.await;
    let Some(handle) = task.0.take() else {
        return Err(InferError::Cancelled);
    };
    match received {
        Ok(Ok(response)) => Ok(response.map(|body| {
            let body = GuestBody { body, task: handle, failure, ended: false };
            body.map_err(BoxError::from).boxed_unsync()
        })),
        Ok(Err(code)) => Err(InferError::Internal(format!("the handler answers with {code}"))),
        // The sender went with the store: the guest failed, or ended without a word.
        Err(_) => match handle.await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(InferError::Internal("the handler ended without an answer".into())),
            Err(error) => Err(InferError::Internal(format!("the handler's task failed: {error}"))),
        },
    }
}

// === impl StopOnDrop ===

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

// === impl GuestBody ===

impl Body for GuestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none()
            && !self.ended
            && let Some(error) = self.failure.get()
        {
            let text = Some(error.to_string());
            frame = Some(Err(wasmtime_wasi_http::Error::InternalError(text)));
        }
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        // After the end of its body a guest may finish its work, until its deadline.
        if !self.ended && !self.body.is_end_stream() {
            self.task.abort();
        }
    }
}
