//! Files from elsewhere onto this disk: bounded, tried again, and continued where they broke off,
//! in this run or in the next.

pub(crate) mod plan;

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use wick_package::Digest;

use crate::error::ImportError;
use crate::progress::Meter;
use crate::remote::{OpenError, Remote, Stream};
use plan::{MAX_TRIES, Mark, Take};

/// How a stream of bytes ended.
enum End {
    /// As the server meant it.
    Clean,
    Broken,
}

/// The first bytes of a file, and what is known of it.
struct Part {
    path: PathBuf,
    mark: Mark,
    mark_path: PathBuf,
    file: File,
    have: u64,
}

/// Fetch a file into `folder`, where what an earlier run left is continued; the path of the
/// whole file.
///
/// # Errors
/// The server refuses, is not there or breaks off again and again, or the disk is full. What
/// has arrived is kept where another try makes sense.
pub(crate) async fn fetch(
    remote: &Remote,
    folder: &Path,
    most: u64,
    meter: &mut Meter<'_>,
) -> Result<PathBuf, ImportError> {
    let mut part = Part::open(folder, remote)?;
    let (mut tries, mut furthest) = (0, part.have);
    loop {
        let ask = plan::ask(&part.mark, part.have);
        let asked = match remote.open(&ask).await {
            Ok(stream) => {
                match part.take(&ask, stream, remote, most, meter).await? {
                    Some(End::Clean) if part.is_complete() => return part.finish(),
                    // Only what has never been reached is a reason for new hope.
                    _ if part.have > furthest => (tries, furthest) = (0, part.have),
                    _ => {}
                }
                None
            }
            Err(OpenError::Changed) => {
                part.forget()?;
                None
            }
            Err(OpenError::Later { asked, error }) => {
                if tries + 1 >= MAX_TRIES {
                    return Err(error);
                }
                asked
            }
            Err(OpenError::Never(error)) => return Err(error),
        };
        tries += 1;
        if tries >= MAX_TRIES {
            let (place, have) = (remote.to_string(), part.have);
            return Err(ImportError::Cut { place, tries, have, kept: folder.to_owned() });
        }
        tokio::time::sleep(plan::pause(tries, asked)).await;
    }
}

// === impl Part ===

impl Part {
    /// Open what is there of a file, or begin it.
    fn open(folder: &Path, remote: &Remote) -> Result<Self, ImportError> {
        let key = Digest::of(remote.to_string().as_bytes()).short();
        let (path, mark_path) = (folder.join(&key), folder.join(format!("{key}.json")));
        let mark = fs::read(&mark_path).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(ImportError::write(&path))?;
        let have = file.metadata().map_err(ImportError::read(&path))?.len();
        Ok(Self { path, mark: mark.unwrap_or_default(), mark_path, file, have })
    }

    /// Write what a server sends; none if it was not what had been asked for.
    async fn take(
        &mut self,
        ask: &plan::Ask,
        stream: Stream,
        remote: &Remote,
        most: u64,
        meter: &mut Meter<'_>,
    ) -> Result<Option<End>, ImportError> {
        let too_large = |len| ImportError::TooLarge { place: remote.to_string(), len, most };
        let Stream { answer, mut body } = stream;
        let Take::From(from) = plan::take(ask, &self.mark, &answer) else {
            self.forget()?;
            return Ok(None);
        };
        if answer.start == 0 {
            self.mark = answer.mark;
        }
        if let Some(total) = self.mark.total.filter(|total| *total > most) {
            return Err(too_large(total));
        }
        // In this order: bytes of an older file must never be thought of as this one's.
        self.cut(from)?;
        self.remember()?;
        meter.begin(remote.name(), from, self.mark.total);
        while let Some(bytes) = body.next().await {
            let Ok(bytes) = bytes else { return Ok(Some(End::Broken)) };
            self.file.write_all(&bytes).map_err(ImportError::write(&self.path))?;
            self.have += bytes.len() as u64;
            if self.have > most {
                return Err(too_large(self.have));
            }
            meter.advance(bytes.len() as u64);
        }
        Ok(Some(End::Clean))
    }

    /// A server that told no length ends where its stream ends.
    fn is_complete(&self) -> bool {
        self.mark.total.is_none_or(|total| total == self.have)
    }

    fn finish(self) -> Result<PathBuf, ImportError> {
        self.file.sync_all().map_err(ImportError::write(&self.path))?;
        Ok(self.path)
    }

    fn remember(&self) -> Result<(), ImportError> {
        let json = serde_json::to_vec(&self.mark).unwrap_or_default();
        fs::write(&self.mark_path, json).map_err(ImportError::write(&self.mark_path))
    }

    fn forget(&mut self) -> Result<(), ImportError> {
        self.mark = Mark::default();
        self.remember()?;
        self.cut(0)
    }

    fn cut(&mut self, at: u64) -> Result<(), ImportError> {
        let mut cut = || {
            self.file.set_len(at)?;
            self.file.seek(SeekFrom::Start(at))
        };
        cut().map_err(ImportError::write(&self.path))?;
        self.have = at;
        Ok(())
    }
}
