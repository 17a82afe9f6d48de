//! The way of one request: a pod is chosen or waited for, the request is sent, and sent again
//! only if nothing of it was. Nothing is read of a request's body before a pod takes it, so
//! while it waits the client keeps it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{Request, Response, Version};
use hyper::body::Incoming;

use super::answer::Answer;
use super::body::{self, Outgoing};
use super::head::{self, Kind};
use super::health;
use super::hold::Patience;
use super::model::{Model, Target};
use super::refusal::Refusal;
use super::sent::Sent;
use super::shared::Shared;
use super::upstream::{self, SendError};

/// How often a request is sent of which nothing has been sent: each pooled connection may have
/// ended, and each pod be gone, but not for ever.
const MAX_TRIES: usize = 5;

/// Which way a request goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    shared: &'a Shared,
    model: &'a Arc<Model>,
    thread: usize,
    kind: Kind,
}

/// A request's place among those that wait.
struct Place<'a> {
    shared: &'a Shared,
    model: &'a Model,
    since: Instant,
}

/// Answer a request, on the thread of its client's connection.
pub async fn answer(
    shared: &Shared,
    model: &Arc<Model>,
    thread: usize,
    request: Request<Incoming>,
) -> Response<Answer> {
    let kind = Kind::of(request.headers());
    let chosen = model.choose(false);
    if chosen.is_none() {
        let ready = model.traffic().route.hold && !model.is_gone();
        if let Some(answer) = health::answer(&request, ready) {
            return answer;
        }
    }
    model.arrive();
    let request = request.map(Outgoing::Stream);
    match send(Way { shared, model, thread, kind }, request, chosen).await {
        Ok(answer) => answer,
        Err(refusal) => {
            model.refuse(refusal);
            refusal.answer(kind)
        }
    }
}

async fn send(
    way: Way<'_>,
    mut request: Request<Outgoing>,
    mut chosen: Option<Target>,
) -> Result<Response<Answer>, Refusal> {
    let Way { shared, model, thread, kind } = way;
    let came = Instant::now();
    for _ in 0..MAX_TRIES {
        let target = match chosen.take().or_else(|| model.choose(false)) {
            Some(target) => target,
            None => Box::pin(hold(shared, model, &request, came)).await?,
        };
        let mut sent = Box::new(Sent::new(Arc::clone(model), target, kind));
        let pod = Arc::clone(&sent.target().pod);
        head::forward(&mut request, &pod.authority);
        request = gathered(request).await?;
        match upstream::send(&pod, thread, request).await {
            Ok((answer, lease)) => {
                sent.head(&answer, lease);
                return pass_on(answer, sent, kind).await;
            }
            Err(SendError::Unsent(again)) => request = again,
            Err(SendError::Connect { request: again, error }) => {
                tracing::debug!(model = %model.name, pod = %pod.address, %error, "no connection");
                pod.suspect();
                model.probing.notify_one();
                request = again;
            }
            Err(SendError::Broken(error)) => {
                tracing::debug!(model = %model.name, pod = %pod.address, %error, "no answer");
                sent.broken();
                return Err(Refusal::Broken);
            }
        }
    }
    Err(Refusal::Unreachable)
}

/// A request whose body goes with its head, if it is small. HTTP/2 joins both by itself.
async fn gathered(request: Request<Outgoing>) -> Result<Request<Outgoing>, Refusal> {
    let (head, body) = request.into_parts();
    let body = match body {
        Outgoing::Stream(stream) if head.version != Version::HTTP_2 && body::is_small(&stream) => {
            let gathered = body::gather(stream).await;
            Outgoing::Whole(gathered.map_err(|_| Refusal::CutOff)?)
        }
        other => other,
    };
    Ok(Request::from_parts(head, body))
}

async fn pass_on(
    mut answer: Response<Incoming>,
    mut sent: Box<Sent>,
    kind: Kind,
) -> Result<Response<Answer>, Refusal> {
    head::back(&mut answer);
    if kind == Kind::Grpc || !body::is_small(answer.body()) {
        return Ok(answer.map(|body| Answer::pod(body, sent)));
    }
    let (head, body) = answer.into_parts();
    match body::gather(body).await {
        Ok(bytes) => {
            sent.whole();
            Ok(Response::from_parts(head, Answer::own(bytes, None)))
        }
        Err(error) => {
            tracing::debug!(%error, "half an answer");
            sent.broken();
            Err(Refusal::Broken)
        }
    }
}

/// Wait for a pod.
async fn hold(
    shared: &Shared,
    model: &Model,
    request: &Request<Outgoing>,
    came: Instant,
) -> Result<Target, Refusal> {
    if shared.draining.is_cancelled() {
        return Err(Refusal::Draining);
    }
    let place = Place::take(shared, model)?;
    let client = head::timeout(request.headers());
    let patience = Patience::new(model.traffic().route.hold_timeout, client);
    let deadline = tokio::time::sleep_until((came + patience.time).into());
    tokio::pin!(deadline);
    let waiting = model.waiting.notified();
    tokio::pin!(waiting);
    loop {
        // In the queue before the look, so that no pod becomes ready in between unseen.
        waiting.as_mut().enable();
        if model.is_gone() {
            return Err(Refusal::Gone);
        }
        if let Some(target) = model.choose(true) {
            model.cold.held.record(place.since.elapsed());
            return Ok(target);
        }
        if !model.traffic().route.hold {
            return Err(Refusal::NoPod);
        }
        tokio::select! {
            // Its turn goes to the next when it is dropped.
            () = waiting.as_mut() => waiting.set(model.waiting.notified()),
            // A clock of its own.
            () = deadline.as_mut() => return Err(patience.then),
            // A flag, which stays.
            () = shared.draining.cancelled() => return Err(Refusal::Draining),
        }
    }
}

// === impl Place ===

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, model: &'a Model) -> Result<Self, Refusal> {
        let (held_in_all, since) = (shared.held.load(Ordering::Acquire), Instant::now());
        model.room(held_in_all).admit()?;
        shared.held.fetch_add(1, Ordering::AcqRel);
        if model.hold() == 0 {
            model.cold.begin(since);
            // Whoever starts pods must know at once.
            shared.urgent.send_modify(|count| *count = count.wrapping_add(1));
            model.probing.notify_one();
        }
        Ok(Self { shared, model, since })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(1, Ordering::AcqRel);
        self.model.release();
    }
}
