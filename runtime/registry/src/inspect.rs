//! What an image at a registry is, from its documents and its code layer: the weights stay there.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use wick_package::oci::{self, Descriptor, Image, Index};
use wick_package::{Blob, Digest, Layer, LayerRole, Manifest, Reference, manifest_of_layer};

use crate::client::Registry;
use crate::error::RegistryError;
use crate::images::Platforms;
use crate::progress::Progress;

/// Largest code layer that is fetched to look into it. A component has some megabytes.
const MAX_CODE: u64 = 64 << 20;

/// What is at a registry.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Of the index, or of the manifest where there is none.
    pub digest: Digest,
    pub manifest: Manifest,
    pub layers: Vec<Layer>,
    /// Of files, where the packer recorded them.
    pub file_digests: BTreeMap<String, Digest>,
    /// For instance `linux/amd64`; empty where there is no index.
    pub platforms: Vec<String>,
    /// What refers to it, for instance signatures.
    pub referrers: Vec<Descriptor>,
    /// Bytes that came to find out.
    pub moved: u64,
}

// === impl Registry ===

impl Registry {
    /// The tags of a repository.
    ///
    /// # Errors
    /// There is no such repository, or it may not be read.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        let mut tags = self.all_tags(&self.repository(reference)?, &progress).await?;
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// The digest that a reference stands for now.
    ///
    /// # Errors
    /// There is no such image, or it may not be read.
    pub async fn digest(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        let (_, document) = self.resolve(reference, &(Arc::new(()) as Arc<dyn Progress>)).await?;
        Ok(document.descriptor.digest)
    }

    /// Look at an image without fetching its weights.
    ///
    /// # Errors
    /// It is no package, not for this machine, or the registry fails.
    pub async fn inspect(&self, reference: &Reference) -> Result<Inspected, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        let (at, root) = self.resolve(reference, &progress).await?;
        let digest = root.descriptor.digest;
        let platforms = match oci::is_index(&root.descriptor.media_type) {
            true => platforms(&root.parse::<Index>(&at)?),
            false => Vec::new(),
        };
        let tree = self.tree(&at, reference, root, Platforms::Host, &progress).await?;
        let mut moved = tree.documents.iter().map(|it| it.descriptor.size).sum();
        // The first is the one for this machine.
        let own = tree.documents.first().filter(|it| oci::is_manifest(&it.descriptor.media_type));
        let none = || RegistryError::NotAPackage { reference: reference.to_string() };
        let image: Image = own.ok_or_else(none)?.parse(&at)?;
        let mut manifest = None;
        // A later layer hides an earlier one.
        for layer in image.layers.iter().rev().filter(|layer| may_have_code(layer)) {
            let bytes = self.small_blob(&at, layer, MAX_CODE, &progress).await?;
            moved += layer.size;
            if let Some(found) = look_into(&bytes)? {
                manifest = Some(found);
                break;
            }
        }
        let referrers = self.referrers_at(&at, digest, &progress).await?;
        Ok(Inspected {
            digest,
            manifest: manifest.ok_or_else(none)?,
            layers: image.layers.iter().map(described).collect(),
            file_digests: image.layers.iter().flat_map(files).collect(),
            platforms,
            referrers,
            moved,
        })
    }
}

fn may_have_code(layer: &Descriptor) -> bool {
    let weights = layer.annotations.get(oci::LAYER_ROLE).is_some_and(|role| role == "weights");
    let plain = matches!(layer.media_type.as_str(), oci::LAYER | oci::DOCKER_LAYER);
    !weights && plain && layer.size <= MAX_CODE
}

fn look_into(bytes: &[u8]) -> Result<Option<Manifest>, RegistryError> {
    let io = |source| RegistryError::Read { what: "a layer".to_owned(), source };
    let mut file = tempfile::NamedTempFile::new().map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    let path = file.path().to_owned();
    let layer = Blob { path, offset: 0, len: bytes.len() as u64, digest: None };
    Ok(manifest_of_layer(&layer)?)
}

/// A layer by what its descriptor says.
fn described(layer: &Descriptor) -> Layer {
    let weights = layer.annotations.get(oci::LAYER_ROLE).is_some_and(|role| role == "weights");
    Layer {
        role: if weights { LayerRole::Weights } else { LayerRole::Code },
        size: layer.size,
        digest: Some(layer.digest),
        files: files(layer).into_keys().collect(),
    }
}

fn files(layer: &Descriptor) -> BTreeMap<String, Digest> {
    let files = layer.annotations.get(oci::LAYER_FILES);
    files.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn platforms(index: &Index) -> Vec<String> {
    let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
    let platforms = platforms.filter(|platform| platform.os != "unknown");
    platforms.map(ToString::to_string).collect()
}
