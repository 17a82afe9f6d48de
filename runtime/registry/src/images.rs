//! An image at a registry, taken apart into what must move. What it says is small and read first;
//! nothing else is fetched here.

use std::collections::BTreeSet;
use std::sync::Arc;

use wick_package::oci::{self, Descriptor, Image, Index, Platform};
use wick_package::{Digest, Reference};

use crate::api::{Document, Repository};
use crate::client::Registry;
use crate::error::RegistryError;
use crate::progress::Progress;

/// Indexes in indexes, and manifests of one index. Images have one for each platform.
const MAX_DEPTH: usize = 4;
const MAX_MANIFESTS: usize = 64;

/// Layers of an image: overlay file systems stop near here.
const MAX_LAYERS: usize = 127;

/// Documents of an image with all that is below it, and their bytes: they are in memory until all
/// else has moved. A hundred platforms with attestations are half of that.
const MAX_DOCUMENTS: usize = 512;
const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

/// Which parts of an image are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platforms {
    /// What this machine runs, and others that have the same layers.
    Host,
    /// Everything, attestations included.
    All,
}

/// An image taken apart.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Indexes and manifests, children before parents; the last is the image itself.
    pub(crate) documents: Vec<Document>,
    /// Configs and layers, each once.
    pub(crate) leaves: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
    /// Documents that were asked for, and their bytes.
    asked: (usize, u64),
}

// === impl Tree ===

impl Tree {
    /// Everything that is referred to here.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> {
        let documents = self.documents.iter().map(|document| document.descriptor.digest);
        documents.chain(self.leaves.iter().map(|leaf| leaf.digest))
    }

    pub(crate) fn bytes(&self) -> u64 {
        let documents = self.documents.iter().map(|document| document.descriptor.size);
        documents.chain(self.leaves.iter().map(|leaf| leaf.size)).sum()
    }

    fn add(&mut self, document: Document, image: Image) {
        for leaf in std::iter::once(image.config).chain(image.layers) {
            if self.seen.insert(leaf.digest) {
                self.leaves.push(leaf);
            }
        }
        self.push(document);
    }

    fn push(&mut self, document: Document) {
        if self.seen.insert(document.descriptor.digest) {
            self.documents.push(document);
        }
    }

    /// Count a document before it is asked for.
    fn ask(&mut self, reference: &Reference, document: &Descriptor) -> Result<(), RegistryError> {
        let (count, bytes) = self.asked;
        self.asked = (count + 1, bytes.saturating_add(document.size));
        limit(reference, "documents", self.asked.0 as u64, MAX_DOCUMENTS as u64)?;
        limit(reference, "bytes of documents", self.asked.1, MAX_DOCUMENT_BYTES)
    }
}

// === impl Registry ===

