//! Which of a layout's images is meant.

use crate::digest::Digest;
use crate::layout::blobs::Layout;
use crate::layout::error::LayoutError;
use crate::oci::{self, Descriptor};

/// Indexes below `index.json`. Packers write one; more than a few is a loop.
const MAX_DEPTH: usize = 3;

/// The image that was chosen.
pub(super) struct Chosen {
    /// What `index.json` points to: the image index, or the manifest.
    pub(super) digest: Digest,
    /// The manifest for this machine.
    pub(super) manifest: Descriptor,
}

/// Go from `index.json` to the manifest for this machine's architecture, or to any if
/// there is none: all have the same layers. A layout with several images needs to be told
/// which is `wanted`.
pub(super) fn image(blobs: &Layout, wanted: Option<Digest>) -> Result<Chosen, LayoutError> {
    let mut next = top(blobs, wanted)?;
    let digest = next.digest;
    for _ in 0..MAX_DEPTH {
        match next.media_type.as_str() {
            media_type if oci::is_index(media_type) => {
                let index: oci::Index = blobs.json(&next, "image index")?;
                next = best(&index, oci::host_architecture())?;
            }
            _ => return Ok(Chosen { digest, manifest: next }),
        }
    }
    Err(LayoutError::TooDeep(MAX_DEPTH))
}

/// What `index.json` points to: an image index, or a manifest.
pub(super) fn top(blobs: &Layout, wanted: Option<Digest>) -> Result<Descriptor, LayoutError> {
    let top: oci::Index = blobs.index()?;
    match wanted {
        None => best(&top, oci::host_architecture()),
        Some(digest) => {
            let found = top.manifests.into_iter().find(|descriptor| descriptor.digest == digest);
            found.ok_or(LayoutError::NoSuchImage(digest))
        }
    }
}

/// The only image of a layout, with all its platforms.
pub(super) fn only(top: &oci::Index) -> Result<Descriptor, LayoutError> {
    match candidates(top).as_slice() {
        [] => Err(nothing(top)),
        [only] => Ok((*only).clone()),
        several => Err(LayoutError::Ambiguous(several.iter().map(|it| name(it)).collect())),
    }
}

/// The images of an index. The same one under several names counts once.
fn candidates(index: &oci::Index) -> Vec<&Descriptor> {
    let mut candidates: Vec<&Descriptor> = Vec::new();
    for descriptor in &index.manifests {
        let known = candidates.iter().any(|other| other.digest == descriptor.digest);
        if !known && is_image(descriptor) {
            candidates.push(descriptor);
        }
    }
    candidates
}

/// The only image of an index, or the one for the architecture.
fn best(index: &oci::Index, host: &str) -> Result<Descriptor, LayoutError> {
    let candidates = candidates(index);
    let same_host = |descriptor: &&&Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == host)
    };
    let one_of_many = candidates.iter().all(|descriptor| descriptor.platform.is_some());
    let for_host: Vec<_> = candidates.iter().filter(same_host).collect();
    match (candidates.as_slice(), for_host.as_slice()) {
        ([], _) => Err(nothing(index)),
        ([only], _) => Ok((*only).clone()),
        (_, [only]) if one_of_many => Ok((**only).clone()),
        ([first, ..], []) if one_of_many => Ok((*first).clone()),
        _ => Err(LayoutError::Ambiguous(candidates.into_iter().map(name).collect())),
    }
}

/// Attestations and artifacts lie beside images in an index.
fn is_image(descriptor: &Descriptor) -> bool {
    let unknown = descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    let media_type = descriptor.media_type.as_str();
    let artifact = descriptor.artifact_type.is_some();
    !unknown && !artifact && (oci::is_index(media_type) || oci::is_manifest(media_type))
}

fn nothing(index: &oci::Index) -> LayoutError {
    match index.manifests.first() {
        Some(other) => {
            LayoutError::MediaType { what: "image", media_type: other.media_type.clone() }
        }
        None => LayoutError::Empty,
    }
}

fn name(descriptor: &Descriptor) -> String {
    let names = &descriptor.annotations;
    let name = names.get(oci::IMAGE_NAME).or_else(|| names.get(oci::REF_NAME));
    name.cloned().unwrap_or_else(|| descriptor.digest.to_string())
}
