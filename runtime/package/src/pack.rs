//! Packs a package into an OCI image layout, which containerd imports and `wick run`
//! takes as it is.
//!
//! ```text
//! index.json -> image index -> manifest linux/amd64 -> config
//!                           -> manifest linux/arm64 -> config
//!                                both -> code layer, a layer for each weights file
//! ```
//!
//! The same files always give the same bytes: no time, owner or order of this machine
//! gets in. Weights are read once, streamed and hashed on the way.

mod archive;
mod document;
mod error;
mod layer;
mod store;

use std::path::Path;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::layout::{Layer, LayerRole};
use crate::manifest::FileRole;
use crate::names::RelPath;
use crate::oci::{self, Descriptor};
use crate::package::Package;
use crate::parse::{MANIFEST_FILE, MAX_MANIFEST_LEN, parse};
use crate::reference::ImageRef;

pub use archive::Archive;
use document::Documents;
pub use error::PackError;
use layer::{Member, Written};
use store::Store;

/// The platforms of an image. They share all layers: WebAssembly and weights are the
/// same everywhere.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// How a layout is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder of blobs.
    Folder,
    /// One tar, as `ctr images import` and `docker load` take it.
    Tar,
}

/// What may be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    pub format: Format,
    /// Name of the image. Absent: `docker.io/library/NAME:VERSION`.
    pub reference: Option<ImageRef>,
}

/// How far packing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file that is read now.
    pub file: &'a str,
    /// Bytes of all files together, so far.
    pub done: u64,
    pub total: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Packed {
    /// The whole name of the image.
    pub reference: String,
    /// Of the image index: what is signed, pinned and pulled by.
    pub digest: Digest,
    pub layers: Vec<Layer>,
}

/// Files that become one layer.
struct Plan<'a> {
    role: LayerRole,
    members: Vec<Member<'a>>,
}

/// Write a package as an image layout.
///
/// `out` appears whole or not at all. A layout that was there is replaced; anything
/// else is left alone.
///
/// # Errors
/// `out` is something else than a layout, a file can't be read or changed meanwhile,
/// or the disk is full. Nothing is left behind.
pub fn write_layout(
    package: &Package,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Packed, PackError> {
    let manifest_path = manifest_path();
    let plans = plans(package, &manifest_path)?;
    let reference = match &options.reference {
        Some(reference) => reference.clone(),
        None => ImageRef::of(package.manifest()),
    };
    let reference = reference.or_tag(package.manifest());
    let mut store = Store::create(out, options.format)?;
    store.file(oci::LAYOUT_FILE, &document::marker())?;
    let total = plans.iter().flat_map(|plan| &plan.members).map(|member| member.blob.len).sum();
    let mut done = 0;
    let mut layers = Vec::with_capacity(plans.len());
    let mut descriptors = Vec::with_capacity(plans.len());
    for plan in &plans {
        let mut tell = |file: &str, bytes: u64| {
            done += bytes;
            progress(Progress { file, done, total });
        };
        let written = layer::write(&mut store, &plan.members, &mut tell)?;
        descriptors.push(layer_descriptor(plan, &written));
        layers.push(summary(plan, &written));
    }
    let documents = Documents::new(package.manifest(), &descriptors);
    let digest = write_documents(&mut store, &documents, &reference)?;
    store.finish()?;
    Ok(Packed { reference: reference.to_string(), digest, layers })
}

fn manifest_path() -> RelPath {
    MANIFEST_FILE.parse().expect("the constant is a relative path")
}

/// The code layer with all small files, then a layer for each weights file, in the
/// order of the manifest: a new version with the same weights moves kilobytes.
fn plans<'a>(package: &'a Package, manifest: &'a RelPath) -> Result<Vec<Plan<'a>>, PackError> {
    let member = |path: &'a RelPath| -> Result<Member<'a>, PackError> {
        let blob = package.file(path);
        let blob = blob.map_err(|source| PackError::Read { path: path.to_string(), source })?;
        Ok(Member { path: path.as_str(), blob })
    };
    let files = package.manifest().files();
    let (weights, small): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.role == FileRole::Weights);
    let manifest = member(manifest)?;
    check_manifest(package, &manifest.blob)?;
    let mut members = vec![manifest];
    for file in small {
        members.push(member(file.path)?);
    }
    members.sort_by_key(|member| member.path);
    let mut plans = vec![Plan { role: LayerRole::Code, members }];
    for file in weights {
        plans.push(Plan { role: LayerRole::Weights, members: vec![member(file.path)?] });
    }
    Ok(plans)
}

/// The manifest that is packed is the one that was checked.
fn check_manifest(package: &Package, blob: &Blob) -> Result<(), PackError> {
    let read = |source| PackError::Read { path: MANIFEST_FILE.to_owned(), source };
    let bytes = blob.read(MAX_MANIFEST_LEN).map_err(read)?;
    let text = std::str::from_utf8(&bytes).ok();
    let now = text.and_then(|text| parse(text, Path::new(MANIFEST_FILE)).ok());
    if now.as_ref() == Some(package.manifest()) {
        return Ok(());
    }
    Err(PackError::Changed { path: MANIFEST_FILE.to_owned() })
}

fn layer_descriptor(plan: &Plan<'_>, written: &Written) -> Descriptor {
    let role = match plan.role {
        LayerRole::Code => "code",
        LayerRole::Weights => "weights",
    };
    let annotations = [
        (oci::LAYER_ROLE.to_owned(), role.to_owned()),
        (oci::LAYER_FILES.to_owned(), document::text(&written.files)),
    ];
    let layer = Descriptor::new(oci::LAYER, written.digest, written.size);
    Descriptor { annotations: annotations.into(), ..layer }
}

fn summary(plan: &Plan<'_>, written: &Written) -> Layer {
    let files = plan.members.iter().map(|member| member.path.to_owned()).collect();
    Layer { role: plan.role, size: written.size, digest: Some(written.digest), files }
}

/// Configs, manifests, the image index and `index.json`.
///
/// `index.json` points to one nested image index, and that to the two manifests.
/// containerd's import makes an image record for each descriptor of `index.json`,
/// named by its annotation: two manifests there would be two records with one name,
/// and the second would overwrite the first. The nested index is one record for both
/// platforms, and its digest is the one that a registry knows the image by.
fn write_documents(
    store: &mut Store,
    documents: &Documents<'_>,
    reference: &ImageRef,
) -> Result<Digest, PackError> {
    let mut manifests = Vec::with_capacity(ARCHITECTURES.len());
    for architecture in ARCHITECTURES {
        let config = documents.config(architecture);
        let config_digest = store.blob_of(&config)?;
        let manifest = documents.manifest(config_digest, config.len());
        let digest = store.blob_of(&manifest)?;
        manifests.push(documents.platform(architecture, digest, manifest.len()));
    }
    let index = documents.index(manifests);
    let digest = store.blob_of(&index)?;
    store.file(oci::INDEX_FILE, &document::top(digest, index.len(), reference))?;
    Ok(digest)
}
