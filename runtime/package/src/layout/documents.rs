//! The documents of an image without its layers: what is signed, and what leads from there to
//! the files. Nothing that the image holds is opened.

use std::path::Path;

use crate::digest::Digest;
use crate::layout::blobs::Layout;
use crate::layout::error::LayoutError;
use crate::layout::{choose, image_in};
use crate::oci;
use crate::open_error::OpenError;
use crate::parse::MANIFEST_FILE;
use crate::reference::Reference;

/// Most platforms of one image.
const MAX_MANIFESTS: usize = 64;

/// What an image layout says of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDocuments {
    /// Of the image index, or of the manifest where there is no index: what is signed.
    pub digest: Digest,
    /// The name that the layout gives it, for which there is only the layout's word.
    pub name: Option<Reference>,
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
        let (layout, wanted) = match image_in(path) {
            // One image of a store.
            Some((root, image)) => (Layout::folder(root), Some(image)),
            None => (Layout::open(path)?, None),
        };
        let damaged = |source| OpenError::Layout { path: path.to_owned(), source };
        read(&layout, wanted).map_err(damaged)
    }
}

fn read(layout: &Layout, wanted: Option<Digest>) -> Result<ImageDocuments, LayoutError> {
    let top = choose::top(layout, wanted)?;
    let name = top.annotations.get(oci::IMAGE_NAME).and_then(|name| name.parse().ok());
    let mut found = ImageDocuments {
        digest: top.digest,
        name,
        package: None,
        version: None,
        documents: vec![layout.document(&top, "image index")?],
    };
    if !oci::is_index(&top.media_type) {
        let image: oci::Image = layout.json(&top, "manifest")?;
        found.describe(&image.annotations);
        return Ok(found);
    }
    let index: oci::Index = layout.json(&top, "image index")?;
    found.describe(&index.annotations);
    let count = index.manifests.len();
    if count > MAX_MANIFESTS {
        return Err(LayoutError::TooManyManifests { count, most: MAX_MANIFESTS });
    }
    for manifest in &index.manifests {
        // A layout may hold one platform of several.
        if oci::is_manifest(&manifest.media_type) && layout.has(manifest)? {
            found.documents.push(layout.document(manifest, "manifest")?);
        }
    }
    Ok(found)
}

impl ImageDocuments {
    fn describe(&mut self, annotations: &oci::Annotations) {
        self.package = annotations.get(oci::PACKAGE).cloned();
        self.version = annotations.get(oci::VERSION).cloned();
    }
}
