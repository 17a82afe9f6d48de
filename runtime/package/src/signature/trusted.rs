//! Files that decide what may run: read only where nobody but root and this user could have
//! written them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Writable by the group or by others.
const WRITABLE: u32 = 0o022;

/// Folders that anybody may write, and where a name is its owner's all the same.
const STICKY: u32 = 0o1000;

/// A file that can't be trusted, or not be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{path} can't be read")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} belongs to user {owner}, who could change it: `chown {user} {path}` if it is right"
    )]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("{path} can be written by others (mode {mode:o}): `chmod go-w {path}` if it is right")]
    Mode { path: PathBuf, mode: u32 },
    #[error("{path} is longer than {most} bytes")]
    Long { path: PathBuf, most: u64 },
    #[error("{path} is not UTF-8 text")]
    NotText { path: PathBuf },
}

impl TrustError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Read a text file of at most `most` bytes that only root or `user` could have written: it, and
/// the folders that it lies in; where a link leads, the target's.
///
/// # Errors
/// It is not there, not trusted, too long, or not text.
pub fn read_trusted(path: &Path, user: u32, most: u64) -> Result<String, TrustError> {
    let io = |source| TrustError::Io { path: path.to_owned(), source };
    // The opened file is checked, so that no other can take its place in between.
    let real = path.canonicalize().map_err(io)?;
    let mut file = File::open(&real).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(io(io::ErrorKind::InvalidInput.into()));
    }
    check(&real, &meta, user)?;
    for folder in real.ancestors().skip(1) {
        check_folder(folder, user)?;
    }
    let mut bytes = Vec::new();
    file.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(TrustError::Long { path: path.to_owned(), most });
    }
    String::from_utf8(bytes).map_err(|_| TrustError::NotText { path: path.to_owned() })
}

/// A folder in which only root or `user` could have put a name.
pub(super) fn check_folder(folder: &Path, user: u32) -> Result<(), TrustError> {
    let meta = folder.metadata();
    let meta = meta.map_err(|source| TrustError::Io { path: folder.to_owned(), source })?;
    let (owner, sticky) = (meta.uid(), meta.mode() & STICKY != 0);
    // Whoever owns a sticky folder may take any name out of it.
    if sticky && (owner == 0 || owner == user) {
        return Ok(());
    }
    check(folder, &meta, user)
}

/// Whether nothing has this name, not even a link to nothing, where only root or `user` could
/// have taken it away: what is missing decides what may run as well.
///
/// # Errors
/// Others could have taken it away, or it can't be told.
pub fn is_absent(path: &Path, user: u32) -> Result<bool, TrustError> {
    let io = |path: &Path, source| TrustError::Io { path: path.to_owned(), source };
    // The name itself is looked at, not what a link leads to.
    let there = |path: &Path| match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(path, error)),
    };
    if there(path)? {
        return Ok(false);
    }
    for folder in path.ancestors().skip(1) {
        // Above a relative name is the working folder.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if there(folder)? {
            let real = folder.canonicalize().map_err(|source| io(folder, source))?;
            real.ancestors().try_for_each(|folder| check_folder(folder, user))?;
            return Ok(true);
        }
    }
    Ok(true)
}

fn check(path: &Path, meta: &std::fs::Metadata, user: u32) -> Result<(), TrustError> {
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    if owner != 0 && owner != user {
        return Err(TrustError::Owner { path: path.to_owned(), owner, user });
    }
    if mode & WRITABLE != 0 {
        return Err(TrustError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}
