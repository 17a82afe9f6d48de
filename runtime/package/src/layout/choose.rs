//! Which of a layout's images is meant.

use crate::digest::Digest;
use crate::layout::blobs::Blobs;
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
/// there is none: all have the same layers.
pub(super) fn image(blobs: &Blobs) -> Result<Chosen, LayoutError> {
    let mut next = top(blobs)?;
    let digest = next.digest;
    for _ in 0..MAX_DEPTH {
        match next.media_type.as_str() {
            oci::INDEX | oci::DOCKER_INDEX => {
                let index: oci::Index = blobs.json(&next, "image index")?;
                next = best(&index, host_architecture())?;
            }
            _ => return Ok(Chosen { digest, manifest: next }),
        }
    }
    Err(LayoutError::TooDeep(MAX_DEPTH))
}

/// What `index.json` points to: the image index, or the manifest.
pub(super) fn top(blobs: &Blobs) -> Result<Descriptor, LayoutError> {
    best(&blobs.index()?, host_architecture())
}

/// The only image of an index, or the one for the architecture.
fn best(index: &oci::Index, host: &str) -> Result<Descriptor, LayoutError> {
    let mut candidates: Vec<&Descriptor> = Vec::new();
    for descriptor in &index.manifests {
        // The same image under several names counts once.
        let known = candidates.iter().any(|other| other.digest == descriptor.digest);
        if !known && is_image(descriptor) {
            candidates.push(descriptor);
        }
    }
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
    !unknown
        && matches!(
            descriptor.media_type.as_str(),
            oci::INDEX | oci::DOCKER_INDEX | oci::MANIFEST | oci::DOCKER_MANIFEST
        )
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

/// This machine's architecture as images spell it.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
