//! A lease keeps blobs from being deleted while they are fetched or used. It is a file with their
//! digests, locked by its process: who dies loses the lock, and with it the lease.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use parking_lot::Mutex;
use std::collections::BTreeSet;
use wick_package::Digest;
use wick_package::oci::Descriptor;

use super::{LEASES, Store, StoreError, store_io, walk};

/// Longest lease file that is read: some hundred thousand digests.
const MAX_LEASE: u64 = 16 << 20;

/// Until it is dropped, what it names stays.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    file: Mutex<File>,
    path: PathBuf,
}

// === impl Lease ===

impl Lease {
    /// Keep blobs, whether they are here or still come.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn protect(&self, digests: impl IntoIterator<Item = Digest>) -> Result<(), StoreError> {
        let text: String = digests.into_iter().map(|digest| format!("{digest}\n")).collect();
        // Under the store's lock: whoever deletes holds it from reading leases to deleting.
        let _guard = self.store.lock()?;
        let written = self.file.lock().write_all(text.as_bytes());
        written.map_err(|source| store_io(&self.path, source))
    }

    /// Keep all that an image of the store is made of.
    ///
    /// # Errors
    /// The image's documents are damaged, or not here.
    pub fn protect_image(&self, image: &Descriptor) -> Result<(), StoreError> {
        // First what must be read, so that the rest can't go while it is read.
        self.protect([image.digest])?;
        let damaged = |source| StoreError::Damaged { root: self.store.root().to_owned(), source };
        let parts = walk::parts(&self.store.layout()?, image).map_err(damaged)?;
        self.protect(parts.blobs.into_keys())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The lock goes with the file in any case; an empty file would be cleaned up later.
        let _ = fs::remove_file(&self.path);
    }
}

// === impl Store ===

impl Store {
    /// A lease on nothing yet.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        let folder = self.root.join(LEASES);
        let io = |source| store_io(&folder, source);
        // Between its making and its locking it would look like that of a dead process.
        let _guard = self.lock()?;
        let file = tempfile::Builder::new().prefix("lease-").tempfile_in(&folder).map_err(io)?;
        let (file, path) = file.keep().map_err(|error| io(error.error))?;
        file.lock().map_err(io)?;
        Ok(Lease { store: self.clone(), file: Mutex::new(file), path })
    }

    /// What living leases name; files of the dead are removed. The caller holds the lock.
    pub(super) fn leased(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let folder = self.root.join(LEASES);
        let mut leased = BTreeSet::new();
        let entries = fs::read_dir(&folder).map_err(|source| store_io(&folder, source))?;
        for entry in entries {
            let path = entry.map_err(|source| store_io(&folder, source))?.path();
            let io = |source| store_io(&path, source);
            let file = match File::open(&path) {
                Ok(file) => file,
                // Its owner is done.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io(error)),
            };
            if file.try_lock().is_ok() {
                fs::remove_file(&path).or_else(absent).map_err(io)?;
                continue;
            }
            let mut text = String::new();
            io::Read::read_to_string(&mut io::Read::take(&file, MAX_LEASE), &mut text)
                .map_err(io)?;
            leased.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
        }
        Ok(leased)
    }
}

/// What is gone already need not be removed.
pub(super) fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
