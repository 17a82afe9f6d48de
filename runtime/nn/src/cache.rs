//! Optimised graphs on disk, so that the next start maps them instead of building
//! them.
//!
//! An entry is a folder named by a key over everything that its content depends
//! on: the model's digest, the runtime, the CPU, the device. It is written beside
//! its place and renamed into it, so that a reader sees all of it or nothing, and
//! of several writers one wins and the others use what it made. A record in it
//! says how its files looked when they were written; an entry whose files look
//! different is hashed, and thrown away if the content differs.
//!
//! This module knows nothing of ONNX Runtime.

mod identity;
mod record;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use wick_package::Digest;

pub(crate) use self::record::Stamp;
use self::record::{Record, State};
use crate::backend::{GraphSource, SourceBytes};
use crate::error::LoadError;

/// Changes when the form of an entry does, so that older ones are left alone.
const FORMAT: &str = "1";

/// How folders start that are still being written.
const UNFINISHED: &str = ".new-";

/// A writer that has not finished after this long has died; its folder is removed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Most entries. The oldest goes first; at 100 MB each this bounds the folder to
/// some gigabytes.
const MAX_ENTRIES: usize = 64;

/// Permission bits that let the group or the world write.
const OTHERS_WRITE: u32 = 0o022;

/// Permission bits that let the group or the world see what is in a folder.
const OTHERS_READ: u32 = 0o055;

/// A folder of optimised graphs.
#[derive(Debug)]
pub(crate) struct GraphCache {
    folder: PathBuf,
    writable: bool,
    /// Root's, and not to be written by this process.
    sealed: bool,
}

/// What an entry depends on, as the name of its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

/// A model's digest, and its bytes if they had to be read for it.
pub(crate) struct Digested {
    pub digest: Digest,
    pub bytes: Option<Bytes>,
}

// === impl Key ===

impl Key {
    /// A key over some facts, each of which may hold anything.
    pub(crate) fn of(facts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for fact in [FORMAT].iter().chain(facts) {
            hasher.update((fact.len() as u64).to_le_bytes());
            hasher.update(fact);
        }
        Self(Digest::from_hasher(hasher).hex()[..40].to_owned())
    }
}

// === impl GraphCache ===

