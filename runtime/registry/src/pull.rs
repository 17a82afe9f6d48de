//! From a registry into the store.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use wick_package::oci::Descriptor;
use wick_package::{Digest, Reference};

use crate::client::Registry;
use crate::download::{Fetched, blocking};
use crate::error::RegistryError;
use crate::images::{Platforms, Tree};
use crate::progress::Progress;
use crate::referrers::Brought;
use crate::store::{Lease, Store};

/// What was pulled.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Pulled {
    pub reference: String,
    /// Of the index, or of the manifest where there is none.
    pub digest: Digest,
    #[serde(skip)]
    pub image: Descriptor,
    /// Bytes that came over the wire.
    pub moved: u64,
    /// Bytes that were here already.
    pub kept: u64,
    /// Artifacts that refer to it and came with it, for instance signatures.
    pub referrers: usize,
}

// === impl Registry ===

impl Registry {
    /// Pull an image, and what refers to it, into the store, and name it there. Blobs that are
    /// there don't move. If it fails, what came stays, and the next try goes on from there.
    ///
    /// # Errors
    /// The registry fails or lies, the image is not for this machine, or the disk is full.
    pub async fn pull(
        &self,
        reference: &Reference,
        store: &Store,
        progress: Arc<dyn Progress>,
    ) -> Result<Pulled, RegistryError> {
        let (at, root) = self.resolve(reference, &progress).await?;
        let image = root.descriptor.clone();
        let tree = self.tree(&at, reference, root, Platforms::Host, &progress).await?;
        let leasing = store.clone();
        let digests: Vec<_> = tree.digests().collect();
        let lease = blocking(move || {
            let lease = leasing.lease()?;
            lease.protect(digests)?;
            Ok(lease)
        });
        let lease = Arc::new(lease.await?);
        progress.planned(tree.bytes());
        let mut fetched = self.fetch_tree(&at, tree, store, &progress).await?;
        let brought = self.pull_referrers(&at, image.digest, store, &lease, &progress).await;
        let referrers = match brought {
            Err(RegistryError::Store(error)) => return Err(error.into()),
            // The image is whole. Who needs a signature will say that there is none.
            Err(error) => {
                tracing::warn!(%reference, %error, "what refers to the image was not pulled");
                Brought::default()
            }
            Ok(brought) => brought,
        };
        fetched.moved += referrers.bytes;
        let name = name_once(store, &lease, &image, reference);
        name.await?;
        Ok(Pulled {
            reference: reference.to_string(),
            digest: image.digest,
            image,
            moved: fetched.moved,
            kept: fetched.kept,
            referrers: referrers.count,
        })
    }

    /// Have all of a tree in the store: the large blobs in parallel, then the documents, so that
    /// whoever finds one finds also what it refers to.
    pub(crate) async fn fetch_tree(
        &self,
        at: &crate::api::Repository,
        tree: Tree,
        store: &Store,
        progress: &Arc<dyn Progress>,
    ) -> Result<Fetched, RegistryError> {
        let parallel = self.settings().parallel.max(1);
        let mut leaves = tree.leaves;
        // The longest first, so that none is alone in the end.
        leaves.sort_by_key(|leaf| std::cmp::Reverse(leaf.size));
        // Owned by its future, which may then move between threads.
        let fetches = leaves
            .into_iter()
            .map(|leaf| async move { self.fetch(at, &leaf, store, progress).await });
        let fetched: Vec<Fetched> =
            stream::iter(fetches).buffer_unordered(parallel).try_collect().await?;
        let mut sum = Fetched::default();
        for one in fetched {
            sum.moved += one.moved;
            sum.kept += one.kept;
        }
        for document in tree.documents {
            let size = document.descriptor.size;
            let store = store.clone();
            blocking(move || store.put(&document.bytes)).await?;
            // It has come in any case: to ask whether it is known takes as long.
            progress.moved(size);
            sum.moved += size;
        }
        Ok(sum)
    }
}

async fn name_once(
    store: &Store,
    lease: &Arc<Lease>,
    image: &Descriptor,
    reference: &Reference,
) -> Result<(), RegistryError> {
    let (store, lease) = (store.clone(), lease.clone());
    let (image, reference) = (image.clone(), reference.clone());
    blocking(move || store.name(&lease, &image, &reference)).await
}
