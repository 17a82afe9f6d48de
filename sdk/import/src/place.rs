//! A file of a source into the package: moved if it was fetched for us, copied otherwise (which
//! shares the blocks where the file system can), or linked where that was asked for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wick_package::Digest;

use crate::error::ImportError;
use crate::progress::Meter;

/// Bytes copied at once; progress is told after each.
const CHUNK: u64 = 16 << 20;

/// A file that is on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// It belongs to somebody.
    Theirs(PathBuf),
    /// A blob of a layout, which is called by its digest: whoever edits the package must not
    /// change it, so it is never linked.
    Blob(PathBuf),
    /// It was fetched for this import.
    Ours(PathBuf),
}

// === impl Local ===

impl Local {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Theirs(path) | Self::Blob(path) | Self::Ours(path) => path,
        }
    }

    pub(crate) fn len(&self) -> Result<u64, ImportError> {
        let meta = fs::metadata(self.path()).map_err(ImportError::read(self.path()))?;
        Ok(meta.len())
    }

    /// Its digest, for a comparison.
    pub(crate) fn digest(&self) -> Result<Digest, ImportError> {
        let path = self.path();
        let mut file = File::open(path).map_err(ImportError::read(path))?;
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut hasher).map_err(ImportError::read(path))?;
        Ok(Digest::from_hasher(hasher))
    }

    /// Put it at `to`. Whether it is linked: a later change of the source would change the package.
    pub(crate) fn place(
        &self,
        to: &Path,
        link: bool,
        meter: &mut Meter<'_>,
    ) -> Result<bool, ImportError> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(ImportError::write(folder))?;
        }
        match self {
            Self::Ours(path) => {
                fs::rename(path, to).map_err(ImportError::write(to))?;
                Ok(false)
            }
            // Another file system can't be linked to.
            Self::Theirs(path) if link && fs::hard_link(path, to).is_ok() => Ok(true),
            Self::Theirs(path) | Self::Blob(path) => copy(path, to, meter).map(|()| false),
        }
    }
}

fn copy(from: &Path, to: &Path, meter: &mut Meter<'_>) -> Result<(), ImportError> {
    let mut input = File::open(from).map_err(ImportError::read(from))?;
    let len = input.metadata().map_err(ImportError::read(from))?.len();
    let mut output = File::create_new(to).map_err(ImportError::write(to))?;
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    meter.begin(&name, 0, Some(len));
    loop {
        // The standard library lets the kernel copy, and so share what it can.
        let count = io::copy(&mut Read::by_ref(&mut input).take(CHUNK), &mut output);
        match count.map_err(ImportError::write(to))? {
            0 => break,
            count => meter.advance(count),
        }
    }
    output.sync_all().map_err(ImportError::write(to))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn files_are_copied_linked_or_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("from"), "weights").unwrap();
        let theirs = Local::Theirs(path("from"));
        let (mut seen, mut watch) = (0, |_: crate::progress::Progress<'_>| {});
        let mut meter = Meter::new(&mut watch);
        assert!(!theirs.place(&path("sub/copy"), false, &mut meter).unwrap());
        let blob = Local::Blob(path("from"));
        assert!(!blob.place(&path("sub/blob"), true, &mut meter).unwrap());
        assert!(theirs.place(&path("linked"), true, &mut meter).unwrap());
        assert!(!Local::Ours(path("linked")).place(&path("moved"), true, &mut meter).unwrap());
        for name in ["sub/copy", "sub/blob", "moved"] {
            assert_eq!(fs::read_to_string(path(name)).unwrap(), "weights");
            seen += 1;
        }
        assert_eq!(seen, 3);
        assert!(!path("linked").exists());
        let inode = |name: &str| fs::metadata(path(name)).unwrap().ino();
        assert_eq!(inode("moved"), inode("from"));
        assert_ne!(inode("sub/copy"), inode("from"));
        assert_ne!(inode("sub/blob"), inode("from"), "a blob is never linked");
        assert_eq!(theirs.digest().unwrap(), Digest::of(b"weights"));
    }
}
