//! From a file into the store: a bundle, or the tar of any layout whose images have names.
//!
//! First the documents are read and every blob is looked for; then blobs are copied and hashed on
//! the way; then, all at once, the images get their names. A file that is damaged anywhere leaves
//! nothing that has a name. A copy that was cut goes on where it stopped.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use wick_package::oci::{self, Descriptor, Image, Platform};
use wick_package::{Blob, Digest, Layout, LayoutError, OpenError, Reason, Reference};

use crate::bundle::{Bundled, POLICY, size};
use crate::progress::Progress;
use crate::referrers::MAX_TYPE;
use crate::store::{Claim, Ingest, Parts, Store, StoreError, parts};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// How often it is looked whether another process is done with a blob.
const LOOK: Duration = Duration::from_millis(50);

/// What a policy is, for the errors about its blob.
const POLICY_TYPE: &str = "application/vnd.wick.policy.v1+toml";

/// A file with images, whose documents have been checked.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    layout: Layout,
    digest: Digest,
    images: Vec<Bundled>,
    named: Vec<(Reference, Descriptor)>,
    referrers: Vec<(Digest, Descriptor)>,
    documents: Vec<Descriptor>,
    leaves: Vec<(Descriptor, Blob)>,
    policy: Option<String>,
}

/// What came into the store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Bytes that were copied.
    pub moved: u64,
    /// Bytes that were here already.
    pub kept: u64,
}

/// A file that was not loaded. Nothing of it has a name in the store.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{path}: the image {digest} has no name that is one: make the file with `wick bundle`")]
    NoName { path: PathBuf, digest: Digest },
    #[error("{path}: the image {name} is not for {wanted}")]
    Platform { path: PathBuf, name: String, wanted: Platform },
    #[error("{path}: its policy is not UTF-8 text")]
    Policy { path: PathBuf },
    #[error("{path}: its blob {want} has other bytes, {got}: get the file from its maker again")]
    Damaged { path: PathBuf, want: Digest, got: Digest },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Reason for LoadError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open(error) => error.code(),
            Self::NoName { .. } => "unsuitable-image",
            Self::Platform { .. } => "no-platform",
            Self::Policy { .. } | Self::Damaged { .. } => "damaged-layout",
            Self::Read { .. } => "unreadable-package",
            Self::Store(error) => error.code(),
        }
    }
}

// === impl Incoming ===