impl GraphCache {
    /// Open a cache, making its folder, for this user only, if need be. One that can only
    /// be read, as that of a node is for its pods, is used.
    ///
    /// # Errors
    /// It can't be made, or is another user's, or others can write to it: then its
    /// files are not trusted.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        check_owner(folder)?;
        let writable = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
        let sealed = !writable && fs::metadata(folder)?.uid() == 0;
        Ok(Self { folder: folder.to_owned(), writable, sealed })
    }

    /// Whether entries can be made and removed.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The digest of a model: from a note about the same unchanged file, or by
    /// reading it.
    ///
    /// # Errors
    /// The file can't be read, or is not what its package recorded.
    pub(crate) fn digest(&self, source: &GraphSource) -> Result<Digested, LoadError> {
        let digested = self.noted_or_read(source)?;
        match &source.bytes {
            // A note is as good as reading it again, which compares as well.
            SourceBytes::File { digest: Some(wanted), .. } if *wanted != digested.digest => {
                let found = digested.digest;
                let text = format!("its digest is {found}, and its package recorded {wanted}");
                Err(source.invalid("wick", text))
            }
            _ => Ok(digested),
        }
    }

    fn noted_or_read(&self, source: &GraphSource) -> Result<Digested, LoadError> {
        let SourceBytes::File { path, offset, len, .. } = &source.bytes else {
            let bytes = source.read()?;
            return Ok(Digested { digest: Digest::of(&bytes), bytes: Some(bytes) });
        };
        let part = identity::Part { path, offset: *offset, len: *len };
        let before = part.state().map_err(|error| source.unreadable(error))?;
        let notes = self.folder.join("digests");
        if let Some(digest) = identity::find(&notes, &part, &before) {
            return Ok(Digested { digest, bytes: None });
        }
        let bytes = source.read()?;
        let digest = Digest::of(&bytes);
        if !self.writable {
            return Ok(Digested { digest, bytes: Some(bytes) });
        }
        if let Err(error) = identity::note(&notes, &part, &before, digest) {
            tracing::debug!(path = %path.display(), %error, "a model's digest is not noted");
        }
        Ok(Digested { digest, bytes: Some(bytes) })
    }

    /// The folder of a complete, undamaged entry.
    pub(crate) fn find(&self, key: &Key) -> Option<PathBuf> {
        let folder = self.folder.join(&key.0);
        match Record::check(&folder, self.sealed) {
            Ok(State::Good) => Some(folder),
            Ok(State::Absent) => None,
            Ok(State::Damaged(detail)) => {
                let entry = folder.display();
                tracing::warn!(%entry, detail, "a saved graph is damaged and is built again");
                self.remove(key);
                None
            }
            Err(error) => {
                let entry = folder.display();
                tracing::warn!(%entry, %error, "a saved graph can't be read");
                None
            }
        }
    }

    /// Make an entry: `write` fills a folder, which then takes its place. Returns
    /// the entry, which may be that of another writer.
    ///
    /// # Errors
    /// `write` failed, or the disk is full or read-only. Nothing is left behind.
    pub(crate) fn store<E: From<io::Error>>(
        &self,
        key: &Key,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        self.tidy();
        let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder)?;
        write(unfinished.path())?;
        Record::write(unfinished.path())?;
        // An entry is as open as the folder that it is in.
        let mode = 0o700 | (fs::metadata(&self.folder)?.mode() & OTHERS_READ);
        fs::set_permissions(unfinished.path(), fs::Permissions::from_mode(mode))?;
        Ok(self.place(key, unfinished)?)
    }

    fn place(&self, key: &Key, unfinished: TempDir) -> io::Result<PathBuf> {
        let place = self.folder.join(&key.0);
        match fs::rename(unfinished.path(), &place) {
            Ok(()) => {
                // The folder has moved; there is nothing left to delete.
                _ = unfinished.keep();
                Ok(place)
            }
            // Another writer was faster; its entry is as good as ours.
            Err(error) => self.find(key).ok_or(error),
        }
    }

    /// Forget an entry. Who has mapped it keeps it.
    pub(crate) fn remove(&self, key: &Key) {
        if !self.writable {
            return;
        }
        self.discard(&self.folder.join(&key.0));
    }

    fn discard(&self, folder: &Path) {
        // Moved aside first, so that nobody finds half of it.
        let aside = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder);
        let moved = aside.and_then(|aside| fs::rename(folder, aside.path().join("entry")));
        if let Err(error) = moved
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(entry = %folder.display(), %error, "a saved graph can't be removed");
        }
    }

    /// Remove what dead writers left, and the oldest entries above the limit.
    fn tidy(&self) {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
            let name = entry.file_name();
            let unfinished = name.to_string_lossy().starts_with(UNFINISHED);
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            if unfinished && age > ABANDONED {
                self.discard(&entry.path());
            } else if !unfinished && name != "digests" {
                entries.push((modified, entry.path()));
            }
        }
        entries.sort();
        let surplus = (entries.len() + 1).saturating_sub(MAX_ENTRIES);
        entries.iter().take(surplus).for_each(|(_, path)| self.discard(path));
    }
}

/// The folder must be ours or root's, and nobody else's to write: a graph of
/// somebody else could be anything.
fn check_owner(folder: &Path) -> io::Result<()> {
    let meta = fs::metadata(folder)?;
    let text = match meta.uid() {
        owner if owner != 0 && owner != rustix::process::geteuid().as_raw() => {
            format!("the folder belongs to user {owner}")
        }
        _ if meta.mode() & OTHERS_WRITE != 0 => "others can write to the folder".to_owned(),
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests;
