//! The body of an answer: a pod's, passed on piece by piece as it comes, or the activator's own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::sent::Sent;

/// See the module.
pub struct Answer(Inner);

enum Inner {
    Own { data: Option<Bytes>, trailers: Option<HeaderMap> },
    Pod { body: Incoming, sent: Box<Sent> },
}

// === impl Answer ===

impl Answer {
    pub fn own(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self(Inner::Own { data: (!data.is_empty()).then_some(data), trailers })
    }

    pub fn pod(body: Incoming, mut sent: Box<Sent>) -> Self {
        if body.is_end_stream() {
            sent.whole();
        }
        Self(Inner::Pod { body, sent })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().0 {
            Inner::Own { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Inner::Pod { body, sent } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            sent.trailers(trailers);
                        }
                        // Whoever knows the length does not ask again.
                        if body.is_end_stream() {
                            sent.whole();
                        }
                    }
                    Some(Err(_)) => sent.broken(),
                    None => sent.whole(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Own { data, trailers } => data.is_none() && trailers.is_none(),
            Inner::Pod { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Own { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Inner::Pod { body, .. } => body.size_hint(),
        }
    }
}
