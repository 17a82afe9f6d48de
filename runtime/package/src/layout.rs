//! A package as an OCI image layout, a folder or its tar, read in place.
//!
//! ```text
//! index.json -> image index -> manifest of one platform -> config
//!                                                       -> layers -> files
//! ```
//!
//! Documents and the layers that hold code are hashed when they are opened. Weights
//! are not: they are large, and a start must not read them; `seal` does.

mod blobs;
mod choose;
mod documents;
mod error;
mod seal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::manifest::{FileRole, Manifest};
use crate::mistakes::ManifestErrors;
use crate::names::RelPath;
use crate::oci::{self, Descriptor};
use crate::open_error::OpenError;
use crate::parse::{MANIFEST_FILE, MAX_MANIFEST_LEN, parse};
use crate::tarslice::{self, Entry, EntryKind};

pub use blobs::Layout;
pub use documents::ImageDocuments;
pub use error::LayoutError;
pub(crate) use seal::seal;

/// Most layers of an image: overlay file systems stop near here.
const MAX_LAYERS: usize = 127;

/// One layer, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Layer {
    pub role: LayerRole,
    /// Bytes of its tar; of its files when it was not packed yet.
    pub size: u64,
    /// None when it was not packed yet.
    pub digest: Option<Digest>,
    pub files: Vec<String>,
}

/// What a layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerRole {
    /// The manifest, the component and other small files.
    Code,
    /// Only weights.
    Weights,
}

/// A layer and where it lies.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayer {
    pub(crate) layer: Layer,
    blob: Blob,
}

pub(crate) type Files = BTreeMap<RelPath, Blob>;

/// What a layout holds.
pub(crate) struct Opened {
    pub(crate) manifest: Manifest,
    /// Of the image index, or of the manifest where there is no index.
    pub(crate) digest: Digest,
    pub(crate) files: Files,
    pub(crate) layers: Vec<StoredLayer>,
}

/// Why a layout was not opened.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is something else.
    NotALayout,
    Manifest(ManifestErrors),
    Layout(LayoutError),
}

/// Which layer each file comes from, and where it is.
type Places = BTreeMap<RelPath, (usize, Blob)>;

/// Open a folder with an `oci-layout`, or one image of several.
pub(crate) fn open_folder(root: &Path, image: Option<Digest>) -> Result<Opened, Fault> {
    open(&Layout::folder(root), root, image)
}

/// Open the tar of a layout.
pub(crate) fn open_tar(path: &Path) -> Result<Opened, Fault> {
    open(&Layout::tar(path)?, path, None)
}

/// The layout and the digest that a path to one of its blobs stands for.
pub(crate) fn image_in(path: &Path) -> Option<(&Path, Digest)> {
    let name = path.file_name()?.to_str()?;
    let image = format!("sha256:{name}").parse().ok()?;
    let root = path.parent()?.parent()?.parent()?;
    let place = path.ends_with(oci::blob_name(image)) && root.join(oci::LAYOUT_FILE).is_file();
    place.then_some((root, image))
}

/// The parsed `wick.toml` of a layer, to look at a package without its weights. None if the
/// layer has no such file. What it names is not looked for.
///
/// # Errors
/// The layer is no tar, or the manifest has mistakes.
pub fn manifest_of_layer(layer: &Blob) -> Result<Option<Manifest>, OpenError> {
    let damaged = |source| Fault::Layout(source).at(&layer.path);
    let entries = tarslice::entries(layer);
    let entries = entries.map_err(|source| damaged(LayoutError::Tar { what: "layer", source }))?;
    for entry in entries {
        let path = file_path(&entry).map_err(damaged)?;
        if path.is_some_and(|path| path.as_str() == MANIFEST_FILE) {
            let Entry { offset, len, .. } = entry;
            let blob = Blob { path: layer.path.clone(), offset, len, digest: None };
            let bytes = manifest_bytes(&blob).map_err(damaged)?;
            return parse_manifest(bytes, Path::new("")).map(Some).map_err(|f| f.at(&layer.path));
        }
    }
    Ok(None)
}

/// Whether a file is the tar of a layout, whole or not.
pub(crate) fn is_tar_of_layout(path: &Path) -> bool {
    Layout::tar(path).is_ok()
}