impl Incoming {
    /// Read what a file has, and look whether all of it is there. Blobs are not read yet.
    ///
    /// # Errors
    /// It is no layout, is cut short or damaged, or has an image without a name.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let layout = Layout::open(path)?;
        let at = |source| OpenError::Layout { path: path.to_owned(), source };
        let mut incoming = Self {
            path: path.to_owned(),
            digest: layout.digest().map_err(at)?,
            layout,
            images: Vec::new(),
            named: Vec::new(),
            referrers: Vec::new(),
            documents: Vec::new(),
            leaves: Vec::new(),
            policy: None,
        };
        let index = incoming.layout.index().map_err(at)?;
        let (images, others): (Vec<_>, Vec<_>) = index
            .manifests
            .into_iter()
            .partition(|entry| entry.annotations.contains_key(oci::IMAGE_NAME));
        let mut seen = BTreeSet::new();
        for entry in images {
            incoming.add_image(entry, &mut seen)?;
        }
        for entry in others {
            incoming.add_other(entry, &mut seen)?;
        }
        if incoming.named.is_empty() {
            return Err(at(LayoutError::Empty).into());
        }
        if let Some(digest) = index.annotations.get(POLICY) {
            incoming.policy = Some(incoming.read_policy(digest)?);
        }
        Ok(incoming)
    }

    /// The digest of its index, which holds for all that is in it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn images(&self) -> &[Bundled] {
        &self.images
    }

    /// What the images are called, and what they are.
    pub fn named(&self) -> &[(Reference, Descriptor)] {
        &self.named
    }

    /// The policy that came with them.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Have all of it in the store, under its names.
    ///
    /// # Errors
    /// A blob is damaged, or the disk is full. What came stays without a name, and the next try
    /// goes on from there.
    pub fn load(&self, store: &Store, progress: &dyn Progress) -> Result<Loaded, LoadError> {
        let leaves = self.leaves.iter().map(|(leaf, _)| leaf);
        let lease = store.lease()?;
        lease.protect(leaves.clone().chain(&self.documents).map(|part| part.digest))?;
        progress.planned(leaves.chain(&self.documents).map(|part| part.size).sum());
        let mut loaded = Loaded::default();
        for (leaf, blob) in &self.leaves {
            let moved = self.take(store, leaf, blob, progress)?;
            loaded.moved += moved;
            loaded.kept += leaf.size - moved;
        }
        // Whoever finds a document finds also what it refers to.
        for document in &self.documents {
            let bytes = self.layout.document(document, "manifest").map_err(|e| self.at(e))?;
            store.put(&bytes)?;
            progress.moved(document.size);
            loaded.moved += document.size;
        }
        store.enter(&lease, &self.named, &self.referrers)?;
        Ok(loaded)
    }

    fn add_image(
        &mut self,
        entry: Descriptor,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<(), LoadError> {
        let name = entry.annotations.get(oci::IMAGE_NAME).and_then(|name| name.parse().ok());
        let name: Reference = name
            .filter(|name: &Reference| {
                // A name that pins another image would answer for this one.
                name.digest().is_none_or(|pinned| pinned == entry.digest)
            })
            .ok_or_else(|| LoadError::NoName { path: self.path.clone(), digest: entry.digest })?;
        let image = Descriptor::new(&entry.media_type, entry.digest, entry.size);
        let parts = self.add(&image, seen)?;
        if parts.documents.is_empty() {
            let media_type = image.media_type;
            return Err(self.at(LayoutError::MediaType { what: "image", media_type }));
        }
        let host = Platform::host();
        if parts.absent.iter().any(|absent| absent.platform.as_ref() == Some(&host)) {
            let (path, name) = (self.path.clone(), name.to_string());
            return Err(LoadError::Platform { path, name, wanted: host });
        }
        let absent = parts.absent.iter().filter_map(|it| it.platform.as_ref());
        let absent = absent.filter(|it| it.os != "unknown").map(ToString::to_string).collect();
        let (digest, size) = (image.digest, size(&parts));
        let name_text = name.to_string();
        self.images.push(Bundled { name: name_text, digest, size, referrers: 0, absent });
        self.named.push((name, image));
        Ok(())
    }

    /// Something without a name: an artifact that refers to an image, or an image that nobody
    /// could ask for.
    fn add_other(
        &mut self,
        entry: Descriptor,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<(), LoadError> {
        let manifest: Option<Image> = match oci::is_manifest(&entry.media_type) {
            true => Some(self.layout.json(&entry, "manifest").map_err(|e| self.at(e))?),
            false => None,
        };
        let Some(subject) = manifest.and_then(|it| it.subject).map(|it| it.digest) else {
            return Err(LoadError::NoName { path: self.path.clone(), digest: entry.digest });
        };
        let referred: Vec<_> = self.images.iter_mut().filter(|it| it.digest == subject).collect();
        let is_image = self.named.iter().any(|(_, image)| image.digest == entry.digest);
        if referred.is_empty() || is_image {
            tracing::debug!(artifact = %entry.digest, "left out: it refers to nothing in the file");
            return Ok(());
        }
        referred.into_iter().for_each(|image| image.referrers += 1);
        let referrer = Descriptor::new(&entry.media_type, entry.digest, entry.size);
        self.add(&referrer, seen)?;
        let artifact_type = entry.artifact_type.filter(|kind| kind.len() <= MAX_TYPE);
        self.referrers.push((subject, Descriptor { artifact_type, ..referrer }));
        Ok(())
    }

    /// Note all that an image is made of, once.
    fn add(&mut self, image: &Descriptor, seen: &mut BTreeSet<Digest>) -> Result<Parts, LoadError> {
        let parts = parts(&self.layout, image).map_err(|error| self.at(error))?;
        for leaf in &parts.leaves {
            let blob = self.layout.find(leaf, "blob").map_err(|error| self.at(error))?;
            if seen.insert(leaf.digest) {
                self.leaves.push((leaf.clone(), blob));
            }
        }
        for document in &parts.documents {
            if seen.insert(document.digest) {
                self.documents.push(document.clone());
            }
        }
        Ok(parts)
    }

    fn read_policy(&self, digest: &str) -> Result<String, LoadError> {
        let missing = || self.at(LayoutError::MissingFile("policy"));
        let digest: Digest = digest.parse().map_err(|_| missing())?;
        let blob = self.layout.blob(digest).map_err(|error| self.at(error))?;
        let blob = blob.ok_or_else(missing)?;
        let policy = Descriptor::new(POLICY_TYPE, digest, blob.len);
        let bytes = self.layout.document(&policy, "policy").map_err(|error| self.at(error))?;
        String::from_utf8(bytes).map_err(|_| LoadError::Policy { path: self.path.clone() })
    }

    /// Copy a blob into the store, unless it is there; the bytes that were copied.
    fn take(
        &self,
        store: &Store,
        leaf: &Descriptor,
        blob: &Blob,
        progress: &dyn Progress,
    ) -> Result<u64, LoadError> {
        let mut ingest = loop {
            match store.claim(leaf)? {
                Claim::Have => {
                    progress.kept(leaf.size);
                    return Ok(0);
                }
                Claim::Ours(ingest) => break ingest,
                // Another process copies or fetches the same; it may yet fail.
                Claim::Busy => std::thread::sleep(LOOK),
            }
        };
        let inherited = ingest.inherited();
        progress.kept(inherited);
        self.copy(&mut ingest, blob, progress)?;
        match ingest.commit() {
            Ok(()) => return Ok(leaf.size - inherited),
            // What an earlier process left was damaged: all of it once more.
            Err(StoreError::Digest { .. }) if inherited > 0 => {}
            Err(error) => return Err(self.damaged(error)),
        }
        progress.undone(leaf.size);
        self.copy(&mut ingest, blob, progress)?;
        ingest.commit().map_err(|error| self.damaged(error))?;
        Ok(leaf.size)
    }

    /// Write what is missing of a blob.
    fn copy(
        &self,
        ingest: &mut Ingest,
        blob: &Blob,
        progress: &dyn Progress,
    ) -> Result<(), LoadError> {
        let read = |source| LoadError::Read { path: self.path.clone(), source };
        let (offset, len) = (blob.offset + ingest.at(), blob.len - ingest.at());
        let rest = Blob { offset, len, ..blob.clone() };
        let mut reader = rest.open().map_err(read)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    ingest.write(&buffer[..count])?;
                    progress.moved(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(read(source)),
            }
        }
    }

    fn at(&self, source: LayoutError) -> LoadError {
        OpenError::Layout { path: self.path.clone(), source }.into()
    }

    fn damaged(&self, error: StoreError) -> LoadError {
        match error {
            StoreError::Digest { want, got } => {
                LoadError::Damaged { path: self.path.clone(), want, got }
            }
            other => other.into(),
        }
    }
}
