//! Where the members of an uncompressed tar lie, without reading their content.
//!
//! Works on a slice of a file, so that a layer inside the tar of a layout is read like
//! one that lies alone. Understands ustar, GNU long names and pax paths and sizes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use tar::{EntryType, Header, PaxExtensions};

use crate::blob::Blob;

/// Size of a tar block.
pub(crate) const BLOCK: u64 = 512;

/// Most members of one tar. Layers of a package have a few; an exported image store
/// has hundreds.
pub(crate) const MAX_ENTRIES: usize = 4096;

/// Longest extension header (a long name, or pax records), in bytes.
const MAX_EXTENSION: u64 = 64 << 10;

/// A member of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As written, perhaps with `./` before or `/` after it.
    pub(crate) name: String,
    pub(crate) kind: EntryKind,
    /// Where its bytes begin in the file that holds the tar.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Link,
    /// Device, pipe, sparse file.
    Other,
}

/// A tar that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("reading failed")]
    Io(#[from] io::Error),
    #[error("it ends in the middle, after {0} bytes: copy it again")]
    Truncated(u64),
    #[error("the header at byte {0} is damaged, or this is no tar")]
    Header(u64),
    #[error("the header at byte {0} has a name that is not UTF-8, or far too long")]
    Name(u64),
    #[error("it has more than {MAX_ENTRIES} members")]
    TooMany,
}

/// Name and size from extension headers, which hold for the next member.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

struct Scan<'a> {
    tar: &'a Blob,
    file: File,
    at: u64,
    extension: Extension,
}

/// All members of the tar that a blob holds, in order.
///
/// # Errors
/// It is cut short, damaged, or has too many members. A tar without its end mark is
/// cut short.
pub(crate) fn entries(tar: &Blob) -> Result<Vec<Entry>, TarError> {
    let file = File::open(&tar.path)?;
    let mut scan = Scan { tar, file, at: 0, extension: Extension::default() };
    let mut entries = Vec::new();
    while let Some(header) = scan.header()? {
        if let Some(entry) = scan.member(&header)? {
            if entries.len() == MAX_ENTRIES {
                return Err(TarError::TooMany);
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Bytes of `len` rounded up to whole blocks; none beyond 64 bits.
pub(crate) fn padded(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(BLOCK)
}

// === impl Scan ===

impl Scan<'_> {
    /// The next header; none at the end mark.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        self.read(self.at, header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        // The checksum counts its own field as spaces.
        let others = bytes[..148].iter().chain(&bytes[156..]);
        let sum = others.map(|&byte| u32::from(byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(TarError::Header(self.at));
        }
        Ok(Some(header))
    }

    /// Pass one header and its content: a member, or an extension for the next.
    fn member(&mut self, header: &Header) -> Result<Option<Entry>, TarError> {
        let start = self.at;
        let kind = header.entry_type();
        let extends = matches!(
            kind,
            EntryType::GNULongName
                | EntryType::GNULongLink
                | EntryType::XHeader
                | EntryType::XGlobalHeader
        );
        let written = header.entry_size().map_err(|_| TarError::Header(start))?;
        let len = if extends { written } else { self.extension.size.unwrap_or(written) };
        let data = start + BLOCK;
        let next = padded(len).and_then(|len| data.checked_add(len));
        let next = next.filter(|&next| next <= self.tar.len);
        self.at = next.ok_or(TarError::Truncated(self.tar.len))?;
        if extends {
            self.extend(kind, start, data, len)?;
            return Ok(None);
        }
        let Extension { name, sparse, .. } = std::mem::take(&mut self.extension);
        let name = match name {
            Some(name) => name,
            None => text(&header.path_bytes(), start)?,
        };
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous if sparse => EntryKind::Other,
            // The oldest tars know directories by their names only.
            EntryType::Regular if name.ends_with('/') => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Link | EntryType::Symlink => EntryKind::Link,
            _ => EntryKind::Other,
        };
        Ok(Some(Entry { name, kind, offset: self.tar.offset + data, len }))
    }

    fn extend(&mut self, kind: EntryType, start: u64, data: u64, len: u64) -> Result<(), TarError> {
        if matches!(kind, EntryType::GNULongLink | EntryType::XGlobalHeader) {
            return Ok(());
        }
        let len = Some(len).filter(|&len| len <= MAX_EXTENSION);
        let len = len.and_then(|len| usize::try_from(len).ok()).ok_or(TarError::Name(start))?;
        let mut bytes = vec![0; len];
        self.read(data, &mut bytes)?;
        if kind == EntryType::GNULongName {
            let name = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
            self.extension.name = Some(text(name, start)?);
            return Ok(());
        }
        for record in PaxExtensions::new(&bytes) {
            let record = record.map_err(|_| TarError::Header(start))?;
            match record.key_bytes() {
                b"path" => self.extension.name = Some(text(record.value_bytes(), start)?),
                b"size" => {
                    let size = text(record.value_bytes(), start)?;
                    let size = size.parse().map_err(|_| TarError::Header(start))?;
                    self.extension.size = Some(size);
                }
                key if key.starts_with(b"GNU.sparse.") => self.extension.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), TarError> {
        let end = at.checked_add(bytes.len() as u64).filter(|&end| end <= self.tar.len);
        let offset = end.and_then(|_| self.tar.offset.checked_add(at));
        let offset = offset.ok_or(TarError::Truncated(self.tar.len))?;
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated(at),
            _ => TarError::Io(error),
        })
    }
}

fn text(bytes: &[u8], start: u64) -> Result<String, TarError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| TarError::Name(start))
}
