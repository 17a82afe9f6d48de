//! The tar of a layout that is put together from blobs which are there already: each is hashed as
//! it is copied. Which blobs, and what `index.json` says, is the caller's.

use std::io;
use std::path::Path;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::oci;
use crate::pack::Format;
use crate::pack::document;
use crate::pack::error::PackError;
use crate::pack::layer::Out;
use crate::pack::store::Store;
use crate::tarslice::MAX_ENTRIES;

/// Members that are no blobs: `oci-layout` and `index.json`.
const OTHERS: usize = 2;

/// The tar of a layout that is being written. It appears whole, or not at all.
pub struct Archive(Store);

// === impl Archive ===

impl Archive {
    /// Begin a tar of so many blobs. A layout's tar at `out` is replaced in the end; anything
    /// else there is left alone.
    ///
    /// # Errors
    /// There is something else, there are more blobs than are read, or the disk is full.
    pub fn create(out: &Path, blobs: usize) -> Result<Self, PackError> {
        let most = MAX_ENTRIES - OTHERS;
        if blobs > most {
            return Err(PackError::TooMany { count: blobs, most });
        }
        let mut store = Store::create(out, Format::Tar)?;
        store.file(oci::LAYOUT_FILE, &document::marker())?;
        Ok(Self(store))
    }

    /// Copy a blob; `tell` hears the bytes of each read.
    ///
    /// # Errors
    /// It has other bytes than `digest` says, it can't be read, or the disk is full.
    pub fn blob(
        &mut self,
        blob: &Blob,
        digest: Digest,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), PackError> {
        let got = self.0.blob(blob.len, &mut |out| copy(blob, out, tell))?;
        if got == digest { Ok(()) } else { Err(PackError::Damaged { want: digest, got }) }
    }

    /// Write a blob that is in memory.
    ///
    /// # Errors
    /// The disk is full, for instance.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<Digest, PackError> {
        self.0.blob_of(bytes)
    }

    /// Write `index.json` and put the tar in place. Gives the digest of `index.json`, which holds
    /// for all that it names.
    ///
    /// # Errors
    /// The disk is full, for instance. Nothing is left behind.
    pub fn finish(mut self, index: &oci::Index) -> Result<Digest, PackError> {
        let bytes = document::text(index).into_bytes();
        self.0.file(oci::INDEX_FILE, &bytes)?;
        self.0.finish()?;
        Ok(Digest::of(&bytes))
    }
}

fn copy(blob: &Blob, out: &mut dyn Out, tell: &mut dyn FnMut(u64)) -> Result<(), PackError> {
    let mut failed = None;
    let read = blob.stream(|chunk| {
        tell(chunk.len() as u64);
        // A full disk is not a file that can't be read.
        out.write(chunk).map_err(|error| {
            failed = Some(error);
            io::Error::other("writing failed")
        })
    });
    let path = || blob.path.display().to_string();
    match failed {
        Some(error) => Err(error),
        None => read.map_err(|source| PackError::Read { path: path(), source }),
    }
}
