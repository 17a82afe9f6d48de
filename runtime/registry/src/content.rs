//! The bytes of an upload: a blob on disk, or one that comes from another registry at this moment.
//! Made anew for each try, counted as they leave.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};
use wick_package::Blob;
use wick_package::oci::Descriptor;

use crate::api::Repository;
use crate::client::Registry;
use crate::error::RegistryError;
use crate::progress::Progress;

/// Bytes read from the disk at once.
const CHUNK: usize = 256 << 10;

/// Chunks that wait to be sent: reading stays ahead of sending, and memory small.
const AHEAD: usize = 4;

/// Where the bytes are.
pub(crate) enum Origin {
    File(Blob),
    Memory(Bytes),
    Registry { registry: Registry, from: Box<Repository>, blob: Box<Descriptor> },
}

/// An upload.
pub(crate) struct Upload {
    origin: Origin,
    len: u64,
    progress: Arc<dyn Progress>,
    /// Of the try that goes on.
    sent: Arc<AtomicU64>,
    /// What went wrong on our side of it.
    failure: Arc<Mutex<Option<RegistryError>>>,
}

/// What the HTTP client reads from.
struct Feed {
    chunks: Receiver<io::Result<Bytes>>,
    left: u64,
    sent: Arc<AtomicU64>,
    progress: Arc<dyn Progress>,
}

// === impl Upload ===

impl Upload {
    pub(crate) fn new(origin: Origin, len: u64, progress: Arc<dyn Progress>) -> Self {
        Self { origin, len, progress, sent: Arc::default(), failure: Arc::default() }
    }

    /// The body of the next try. What an earlier one sent must be sent again.
    pub(crate) fn body(&self) -> reqwest::Body {
        self.undo();
        let (sender, chunks) = mpsc::channel(AHEAD);
        match &self.origin {
            Origin::File(blob) => {
                let (blob, failure) = (blob.clone(), self.failure.clone());
                tokio::task::spawn_blocking(move || {
                    if let Err(source) = read(&blob, &sender) {
                        let what = blob.path.display().to_string();
                        *failure.lock() = Some(RegistryError::Read { what, source });
                    }
                });
            }
            Origin::Memory(bytes) => {
                // The channel is new: it has room.
                drop(sender.try_send(Ok(bytes.clone())));
            }
            Origin::Registry { registry, from, blob } => {
                let (registry, from, blob) = (registry.clone(), from.clone(), blob.clone());
                let failure = self.failure.clone();
                tokio::spawn(async move {
                    let relayed = registry.relay(&from, &blob, &sender).await;
                    if let Err(error) = relayed {
                        *failure.lock() = Some(error);
                        let cut = io::Error::other("the source failed");
                        // Nobody may listen any more, and then nobody need know.
                        drop(sender.send(Err(cut)).await);
                    }
                });
            }
        }
        let (sent, progress) = (self.sent.clone(), self.progress.clone());
        reqwest::Body::wrap(Feed { chunks, left: self.len, sent, progress })
    }

    /// Take back what was counted of a try that failed.
    pub(crate) fn undo(&self) {
        let wasted = self.sent.swap(0, Ordering::Relaxed);
        if wasted > 0 {
            self.progress.undone(wasted);
        }
    }

    /// What went wrong on our side, once.
    pub(crate) fn take_failure(&self) -> Option<RegistryError> {
        self.failure.lock().take()
    }

    /// Ends when nothing was sent for a while, or nothing came back long after the end.
    pub(crate) async fn stalled(&self, stall: Duration, settle: Duration) {
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            let whole = before >= self.len;
            tokio::time::sleep(if whole { settle } else { stall }).await;
            if self.sent.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

fn read(blob: &Blob, sender: &Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut reader = blob.open()?;
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK);
        let count = reader.read(&mut chunk)?;
        chunk.truncate(count);
        if count == 0 || sender.blocking_send(Ok(chunk.freeze())).is_err() {
            // The end, or nobody sends any more.
            return Ok(());
        }
    }
}

// === impl Feed ===

impl Body for Feed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.chunks.poll_recv(cx));
        Poll::Ready(match next {
            Some(Ok(chunk)) if chunk.len() as u64 <= self.left => {
                self.left -= chunk.len() as u64;
                self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                self.progress.moved(chunk.len() as u64);
                Some(Ok(Frame::data(chunk)))
            }
            Some(Ok(_)) => Some(Err(io::Error::other("more bytes than there should be"))),
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(io::Error::other("fewer bytes than there should be"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