fn open(blobs: &Layout, path: &Path, image: Option<Digest>) -> Result<Opened, Fault> {
    blobs.check_marker()?;
    let chosen = choose::image(blobs, image)?;
    let image: oci::Image = blobs.json(&chosen.manifest, "manifest")?;
    check_config(blobs, &image)?;
    let stored = image.layers.iter().map(|layer| Ok((layer, find_layer(blobs, layer)?)));
    let stored = stored.collect::<Result<Vec<_>, LayoutError>>()?;
    let mut places = places(&stored)?;
    let mut hashed = BTreeSet::new();
    let manifest = read_manifest(&stored, &mut places, &mut hashed, path)?;
    check_code(&stored, &places, &manifest, &mut hashed)?;
    let layers = summaries(stored, &places, &manifest);
    let files = places.into_iter().map(|(path, (_, blob))| (path, blob)).collect();
    Ok(Opened { manifest, digest: chosen.digest, files, layers })
}

/// The config must describe the same layers: containerd unpacks by it.
fn check_config(blobs: &Layout, image: &oci::Image) -> Result<(), LayoutError> {
    if image.layers.len() > MAX_LAYERS {
        return Err(LayoutError::TooManyLayers { count: image.layers.len(), most: MAX_LAYERS });
    }
    let config: oci::Config = blobs.json(&image.config, "image config")?;
    let same = image.layers.iter().map(|layer| layer.digest).eq(config.rootfs.diff_ids);
    // Layers that are compressed have other digests, and their own error.
    let plain = image.layers.iter().all(|layer| layer_form(layer).is_ok());
    if plain && !same {
        return Err(LayoutError::Disagree);
    }
    Ok(())
}

fn find_layer(blobs: &Layout, layer: &Descriptor) -> Result<Blob, LayoutError> {
    layer_form(layer)?;
    blobs.find(layer, "layer")
}

fn layer_form(layer: &Descriptor) -> Result<(), LayoutError> {
    let media_type = layer.media_type.as_str();
    if matches!(media_type, oci::LAYER | oci::DOCKER_LAYER) {
        return Ok(());
    }
    let compressed = [".gzip", "+gzip", "+zstd"].iter().any(|end| media_type.ends_with(end));
    let media_type = media_type.to_owned();
    Err(match compressed {
        true => LayoutError::CompressedLayer { media_type },
        false => LayoutError::MediaType { what: "layer", media_type },
    })
}

/// Index all layers; a file of a later layer hides one of an earlier, as in a container.
fn places(stored: &[(&Descriptor, Blob)]) -> Result<Places, LayoutError> {
    let mut places = Places::new();
    for (number, (descriptor, blob)) in stored.iter().enumerate() {
        let entries = tarslice::entries(blob);
        let entries = entries.map_err(|source| LayoutError::Tar { what: "layer", source })?;
        let digests = recorded_digests(descriptor);
        for entry in entries {
            let Some(path) = file_path(&entry)? else { continue };
            let digest = digests.get(path.as_str()).copied();
            let Entry { offset, len, .. } = entry;
            let file = Blob { path: blob.path.clone(), offset, len, digest };
            places.insert(path, (number, file));
        }
    }
    Ok(places)
}

/// The path of an ordinary file; none for a directory.
fn file_path(entry: &Entry) -> Result<Option<RelPath>, LayoutError> {
    let refuse = |fault| Err(LayoutError::Entry { name: entry.name.clone(), fault });
    let name = entry.name.trim_start_matches("./");
    match entry.kind {
        EntryKind::Directory if matches!(name, "" | "." | "/") => return Ok(None),
        EntryKind::File | EntryKind::Directory => {}
        EntryKind::Link => return refuse("is a link: pack the file itself"),
        EntryKind::Other => return refuse("is not an ordinary file"),
    }
    let Ok(path) = name.strip_suffix('/').unwrap_or(name).parse::<RelPath>() else {
        return refuse("leads outside the package, or is no path");
    };
    if path.as_str().split('/').any(|part| part.starts_with(".wh.")) {
        return refuse("deletes a file of an earlier layer: build the image from one stage");
    }
    Ok((entry.kind == EntryKind::File).then_some(path))
}

