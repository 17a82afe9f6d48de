//! The blobs of a layout: files of a folder, or slices of a tar.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::layout::error::LayoutError;
use crate::layout::{Fault, choose};
use crate::oci::{self, Descriptor};
use crate::open_error::OpenError;
use crate::tarslice::{self, Entry, EntryKind, TarError};

/// Longest JSON document that is read. Registries refuse longer manifests.
const MAX_JSON: u64 = 4 << 20;

/// Characters of a name that an error tells.
const MAX_TOLD: usize = 255;

/// First bytes of compressed files that people take for a layout's tar.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
];

/// An image layout, to find documents and blobs in. What it holds is checked as it is read.
#[derive(Debug, Clone)]
pub struct Layout(Place);

/// Where blobs are found.
#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Tar { path: PathBuf, files: BTreeMap<String, (u64, u64)> },
}

// === impl Layout ===

impl Layout {
    /// Open a layout, a folder or its tar.
    ///
    /// # Errors
    /// There is none, or it has another version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let opened = match fs::metadata(path).map_err(io)?.is_dir() {
            true if !path.join(oci::LAYOUT_FILE).exists() => Err(Fault::NotALayout),
            true => Ok(Self::folder(path)),
            false => Self::tar(path),
        };
        let checked = opened.and_then(|layout| Ok(layout.check_marker().map(|()| layout)?));
        checked.map_err(|fault| fault.at(path))
    }

    pub(super) fn folder(root: &Path) -> Self {
        Self(Place::Folder(root.to_owned()))
    }

    /// Index a tar.
    ///
    /// # Errors
    /// It is no tar, or a tar of something else, or cut short.
    pub(super) fn tar(path: &Path) -> Result<Self, Fault> {
        let io = |source| LayoutError::Io { what: "tar", source };
        let len = fs::metadata(path).map_err(io)?.len();
        let tar = Blob { path: path.to_owned(), offset: 0, len, digest: None };
        let entries = match tarslice::entries(&tar) {
            Ok(entries) => entries,
            Err(TarError::Header(0)) => return Err(no_tar(&tar)),
            Err(TarError::Truncated(end)) if end < tarslice::BLOCK => return Err(no_tar(&tar)),
            Err(source) => return Err(LayoutError::Tar { what: "layout", source }.into()),
        };
        entries.iter().try_for_each(check_member)?;
        let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
        let files = files.map(|Entry { name, offset, len, .. }| {
            (name.trim_start_matches("./").to_owned(), (offset, len))
        });
        let files: BTreeMap<_, _> = files.collect();
        if files.contains_key(oci::LAYOUT_FILE) || files.contains_key(oci::INDEX_FILE) {
            Ok(Self(Place::Tar { path: path.to_owned(), files }))
        } else {
            Err(Fault::NotALayout)
        }
    }

    /// Check the version in `oci-layout`.
    pub(super) fn check_marker(&self) -> Result<(), LayoutError> {
        let bytes = self.top(oci::LAYOUT_FILE)?;
        let marker: oci::Marker = json(&bytes, oci::LAYOUT_FILE)?;
        match marker.image_layout_version.split('.').next() {
            Some("1") => Ok(()),
            _ => Err(LayoutError::Version(marker.image_layout_version)),
        }
    }

    /// Read `index.json`, the only document that nothing gives a digest for.
    ///
    /// # Errors
    /// It can't be read, or is no index.
    pub fn index(&self) -> Result<oci::Index, LayoutError> {
        json(&self.top(oci::INDEX_FILE)?, oci::INDEX_FILE)
    }

    /// The digest of `index.json`, which holds for all that it names.
    ///
    /// # Errors
    /// It can't be read.
    pub fn digest(&self) -> Result<Digest, LayoutError> {
        Ok(Digest::of(&self.top(oci::INDEX_FILE)?))
    }

    /// What `index.json` points to, where it is one image, perhaps under several names.
    ///
    /// # Errors
    /// It has none, or several.
    pub fn only_image(&self) -> Result<Descriptor, LayoutError> {
        choose::only(&self.index()?)
    }

    /// Read a document, parsed.
    ///
    /// # Errors
    /// Those of [`Layout::document`], or it is not the JSON that it should be.
    pub fn json<T: DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &'static str,
    ) -> Result<T, LayoutError> {
        json(&self.document(descriptor, what)?, what)
    }

    /// Read a document and check its digest.
    ///
    /// # Errors
    /// It is missing, too long for a document, or not what its descriptor says.
    pub fn document(
        &self,
        descriptor: &Descriptor,
        what: &'static str,
    ) -> Result<Vec<u8>, LayoutError> {
        let bytes = read(&self.find(descriptor, what)?, what)?;
        let got = Digest::of(&bytes);
        if got != descriptor.digest {
            let (what, want) = (format!("its {what}"), descriptor.digest);
            return Err(LayoutError::Digest { what, want, got });
        }
        Ok(bytes)
    }

    /// Find a blob and check its size. The content is not read.
    ///
    /// # Errors
    /// It is missing, or has another size.
    pub fn find(&self, descriptor: &Descriptor, what: &'static str) -> Result<Blob, LayoutError> {
        let &Descriptor { digest, size: want, .. } = descriptor;
        let blob = self.named(&oci::blob_name(digest), what)?;
        let mut blob = blob.ok_or(LayoutError::MissingBlob { what, digest })?;
        if blob.len != want {
            return Err(LayoutError::Size { what, digest, want, got: blob.len });
        }
        blob.digest = Some(digest);
        Ok(blob)
    }

    /// A blob by its digest alone, of whatever size; none if it is not there.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn blob(&self, digest: Digest) -> Result<Option<Blob>, LayoutError> {
        let blob = self.named(&oci::blob_name(digest), "blob")?;
        Ok(blob.map(|blob| Blob { digest: Some(digest), ..blob }))
    }

    /// Whether a blob is there at all.
    pub(super) fn has(&self, descriptor: &Descriptor) -> Result<bool, LayoutError> {
        Ok(self.blob(descriptor.digest)?.is_some())
    }

    fn top(&self, name: &'static str) -> Result<Vec<u8>, LayoutError> {
        let blob = self.named(name, name)?;
        read(&blob.ok_or(LayoutError::MissingFile(name))?, name)
    }

    fn named(&self, name: &str, what: &'static str) -> Result<Option<Blob>, LayoutError> {
        match &self.0 {
            Place::Tar { path, files } => Ok(files.get(name).map(|&(offset, len)| Blob {
                path: path.clone(),
                offset,
                len,
                digest: None,
            })),
            Place::Folder(root) => {
                let path = root.join(name);
                match fs::metadata(&path) {
                    Ok(meta) if meta.is_file() => {
                        Ok(Some(Blob { path, offset: 0, len: meta.len(), digest: None }))
                    }
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(LayoutError::Io { what, source }),
                }
            }
        }
    }
}

