//! A request that is at a pod, from the choice of the pod to the end of its answer. Whichever way
//! it ends, its place is given back when this is dropped.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Response};

use super::head::Kind;
use super::model::{Model, Target};
use super::upstream::Lease;

/// gRPC's numbers.
const UNKNOWN: u8 = 2;
const UNAVAILABLE: u8 = 14;

/// What an answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    Http(u16),
    Grpc(u8),
}

/// See the module.
pub struct Sent {
    model: Arc<Model>,
    target: Target,
    kind: Kind,
    since: Instant,
    answered: bool,
    /// The connection that becomes free with the answer's end, for HTTP/1.1.
    lease: Option<Lease>,
    counted: bool,
}

// === impl Sent ===

impl Sent {
    /// The request takes its place before anything is sent, so that the next choice sees it.
    pub fn new(model: Arc<Model>, target: Target, kind: Kind) -> Self {
        target.pod.begin();
        model.begin();
        let since = Instant::now();
        Self { model, target, kind, since, answered: false, lease: None, counted: false }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The answer's head is there.
    pub fn head<B>(&mut self, answer: &Response<B>, lease: Option<Lease>) {
        self.lease = lease;
        self.answered = true;
        self.target.pod.answer();
        self.model.answered();
        self.target.revision.latency.record(self.since.elapsed());
        if self.kind == Kind::Http {
            self.count(Code::Http(answer.status().as_u16()), answer.status().is_server_error());
        } else {
            // An answer without a body has its status here.
            self.trailers(answer.headers());
        }
    }

    pub fn trailers(&mut self, trailers: &HeaderMap) {
        let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok());
        if let (Kind::Grpc, Some(status)) = (self.kind, status) {
            self.grpc(status.parse().unwrap_or(UNKNOWN));
        }
    }

    /// The answer has come to its end.
    pub fn whole(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The pod ended its connection.
    pub fn broken(&mut self) {
        match self.kind {
            Kind::Http if !self.counted => self.count(Code::Http(502), true),
            // The head has said 200, and that is what is counted by code.
            Kind::Http => self.target.revision.error(),
            Kind::Grpc => self.grpc(UNAVAILABLE),
        }
    }

    fn grpc(&mut self, status: u8) {
        // Faults of the model or its pod; the others are the caller's.
        let fault = matches!(status, UNKNOWN | 4 | 13 | UNAVAILABLE | 15);
        self.count(Code::Grpc(status), fault);
    }

    fn count(&mut self, code: Code, error: bool) {
        if !std::mem::replace(&mut self.counted, true) {
            self.target.revision.count(code, error);
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.answered {
            self.target.pod.answer();
        }
        self.target.pod.end();
        self.model.end();
    }
}
