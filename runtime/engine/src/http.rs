//! A `wasi:http` guest: it gets a request, answers with a head, and streams its
//! body while it runs on. No server is here; whoever has one calls [`Model::http`].

mod instances;

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
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};

use crate::error::InferError;
use crate::model::{Inner, Model, within};
use crate::program::Program;

pub(crate) use instances::{Instances, Pool};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Body of a guest's answer.
pub type HttpBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why the guest failed. Set before its body ends, which otherwise would look whole.
type Failure = Arc<OnceLock<InferError>>;

type Head = Result<http::Response<WasiBody>, ErrorCode>;

/// What a guest still does after its head is out.
struct GoingOn {
    model: Arc<Inner>,
    call: Pin<Box<dyn Future<Output = Result<(), InferError>> + Send>>,
    deadline: Instant,
    started: Instant,
}

/// The body of an answer. Dropped before its end, it stops the guest.
struct GuestBody {
    body: WasiBody,
    /// The guest, if it goes on.
    task: Option<JoinHandle<()>>,
    failure: Failure,
    ended: bool,
}

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
    let Some(Program::Http(instances)) = &model.program else {
        return Err(InferError::Internal("not an HTTP guest".into()));
    };
    let mut instance = instances.take(&model, deadline).await?;
    let request = request.map(|body| {
        body.map_err(|error| {
            wasmtime_wasi_http::Error::InternalError(Some(error.into().to_string()))
        })
    });
    let (sender, mut head) = oneshot::channel();
    let mut http = instance.http();
    let bad = |error: wasmtime::Error| InferError::BadInput(format!("{error:#}"));
    let request = http.new_incoming_request(Scheme::Http, request).map_err(bad)?;
    let answer = http.new_response_outparam(sender).map_err(bad)?;
    let failure = Failure::default();
    let (guest, told) = (Arc::clone(&model), Arc::clone(&failure));
    let mut call = Box::pin(async move {
        let Some(Program::Http(instances)) = &guest.program else { return Ok(()) };
        let ended = instance.call(&guest, request, answer, started).await;
        match &ended {
            Ok(()) => instances.give_back(&guest, instance),
            Err(error) => {
                let model = &*guest.guest.model;
                tracing::warn!(model, %error, "an HTTP guest failed");
                // The body ends with the store, so its failure is told before. It is set
                // once, here or at the deadline.
                _ = told.set(error.clone());
                drop(instance);
            }
        }
        ended
    });
    // Most guests are done when their head is out, and need no task of their own.
    let ended = tokio::select! {
        biased;
        ended = &mut call => ended,
        received = &mut head => return match received {
            Ok(head) => {
                respond(head, failure, Some(GoingOn { model, call, deadline, started }))
            }
            Err(_) => Err(silent(call.await)),
        },
    };
    match head.try_recv() {
        Ok(head) => respond(head, failure, None),
        Err(_) => Err(silent(ended)),
    }
}

/// Why there is no answer: the guest failed, or ended without a word.
fn silent(ended: Result<(), InferError>) -> InferError {
    ended
        .err()
        .unwrap_or_else(|| InferError::Internal("the handler ended without an answer".into()))
}

fn respond(
    head: Head,
    failure: Failure,
    guest: Option<GoingOn>,
) -> Result<http::Response<HttpBody>, InferError> {
    let response =
        head.map_err(|code| InferError::Internal(format!("the handler answers with {code}")))?;
    let task = guest.map(|guest| tokio::spawn(guest.finish(Arc::clone(&failure))));
    Ok(response.map(|body| {
        let body = GuestBody { body, task, failure, ended: false };
        body.map_err(BoxError::from).boxed_unsync()
    }))
}

// === impl GoingOn ===

impl GoingOn {
    async fn finish(self, failure: Failure) {
        let Self { model, mut call, deadline, started } = self;
        if let Err(error @ InferError::Deadline(_)) = within(deadline, started, &mut call).await {
            let model = &*model.guest.model;
            tracing::warn!(model, %error, "an HTTP guest took too long");
            _ = failure.set(error);
        }
        // The body of a guest that is stopped ends here, with its store.
        drop(call);
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
        if let Some(task) = &self.task
            && !self.ended
            && !self.body.is_end_stream()
        {
            task.abort();
        }
    }
}
