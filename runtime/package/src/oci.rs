//! The documents of an OCI image layout and of a registry, as far as a package needs them.
//!
//! Fields stand in alphabetical order and maps are sorted, so that the same document
//! is always the same bytes.

use std::collections::BTreeMap;

use crate::digest::Digest;

pub const INDEX_FILE: &str = "index.json";
pub const LAYOUT_FILE: &str = "oci-layout";
pub const LAYOUT_VERSION: &str = "1.0.0";

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// The whole name of an image, read by containerd's import.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The tag of an image, read by everybody else's.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub const TITLE: &str = "org.opencontainers.image.title";
pub const VERSION: &str = "org.opencontainers.image.version";
pub const DESCRIPTION: &str = "org.opencontainers.image.description";
/// Marks an image as a package, with the package's name.
pub const PACKAGE: &str = "dev.wick.package";
/// `code` or `weights`, on a layer.
pub const LAYER_ROLE: &str = "dev.wick.layer";
/// JSON object from path to digest of the files in a layer, so that a mapped model has
/// a name for caches without being read.
pub const LAYER_FILES: &str = "dev.wick.files";

pub type Annotations = BTreeMap<String, String>;

/// `oci-layout`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    pub image_layout_version: String,
}

/// A pointer to a blob.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// Of what refers to an image, in lists of such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub digest: Digest,
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
}

/// An image index, and `index.json`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub schema_version: u32,
}

/// An image manifest.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// Says what it is when it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    // Some artifacts have none.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub schema_version: u32,
    /// What it refers to, for instance the image that it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
}

/// An image config.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Config {
    pub architecture: String,
    #[serde(default)]
    pub config: RunConfig,
    pub os: String,
    pub rootfs: RootFs,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    // Null in images that other tools made.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub labels: Option<Annotations>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct RootFs {
    pub diff_ids: Vec<Digest>,
    #[serde(rename = "type")]
    pub kind: String,
}

/// Whether a media type is that of a list of images.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Whether a media type is that of one image or artifact.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// This machine's architecture as images spell it.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

// === impl Descriptor, Platform ===

impl Descriptor {
    /// A pointer to bytes, and no more.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A pointer without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            annotations: Annotations::new(),
            artifact_type: None,
            digest,
            media_type: media_type.to_owned(),
            platform: None,
            size,
        }
    }
}

impl Platform {
    /// Linux on this machine's processor.
    pub fn host() -> Self {
        Self { architecture: host_architecture().to_owned(), os: "linux".to_owned() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The name of a blob inside a layout.
pub fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
