//! Files of the host that are read again when they change: certificates, tokens.
//!
//! A new file takes effect when it is whole and good; until then the old one holds. The files
//! are looked at, not watched: a Secret of Kubernetes changes by swapping a symbolic link
//! above them, and some file systems send no events.

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use wick_package::error_text;

/// How often files are looked at. Certificates and tokens are renewed hours before the old ones
/// end, so a second is soon, and a few `stat` a second cost nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Most bytes of one file: a bundle of all the web's authorities has a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// A value made of files.
pub(crate) struct Reloaded<T> {
    /// What the value is, for the log.
    what: &'static str,
    paths: Vec<PathBuf>,
    make: Make<T>,
    current: ArcSwap<T>,
}

/// Makes the value of the files' bytes, in the order of the paths.
type Make<T> = fn(&[Vec<u8>]) -> Result<T, String>;

/// Files that are no such value.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_FILE} bytes: is it the right file?", path.display())]
    TooLarge { path: PathBuf },
    #[error("the {what} cannot be used: {detail}")]
    Bad { what: &'static str, detail: String },
}

/// What tells one state of the files from another.
type Stamp = Vec<Option<[i128; 5]>>;

/// What to do after a look at the files. Pure: it is told what was seen.
#[derive(Debug)]
struct Looks {
    /// The state that was read last, good or bad.
    read: Stamp,
    /// The state that the last look saw.
    seen: Stamp,
}

// === impl Reloaded ===

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Read the files for the first time.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn open(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: Make<T>,
    ) -> Result<Arc<Self>, ReloadError> {
        let value = read(what, &paths, make)?;
        Ok(Arc::new(Self { what, paths, make, current: ArcSwap::from_pointee(value) }))
    }

    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Read the files again when they change, until `stop` is cancelled.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        // Changes since `open` are read, too: it is not known what state it saw.
        let mut looks = Looks { read: Stamp::new(), seen: Stamp::new() };
        let mut clock = tokio::time::interval(LOOK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut first = true;
        loop {
            // A tick that is dropped is the next call's.
            tokio::select! {
                _ = clock.tick() => {}
                () = stop.cancelled() => return,
            }
            if !looks.changed(self.paths.iter().map(|path| stamp(path)).collect()) {
                continue;
            }
            let this = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || read(this.what, &this.paths, this.make));
            match done.await {
                Ok(Ok(value)) => {
                    self.current.store(Arc::new(value));
                    if !first {
                        tracing::info!(what = self.what, "read again, since its files changed");
                    }
                }
                Ok(Err(error)) => {
                    let error = error_text(&error);
                    tracing::warn!(what = self.what, error, "not taken: the old one holds");
                }
                // The runtime is shutting down.
                Err(_) => return,
            }
            first = false;
        }
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("what", &self.what).field("paths", &self.paths).finish()
    }
}

fn read<T>(what: &'static str, paths: &[PathBuf], make: Make<T>) -> Result<T, ReloadError> {
    let files: Vec<_> = paths.iter().map(|path| read_file(path)).collect::<Result<_, _>>()?;
    make(&files).map_err(|detail| ReloadError::Bad { what, detail })
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReloadError> {
    let failed = |source| ReloadError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ReloadError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// The file behind all links, and when it was last written. None if there is none.
fn stamp(path: &Path) -> Option<[i128; 5]> {
    let file = path.metadata().ok()?;
    Some([
        file.dev().into(),
        file.ino().into(),
        file.size().into(),
        file.ctime().into(),
        file.ctime_nsec().into(),
    ])
}

// === impl Looks ===

impl Looks {
    /// Whether the files are to be read: they are not what was read last, and two looks saw them
    /// the same, so that nobody is in the middle of writing them.
    fn changed(&mut self, now: Stamp) -> bool {
        let quiet = self.seen == now;
        self.seen = now;
        if !quiet || self.read == self.seen {
            return false;
        }
        self.read.clone_from(&self.seen);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_once_after_they_are_quiet() {
        let at = |time| vec![Some([1, 2, 3, time, 0])];
        let mut looks = Looks { read: at(0), seen: at(0) };
        let script = [
            (at(0), false),
            // Two writes, then quiet.
            (at(1), false),
            (at(2), false),
            (at(2), true),
            (at(2), false),
            // Gone, and back as another file.
            (vec![None], false),
            (at(3), false),
            (at(3), true),
            // Gone for good: reading says so once.
            (vec![None], false),
            (vec![None], true),
            (vec![None], false),
        ];
        for (step, (now, want)) in script.into_iter().enumerate() {
            assert_eq!(looks.changed(now), want, "step {step}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_or_absent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let open = || Reloaded::open("tokens", vec![path.clone()], |files| Ok(files.len()));
        assert!(matches!(open(), Err(ReloadError::Read { .. })));
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(*open().unwrap().current(), 1);
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        let error = open().unwrap_err();
        assert!(error.to_string().contains("tokens.toml has more than"), "{error}");
    }
}
