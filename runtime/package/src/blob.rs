//! A file of a package where it lies: a whole file, or a slice of a larger one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
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

/// Reads the bytes of a blob, and no others.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    start: u64,
    at: u64,
    end: u64,
}

// === impl Blob ===

impl Blob {
    /// Open it for reading from its first byte.
    pub fn open(&self) -> io::Result<BlobReader> {
        let end = self.offset.checked_add(self.len);
        let end = end.ok_or_else(|| io::Error::other("the slice ends beyond 64 bits"))?;
        Ok(BlobReader { file: File::open(&self.path)?, start: self.offset, at: self.offset, end })
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

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(offset) => self.start.checked_add(offset),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        let inside = at.filter(|at| (self.start..=self.end).contains(at));
        let at = inside.ok_or_else(|| io::Error::other("a place outside of the blob"))?;
        self.at = at;
        Ok(at - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_read_from_any_place_in_it_and_nowhere_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "..weights..").unwrap();
        let blob = Blob { path: file.path().to_owned(), offset: 2, len: 7, digest: None };
        let mut reader = blob.open().unwrap();
        let mut rest = |to: SeekFrom| {
            let mut text = String::new();
            reader.seek(to).and_then(|_| reader.read_to_string(&mut text)).ok().map(|_| text)
        };
        assert_eq!(rest(SeekFrom::Start(2)).as_deref(), Some("ights"));
        assert_eq!(rest(SeekFrom::End(-2)).as_deref(), Some("ts"));
        assert_eq!(rest(SeekFrom::Current(-7)).as_deref(), Some("weights"));
        assert_eq!(rest(SeekFrom::Current(0)).as_deref(), Some(""));
        for out in [SeekFrom::Start(8), SeekFrom::End(1), SeekFrom::End(-8)] {
            assert_eq!(rest(out), None, "{out:?}");
        }
    }
}
