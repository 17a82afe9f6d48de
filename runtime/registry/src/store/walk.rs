//! Which blobs an image is made of: from its descriptor down, as far as they are here.

use std::collections::{BTreeMap, BTreeSet};

use wick_package::oci::{self, Descriptor};
use wick_package::{Digest, Layout, LayoutError};

/// Indexes in indexes, and blobs of one image. More is no image.
const MAX_DEPTH: usize = 4;
const MAX_BLOBS: usize = 4096;

/// An image taken apart.
#[derive(Debug, Default, Clone)]
pub(crate) struct Parts {
    /// Everything that is referred to, with its size. Some of another platform may not be here.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    /// Indexes and manifests that are here, children before parents.
    pub(crate) documents: Vec<Descriptor>,
    /// Configs and layers of those, without repetition.
    pub(crate) leaves: Vec<Descriptor>,
    /// Manifests that are not here.
    pub(crate) absent: Vec<Descriptor>,
}

/// What a document refers to, whatever it is.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Refers {
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

/// Take an image apart.
///
/// # Errors
/// Its own document is missing, or one that is here is damaged.
pub(crate) fn parts(layout: &Layout, image: &Descriptor) -> Result<Parts, LayoutError> {
    let mut parts = Parts::default();
    visit(layout, image, 0, &mut parts)?;
    Ok(parts)
}

fn visit(
    layout: &Layout,
    at: &Descriptor,
    depth: usize,
    parts: &mut Parts,
) -> Result<(), LayoutError> {
    if depth > MAX_DEPTH {
        return Err(LayoutError::TooDeep(MAX_DEPTH));
    }
    if parts.blobs.insert(at.digest, at.size).is_some() {
        return Ok(());
    }
    if parts.blobs.len() > MAX_BLOBS {
        return Err(LayoutError::TooManyLayers { count: parts.blobs.len(), most: MAX_BLOBS });
    }
    if oci::is_index(&at.media_type) {
        let index: oci::Index = layout.json(at, "image index")?;
        for child in &index.manifests {
            let missing =
                matches!(layout.find(child, "manifest"), Err(LayoutError::MissingBlob { .. }));
            if missing {
                parts.blobs.insert(child.digest, child.size);
                parts.absent.push(child.clone());
            } else {
                visit(layout, child, depth + 1, parts)?;
            }
        }
        parts.documents.push(at.clone());
    } else if oci::is_manifest(&at.media_type) {
        let image: oci::Image = layout.json(at, "manifest")?;
        for leaf in std::iter::once(image.config).chain(image.layers) {
            if parts.blobs.insert(leaf.digest, leaf.size).is_none() {
                parts.leaves.push(leaf);
            }
        }
        parts.documents.push(at.clone());
    } else {
        parts.leaves.push(at.clone());
    }
    Ok(())
}

/// What an image keeps from being deleted, and why it can't be taken apart if so. Then everything
/// that it may mean is kept: documents are taken for what they look like, not for what is said
/// of them, and one that can't be read is kept alone.
pub(crate) fn kept(layout: &Layout, image: &Descriptor) -> (BTreeSet<Digest>, Option<LayoutError>) {
    match parts(layout, image) {
        Ok(parts) => (parts.blobs.into_keys().collect(), None),
        Err(error) => {
            let mut kept = BTreeSet::new();
            keep(layout, image, 0, &mut kept);
            (kept, Some(error))
        }
    }
}

fn keep(layout: &Layout, at: &Descriptor, depth: usize, kept: &mut BTreeSet<Digest>) {
    // Each is looked at once, so there is an end, and nothing in excess is given up.
    if !kept.insert(at.digest) || depth > MAX_DEPTH {
        return;
    }
    let Ok(Refers { manifests, config, layers }) = layout.json(at, "document") else { return };
    kept.extend(config.iter().chain(&layers).map(|leaf| leaf.digest));
    manifests.iter().for_each(|child| keep(layout, child, depth + 1, kept));
}
