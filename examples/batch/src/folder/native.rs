//! Folders of the standard library.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::{Entry, Kind, NOT_UTF8};

/// The folder that the others are below.
pub(crate) struct Root(PathBuf);

// === impl Root ===

impl Root {
    /// None if there is no such folder.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        path.is_dir().then(|| Self(path.to_owned()))
    }

    /// What is in one folder below this one; an empty name is this one.
    ///
    /// # Errors
    /// It can't be listed.
    pub(crate) fn entries(
        &self,
        folder: &str,
    ) -> Result<impl Iterator<Item = Result<Entry, String>>, String> {
        let entries = fs::read_dir(self.0.join(folder)).map_err(|error| error.to_string())?;
        Ok(entries.map(entry))
    }
}

fn entry(entry: io::Result<DirEntry>) -> Result<Entry, String> {
    let reason = |error: io::Error| error.to_string();
    let entry = entry.map_err(reason)?;
    let kind = match entry.file_type().map_err(reason)? {
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_file() => Kind::File,
        _ => Kind::Special,
    };
    let name = entry.file_name().into_string().map_err(|_| NOT_UTF8.to_owned())?;
    Ok(Entry { name, kind })
}
