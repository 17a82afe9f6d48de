//! One blob from a registry into the store: hashed and written as it comes, resumed at the byte
//! after a cut, tried again within a limit that every byte of progress renews.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use wick_package::oci::Descriptor;

use crate::api::{Repository, content_range};
use crate::client::Registry;
use crate::error::RegistryError;
use crate::progress::Progress;
use crate::store::{Claim, Ingest, Store, StoreError};

/// Chunks that wait to be written. A chunk has at most some 400 KiB, so that a download takes
/// three megabytes at worst.
const AHEAD: usize = 8;

/// How often it is looked whether another process is done with a blob that we want.
const LOOK: Duration = Duration::from_millis(100);

/// How often somebody who waits is told so.
const TELL: u32 = 50;

/// What a download moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Over the wire, wasted bytes included.
    pub(crate) moved: u64,
    /// Here already.
    pub(crate) kept: u64,
}

// === impl Registry ===

impl Registry {
    /// Have a blob in the store, however it gets there.
    pub(crate) async fn fetch(
        &self,
        at: &Repository,
        want: &Descriptor,
        store: &Store,
        progress: &Arc<dyn Progress>,
    ) -> Result<Fetched, RegistryError> {
        let mut looks = 0;
        loop {
            let (from, wanted) = (store.clone(), want.clone());
            match blocking(move || from.claim(&wanted)).await? {
                Claim::Have => {
                    progress.kept(want.size);
                    return Ok(Fetched { moved: 0, kept: want.size });
                }
                Claim::Ours(ingest) => return self.download(at, *ingest, progress).await,
                Claim::Busy => {
                    if looks % TELL == 0 {
                        progress.waiting("another process fetches the same blob", LOOK * TELL);
                    }
                    looks += 1;
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    async fn download(
        &self,
        at: &Repository,
        mut ingest: Ingest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Fetched, RegistryError> {
        let mut fetched = Fetched { moved: 0, kept: ingest.inherited() };
        progress.kept(fetched.kept);
        let (mut failures, mut furthest) = (0, ingest.at());
        loop {
            let before = ingest.at();
            let (back, result) = self.go_on(at, ingest, progress).await;
            ingest = back.ok_or_else(|| at.odd("a blob", "its writer ended"))?;
            // A restart lets it fall; what came before is counted as undone there.
            fetched.moved += ingest.at().saturating_sub(before);
            let error = match result {
                Ok(()) => match self.commit(at, ingest, progress).await? {
                    None => return Ok(fetched),
                    // What an earlier process left was damaged: all of it once more.
                    Some(emptied) => {
                        progress.undone(fetched.kept + fetched.moved);
                        fetched.kept = 0;
                        ingest = emptied;
                        continue;
                    }
                },
                Err(error) => error,
            };
            // Only what has never been reached is a reason for new hope: a server that begins
            // anew each time could go on for ever.
            failures = if ingest.at() > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(ingest.at());
            self.transport.pause(failures, error, progress).await?;
        }
    }

    /// Ask for what is missing and write it. The ingest comes back in any case.
    async fn go_on(
        &self,
        at: &Repository,
        ingest: Ingest,
        progress: &Arc<dyn Progress>,
    ) -> (Option<Ingest>, Result<(), RegistryError>) {
        let want = ingest.want().clone();
        if ingest.at() == want.size {
            return (Some(ingest), Ok(()));
        }
        let from = ingest.at();
        let asked = match self.blob_once(at, &want, from).await {
            Ok(response) => check_answer(at, &want, from, &response).map(|whole| (response, whole)),
            Err(error) => Err(error),
        };
        let (response, whole) = match asked {
            Ok(answer) => answer,
            Err(error) => return (Some(ingest), Err(error)),
        };
        let (chunks, queue) = mpsc::channel(AHEAD);
        if whole && from > 0 {
            progress.undone(from);
        }
        let writer = tokio::task::spawn_blocking(move || write(ingest, whole && from > 0, queue));
        let read = self.relay_chunks(at, &want, response, &chunks, progress).await;
        drop(chunks);
        match writer.await {
            Err(_panic) => (None, Ok(())),
            // The disk's error is the cause, the channel's its consequence.
            Ok((ingest, Err(error))) => (Some(ingest), Err(error)),
            Ok((ingest, Ok(()))) => {
                let done = read.and_then(|()| whole_blob(at, &want, ingest.at()));
                (Some(ingest), done)
            }
        }
    }

    async fn relay_chunks(
        &self,
        at: &Repository,
        want: &Descriptor,
        mut response: Response,
        chunks: &mpsc::Sender<Bytes>,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", want.digest.short(), at.name);
        while let Some(chunk) = self.transport.chunk(&mut response, &what).await? {
            let count = chunk.len() as u64;
            if chunks.send(chunk).await.is_err() {
                // The writer says why.
                return Ok(());
            }
            progress.moved(count);
            self.transport.pay(count).await;
        }
        Ok(())
    }

    /// Put it into the store. Back it comes, empty, if it had a damaged beginning.
    async fn commit(
        &self,
        at: &Repository,
        mut ingest: Ingest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<Ingest>, RegistryError> {
        let inherited = ingest.inherited();
        let size = ingest.want().size;
        let what = format!("blob {} of {}", ingest.want().digest.short(), at.name);
        let (ingest, committed) = blocking(move || {
            let committed = ingest.commit();
            Ok((ingest, committed))
        })
        .await?;
        match committed {
            Ok(()) => Ok(None),
            Err(StoreError::Digest { .. }) if inherited > 0 => Ok(Some(ingest)),
            Err(StoreError::Digest { want, got }) => {
                progress.undone(size);
                Err(RegistryError::Digest { host: at.host(), what, want, got })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Do what waits for the disk where it keeps nobody waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RegistryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Write chunks until there are no more.
fn write(
    mut ingest: Ingest,
    restart: bool,
    mut queue: mpsc::Receiver<Bytes>,
) -> (Ingest, Result<(), RegistryError>) {
    if restart && let Err(error) = ingest.restart() {
        return (ingest, Err(error.into()));
    }
    while let Some(chunk) = queue.blocking_recv() {
        if let Err(error) = ingest.write(&chunk) {
            return (ingest, Err(error.into()));
        }
    }
    (ingest, Ok(()))
}

/// Whether an answer has the whole blob; false if it goes on where we are. What it says of its
/// length must fit.
fn check_answer(
    at: &Repository,
    want: &Descriptor,
    from: u64,
    response: &Response,
) -> Result<bool, RegistryError> {
    let what = format!("blob {} of {}", want.digest.short(), at.name);
    let whole = response.status() != StatusCode::PARTIAL_CONTENT;
    let length =
        |want, got| RegistryError::Length { host: at.host(), what: what.clone(), want, got };
    if !whole {
        let (start, all) = content_range(response.headers())
            .ok_or_else(|| at.odd(&what, "a part without saying which"))?;
        if start != from {
            return Err(at.odd(&what, format!("a part from byte {start} instead of {from}")));
        }
        if let Some(all) = all
            && all != want.size
        {
            return Err(length(want.size, all));
        }
    }
    let left = if whole { want.size } else { want.size - from };
    match response.content_length() {
        Some(len) if len != left => Err(length(left, len)),
        _ => Ok(whole),
    }
}

fn whole_blob(at: &Repository, want: &Descriptor, got: u64) -> Result<(), RegistryError> {
    if got == want.size {
        return Ok(());
    }
    let what = format!("blob {} of {}", want.digest.short(), at.name);
    Err(RegistryError::Cut { host: at.host(), what, source: None })
}
