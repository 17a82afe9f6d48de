//! What a call's messages take, counted while they arrive: one message against its limit,
//! all of them against the memory that bodies share. tonic reads the messages; without this
//! it would read as many at once as there are clients.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;
use tonic::Status;

use super::timeout;
use crate::body::{BodyMemory, Held};
use crate::respond::Failure;
use crate::routes::App;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The end of the path of the call whose messages come one after another, for as long as
/// the client likes.
const STREAM: &str = "/ModelStreamInfer";

/// What all calls share.
#[derive(Clone)]
pub(super) struct Metering {
    memory: Arc<BodyMemory>,
    max: u64,
    timeout: Duration,
}

/// A call's bytes and its time. It travels with the request.
#[derive(Clone)]
pub(super) struct Meter {
    held: Arc<Mutex<Held>>,
    arrived: Instant,
    timeout: Option<Duration>,
}

/// A request's body that is counted.
struct Metered {
    body: Body,
    meter: Meter,
    lengths: Lengths,
    timeout: Option<Duration>,
    /// Made when the body is waited for the first time.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Reads off the lengths that messages declare.
struct Lengths {
    max: u64,
    /// What is known of the next message's prefix.
    prefix: [u8; PREFIX],
    seen: usize,
    /// Bytes that are left of the message.
    left: u64,
}

// === impl Metering ===

impl Metering {
    pub fn new(app: &App) -> Self {
        Self { memory: Arc::clone(&app.memory), max: app.max_body, timeout: app.body_timeout }
    }

    /// Count a request's body, and let its answer be compressed only as it is itself:
    /// clients say that they read compressed answers whether or not that pays.
    pub fn meter(&self, request: Request<Body>) -> Request<tonic::body::Body> {
        let (mut head, body) = request.into_parts();
        match head.headers.get(ENCODING).cloned() {
            Some(encoding) if encoding != HeaderValue::from_static("identity") => {
                head.headers.insert(ACCEPT, encoding);
            }
            _ => {
                head.headers.remove(ACCEPT);
            }
        }
        let meter = Meter {
            held: Arc::new(Mutex::new(Held::of(&self.memory))),
            arrived: Instant::now(),
            timeout: timeout::of(&head.headers),
        };
        head.extensions.insert(meter.clone());
        let stream = head.uri.path().ends_with(STREAM);
        let metered = Metered {
            body,
            meter,
            lengths: Lengths::new(self.max),
            timeout: (!stream).then_some(self.timeout),
            deadline: None,
        };
        Request::from_parts(head, tonic::body::Body::new(metered))
    }
}

// === impl Meter ===

impl Meter {
    /// Take over what was counted until now: a message that is decoded, and perhaps the
    /// beginning of the next.
    pub fn take(&self) -> Held {
        self.held.lock().take()
    }

    /// What is left of the time that the client gives the call.
    pub fn left(&self) -> Option<Duration> {
        Some(self.timeout?.saturating_sub(self.arrived.elapsed()))
    }
}

// === impl Metered ===

impl Metered {
    fn count(&mut self, data: &Bytes) -> Result<(), Failure> {
        self.lengths.read(data)?;
        let grown = self.meter.held.lock().grow(data.len() as u64);
        if grown { Ok(()) } else { Err(Failure::OutOfBodyMemory) }
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Some(timeout) = this.timeout {
                let sleep = || Box::pin(tokio::time::sleep(timeout));
                ready!(this.deadline.get_or_insert_with(sleep).as_mut().poll(cx));
                return Poll::Ready(Some(Err(Failure::SlowBody(timeout).to_status())));
            }
            return Poll::Pending;
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| Status::from_error(error.into()))?;
            if let Some(data) = frame.data_ref() {
                this.count(&data.clone()).map_err(|failure| failure.to_status())?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Lengths ===

impl Lengths {
    fn new(max: u64) -> Self {
        Self { max, prefix: [0; PREFIX], seen: 0, left: 0 }
    }

    /// Follow the messages through a piece of the body.
    fn read(&mut self, mut data: &[u8]) -> Result<(), Failure> {
        while !data.is_empty() {
            if self.left > 0 {
                let some = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                data = &data[some..];
                self.left -= some as u64;
                continue;
            }
            let some = (PREFIX - self.seen).min(data.len());
            self.prefix[self.seen..self.seen + some].copy_from_slice(&data[..some]);
            data = &data[some..];
            self.seen += some;
            if self.seen == PREFIX {
                let [_, length @ ..] = self.prefix;
                (self.seen, self.left) = (0, u32::from_be_bytes(length).into());
            }
            if self.left > self.max {
                return Err(Failure::TooLarge { limit: self.max, whose: "this server".into() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(len: u32) -> Vec<u8> {
        let mut all = vec![0];
        all.extend(len.to_be_bytes());
        all.resize(PREFIX + len as usize, 0xff);
        all
    }

    proptest! {
        #[test]
        fn lengths_are_followed_through_any_pieces(
            lens in prop::collection::vec(0_u32..40, 0..6),
            cuts in prop::collection::vec(1_usize..9, 1..9),
            max in 0_u64..40,
        ) {
            let all: Vec<u8> = lens.iter().flat_map(|&len| message(len)).collect();
            let (mut lengths, mut rest, mut refused) = (Lengths::new(max), &all[..], false);
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                rest = more;
                refused |= lengths.read(piece).is_err();
                if refused || rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(refused, lens.iter().any(|&len| u64::from(len) > max));
        }
    }
}
