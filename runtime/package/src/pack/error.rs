//! What can go wrong while a package is packed.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::reason::Reason;

/// A package that was not packed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read `{path}` of the package")]
    Read { path: String, source: io::Error },
    #[error("`{path}` of the package changed while it was packed: try again")]
    Changed { path: String },
    #[error("`{path}` of the package is too large for a tar")]
    TooLarge { path: String },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is something else than an image layout: name another place, or remove it")]
    Occupied { path: PathBuf },
    #[error("blob {want} has other bytes, {got}: nothing was written")]
    Damaged { want: Digest, got: Digest },
    #[error("{count} blobs are too many for one file, which has at most {most}: write several")]
    TooMany { count: usize, most: usize },
}

impl Reason for PackError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable-package",
            Self::Changed { .. } => "package-changed",
            Self::TooLarge { .. } => "file-too-large",
            Self::Write { .. } => "cannot-write",
            Self::Occupied { .. } => "output-occupied",
            Self::Damaged { .. } => "damaged-store",
            Self::TooMany { .. } => "too-many-blobs",
        }
    }
}