impl Registry {
    /// Find what a reference stands for now, at a mirror or the registry itself. From here on
    /// everything goes by digest: a tag may move meanwhile.
    pub(crate) async fn resolve(
        &self,
        reference: &Reference,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Repository, Document), RegistryError> {
        let places = self.readable(reference)?;
        let last = places.len().saturating_sub(1);
        for (number, at) in places.into_iter().enumerate() {
            match self.document(&at, &reference.selector(), progress).await {
                Ok(document) => return Ok((at, document)),
                Err(error) if number < last => {
                    tracing::warn!(mirror = at.host(), %error, "the mirror does not help");
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("a registry itself is always among the places")
    }

    /// Take an image apart.
    pub(crate) async fn tree(
        &self,
        at: &Repository,
        reference: &Reference,
        root: Document,
        platforms: Platforms,
        progress: &Arc<dyn Progress>,
    ) -> Result<Tree, RegistryError> {
        let mut tree = Tree::default();
        match platforms {
            Platforms::All => self.all((at, reference), root, 0, &mut tree, progress).await?,
            Platforms::Host => self.host(at, reference, root, &mut tree, progress).await?,
        }
        Ok(tree)
    }

    async fn host(
        &self,
        at: &Repository,
        reference: &Reference,
        root: Document,
        tree: &mut Tree,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        let mut parents = Vec::new();
        let mut others = Vec::new();
        let mut next = root;
        while oci::is_index(&next.descriptor.media_type) {
            if parents.len() == MAX_DEPTH {
                return Err(at.odd(&reference.to_string(), "indexes in indexes without end"));
            }
            let index: Index = parse_index(at, reference, &next)?;
            let chosen = choose(reference, &index)?;
            others.extend(index.manifests.iter().filter(|it| is_sibling(it, &chosen)).cloned());
            parents.push(next);
            next = self.child((at, reference), &chosen, tree, progress).await?;
        }
        let image = parse_image(at, reference, &next)?;
        let layers: BTreeSet<_> = image.layers.iter().map(|layer| layer.digest).collect();
        tree.add(next, image);
        for other in others {
            // Nothing that this machine runs depends on it. A signature is for the index, which
            // names the manifest that was chosen; the others' bytes prove nothing here, and who
            // needs them finds that they are missing.
            let (document, image) = match self
                .sibling((at, reference), &other, tree, progress)
                .await
            {
                Ok(sibling) => sibling,
                Err(error) => {
                    let manifest = other.digest;
                    tracing::warn!(%reference, %manifest, %error, "another platform was left out");
                    // Who fails for a while would be waited for at each of them.
                    if error.is_transient() {
                        break;
                    }
                    continue;
                }
            };
            // Ours for another processor: it costs a few hundred bytes, and keeps the image whole.
            if image.layers.iter().all(|layer| layers.contains(&layer.digest)) {
                tree.add(document, image);
            }
        }
        parents.into_iter().rev().for_each(|parent| tree.push(parent));
        Ok(())
    }

    async fn all(
        &self,
        (at, reference): (&Repository, &Reference),
        document: Document,
        depth: usize,
        tree: &mut Tree,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        if depth == MAX_DEPTH {
            return Err(at.odd(&reference.to_string(), "indexes in indexes without end"));
        }
        if oci::is_index(&document.descriptor.media_type) {
            for child in parse_index(at, reference, &document)?.manifests {
                if tree.seen.contains(&child.digest) {
                    continue;
                }
                let child = self.child((at, reference), &child, tree, progress).await?;
                let below = self.all((at, reference), child, depth + 1, tree, progress);
                Box::pin(below).await?;
            }
            tree.push(document);
        } else {
            let image = parse_image(at, reference, &document)?;
            tree.add(document, image);
        }
        Ok(())
    }

    /// The manifest of another platform.
    async fn sibling(
        &self,
        (at, reference): (&Repository, &Reference),
        wanted: &Descriptor,
        tree: &mut Tree,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Document, Image), RegistryError> {
        let document = self.child((at, reference), wanted, tree, progress).await?;
        let image = parse_image(at, reference, &document)?;
        Ok((document, image))
    }

    /// A document that another refers to, checked against what that says.
    async fn child(
        &self,
        (at, reference): (&Repository, &Reference),
        wanted: &Descriptor,
        tree: &mut Tree,
        progress: &Arc<dyn Progress>,
    ) -> Result<Document, RegistryError> {
        tree.ask(reference, wanted)?;
        let document = self.document(at, &wanted.digest.to_string(), progress).await?;
        let what = || format!("{}@{}", at.name, wanted.digest);
        let (want, got) = (wanted.size, document.descriptor.size);
        if want != got {
            return Err(RegistryError::Length { host: at.host(), what: what(), want, got });
        }
        let (want, got) = (&wanted.media_type, &document.descriptor.media_type);
        if oci::is_index(want) != oci::is_index(got) {
            // It could be stored and not be opened again: that is done by what the index says.
            let why = format!("it is of type `{got}`, and its index says `{want}`");
            return Err(at.odd(&what(), why));
        }
        Ok(document)
    }
}

fn parse_index(
    at: &Repository,
    reference: &Reference,
    document: &Document,
) -> Result<Index, RegistryError> {
    let index: Index = document.parse(at)?;
    limit(reference, "manifests", index.manifests.len() as u64, MAX_MANIFESTS as u64)?;
    Ok(index)
}

fn parse_image(
    at: &Repository,
    reference: &Reference,
    document: &Document,
) -> Result<Image, RegistryError> {
    let media_type = &document.descriptor.media_type;
    if !oci::is_manifest(media_type) {
        let (reference, media_type) = (reference.to_string(), media_type.clone());
        return Err(RegistryError::NotAnImage { reference, media_type });
    }
    let image: Image = document.parse(at)?;
    limit(reference, "layers", image.layers.len() as u64, MAX_LAYERS as u64)?;
    Ok(image)
}

/// Refuse what is more than is taken.
pub(crate) fn limit(
    reference: &Reference,
    what: &'static str,
    count: u64,
    most: u64,
) -> Result<(), RegistryError> {
    if count <= most {
        return Ok(());
    }
    Err(RegistryError::TooMany { reference: reference.to_string(), what, count, most })
}

/// The entry of an index for this machine.
fn choose(reference: &Reference, index: &Index) -> Result<Descriptor, RegistryError> {
    let host = Platform::host();
    let images: Vec<_> = index.manifests.iter().filter(|entry| is_image(entry)).collect();
    let ours = images.iter().find(|entry| entry.platform.as_ref() == Some(&host));
    match (ours, images.as_slice()) {
        (Some(ours), _) => Ok((**ours).clone()),
        // One that does not say what it is for, and nothing else.
        (None, [only]) if only.platform.is_none() => Ok((*only).clone()),
        _ => {
            let name = |entry: &&Descriptor| match &entry.platform {
                Some(platform) => platform.to_string(),
                None => "an unnamed platform".to_owned(),
            };
            Err(RegistryError::Platform {
                reference: reference.to_string(),
                wanted: host.to_string(),
                there: images.iter().map(name).collect(),
            })
        }
    }
}

fn is_sibling(entry: &Descriptor, chosen: &Descriptor) -> bool {
    entry.digest != chosen.digest && is_image(entry) && oci::is_manifest(&entry.media_type)
}

/// Attestations lie beside images in an index, with a platform that is none.
fn is_image(entry: &Descriptor) -> bool {
    let none = entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    !none && (oci::is_index(&entry.media_type) || oci::is_manifest(&entry.media_type))
}
