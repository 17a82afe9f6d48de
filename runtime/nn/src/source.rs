//! Reading the bytes of a model.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use bytes::Bytes;

use crate::backend::{GraphSource, SourceBytes};
use crate::error::LoadError;

// === impl GraphSource ===

impl GraphSource {
    /// Read the whole model into memory.
    ///
    /// # Errors
    /// [`LoadError::Io`] with the path.
    pub(crate) fn read(&self) -> Result<Bytes, LoadError> {
        self.bytes.read().map_err(|source| self.unreadable(source))
    }

    pub(crate) fn unreadable(&self, source: io::Error) -> LoadError {
        LoadError::Io { graph: self.name.to_string(), path: self.bytes.place(), source }
    }

    pub(crate) fn invalid(&self, backend: &str, detail: impl ToString) -> LoadError {
        LoadError::Invalid {
            graph: self.name.to_string(),
            backend: backend.to_owned(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn unsupported(&self, need: impl ToString, detail: impl ToString) -> LoadError {
        LoadError::Unsupported {
            graph: self.name.to_string(),
            need: need.to_string(),
            detail: detail.to_string(),
        }
    }
}

// === impl SourceBytes ===

impl SourceBytes {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> io::Result<Bytes> {
        let (path, offset, len, digest) = match self {
            Self::Memory(bytes) => return Ok(bytes.clone()),
            Self::File { path, offset, len, digest } => (path, *offset, *len, digest),
        };
        let mut file = File::open(path)?;
        // Checked before memory is taken for a length that the file doesn't have.
        let size = file.metadata()?.len();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            let text = format!("{len} bytes at {offset} are wanted, and it has {size} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        file.seek(SeekFrom::Start(offset))?;
        let capacity = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(capacity);
        file.take(len).read_to_end(&mut bytes)?;
        if bytes.len() != capacity {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(digest) = digest {
            digest.check(&bytes)?;
        }
        Ok(bytes.into())
    }

    /// Where the bytes are, for people.
    fn place(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Memory(_) => "memory".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_is_read_and_more_than_it_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        std::fs::write(&path, "0123456789").unwrap();
        let part = |offset, len| {
            SourceBytes::File { path: path.clone(), offset, len, digest: None }.read()
        };
        assert_eq!(part(2, 3).unwrap(), "234");
        assert_eq!(part(0, 10).unwrap(), "0123456789");
        for (offset, len) in [(8, 3), (0, u64::MAX), (u64::MAX, 1)] {
            assert_eq!(part(offset, len).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn bytes_that_were_checked_are_read_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let digest = Some(wick_package::Digest::of(b"234"));
        let source = SourceBytes::File { path: path.clone(), offset: 2, len: 3, digest };
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(source.read().unwrap(), "234");
        std::fs::write(&path, "01x3456789").unwrap();
        let error = source.read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("has changed since it was checked"), "{error}");
    }
}
