//! A package as a directory, as its author works on it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::blob::Blob;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::names::RelPath;
use crate::open_error::{FileFault, OpenError};
use crate::parse::{MANIFEST_FILE, MAX_MANIFEST_LEN, parse};

/// The directory and what was read of it when it was opened.
pub(crate) struct Opened {
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
}

/// Read and check the manifest of a directory. Files that it names are not looked
/// at, apart from their size and times.
pub(crate) fn open(root: &Path) -> Result<Opened, OpenError> {
    let path = root.join(MANIFEST_FILE);
    let text = read_text(&path)?;
    let manifest = parse(&text, &path)?;
    let digest = digest(root, &text, &manifest);
    Ok(Opened { manifest, digest })
}

/// Find a file. The path can't leave the directory by itself; links that the author
/// made are followed.
pub(crate) fn file(root: &Path, path: &RelPath) -> Result<Blob, FileFault> {
    let full = root.join(path.as_str());
    let meta = fs::metadata(&full).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileFault::Missing,
        _ => FileFault::Unreadable(error.to_string()),
    })?;
    if !meta.is_file() {
        return Err(FileFault::NotAFile);
    }
    Ok(Blob { path: full, offset: 0, len: meta.len(), digest: None })
}

fn read_text(path: &Path) -> Result<String, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let len = fs::metadata(path).map_err(io)?.len();
    if len > MAX_MANIFEST_LEN {
        return Err(OpenError::LongManifest { path: path.to_owned(), len, most: MAX_MANIFEST_LEN });
    }
    let blob = Blob { path: PathBuf::from(path), offset: 0, len, digest: None };
    let bytes = blob.read(MAX_MANIFEST_LEN).map_err(io)?;
    String::from_utf8(bytes).map_err(|_| OpenError::NotText { path: path.to_owned() })
}

/// A digest that changes when the manifest or a file that it names changes, without
/// reading weights: size, modification time and inode stand for the content. The
/// inode is in it because extracted files often share one time.
pub(crate) fn digest(root: &Path, text: &str, manifest: &Manifest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
    for file in manifest.files() {
        let path = file.path.as_str();
        hasher.update((path.len() as u64).to_le_bytes());
        hasher.update(path);
        let Ok(meta) = fs::metadata(root.join(path)) else { continue };
        hasher.update(meta.len().to_le_bytes());
        hasher.update(meta.mtime().to_le_bytes());
        hasher.update(meta.mtime_nsec().to_le_bytes());
        hasher.update(meta.ino().to_le_bytes());
    }
    Digest::from_hasher(hasher)
}
