//! The files of an image by digest, as its own documents list them: what whoever has only the
//! unpacked files can compare them with.
//!
//! ```text
//!  signed digest ─▶ index ─▶ manifest of a platform ─▶ layers' `dev.wick.files`
//! ```
//!
//! Each document is taken by its digest, so the signature over the first holds for the last.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::reason::Reason;
use crate::signature::envelope::Envelope;

/// Most files of one image. Packages have some ten.
const MAX_FILES: usize = 4096;

/// Path and digest of every file of an image's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFiles(BTreeMap<String, Digest>);

/// Documents that don't lead to files.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    #[error(
        "the envelope has no document {digest}, the image's {what}: make it again with `wick sign`"
    )]
    Missing { what: &'static str, digest: Digest },
    #[error("the image's {what} is not the JSON that it should be")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("the image has no manifest for linux/{0}")]
    Platform(String),
    #[error(
        "the image does not say which files its layer {0} has, so they can't be checked: pack it \
         with `wick pack`"
    )]
    Unlisted(Digest),
    #[error("the image lists more than {MAX_FILES} files")]
    Many,
}

impl Reason for ContentsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "no-documents",
            Self::Json { .. } | Self::Many => "damaged-layout",
            Self::Platform(_) | Self::Unlisted(_) => "unsuitable-layout",
        }
    }
}

// === impl Envelope ===

impl Envelope {
    /// The files of the image for each of its manifests for linux on this architecture, which is
    /// spelled as images do. Nearly always there is one.
    ///
    /// # Errors
    /// A document is missing or no such document, or a layer has no list.
    pub fn files(&self, architecture: &str) -> Result<Vec<ListedFiles>, ContentsError> {
        let top = self.document("index", self.digest())?;
        // A manifest has layers and an index has manifests, whatever their media types say.
        if let Ok(image) = serde_json::from_slice::<oci::Image>(top) {
            return Ok(vec![listed(&image)?]);
        }
        let index: oci::Index = parse("index", top)?;
        let ours = |manifest: &&Descriptor| {
            let platform = manifest.platform.as_ref();
            platform.is_some_and(|p| p.os == "linux" && p.architecture == architecture)
        };
        let manifests = index.manifests.iter().filter(ours);
        let files = manifests.map(|manifest| {
            listed(&parse("manifest", self.document("manifest", manifest.digest)?)?)
        });
        let files: Vec<_> = files.collect::<Result<_, _>>()?;
        if files.is_empty() {
            return Err(ContentsError::Platform(architecture.to_owned()));
        }
        Ok(files)
    }

    /// Digests of the manifest `wick.toml` of each platform: what a store finds the envelope by.
    pub(super) fn package_manifests(&self) -> Vec<Digest> {
        let images = self.documents.iter().filter_map(|bytes| serde_json::from_slice(bytes).ok());
        let listed = images.filter_map(|image: oci::Image| listed(&image).ok());
        let mut found: Vec<_> =
            listed.filter_map(|files| files.digest(crate::parse::MANIFEST_FILE)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn document(&self, what: &'static str, digest: Digest) -> Result<&[u8], ContentsError> {
        let found = self.documents.iter().find(|bytes| Digest::of(bytes) == digest);
        Ok(found.ok_or(ContentsError::Missing { what, digest })?)
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, ContentsError> {
    serde_json::from_slice(bytes).map_err(|source| ContentsError::Json { what, source })
}

/// A file of a later layer hides one of an earlier, as in a container.
fn listed(image: &oci::Image) -> Result<ListedFiles, ContentsError> {
    let mut files = BTreeMap::new();
    for layer in &image.layers {
        let list = layer.annotations.get(oci::LAYER_FILES);
        let list = list.ok_or(ContentsError::Unlisted(layer.digest))?;
        let list: BTreeMap<String, Digest> = parse("list of files", list.as_bytes())?;
        files.extend(list);
        if files.len() > MAX_FILES {
            return Err(ContentsError::Many);
        }
    }
    Ok(ListedFiles(files))
}

// === impl ListedFiles ===

impl ListedFiles {
    /// What a file must have, by its path below the image's root.
    pub fn digest(&self, path: &str) -> Option<Digest> {
        self.0.get(path).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.0.iter().map(|(path, digest)| (path.as_str(), *digest))
    }
}
