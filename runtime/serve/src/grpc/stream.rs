//! Many requests over one call, each answered when it is done.
//!
//! ```text
//!  requests ──▶ pump ──▶ work: at most MAX_IN_FLIGHT ──▶ answers ──▶ client
//! ```
//!
//! The pump reads no request while as many as it may are in work or wait for the client to
//! read them. It ends with its call: answers that nobody reads are not computed.

use futures::Stream;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::infer::{self, Caller};
use super::meter::Meter;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use crate::body::Held;
use crate::respond::Failure;
use crate::routes::App;

/// Requests of one stream in work: more than a model's queue usually holds, so that the
/// queue's limit is met first.
const MAX_IN_FLIGHT: usize = 64;

/// Answers of one stream that are made and not sent. With few, a client that does not read
/// stops being computed for.
const MAX_UNSENT: usize = 4;

/// Triton's parameters: the client wants to know which answer is a request's last. Here each
/// has one.
const ASKS_FINAL: &str = "triton_enable_empty_final_response";
const IS_FINAL: &str = "triton_final_response";

type Answer = Result<ModelStreamInferResponse, Status>;

/// What one stream's pump works with.
struct Pump {
    app: App,
    caller: Caller,
    meter: Meter,
    requests: Streaming<ModelInferRequest>,
    work: JoinSet<ModelStreamInferResponse>,
    answers: mpsc::Sender<Answer>,
}

/// The answers to a stream of requests.
pub(super) fn answers(
    app: App,
    caller: Caller,
    meter: Meter,
    requests: Streaming<ModelInferRequest>,
) -> impl Stream<Item = Answer> {
    let (sender, receiver) = mpsc::channel(MAX_UNSENT);
    let pump = Pump { app, caller, meter, requests, work: JoinSet::new(), answers: sender };
    let ends = AbortOnDropHandle::new(tokio::spawn(pump.run()));
    ReceiverStream::new(receiver).map(move |answer| {
        let _ = &ends;
        answer
    })
}

// === impl Pump ===

impl Pump {
    async fn run(mut self) {
        let end = self.pump().await;
        // Requests that were taken are answered, also when the server shuts down.
        while let Some(done) = self.work.join_next().await {
            if let Ok(answer) = done
                && self.answers.send(Ok(answer)).await.is_err()
            {
                return;
            }
        }
        if let Err(status) = end {
            // A client that is gone needs no status.
            let _ = self.answers.send(Err(status)).await;
        }
    }

    /// Work until there are no more requests.
    async fn pump(&mut self) -> Result<(), Status> {
        let repository = self.app.repository.clone();
        let mut drained = std::pin::pin!(repository.drained());
        loop {
            let more = self.work.len() < MAX_IN_FLIGHT;
            tokio::select! {
                // A message that has arrived in part stays in the stream when this is dropped.
                message = self.requests.message(), if more => match message? {
                    Some(message) => self.begin(message),
                    None => return Ok(()),
                },
                // `join_next` takes a result only when it returns it.
                Some(done) = self.work.join_next() => {
                    if let Ok(answer) = done
                        && self.answers.send(Ok(answer)).await.is_err()
                    {
                        return Ok(());
                    }
                }
                // It only says that something has happened.
                () = &mut drained => return Err(Failure::Draining.to_status()),
            }
        }
    }

    fn begin(&mut self, message: ModelInferRequest) {
        let (app, caller) = (self.app.clone(), self.caller.clone());
        let (held, left) = (self.meter.take(), self.meter.left());
        self.work.spawn(async move { answer(&app, &caller, message, held, left).await });
    }
}

async fn answer(
    app: &App,
    caller: &Caller,
    mut message: ModelInferRequest,
    held: Held,
    left: Option<std::time::Duration>,
) -> ModelStreamInferResponse {
    let about = ModelInferResponse {
        model_name: message.model_name.clone(),
        model_version: message.model_version.clone(),
        id: message.id.clone(),
        ..Default::default()
    };
    let asks_final = message.parameters.remove(ASKS_FINAL);
    let (error_message, mut response) = match infer::answer(app, caller, message, held, left).await
    {
        Ok(response) => (String::new(), response),
        Err(failure) => (failure.to_string(), about),
    };
    if asks_final.and_then(|asked| asked.parameter_choice) == Some(ParameterChoice::BoolParam(true))
    {
        let yes = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        response.parameters.insert(IS_FINAL.to_owned(), yes);
    }
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
