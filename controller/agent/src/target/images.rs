//! Which images of the store are whole, and how one goes. The store blocks.

use std::time::Duration;

use wick_fleet::Model;
use wick_package::{Digest, Reason as _};
use wick_registry::gc::Limits;
use wick_registry::{Store, StoreError};

/// Remove what nobody refers to and what is older than `grace`.
pub fn sweep(store: &Store, grace: Duration) {
    let limits = Limits { unused: None, bytes: None, grace };
    match store.gc(&limits, false) {
        Ok(swept) if swept.bytes > 0 => tracing::info!(bytes = swept.bytes, "swept the store"),
        Ok(_) => {}
        Err(error) => tracing::warn!(code = error.code(), %error, "the store can't be swept"),
    }
}

/// All whole images with what they count for. Those that `known` says nothing of count with what
/// they have.
///
/// # Errors
/// The store is damaged.
pub fn stored(store: &Store, known: &[Model]) -> Result<Vec<(Digest, u64)>, StoreError> {
    let mut stored = Vec::new();
    for image in store.images()? {
        let digest = image.digest();
        if !store.is_complete(&image.descriptor) {
            store.remove(&digest.to_string(), false)?;
            continue;
        }
        let bytes = match known.iter().find(|model| model.digest == digest) {
            Some(model) => model.bytes,
            None => store.size(&image.descriptor)?,
        };
        stored.push((digest, bytes));
    }
    Ok(stored)
}

/// Whether an image is gone, after it was removed if need be.
pub fn remove(store: &Store, digest: Digest) -> bool {
    match store.remove(&digest.to_string(), false) {
        Ok(_) | Err(StoreError::NoImage { .. }) => true,
        Err(error) => {
            tracing::warn!(%digest, code = error.code(), %error, "an image can't be removed");
            false
        }
    }
}
