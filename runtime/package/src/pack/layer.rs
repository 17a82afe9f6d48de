//! Layers as tars that are the same bytes for the same files.

use std::collections::BTreeMap;
use std::io;

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::blob::Blob;
use crate::digest::Digest;
use crate::pack::error::PackError;
use crate::pack::store::Store;
use crate::tarslice::{BLOCK, padded};

/// Mode of every file: what a package needs is to be read.
const MODE: u32 = 0o644;

/// The end mark of a tar.
const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// Name of extension headers, which nobody sees.
const PAX_NAME: &str = "pax";

/// A file that goes into a layer.
pub(super) struct Member<'a> {
    pub(super) path: &'a str,
    pub(super) blob: Blob,
}

/// A layer that was written.
pub(super) struct Written {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Digest of each file alone.
    pub(super) files: BTreeMap<String, Digest>,
}

/// Write a layer with these files, in this order; `tell` hears the bytes of each read.
pub(super) fn write(
    store: &mut Store,
    members: &[Member<'_>],
    tell: &mut dyn FnMut(&str, u64),
) -> Result<Written, PackError> {
    let size = size(members)?;
    let mut files = BTreeMap::new();
    let digest = store.blob(size, &mut |out| {
        for member in members {
            let digest = write_member(out, member, tell)?;
            files.insert(member.path.to_owned(), digest);
        }
        out.write(&END)
    })?;
    Ok(Written { digest, size, files })
}

/// Bytes of the tar, known before anything is read, since the length of each file is.
fn size(members: &[Member<'_>]) -> Result<u64, PackError> {
    let mut size = END.len() as u64;
    for Member { path, blob } in members {
        let parts =
            padded(blob.len).and_then(|len| len.checked_add(headers(path, blob.len).len() as u64));
        let sum = parts.and_then(|parts| size.checked_add(parts));
        size = sum.ok_or_else(|| PackError::TooLarge { path: (*path).to_owned() })?;
    }
    Ok(size)
}

/// Where a layer's bytes go; failures already say which file was written.
pub(super) trait Out {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError>;
}

fn write_member(
    out: &mut dyn Out,
    member: &Member<'_>,
    tell: &mut dyn FnMut(&str, u64),
) -> Result<Digest, PackError> {
    let Member { path, blob } = member;
    out.write(&headers(path, blob.len))?;
    let mut hasher = Sha256::new();
    let mut failed = None;
    let read = blob.stream(|chunk| {
        hasher.update(chunk);
        tell(path, chunk.len() as u64);
        // The two kinds of failure are told apart: a full disk is not a bad file.
        out.write(chunk).map_err(|error| {
            failed = Some(error);
            io::Error::other("writing failed")
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    read.map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => PackError::Changed { path: (*path).to_owned() },
        _ => PackError::Read { path: (*path).to_owned(), source },
    })?;
    let digest = Digest::from_hasher(hasher);
    if blob.digest.is_some_and(|recorded| recorded != digest) || grew(blob) {
        return Err(PackError::Changed { path: (*path).to_owned() });
    }
    let rest = padded(blob.len).unwrap_or(blob.len) - blob.len;
    out.write(&END[..usize::try_from(rest).unwrap_or_default()])?;
    Ok(digest)
}

/// Whether a file of a directory is longer than it was when its length was taken.
fn grew(blob: &Blob) -> bool {
    let whole = blob.digest.is_none() && blob.offset == 0;
    whole && std::fs::metadata(&blob.path).is_ok_and(|meta| meta.len() != blob.len)
}

/// The header of a file, after an extension header where the path is too long for it.
pub(super) fn headers(path: &str, len: u64) -> Vec<u8> {
    let mut header = header(EntryType::Regular, len);
    let mut bytes = Vec::new();
    if header.set_path(path).is_err() {
        let record = pax_record("path", path);
        let mut extension = self::header(EntryType::XHeader, record.len() as u64);
        // Readers that know no extension would unpack by these names.
        extension.as_old_mut().name[..PAX_NAME.len()].copy_from_slice(PAX_NAME.as_bytes());
        extension.set_cksum();
        bytes.extend_from_slice(extension.as_bytes());
        bytes.extend_from_slice(record.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        header = self::header(EntryType::Regular, len);
        header.as_old_mut().name[..PAX_NAME.len()].copy_from_slice(PAX_NAME.as_bytes());
    }
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

fn header(kind: EntryType, len: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(len);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A pax record begins with its own length, whose digits count too.
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_digits() {
        for value_len in [1, 80, 89, 90, 91, 900, 990, 991, 9990] {
            let record = pax_record("path", &"a".repeat(value_len));
            let len: usize = record.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(len, record.len());
        }
    }

    #[test]
    fn headers_carry_nothing_of_this_machine() {
        let bytes = headers("model.onnx", 5);
        let header = Header::from_byte_slice(&bytes);
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
        assert_eq!((header.mode().unwrap(), header.size().unwrap()), (MODE, 5));
    }
}