/// Refuse what no layout has, and what would do harm where somebody unpacks it. Here nothing is
/// ever unpacked.
fn check_member(entry: &Entry) -> Result<(), LayoutError> {
    let name = entry.name.trim_start_matches("./");
    let ours = matches!(name, oci::LAYOUT_FILE | oci::INDEX_FILE) || name.starts_with("blobs/");
    let fault = match entry.kind {
        _ if name.starts_with('/') || name.split('/').any(|part| part == "..") => "leads out of it",
        EntryKind::Link if ours => "is a link",
        _ => return Ok(()),
    };
    let name = entry.name.chars().take(MAX_TOLD).flat_map(char::escape_debug).collect();
    Err(LayoutError::Member { name, fault })
}

/// Say what a file that is no tar is, if it is a compressed one.
fn no_tar(file: &Blob) -> Fault {
    let start = Blob { len: file.len.min(8), ..file.clone() };
    let bytes = start.read(8).unwrap_or_default();
    match COMPRESSED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => Fault::Layout(LayoutError::Compressed(name)),
        None => Fault::NotALayout,
    }
}

fn read(blob: &Blob, what: &'static str) -> Result<Vec<u8>, LayoutError> {
    if blob.len > MAX_JSON {
        return Err(LayoutError::Long { what, len: blob.len, most: MAX_JSON });
    }
    blob.read(MAX_JSON).map_err(|source| LayoutError::Io { what, source })
}

fn json<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|source| LayoutError::Json { what, source })
}
