//! What can be wrong with a package that somebody opens.

use std::fmt;
use std::path::PathBuf;

use crate::layout::LayoutError;
use crate::mistakes::ManifestErrors;
use crate::names::RelPath;
use crate::reason::Reason;
use crate::signature::{Refusal, SignatureError, StoreError};

/// A package that can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is not a package: name a directory with a wick.toml, an OCI layout, or its tar"
    )]
    NotAPackage { path: PathBuf },
    #[error("{path} is {len} bytes long: a manifest has at most {most}")]
    LongManifest { path: PathBuf, len: u64, most: u64 },
    #[error("{path} is not UTF-8 text")]
    NotText { path: PathBuf },
    #[error(transparent)]
    Manifest(#[from] ManifestErrors),
    #[error(transparent)]
    Files(#[from] FileErrors),
    #[error("{path} is a damaged or unsuitable image layout")]
    Layout { path: PathBuf, source: LayoutError },
    #[error(
        "{path} is a directory, and only an image has a digest that can be signed: `wick pack` it \
         first"
    )]
    NotPacked { path: PathBuf },
    #[error("the policy does not let {path} run")]
    Refused { path: PathBuf, source: Box<Refusal> },
    #[error("the signatures of {path} can't be read")]
    Signatures { path: PathBuf, source: Box<StoreError> },
    #[error("{path} is no envelope")]
    Envelope { path: PathBuf, source: SignatureError },
}

/// All files that a manifest names and that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileErrors {
    pub(crate) package: PathBuf,
    pub(crate) files: Vec<FileError>,
}

/// One file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    pub path: RelPath,
    /// What the manifest names it as, for instance `[[graph]] magika`.
    pub named_by: String,
    pub fault: FileFault,
}

/// Why a file can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileFault {
    Missing,
    Empty,
    /// A directory, socket or device.
    NotAFile,
    /// The system's own words.
    Unreadable(String),
}

// === impl OpenError ===

impl Reason for OpenError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "unreadable-package",
            Self::NotAPackage { .. } => "not-a-package",
            Self::LongManifest { .. } | Self::NotText { .. } => "bad-manifest",
            Self::Manifest(errors) => errors.code(),
            Self::Files(errors) => errors.code(),
            Self::Layout { source, .. } => source.code(),
            Self::NotPacked { .. } => "not-packed",
            Self::Refused { source, .. } => source.code(),
            Self::Signatures { source, .. } => source.code(),
            Self::Envelope { source, .. } => source.code(),
        }
    }
}

// === impl FileErrors ===

impl FileErrors {
    /// Never empty; in the order of [`crate::Manifest::files`].
    pub fn files(&self) -> &[FileError] {
        &self.files
    }
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let package = self.package.display();
        match self.files.len() {
            1 => write!(f, "{package} names a file that can't be used:")?,
            count => write!(f, "{package} names {count} files that can't be used:")?,
        }
        for FileError { path, named_by, fault } in &self.files {
            write!(f, "\n  {path}, named by {named_by}, {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FileErrors {}

impl Reason for FileErrors {
    fn code(&self) -> &'static str {
        "missing-file"
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing: add it, or correct the path"),
            Self::Empty => f.write_str("is empty: was it copied whole?"),
            Self::NotAFile => f.write_str("is not an ordinary file"),
            Self::Unreadable(why) => write!(f, "can't be read: {why}"),
        }
    }
}
