//! The name by which an image is asked for: a repository, perhaps a tag, perhaps a digest.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::pack::{ImageRef, ImageRefError};

/// The name of an image, whole: with the registry that docker and containerd would add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    reference: ImageRef,
    digest: Option<Digest>,
}

// === impl ImageName ===

impl ImageName {
    /// Registry and path, without tag and digest.
    pub fn name(&self) -> &str {
        self.reference.name()
    }

    /// The digest that the name pins, if any.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl From<ImageRef> for ImageName {
    fn from(reference: ImageRef) -> Self {
        Self { reference, digest: None }
    }
}

impl FromStr for ImageName {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let Some((name, digest)) = text.split_once('@') else {
            return Ok(Self { reference: text.parse()?, digest: None });
        };
        let digest = digest.parse().map_err(|_| ImageRefError::of(text))?;
        Ok(Self { reference: name.parse()?, digest: Some(digest) })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reference, f)?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_repository_and_perhaps_a_digest() {
        let digest = Digest::of(b"index");
        let pinned = format!("localhost:5000/a/b:1.0@{digest}");
        let name: ImageName = pinned.parse().unwrap();
        assert_eq!(name.name(), "localhost:5000/a/b");
        assert_eq!((name.digest(), name.to_string()), (Some(digest), pinned));
        let name: ImageName = "filetype".parse().unwrap();
        assert_eq!((name.name(), name.digest()), ("docker.io/library/filetype", None));
        for bad in ["a@", "a@sha256:00", "@", "sha256:0@x", "A@b"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
