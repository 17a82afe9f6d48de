//! Bounds what the headers of a tar may take. The library reads all of an entry's long name and
//! notes into memory before it hands the entry out, however long they are said to be.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{Archive, Entry};

/// Bytes of the headers of one entry: a block, and in others a name of some hundred letters and
/// what a tool notes beside it. The end of an archive may be filled up to as much.
const MAX_HEADERS: u64 = 1 << 20;

/// Bytes that a body is filled up to.
const BLOCK: u64 = 512;

/// An archive that is looked through without reading what is in it.
pub(super) struct Headers<R: Read> {
    archive: Archive<Bounded<R>>,
    left: Rc<Cell<u64>>,
}

/// A reader that is allowed so many bytes.
pub(super) struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

// === impl Headers, Bounded ===

impl<R: Read> Headers<R> {
    pub(super) fn new(archive: R) -> Self {
        let left = Rc::new(Cell::new(MAX_HEADERS));
        Self { archive: Archive::new(Bounded { inner: archive, left: left.clone() }), left }
    }

    /// Hand each entry to `each`, which takes names and sizes only.
    ///
    /// # Errors
    /// It is no tar, or has longer headers than are taken; and those of `each`.
    pub(super) fn each<E>(
        &mut self,
        damaged: impl Fn(io::Error) -> E,
        mut each: impl FnMut(&Entry<'_, Bounded<R>>) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in self.archive.entries().map_err(&damaged)? {
            let entry = entry.map_err(&damaged)?;
            // What a sparse file stands for is longer than what is there of it.
            let body = match entry.header().entry_type().is_gnu_sparse() {
                true => entry.header().entry_size().map_err(&damaged)?,
                false => entry.size(),
            };
            self.left.set(body.saturating_add(BLOCK + MAX_HEADERS));
            each(&entry)?;
        }
        Ok(())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.get()).unwrap_or(usize::MAX);
        if left == 0 && !buffer.is_empty() {
            let text = format!("the headers of a file have more than {MAX_HEADERS} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let most = left.min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}
