//! Names of images, such as `docker.io/library/filetype:1.2.0`, and references to one image, which
//! may end with its digest.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::manifest::Manifest;

/// Registry and folder of a name that says neither, as Docker and containerd add them.
const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library";

/// The tag of a reference that has neither tag nor digest, as everybody takes it.
const DEFAULT_TAG: &str = "latest";

/// Longest tag and longest name, by the distribution specification and common limits.
const MAX_TAG_LEN: usize = 128;
const MAX_NAME_LEN: usize = 255;

/// Name of an image: registry, path, and perhaps a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRef {
    /// For instance `docker.io`, or `registry.local:5000`.
    registry: String,
    /// For instance `library/filetype`.
    repository: String,
    tag: Option<String>,
}

/// An image of a registry: its name, and perhaps the digest that it must have. Parsed once;
/// who holds one asks no more whether it is well formed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    image: ImageRef,
    digest: Option<Digest>,
}

/// Text that is not a reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a reference to an image: write for instance \
     `registry.example.com/team/filetype:1.2.0`, in lower case, or `…@sha256:` and the digest"
)]
pub struct ReferenceError(String);

/// Text that is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an image name: write for instance `registry.example.com/team/filetype:1.2.0`, \
     in lower case and without a digest"
)]
pub struct ImageRefError(String);

// === impl ImageRef ===

impl ImageRef {
    /// `docker.io/library/NAME:VERSION`.
    pub fn of(manifest: &Manifest) -> Self {
        let repository = format!("{DEFAULT_FOLDER}/{}", manifest.name);
        Self { registry: DEFAULT_DOMAIN.to_owned(), repository, tag: None }.or_tag(manifest)
    }

    /// The same name, with the package's version where it has no tag.
    pub fn or_tag(mut self, manifest: &Manifest) -> Self {
        // A tag has no plus sign, and a version may.
        let version = || manifest.version.to_string().replace('+', "_");
        let tag = self.tag.unwrap_or_else(version);
        self.tag = Some(tag.chars().take(MAX_TAG_LEN).collect());
        self
    }

    /// The tag alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The registry, with its port where it names one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path inside the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository, without a tag.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        // A colon before the last slash is a registry's port.
        let (path, tag) = match text.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (text, None),
        };
        let (domain, path) = match path.split_once('/') {
            Some((first, rest)) if is_domain(first) => (Some(first), rest),
            _ => (None, path),
        };
        let good = path.split('/').all(is_component) && tag.is_none_or(is_tag);
        let repository = match domain {
            None if !path.contains('/') => format!("{DEFAULT_FOLDER}/{path}"),
            _ => path.to_owned(),
        };
        let registry = domain.unwrap_or(DEFAULT_DOMAIN).to_owned();
        if !good || registry.len() + 1 + repository.len() > MAX_NAME_LEN {
            return Err(ImageRefError(text.chars().take(MAX_NAME_LEN).collect()));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned) })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

// === impl Reference ===

impl Reference {
    /// The registry, with its port where it names one.
    pub fn registry(&self) -> &str {
        &self.image.registry
    }

    /// The path inside the registry.
    pub fn repository(&self) -> &str {
        &self.image.repository
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        self.image.name()
    }

    /// The tag; `latest` where there is neither a tag nor a digest.
    pub fn tag(&self) -> Option<&str> {
        match (&self.image.tag, self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some(DEFAULT_TAG),
            (None, Some(_)) => None,
        }
    }

    /// Whether it says which one: by a tag of its own, or by a digest.
    pub fn is_exact(&self) -> bool {
        self.image.tag.is_some() || self.digest.is_some()
    }

    /// The digest that the image must have.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same image, which must have this digest from now on.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The name without the digest.
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// What a registry is asked for: the digest where there is one, else the tag.
    pub fn selector(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag().unwrap_or(DEFAULT_TAG).to_owned(),
        }
    }
}

impl From<ImageRef> for Reference {
    fn from(image: ImageRef) -> Self {
        Self { image, digest: None }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError(text.chars().take(MAX_NAME_LEN).collect());
        let (image, digest) = match text.split_once('@') {
            Some((image, digest)) => (image, Some(digest.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        Ok(Self { image: image.parse().map_err(|_| bad())?, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.image.name())?;
        self.tag().iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// The first part is a registry if it could be no folder.
fn is_domain(text: &str) -> bool {
    let host = text.split(':').next().unwrap_or_default();
    let port = text.strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let label = |label: &str| {
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (host == "localhost" || host.contains('.') || port.is_some())
        && host.split('.').all(label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_component(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(plain)
}

fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= MAX_TAG_LEN
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_get_the_registry_that_docker_gives_them() {
        let cases = [
            ("filetype", "docker.io/library/filetype"),
            ("team/filetype:v1", "docker.io/team/filetype:v1"),
            ("localhost/a/b", "localhost/a/b"),
            ("registry.local:5000/a/b:1.2.0", "registry.local:5000/a/b:1.2.0"),
            ("ghcr.io/a/b", "ghcr.io/a/b"),
        ];
        for (text, whole) in cases {
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn references_take_tags_and_digests() {
        let digest = Digest::of(b"wick");
        let text = format!("localhost:5000/a/b:1@{digest}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.registry(), "localhost:5000");
        assert_eq!(reference.repository(), "a/b");
        assert_eq!(reference.selector(), digest.to_string());
        assert_eq!(reference.to_string(), text);
        let plain: Reference = "filetype".parse().unwrap();
        assert_eq!(plain.to_string(), "docker.io/library/filetype:latest");
        assert!(!plain.is_exact());
        let pinned: Reference = format!("ghcr.io/a/b@{digest}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(digest)));
        for bad in ["a@", "a@sha256:00", "@", "a@md5:00"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_survives(text in "\\PC{0,80}|[a-z0-9./:@_-]{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap().to_string(), reference.to_string());
            }
        }
    }

    #[test]
    fn other_text_is_refused() {
        let long = "a".repeat(300);
        let bad = ["", ":", "a:", ":a", "A", "a//b", "a b", "/a", "a/", "a:b c", "a:-b", &long];
        for text in bad.into_iter().chain(["a@sha256:00", "x:99999/a", "../a", "ä"]) {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }
}
