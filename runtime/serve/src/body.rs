//! Bodies: a request's read whole within its limits, a response's written in
//! pieces without joining them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::respond::Failure;

/// Tensors start at a multiple of this many bytes where the request allows it: the
/// size of a cache line, and more than any element needs.
const ALIGNMENT: usize = 64;

/// First allocation for a body of unknown length.
const FIRST_ALLOCATION: u64 = 64 << 10;

/// Largest allocation before its bytes have begun to arrive.
const MAX_FIRST_ALLOCATION: u64 = 64 << 20;

/// How much of a refused body is still read, so that a client that writes before it
/// reads gets to see the answer and not a broken connection.
const MAX_DISCARD: usize = 16 << 20;

/// How long a refused body is read.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// What a request's body may be.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Most bytes.
    pub max: u64,
    /// Who set `max`, for the error.
    pub whose: Whose,
    /// Time from the headers to the last byte.
    pub timeout: Duration,
    /// Offset in the body that should be aligned: where binary tensors start.
    pub align_at: usize,
}

/// Who has set a limit, in words. Every request carries one, and few need it: it is made once.
#[derive(Debug, Clone)]
pub enum Whose {
    Fixed(&'static str),
    /// Of something that was loaded.
    Loaded(Arc<str>),
}

/// Bytes of bodies that all requests together may hold.
#[derive(Debug)]
pub struct BodyMemory {
    left: AtomicU64,
}

/// A part of [`BodyMemory`], given back when dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<BodyMemory>,
    bytes: u64,
}

/// A response body of known pieces.
#[derive(Debug)]
pub struct Pieces {
    rest: std::vec::IntoIter<Bytes>,
    len: u64,
}

/// Read a whole body.
///
/// One that arrives in a piece is that piece; any other is copied once, into memory
/// where the binary tensors are aligned.
///
/// # Errors
/// It is too large, too slow or breaks off, or the server has no memory left for it.
pub async fn read(
    mut body: Body,
    limits: &BodyLimits,
    memory: &Arc<BodyMemory>,
) -> Result<(Bytes, Held), Failure> {
    let declared = http_body::Body::size_hint(&body).exact();
    let too_large = || Failure::TooLarge { limit: limits.max, whose: limits.whose.clone() };
    if declared.is_some_and(|declared| declared > limits.max) {
        discard(body).await;
        return Err(too_large());
    }
    let end = Instant::now() + limits.timeout;
    let mut held = Held::of(memory);
    let mut joined: Option<(BytesMut, usize)> = None;
    let mut total = 0_u64;
    loop {
        let frame = tokio::time::timeout_at(end, body.frame()).await;
        let frame = match frame.map_err(|_| Failure::SlowBody(limits.timeout))? {
            None => break,
            Some(frame) => frame.map_err(|error| Failure::BrokenBody(error.to_string()))?,
        };
        let Ok(piece) = frame.into_data() else { continue };
        total += piece.len() as u64;
        if total > limits.max {
            discard(body).await;
            return Err(too_large());
        }
        if !held.grow(piece.len() as u64) {
            discard(body).await;
            return Err(Failure::OutOfBodyMemory);
        }
        if joined.is_none() && declared == Some(total) {
            return Ok((piece, held));
        }
        let (buffer, _) = joined.get_or_insert_with(|| start(declared, limits.align_at));
        buffer.put_slice(&piece);
    }
    let bytes = joined.map_or_else(Bytes::new, |(buffer, pad)| buffer.freeze().slice(pad..));
    Ok((bytes, held))
}

