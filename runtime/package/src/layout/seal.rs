//! Hashing all of an image in one pass: each layer, and from the same bytes each file in it. So
//! every file gets a digest that the layer's holds for, also where no packer has recorded one.

use sha2::{Digest as _, Sha256};

use crate::blob::Blob;
use crate::digest::Digest;
use crate::layout::error::LayoutError;
use crate::layout::{Files, StoredLayer, same};

/// The bytes of one file, as they come by in its layer.
struct Part<'a> {
    path: &'a str,
    file: &'a mut Blob,
    hasher: Sha256,
}

/// Hash all layers; a file without a recorded digest gets the one that it has.
///
/// # Errors
/// The first layer or file that is not what was recorded.
pub(crate) fn seal(layers: &[StoredLayer], files: &mut Files) -> Result<(), LayoutError> {
    for StoredLayer { layer, blob } in layers {
        let inside = |file: &Blob| {
            let end = |it: &Blob| it.offset.saturating_add(it.len);
            file.path == blob.path && file.offset >= blob.offset && end(file) <= end(blob)
        };
        let mut parts = Vec::new();
        for (path, file) in files.iter_mut().filter(|(_, file)| inside(file)) {
            parts.push(Part { path: path.as_str(), file, hasher: Sha256::new() });
        }
        let mut whole = Sha256::new();
        let mut at = blob.offset;
        let read = blob.stream(|chunk| {
            whole.update(chunk);
            parts.iter_mut().for_each(|part| part.pass(at, chunk));
            at += chunk.len() as u64;
            Ok(())
        });
        read.map_err(|source| LayoutError::Io { what: "layer", source })?;
        same(layer.digest, Digest::from_hasher(whole), || "a layer".to_owned())?;
        for Part { path, file, hasher } in parts {
            let got = Digest::from_hasher(hasher);
            same(file.digest.replace(got), got, || format!("file `{path}`"))?;
        }
    }
    Ok(())
}

// === impl Part ===

impl Part<'_> {
    /// Take what is its own of a chunk that begins at `at`.
    fn pass(&mut self, at: u64, chunk: &[u8]) {
        let within = |place: u64| {
            let place = place.saturating_sub(at).min(chunk.len() as u64);
            usize::try_from(place).unwrap_or(chunk.len())
        };
        let (start, end) = (self.file.offset, self.file.offset + self.file.len);
        self.hasher.update(&chunk[within(start)..within(end)]);
    }
}
