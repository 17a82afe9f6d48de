//! A blob on its way into the store: hashed as it is written, resumable after a kill, fetched by
//! one process for all.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wick_package::Digest;
use wick_package::oci::Descriptor;

use super::{INGEST, Store, StoreError, store_io};

/// Bytes read at once to hash what an earlier try left.
const CHUNK: usize = 256 << 10;

/// How often it is looked whether another process is done.
const LOOK: Duration = Duration::from_millis(50);

/// Whether somebody may begin to fetch a blob.
pub(crate) enum Claim {
    /// It is here.
    Have,
    /// Another process fetches it.
    Busy,
    /// It is ours to fetch.
    Ours(Box<Ingest>),
}

/// A blob that this process fetches. The lock lasts as long as this.
pub(crate) struct Ingest {
    store: Store,
    file: File,
    path: PathBuf,
    want: Descriptor,
    hasher: Sha256,
    /// Bytes that are written and hashed.
    at: u64,
    /// Bytes that an earlier process left. They were not seen coming.
    inherited: u64,
}

// === impl Store ===

impl Store {
    /// Store a blob from a reader, whatever its size, if it is what it should be.
    ///
    /// # Errors
    /// It is another blob, it can't be read, or the disk is full.
    pub fn ingest(&self, want: &Descriptor, from: &mut dyn io::Read) -> Result<(), StoreError> {
        let mut ingest = loop {
            match self.claim(want)? {
                Claim::Have => return Ok(()),
                Claim::Ours(ingest) => break ingest,
                // Another process has a download of the same; it may yet fail.
                Claim::Busy => std::thread::sleep(LOOK),
            }
        };
        // The reader begins at the beginning.
        ingest.restart()?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return ingest.commit(),
                Ok(count) => ingest.write(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(store_io(&ingest.path, source)),
            }
        }
    }

    /// Begin to fetch a blob, unless it is here or another process is at it. May take a while:
    /// what is there already is hashed.
    pub(crate) fn claim(&self, want: &Descriptor) -> Result<Claim, StoreError> {
        let path = self.root.join(INGEST).join(want.digest.hex());
        let io = |source| store_io(&path, source);
        loop {
            if self.has(want) {
                return Ok(Claim::Have);
            }
            let options =
                File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = options.map_err(io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Claim::Busy),
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
            // While we waited for nobody, the file may have become the blob, or been removed.
            let ours = file.metadata().map_err(io)?.ino();
            let there = fs::metadata(&path).ok().map(|meta| meta.ino());
            if there == Some(ours) && !self.has(want) {
                let mut ingest = Ingest {
                    store: self.clone(),
                    file,
                    path,
                    want: want.clone(),
                    hasher: Sha256::new(),
                    at: 0,
                    inherited: 0,
                };
                ingest.inherit()?;
                return Ok(Claim::Ours(Box::new(ingest)));
            }
        }
    }
}

// === impl Ingest ===

impl Ingest {
    /// Where the next byte goes.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// How many bytes came from an earlier process.
    pub(crate) fn inherited(&self) -> u64 {
        self.inherited
    }

    pub(crate) fn want(&self) -> &Descriptor {
        &self.want
    }

    /// Take the next bytes.
    ///
    /// # Errors
    /// They are more than the blob has, or the disk is full. What was taken stays.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.at + bytes.len() as u64;
        if end > self.want.size {
            let (digest, want) = (self.want.digest, self.want.size);
            return Err(StoreError::Length { digest, want, got: end });
        }
        if let Err(source) = self.file.write_all(bytes) {
            // A part of them may be on the disk, and was not hashed.
            let _ = self.file.set_len(self.at);
            let _ = self.file.seek(SeekFrom::Start(self.at));
            return Err(store_io(&self.path, source));
        }
        self.hasher.update(bytes);
        self.at = end;
        Ok(())
    }

    /// Begin from nothing.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        let io = |source| store_io(&self.path, source);
        self.file.set_len(0).map_err(io)?;
        self.file.seek(SeekFrom::Start(0)).map_err(io)?;
        (self.at, self.inherited) = (0, 0);
        self.hasher = Sha256::new();
        Ok(())
    }

    /// Make it a blob of the store, if it is the one that is wanted. Else it is emptied, and
    /// may be tried again.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        let (want, size) = (self.want.digest, self.want.size);
        if self.at != size {
            return Err(StoreError::Length { digest: want, want: size, got: self.at });
        }
        let got = Digest::from_hasher(std::mem::take(&mut self.hasher));
        if got != want {
            self.restart()?;
            return Err(StoreError::Digest { want, got });
        }
        self.file.sync_all().map_err(|source| store_io(&self.path, source))?;
        self.store.adopt(&self.path, want)
    }

    /// Hash what an earlier process left.
    fn inherit(&mut self) -> Result<(), StoreError> {
        let io = |source| store_io(&self.path, source);
        let len = self.file.metadata().map_err(io)?.len();
        if len > self.want.size {
            return self.restart();
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.hasher.update(&buffer[..count]);
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(store_io(&self.path, source)),
            }
        }
        self.inherited = self.at;
        Ok(())
    }
}