/// Read on for a while and forget what comes: see [`MAX_DISCARD`].
pub async fn discard(mut body: Body) {
    let read = async {
        let mut total = 0;
        while let Some(Ok(frame)) = body.frame().await {
            total += frame.data_ref().map_or(0, Bytes::len);
            if total > MAX_DISCARD {
                break;
            }
        }
    };
    // However it ends, the answer is sent.
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

/// Do without the body of a request that has no place. A client that asks before it sends
/// one is spared that; any other's is read and kept nowhere, so that the connection can be
/// used on.
pub async fn refuse(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
}

/// A buffer in which offset `align_at` of the body will be aligned, and the padding
/// before the body that this takes.
pub fn start(declared: Option<u64>, align_at: usize) -> (BytesMut, usize) {
    let len = declared.unwrap_or(FIRST_ALLOCATION).min(MAX_FIRST_ALLOCATION);
    let mut buffer = BytesMut::with_capacity(len as usize + ALIGNMENT);
    let tensors = buffer.as_ptr().wrapping_add(align_at % ALIGNMENT);
    let pad = tensors.align_offset(ALIGNMENT) % ALIGNMENT;
    buffer.put_bytes(0, pad);
    (buffer, pad)
}

// === impl BodyMemory, Held ===

impl BodyMemory {
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(bytes) })
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Nothing yet.
    pub fn of(memory: &Arc<BodyMemory>) -> Self {
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Take what is held, and leave nothing.
    pub fn take(&mut self) -> Self {
        let nothing = Self::of(&self.memory);
        std::mem::replace(self, nothing)
    }

    /// Nothing yet, of the same memory.
    pub fn another(&self) -> Self {
        Self::of(&self.memory)
    }

    /// Hold more; false if there is not so much left.
    #[must_use]
    pub fn grow(&mut self, more: u64) -> bool {
        let taken = self
            .memory
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more));
        if taken.is_ok() {
            self.bytes += more;
        }
        taken.is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

// === impl Pieces ===

impl Pieces {
    pub fn new(pieces: Vec<Bytes>) -> Self {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { rest: pieces.into_iter(), len }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.rest.by_ref().find(|piece| !piece.is_empty());
        self.len -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.len == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }
}

// === impl Whose ===

impl From<&'static str> for Whose {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(text) => f.write_str(text),
            Self::Loaded(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn limits(max: u64, align_at: usize) -> BodyLimits {
        let timeout = Duration::from_millis(50);
        BodyLimits { max, whose: "the test".into(), timeout, align_at }
    }

    fn chunked(pieces: Vec<Vec<u8>>) -> Body {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 1000]);
        let memory = BodyMemory::new(1 << 20);
        let (read, held) =
            read(Body::from(piece.clone()), &limits(1000, 3), &memory).await.unwrap();
        assert_eq!(read.as_ptr(), piece.as_ptr());
        assert_eq!(memory.left(), (1 << 20) - 1000);
        drop(held);
        assert_eq!(memory.left(), 1 << 20);
    }

    #[tokio::test]
    async fn pieces_are_joined_with_their_tensors_aligned() {
        for align_at in [0, 1, 63, 64, 200] {
            let pieces = vec![vec![1; 100], vec![2; 300], Vec::new(), vec![3; 5]];
            let want = pieces.concat();
            let memory = BodyMemory::new(1 << 20);
            let (read, _) = read(chunked(pieces), &limits(1000, align_at), &memory).await.unwrap();
            assert_eq!(read, want);
            assert_eq!(read.as_ptr().wrapping_add(align_at).align_offset(ALIGNMENT), 0);
        }
    }

    #[tokio::test]
    async fn a_body_past_its_limit_is_refused_declared_or_not() {
        let memory = BodyMemory::new(1 << 20);
        for body in [Body::from(vec![0; 11]), chunked(vec![vec![0; 6], vec![0; 5]])] {
            let refused = read(body, &limits(10, 0), &memory).await.map(drop);
            assert!(matches!(refused, Err(Failure::TooLarge { limit: 10, .. })), "{refused:?}");
        }
        assert_eq!(memory.left(), 1 << 20);
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_too_slow() {
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let slow = read(body, &limits(10, 0), &BodyMemory::new(100)).await.map(drop);
        assert!(matches!(slow, Err(Failure::SlowBody(_))), "{slow:?}");
    }

    #[tokio::test]
    async fn bodies_share_a_bounded_memory() {
        let memory = BodyMemory::new(15);
        let (_, first) = read(Body::from(vec![0; 10]), &limits(10, 0), &memory).await.unwrap();
        let second = read(Body::from(vec![0; 10]), &limits(10, 0), &memory).await.map(drop);
        assert!(matches!(second, Err(Failure::OutOfBodyMemory)), "{second:?}");
        drop(first);
        assert!(read(Body::from(vec![0; 10]), &limits(10, 0), &memory).await.is_ok());
    }

    #[tokio::test]
    async fn response_pieces_know_their_length() {
        let pieces = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
        let pieces = Pieces::new(pieces);
        assert_eq!(http_body::Body::size_hint(&pieces).exact(), Some(3));
        assert_eq!(pieces.collect().await.unwrap().to_bytes(), "abc");
    }
}
