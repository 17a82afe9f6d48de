//! The JSON documents of an image, as bytes.

use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::oci::{self, Annotations, Config, Descriptor, Image, Index, Marker, Platform, RootFs};
use crate::parse::MANIFEST_FILE;
use crate::reference::ImageRef;

/// Version of the image specification's documents.
const SCHEMA_VERSION: u32 = 2;

/// What all documents of one image share.
pub(super) struct Documents<'a> {
    layers: &'a [Descriptor],
    annotations: Annotations,
}

/// A value as the same text every time.
pub(super) fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("the documents have text keys and no failing parts")
}

/// `oci-layout`.
pub(super) fn marker() -> Vec<u8> {
    text(&Marker { image_layout_version: oci::LAYOUT_VERSION.to_owned() }).into_bytes()
}

/// `index.json`: one descriptor, of the image index, with the image's name.
pub(super) fn top(digest: Digest, len: usize, reference: &ImageRef) -> Vec<u8> {
    let mut entry = descriptor(oci::INDEX, digest, len);
    entry.annotations.insert(oci::IMAGE_NAME.to_owned(), reference.to_string());
    if let Some(tag) = reference.tag() {
        entry.annotations.insert(oci::REF_NAME.to_owned(), tag.to_owned());
    }
    index_of(vec![entry], Annotations::new())
}

fn index_of(manifests: Vec<Descriptor>, annotations: Annotations) -> Vec<u8> {
    let media_type = Some(oci::INDEX.to_owned());
    text(&Index { annotations, manifests, media_type, schema_version: SCHEMA_VERSION }).into_bytes()
}

fn descriptor(media_type: &str, digest: Digest, len: usize) -> Descriptor {
    Descriptor::new(media_type, digest, len as u64)
}

// === impl Documents ===

impl<'a> Documents<'a> {
    pub(super) fn new(manifest: &Manifest, layers: &'a [Descriptor]) -> Self {
        let name = manifest.name.to_string();
        let mut annotations = Annotations::from([
            (oci::PACKAGE.to_owned(), name.clone()),
            (oci::TITLE.to_owned(), name),
            (oci::VERSION.to_owned(), manifest.version.to_string()),
        ]);
        if let Some(description) = &manifest.description {
            annotations.insert(oci::DESCRIPTION.to_owned(), description.clone());
        }
        Self { layers, annotations }
    }

    /// The config of one platform. Its layers are uncompressed, so their digests are
    /// the diff ids. No time of creation: it would change the digest.
    pub(super) fn config(&self, architecture: &str) -> Vec<u8> {
        let config = Config {
            architecture: architecture.to_owned(),
            config: oci::RunConfig {
                entrypoint: Some(vec![format!("/{MANIFEST_FILE}")]),
                labels: Some(self.annotations.clone()),
            },
            os: "linux".to_owned(),
            rootfs: RootFs {
                diff_ids: self.layers.iter().map(|layer| layer.digest).collect(),
                kind: "layers".to_owned(),
            },
        };
        text(&config).into_bytes()
    }

    /// The manifest of one platform.
    pub(super) fn manifest(&self, config: Digest, config_len: usize) -> Vec<u8> {
        let image = Image {
            annotations: self.annotations.clone(),
            artifact_type: None,
            config: descriptor(oci::CONFIG, config, config_len),
            layers: self.layers.to_vec(),
            media_type: Some(oci::MANIFEST.to_owned()),
            schema_version: SCHEMA_VERSION,
            subject: None,
        };
        text(&image).into_bytes()
    }

    /// The index's entry for one platform.
    pub(super) fn platform(&self, architecture: &str, digest: Digest, len: usize) -> Descriptor {
        let platform = Platform { architecture: architecture.to_owned(), os: "linux".to_owned() };
        Descriptor { platform: Some(platform), ..descriptor(oci::MANIFEST, digest, len) }
    }

    /// The image index.
    pub(super) fn index(&self, manifests: Vec<Descriptor>) -> Vec<u8> {
        index_of(manifests, self.annotations.clone())
    }
}
