//! A client that does not read its answer.
//!
//! Over HTTP/1.1 the socket's buffer fills, and a write that makes no progress ends the
//! connection ([`WriteTimeout`]). Over HTTP/2 the client can hold back each answer by its flow
//! control while the socket stays free, so answers themselves are watched ([`Unread`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Largest piece that is handed to HTTP/2 at once: what it has taken shows that the client
/// reads, so a slow network must be able to take a piece within the time.
const PIECE: usize = 64 << 10;

/// A stream on which a write must make progress within a time.
#[derive(Debug)]
pub struct WriteTimeout<S> {
    stream: S,
    within: Duration,
    /// Made by the first write that waits, and used again.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// The answers of one HTTP/2 connection that wait for its client.
#[derive(Debug, Default)]
pub struct Unread {
    /// Answers and pieces of answers.
    waiting: AtomicUsize,
    /// How often one of them went on.
    moved: AtomicU64,
}

/// An answer that is counted while it waits for the client.
struct Watched {
    body: Body,
    /// The rest of a piece that is larger than [`PIECE`].
    rest: Bytes,
    /// None while the model, not the client, is waited for.
    wait: Option<Wait>,
    unread: Arc<Unread>,
}

/// One thing that waits, until it is dropped.
struct Wait(Arc<Unread>);

/// A piece on its way: gone when HTTP/2 has written it.
struct Piece {
    bytes: Bytes,
    _wait: Wait,
}

// === impl WriteTimeout ===

impl<S> WriteTimeout<S> {
    pub fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, timer: None, waiting: false }
    }

    /// Pass on what a write came to, or an error if writes have waited for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.waiting = false;
            return wrote;
        }
        let within = self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        if !self.waiting {
            timer.as_mut().reset(tokio::time::Instant::now() + within);
            self.waiting = true;
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.judge(cx, wrote)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.judge(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.judge(cx, shut)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.judge(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

// === impl Unread ===

impl Unread {
    /// Watch an answer until the client has it.
    pub fn watch(self: &Arc<Self>, answer: Response) -> Response {
        answer.map(|body| {
            let wait = Some(self.wait());
            let watched = Watched { body, rest: Bytes::new(), wait, unread: Arc::clone(self) };
            Body::new(watched)
        })
    }

    /// Wait until answers wait for the client and none of them has gone on for `time`.
    pub async fn stuck(&self, time: Duration) {
        loop {
            let (waited, moved) = self.look();
            tokio::time::sleep(time).await;
            // Both looks see the same, so whatever waited at the first has waited all the time.
            if waited && self.look() == (true, moved) {
                return;
            }
        }
    }

    fn look(&self) -> (bool, u64) {
        // Each counter is exact at some moment; a change between the two reads is progress,
        // which the next look sees.
        let moved = self.moved.load(Ordering::Acquire);
        (self.waiting.load(Ordering::Acquire) > 0, moved)
    }

    fn wait(self: &Arc<Self>) -> Wait {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Wait(Arc::clone(self))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.moved.fetch_add(1, Ordering::AcqRel);
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Watched ===

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                this.wait = None;
                return Poll::Pending;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Ok(Ok(data))) => this.rest = data,
            }
        }
        let bytes = this.rest.split_to(this.rest.len().min(PIECE));
        // The client is waited for again until this is asked for more.
        this.wait = Some(this.unread.wait());
        let piece = Piece { bytes, _wait: this.unread.wait() };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const TIME: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_write_without_progress_ends_and_a_slow_reader_does_not() {
        let within = Duration::from_secs(1);
        let (mut client, server) = tokio::io::duplex(8);
        let mut server = WriteTimeout::new(server, within);
        let slow = async {
            let mut seen = [0; 8];
            // Longer than the time, all together.
            for _ in 0..4 {
                tokio::time::sleep(within / 3).await;
                client.read_exact(&mut seen).await.unwrap();
            }
        };
        let (wrote, ()) = tokio::join!(server.write_all(&[1; 32]), slow);
        wrote.unwrap();
        let stuck = server.write_all(&[1; 32]).await.unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_noticed_wherever_it_waits() {
        let late = || tokio::time::sleep(TIME * 10);
        let stuck = |unread: &Arc<Unread>| {
            let unread = Arc::clone(unread);
            async move {
                tokio::select! {
                    () = unread.stuck(TIME) => true,
                    () = late() => false,
                }
            }
        };
        let unread = Arc::new(Unread::default());
        assert!(!stuck(&unread).await, "nothing waits");
        let mut answer = unread.watch(Response::new(Body::from(vec![7; PIECE + 1])));
        assert!(stuck(&unread).await, "the answer is not asked for");
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), answer.body().size_hint().exact()), (PIECE, Some(1)));
        let second = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(answer.body().is_end_stream() && second == [7][..]);
        drop((answer, first));
        assert!(stuck(&unread).await, "a piece is not written");
        drop(second);
        assert!(!stuck(&unread).await, "all is written");
    }

    #[tokio::test]
    async fn a_model_that_is_slow_to_answer_is_not_the_clients_fault() {
        let unread = Arc::new(Unread::default());
        let pending = futures::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let mut answer = unread.watch(Response::new(Body::from_stream(pending)));
        let asked = tokio::time::timeout(TIME, answer.body_mut().frame());
        assert!(asked.await.is_err());
        let stuck = tokio::time::timeout(TIME * 10, unread.stuck(TIME));
        assert!(stuck.await.is_err());
    }
}
