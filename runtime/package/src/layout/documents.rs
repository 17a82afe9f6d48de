//! The documents of an image without its layers: what is signed, and what leads from there to
//! the files. Nothing that the image holds is opened.

use std::path::Path;

use crate::digest::Digest;
use crate::image_name::ImageName;
use crate::layout::Fault;
use crate::layout::blobs::Blobs;
use crate::layout::choose;
use crate::layout::error::LayoutError;
use crate::oci::{self, Descriptor};
use crate::open_error::OpenError;
use crate::parse::MANIFEST_FILE;

/// Most platforms of one image.
const MAX_MANIFESTS: usize = 64;

/// What an image layout says of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDocuments {
    /// Of the image index, or of the manifest where there is no index: what is signed.
    pub digest: Digest,
    /// The name that the layout gives it, for which there is only the layout's word.
    pub name: Option<ImageName>,
    /// Name and version of the package, as the index says them.
    pub package: Option<String>,
    pub version: Option<String>,
    /// The index, and the manifests that it lists and that are there.
    pub documents: Vec<Vec<u8>>,
}

// === impl ImageDocuments ===

impl ImageDocuments {
    /// Read the documents of an image layout, a folder or its tar.
    ///
    /// # Errors
    /// It is none, or its documents are damaged. A package's directory has no documents: they
    /// are made when it is packed.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let meta = std::fs::metadata(path);
        let meta = meta.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let is_manifest = path.file_name().is_some_and(|name| name == MANIFEST_FILE);
        if is_manifest || (meta.is_dir() && path.join(MANIFEST_FILE).exists()) {
            return Err(OpenError::NotPacked { path: path.to_owned() });
        }
        let blobs = match meta.is_dir() {
            true if !path.join(oci::LAYOUT_FILE).exists() => Err(Fault::NotALayout),
            true => Blobs::folder(path),
            false => Blobs::tar(path),
        };
        let read = blobs.and_then(|blobs| read(&blobs).map_err(Fault::Layout));
        read.map_err(|fault| match fault {
            Fault::Layout(source) => OpenError::Layout { path: path.to_owned(), source },
            Fault::NotALayout | Fault::Manifest(_) => {
                OpenError::NotAPackage { path: path.to_owned() }
            }
        })
    }
}

fn read(blobs: &Blobs) -> Result<ImageDocuments, LayoutError> {
    blobs.check_marker()?;
    let top = choose::top(blobs)?;
    let name = top.annotations.get(oci::IMAGE_NAME).and_then(|name| name.parse().ok());
    let bytes = blobs.bytes(&top, "image index")?;
    let mut found = ImageDocuments {
        digest: top.digest,
        name,
        package: None,
        version: None,
        documents: vec![bytes],
    };
    if !matches!(top.media_type.as_str(), oci::INDEX | oci::DOCKER_INDEX) {
        let image: oci::Image = blobs.json(&top, "manifest")?;
        found.describe(&image.annotations);
        return Ok(found);
    }
    let index: oci::Index = blobs.json(&top, "image index")?;
    found.describe(&index.annotations);
    let count = index.manifests.len();
    if count > MAX_MANIFESTS {
        return Err(LayoutError::TooManyManifests { count, most: MAX_MANIFESTS });
    }
    for manifest in &index.manifests {
        // A layout may hold one platform of several.
        if is_manifest(manifest) && blobs.has(manifest)? {
            found.documents.push(blobs.bytes(manifest, "manifest")?);
        }
    }
    Ok(found)
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), oci::MANIFEST | oci::DOCKER_MANIFEST)
}

impl ImageDocuments {
    fn describe(&mut self, annotations: &oci::Annotations) {
        self.package = annotations.get(oci::PACKAGE).cloned();
        self.version = annotations.get(oci::VERSION).cloned();
    }
}
