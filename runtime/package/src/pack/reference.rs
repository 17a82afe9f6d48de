//! Names of images, such as `docker.io/library/filetype:1.2.0`.

use std::fmt;
use std::str::FromStr;

use crate::manifest::Manifest;

/// Registry and folder of a name that says neither, as Docker and containerd add them.
const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library";

/// Longest tag and longest name, by the distribution specification and common limits.
const MAX_TAG_LEN: usize = 128;
const MAX_NAME_LEN: usize = 255;

/// Name of an image: registry, path, and perhaps a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Registry and path, for instance `docker.io/library/filetype`.
    name: String,
    tag: Option<String>,
}

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
        let name = format!("{DEFAULT_DOMAIN}/{DEFAULT_FOLDER}/{}", manifest.name);
        Self { name, tag: None }.or_tag(manifest)
    }

    /// The same name, with the package's version where it has no tag.
    pub fn or_tag(mut self, manifest: &Manifest) -> Self {
        // A tag has no plus sign, and a version may.
        let version = || manifest.version.to_string().replace('+', "_");
        let tag = self.tag.unwrap_or_else(version);
        self.tag = Some(tag.chars().take(MAX_TAG_LEN).collect());
        self
    }

    /// Registry and path, without the tag.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl ImageRefError {
    /// Of what was written, cut where a name would be too long.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.chars().take(MAX_NAME_LEN).collect())
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
        let name = match domain {
            Some(domain) => format!("{domain}/{path}"),
            None if path.contains('/') => format!("{DEFAULT_DOMAIN}/{path}"),
            None => format!("{DEFAULT_DOMAIN}/{DEFAULT_FOLDER}/{path}"),
        };
        if !good || name.len() > MAX_NAME_LEN {
            return Err(ImageRefError::of(text));
        }
        Ok(Self { name, tag: tag.map(str::to_owned) })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
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
    fn other_text_is_refused() {
        let long = "a".repeat(300);
        let bad = ["", ":", "a:", ":a", "A", "a//b", "a b", "/a", "a/", "a:b c", "a:-b", &long];
        for text in bad.into_iter().chain(["a@sha256:00", "x:99999/a", "../a", "ä"]) {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }
}