/// Digests of single files, where the packer wrote them. Others' images have none.
fn recorded_digests(layer: &Descriptor) -> BTreeMap<String, Digest> {
    let text = layer.annotations.get(oci::LAYER_FILES);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The digest of what is parsed is kept with the file, to be compared when all is hashed.
fn read_manifest(
    stored: &[(&Descriptor, Blob)],
    places: &mut Places,
    hashed: &mut BTreeSet<usize>,
    layout: &Path,
) -> Result<Manifest, Fault> {
    let (number, blob) = places.get_mut(MANIFEST_FILE).ok_or(LayoutError::NoManifest)?;
    check_once(stored, *number, hashed)?;
    let bytes = manifest_bytes(blob)?;
    let got = Digest::of(&bytes);
    if let Some(want) = blob.digest.replace(got).filter(|want| *want != got) {
        let what = format!("file `{MANIFEST_FILE}`");
        return Err(LayoutError::Digest { what, want, got }.into());
    }
    parse_manifest(bytes, layout)
}

fn manifest_bytes(blob: &Blob) -> Result<Vec<u8>, LayoutError> {
    if blob.len > MAX_MANIFEST_LEN {
        let (len, most) = (blob.len, MAX_MANIFEST_LEN);
        return Err(LayoutError::Long { what: MANIFEST_FILE, len, most });
    }
    blob.read(MAX_MANIFEST_LEN).map_err(|source| LayoutError::Io { what: MANIFEST_FILE, source })
}

fn parse_manifest(bytes: Vec<u8>, layout: &Path) -> Result<Manifest, Fault> {
    let text = String::from_utf8(bytes).map_err(|_| LayoutError::NotText)?;
    parse(&text, &layout.join(MANIFEST_FILE)).map_err(Fault::Manifest)
}

/// Hash the layers with the other small files.
fn check_code(
    stored: &[(&Descriptor, Blob)],
    places: &Places,
    manifest: &Manifest,
    hashed: &mut BTreeSet<usize>,
) -> Result<(), LayoutError> {
    let small = manifest.files().into_iter().filter(|file| file.role != FileRole::Weights);
    for file in small {
        if let Some((number, _)) = places.get(file.path) {
            check_once(stored, *number, hashed)?;
        }
    }
    Ok(())
}

fn check_once(
    stored: &[(&Descriptor, Blob)],
    number: usize,
    hashed: &mut BTreeSet<usize>,
) -> Result<(), LayoutError> {
    if hashed.insert(number) {
        let (descriptor, blob) = &stored[number];
        let got = blob.hash().map_err(|source| LayoutError::Io { what: "layer", source })?;
        return same(Some(descriptor.digest), got, || "a layer".to_owned());
    }
    Ok(())
}

fn same(want: Option<Digest>, got: Digest, what: impl Fn() -> String) -> Result<(), LayoutError> {
    match want {
        Some(want) if want != got => Err(LayoutError::Digest { what: what(), want, got }),
        _ => Ok(()),
    }
}

fn summaries(
    stored: Vec<(&Descriptor, Blob)>,
    places: &Places,
    manifest: &Manifest,
) -> Vec<StoredLayer> {
    let weights: BTreeSet<_> = manifest
        .files()
        .into_iter()
        .filter(|file| file.role == FileRole::Weights)
        .map(|file| file.path)
        .collect();
    let mut contents: Vec<Vec<&RelPath>> = vec![Vec::new(); stored.len()];
    for (path, (number, _)) in places {
        contents[*number].push(path);
    }
    let summary = |((descriptor, blob), paths): ((&Descriptor, Blob), Vec<&RelPath>)| {
        let heavy = !paths.is_empty() && paths.iter().all(|path| weights.contains(path));
        let layer = Layer {
            role: if heavy { LayerRole::Weights } else { LayerRole::Code },
            size: descriptor.size,
            digest: Some(descriptor.digest),
            files: paths.iter().map(|path| path.as_str().to_owned()).collect(),
        };
        StoredLayer { layer, blob }
    };
    stored.into_iter().zip(contents).map(summary).collect()
}

// === impl Layer, Fault ===

impl Layer {
    /// A layer that is not packed yet.
    pub(crate) fn planned(role: LayerRole, files: &[&str], len: impl Fn(&str) -> u64) -> Self {
        let size = files.iter().map(|file| len(file)).sum();
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Self { role, size, digest: None, files }
    }
}

impl Fault {
    /// The error for who opened something at `path`.
    pub(crate) fn at(self, path: &Path) -> OpenError {
        match self {
            Self::NotALayout => OpenError::NotAPackage { path: path.to_owned() },
            Self::Manifest(errors) => OpenError::Manifest(errors),
            Self::Layout(source) => OpenError::Layout { path: path.to_owned(), source },
        }
    }
}

impl From<LayoutError> for Fault {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}
