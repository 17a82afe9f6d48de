//! The node's store of envelopes: a folder with one file for each image, for pods that carry
//! none themselves. Filled when images are loaded, read by the shim.
//!
//! ```text
//!  signatures/sha256/HEX.json             the envelope of the image with that digest
//!  signatures/by-package/HEX/HEX          empty: the digest of a wick.toml, and of the image
//!  signatures/lock                        held by who writes, since an envelope is added to
//! ```
//!
//! Nothing in it is trusted for being there: an envelope is signed, or it is worth nothing. It is
//! checked for its owner all the same, so that nobody can take a node's envelopes away or fill
//! its disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::reason::Reason;
use crate::signature::envelope::{Envelope, MAX_ENVELOPE};
use crate::signature::error::SignatureError;
use crate::signature::trusted::{TrustError, check_folder, read_trusted};

/// Where a node has its store unless it is told otherwise.
pub const NODE_STORE: &str = "/var/lib/wick/signatures";

/// Most images with the same `wick.toml` that are looked at: versions have their own.
const MAX_SAME_PACKAGE: usize = 64;

/// Longest envelope in a file: base64 and JSON of what an annotation holds.
const MAX_FILE: u64 = MAX_ENVELOPE as u64;

/// Others read, and only its owner writes.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// The file that writers lock. Whoever could open it could keep them waiting.
const LOCK: &str = "lock";
const LOCK_MODE: u32 = 0o600;

/// A folder of envelopes.
#[derive(Debug, Clone)]
pub struct NodeStore {
    root: PathBuf,
    /// Whose files are trusted beside root's.
    user: u32,
}

/// What a store has for a package.
#[derive(Debug, Default)]
pub struct Stored {
    pub envelopes: Vec<Envelope>,
    /// Why others are passed over: a damaged one hides no good one.
    pub broken: Vec<StoreError>,
}

/// A store that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the node's signature store is not used")]
    Trust(#[from] TrustError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is no envelope: sign the image again")]
    Envelope { path: PathBuf, source: SignatureError },
}

impl Reason for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::Trust(_) => "untrusted-file",
            Self::Write { .. } => "cannot-write",
            Self::Envelope { source, .. } => source.code(),
        }
    }
}

// === impl NodeStore ===

impl NodeStore {
    /// A store in a folder, which need not be there; `user` is who runs this process.
    pub fn new(root: impl Into<PathBuf>, user: u32) -> Self {
        Self { root: root.into(), user }
    }

    /// The envelope of an image, if there is one.
    ///
    /// # Errors
    /// It can't be read, others could have written it, or it is damaged.
    pub fn get(&self, digest: Digest) -> Result<Option<Envelope>, StoreError> {
        let path = self.file(digest);
        let text = match read_trusted(&path, self.user, MAX_FILE) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let envelope = Envelope::from_json(text.as_bytes());
        let envelope = envelope.map_err(|source| StoreError::Envelope { path, source })?;
        // Under another name it would be for another image.
        Ok(Some(envelope).filter(|envelope| envelope.digest() == digest))
    }

    /// The envelopes of images whose `wick.toml` has this digest: what an image is known by whose
    /// name says nothing.
    ///
    /// # Errors
    /// The list of them can't be read, or others could have written it.
    pub fn by_package(&self, manifest: Digest) -> Result<Stored, StoreError> {
        let folder = self.package_folder(manifest);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            other => other.map_err(|source| TrustError::Io { path: folder.clone(), source })?,
        };
        check_folder(&folder, self.user)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let digests = names.filter_map(|name| format!("sha256:{name}").parse().ok());
        let mut stored = Stored::default();
        for digest in digests.take(MAX_SAME_PACKAGE) {
            match self.get(digest) {
                Ok(envelope) => stored.envelopes.extend(envelope),
                Err(error) => stored.broken.push(error),
            }
        }
        Ok(stored)
    }

    /// Put an envelope in, beside the signatures that are there for the image.
    ///
    /// # Errors
    /// It can't be written, or the two together are too long.
    pub fn put(&self, envelope: Envelope) -> Result<(), StoreError> {
        let path = self.file(envelope.digest());
        let folder = self.root.join("sha256");
        create_folders(&self.root, &folder)?;
        check_folder(&folder, self.user)?;
        // From reading what is there to writing both: of two writers none may lose a signature.
        let _lock = self.lock()?;
        let whole = match self.get(envelope.digest()) {
            Ok(Some(before)) => before.merged(envelope),
            // A damaged one is replaced.
            _ => Ok(envelope),
        };
        let whole = whole.map_err(|source| StoreError::Envelope { path: path.clone(), source })?;
        write(&path, whole.to_json().as_bytes())?;
        for manifest in whole.package_manifests() {
            let folder = self.package_folder(manifest);
            create_folders(&self.root, &folder)?;
            write(&folder.join(whole.digest().hex()), b"")?;
        }
        Ok(())
    }

    /// Wait for other writers. Each takes milliseconds, and the system takes the lock back from
    /// who dies.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.root.join(LOCK);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(LOCK_MODE).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| StoreError::Write { path, source })
    }

    fn file(&self, digest: Digest) -> PathBuf {
        self.root.join("sha256").join(format!("{}.json", digest.hex()))
    }

    fn package_folder(&self, manifest: Digest) -> PathBuf {
        self.root.join("by-package").join(manifest.hex())
    }
}

fn create_folders(root: &Path, folder: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(FOLDER_MODE).create(folder);
    made.map_err(|source| StoreError::Write { path: root.to_owned(), source })
}

/// Whole or not at all: a reader sees the old file or the new one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&new);
        StoreError::Write { path: path.to_owned(), source }
    })
}
