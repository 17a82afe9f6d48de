//! Files and folders that are being written below `ingest`. Each is locked, so that garbage
//! collection leaves it alone however young it may take; what a killed process left is not.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

use super::{INGEST, Store, StoreError, store_io};

/// How often something is made anew that was collected between its making and its locking.
const TRIES: usize = 16;

/// What is being written. It is removed when it is dropped, and its lock goes with it.
#[derive(Debug)]
pub struct Work<T> {
    pub(super) made: T,
    _lock: File,
}

// === impl Store ===

impl Store {
    /// A folder on the store's file system, for files that [`Store::import_layout`] takes over.
    ///
    /// # Errors
    /// It can't be made.
    pub fn scratch(&self) -> Result<Work<TempDir>, StoreError> {
        self.work(|folder| tempfile::Builder::new().prefix("push-").tempdir_in(folder))
    }

    pub(super) fn scratch_file(&self) -> Result<Work<NamedTempFile>, StoreError> {
        self.work(|folder| tempfile::Builder::new().prefix(".whole-").tempfile_in(folder))
    }

    fn work<T: AsRef<Path>>(
        &self,
        make: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<Work<T>, StoreError> {
        let folder = self.root.join(INGEST);
        locked(TRIES, || make(&folder)).map_err(|source| store_io(&folder, source))
    }
}

fn locked<T: AsRef<Path>>(tries: usize, make: impl Fn() -> io::Result<T>) -> io::Result<Work<T>> {
    for _ in 0..tries {
        let made = make()?;
        let lock = match File::open(made.as_ref()) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        lock.lock()?;
        // Who collects holds the lock as well: now it is ours, or it is gone.
        if made.as_ref().exists() {
            return Ok(Work { made, _lock: lock });
        }
    }
    Err(io::Error::other("it is removed again and again"))
}

// === impl Work ===

impl Work<TempDir> {
    pub fn path(&self) -> &Path {
        self.made.path()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    #[test]
    fn what_is_collected_before_it_is_locked_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let made = Cell::new(0);
        let twice_removed = || {
            let file = NamedTempFile::new_in(&folder)?;
            made.set(made.get() + 1);
            if made.get() < 3 {
                fs::remove_file(file.path())?;
            }
            Ok(file)
        };
        let work = locked(TRIES, twice_removed).unwrap();
        assert_eq!((made.get(), work.made.path().exists()), (3, true));
        made.set(0);
        assert!(locked(2, twice_removed).is_err());
    }
}
