//! A file of a package where it lies: a whole file, or a slice of a larger one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Bytes read at once when a blob is streamed: large enough that system calls
/// don't count, small enough to stay in the cache of a core.
const CHUNK: usize = 256 << 10;

/// Where a file of a package is: a whole file, or a slice of an uncompressed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The file to open or map. It may hold other things too.
    pub path: PathBuf,
    /// Where the bytes begin in it.
    pub offset: u64,
    /// How many there are.
    pub len: u64,
    /// Digest of exactly these bytes, as recorded in the layout; none in a directory
    /// and in images that other tools made.
    pub digest: Option<Digest>,
}

/// Reads the bytes of a blob in order, and no others.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    at: u64,
    end: u64,
}

// === impl Blob ===

impl Blob {
    /// Open it for reading from its first byte.
    pub fn open(&self) -> io::Result<BlobReader> {
        let end = self.offset.checked_add(self.len);
        let end = end.ok_or_else(|| io::Error::other("the slice ends beyond 64 bits"))?;
        Ok(BlobReader { file: File::open(&self.path)?, at: self.offset, end })
    }

    /// Read all of it into memory.
    ///
    /// # Errors
    /// It can't be read, is longer than `limit`, or is cut short.
    pub fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len > limit {
            let message = format!("{} bytes, more than the {limit} allowed", self.len);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Hash all of it, streaming.
    pub fn hash(&self) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        self.stream(|chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        Ok(Digest::from_hasher(hasher))
    }

    /// Hand all of it to `each`, in chunks of bounded size.
    pub(crate) fn stream(&self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut reader = self.open()?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                count => each(&buffer[..count])?,
            }
        }
    }
}

// === impl BlobReader ===

impl Read for BlobReader {
    /// A file that ends before the blob does is an error, not the end: a short model
    /// must never pass for a whole one.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short"));
        }
        self.at += count as u64;
        Ok(count)
    }
}
