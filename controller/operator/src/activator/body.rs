//! The body of a request on its way to a pod. A small one is gathered first, and so is a small
//! answer: head and body then go in one packet, and both ends wake up once and not twice, which
//! is a good part of what passing a small request on costs. Everything else goes piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Largest body that is gathered, if its length is said: some pages of memory, and what fits
/// the buffers of a connection anyway.
const SMALL: u64 = 16 << 10;

/// See the module.
pub enum Outgoing {
    Whole(Bytes),
    Stream(Incoming),
}

/// Whether a body is worth gathering.
pub fn is_small(body: &Incoming) -> bool {
    body.size_hint().exact().is_some_and(|len| 0 < len && len <= SMALL)
}

/// All of a small body.
pub async fn gather(mut body: Incoming) -> hyper::Result<Bytes> {
    let len = body.size_hint().exact().unwrap_or(SMALL);
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // It comes in one piece, as a rule.
        if whole.is_empty() {
            whole = data;
        } else {
            let mut joined = BytesMut::with_capacity(usize::try_from(len).unwrap_or_default());
            joined.extend_from_slice(&whole);
            joined.extend_from_slice(&data);
            whole = joined.freeze();
        }
        if whole.len() as u64 >= len {
            break;
        }
    }
    Ok(whole)
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
