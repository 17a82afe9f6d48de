//! An opened package: a directory, or an OCI layout as a folder or a tar.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::blob::Blob;
use crate::digest::Digest;
use crate::directory;
use crate::layout::{self, Layer, LayerRole, LayoutError, StoredLayer};
use crate::manifest::{FileRole, Handler, Idle, Limits, Manifest, Wants, Warmup};
use crate::names::{PackageName, RelPath};
use crate::open_error::{FileError, FileErrors, FileFault, OpenError};
use crate::parse::MANIFEST_FILE;

/// A package that was opened and whose manifest was parsed.
#[derive(Debug, Clone)]
pub struct Package {
    manifest: Manifest,
    path: PathBuf,
    digest: Digest,
    source: Source,
    /// What a guest sees instead of the directory.
    guest_root: Option<PathBuf>,
    /// Whether files must have the digests that they are recorded with, whenever they are read.
    sealed: bool,
}

#[derive(Debug, Clone)]
enum Source {
    Directory { root: PathBuf },
    Layout { files: BTreeMap<RelPath, Blob>, layers: Vec<StoredLayer> },
}

// === impl Package ===

impl Package {
    /// Open a directory with a `wick.toml` (or that file), an OCI layout folder, its tar, or
    /// one image of a layout folder with many, by the path of its document (`blobs/sha256/…`).
    /// Nothing is unpacked.
    ///
    /// # Errors
    /// Nothing is there, the manifest has mistakes (all of them), files that it names
    /// are missing or empty (all of them), or a layout is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let meta = std::fs::metadata(path);
        let meta = meta.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let package = if meta.is_dir() {
            Self::open_folder(path)?
        } else if path.file_name().is_some_and(|name| name == MANIFEST_FILE) {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Self::open_directory(path, parent.unwrap_or_else(|| Path::new(".")))?
        } else if let Some((root, image)) = layout::image_in(path) {
            return Self::open_image(root, image);
        } else if meta.is_file() {
            Self::open_layout(path, layout::open_tar(path))?
        } else {
            return Err(OpenError::NotAPackage { path: path.to_owned() });
        };
        package.check_files()?;
        Ok(package)
    }

    /// Open one image of a layout folder with many, by the digest that its `index.json` has.
    ///
    /// # Errors
    /// Those of [`Package::open`], or there is no such image.
    pub fn open_image(layout: &Path, image: Digest) -> Result<Self, OpenError> {
        let package = Self::open_layout(layout, layout::open_folder(layout, Some(image)))?;
        package.check_files()?;
        Ok(package)
    }

    /// A package round one component or core module, for images without a `wick.toml`:
    /// `component` below `root`, which its guest sees. It has no graphs; what it asks for is
    /// what its host says.
    ///
    /// # Errors
    /// There is no such file, or it is empty.
    pub fn bare(
        root: &Path,
        component: RelPath,
        name: PackageName,
        wants: Wants,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let path = root.join(component.as_str());
        let manifest = Manifest {
            name,
            version: semver::Version::new(0, 0, 0),
            description: None,
            handler: Some(Handler { component, reuse: 1 }),
            graphs: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            limits,
            idle: Idle::default(),
            warmup: Warmup::default(),
            wants,
        };
        let digest = directory::digest(root, "", &manifest);
        let source = Source::Directory { root: root.to_owned() };
        let package = Self { manifest, path, digest, source, guest_root: None, sealed: false };
        package.check_files()?;
        Ok(package)
    }

    /// The same package, whose guest sees another folder as its image: in a container the
    /// directory also holds what is mounted into it.
    #[must_use]
    pub fn with_guest_root(mut self, root: PathBuf) -> Self {
        self.guest_root = Some(root);
        self
    }

    /// The parsed `wick.toml`.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The same files under a changed manifest, to try settings without writing a file.
    #[must_use]
    pub fn with_manifest(mut self, manifest: Manifest) -> Self {
        self.manifest = manifest;
        self
    }

    /// Where it was opened, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was opened: the digest of a layout's index, which holds for every byte, or
    /// for a directory one over the manifest and the size and times of its files.
    /// Opening a changed package again gives another one.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Find a file of the package. In a directory it is looked up now, so its length is
    /// today's.
    ///
    /// # Errors
    /// There is no such file.
    pub fn file(&self, path: &RelPath) -> io::Result<Blob> {
        self.find(path).map_err(|fault| {
            let kind = match fault {
                FileFault::Missing => io::ErrorKind::NotFound,
                _ => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, format!("`{path}` of package `{}` {fault}", self.manifest.name))
        })
    }

    /// A folder that a guest may see as its own image, where there is one: the
    /// directory of a directory package. A layout is never unpacked, so it has none.
    pub fn guest_root(&self) -> Option<&Path> {
        match &self.source {
            _ if self.guest_root.is_some() => self.guest_root.as_deref(),
            Source::Directory { root } => Some(root),
            Source::Layout { .. } => None,
        }
    }

    /// What it is made of, for people: the layers of a layout, or the layers that a
    /// directory would be packed into, without digests.
    pub fn layers(&self) -> Vec<Layer> {
        match &self.source {
            Source::Layout { layers, .. } => {
                layers.iter().map(|stored| stored.layer.clone()).collect()
            }
            Source::Directory { root } => self.planned_layers(root),
        }
    }

    /// Hash every byte of a layout and compare with what it records, streaming.
    /// A directory records nothing, so there is nothing to compare.
    ///
    /// # Errors
    /// The first layer or file that differs.
    pub fn verify(&self) -> Result<(), OpenError> {
        match &self.source {
            Source::Directory { .. } => Ok(()),
            Source::Layout { files, layers } => {
                let sealed = layout::seal(layers, &mut files.clone());
                sealed.map_err(|source| self.damaged(source))
            }
        }
    }

    /// Hash every byte as [`Package::verify`] does, and hold to it: whoever loads a file of it
    /// later compares the bytes with [`Package::must_have`], so that nothing is loaded that was
    /// exchanged after it was hashed.
    ///
    /// # Errors
    /// The first layer or file that differs.
    pub fn sealed(mut self) -> Result<Self, OpenError> {
        if let Source::Layout { files, layers } = &mut self.source
            && let Err(source) = layout::seal(layers, files)
        {
            return Err(self.damaged(source));
        }
        self.sealed = true;
        Ok(self)
    }

    /// The digest that the bytes of a file of a sealed package must have when they are read; none
    /// for others, whose weights are not hashed.
    pub fn must_have(&self, file: &Blob) -> Option<Digest> {
        file.digest.filter(|_| self.sealed)
    }

    fn open_folder(path: &Path) -> Result<Self, OpenError> {
        if path.join(MANIFEST_FILE).exists() {
            return Self::open_directory(path, path);
        }
        if path.join(crate::oci::LAYOUT_FILE).exists() {
            return Self::open_layout(path, layout::open_folder(path, None));
        }
        Err(OpenError::NotAPackage { path: path.to_owned() })
    }

    fn open_directory(path: &Path, root: &Path) -> Result<Self, OpenError> {
        let directory::Opened { manifest, digest } = directory::open(root)?;
        let source = Source::Directory { root: root.to_owned() };
        Ok(Self::unsealed(manifest, path, digest, source))
    }

    fn open_layout(
        path: &Path,
        opened: Result<layout::Opened, layout::Fault>,
    ) -> Result<Self, OpenError> {
        let opened = opened.map_err(|fault| fault.at(path))?;
        let layout::Opened { manifest, digest, files, layers } = opened;
        let source = Source::Layout { files, layers };
        Ok(Self::unsealed(manifest, path, digest, source))
    }

    fn unsealed(manifest: Manifest, path: &Path, digest: Digest, source: Source) -> Self {
        let path = path.to_owned();
        Self { manifest, path, digest, source, guest_root: None, sealed: false }
    }

    fn find(&self, path: &RelPath) -> Result<Blob, FileFault> {
        match &self.source {
            Source::Directory { root } => directory::file(root, path),
            Source::Layout { files, .. } => files.get(path).cloned().ok_or(FileFault::Missing),
        }
    }

    /// Every file that the manifest names is there and has content.
    fn check_files(&self) -> Result<(), FileErrors> {
        let faults = self.manifest.files().into_iter().filter_map(|file| {
            let fault = match self.find(file.path) {
                Ok(blob) if blob.len == 0 => FileFault::Empty,
                Ok(_) => return None,
                Err(fault) => fault,
            };
            let named_by = self.manifest.named_by(file.path);
            Some(FileError { path: file.path.clone(), named_by, fault })
        });
        let files: Vec<_> = faults.collect();
        if files.is_empty() {
            return Ok(());
        }
        Err(FileErrors { package: self.path.clone(), files })
    }

    fn planned_layers(&self, root: &Path) -> Vec<Layer> {
        let len = |path: &str| std::fs::metadata(root.join(path)).map_or(0, |meta| meta.len());
        let (weights, small): (Vec<_>, Vec<_>) =
            self.manifest.files().into_iter().partition(|file| file.role == FileRole::Weights);
        let small = small.iter().map(|file| file.path.as_str());
        let code: Vec<_> = std::iter::once(MANIFEST_FILE).chain(small).collect();
        let code = Layer::planned(LayerRole::Code, &code, len);
        let weights = weights
            .iter()
            .map(|file| Layer::planned(LayerRole::Weights, &[file.path.as_str()], len));
        std::iter::once(code).chain(weights).collect()
    }

    fn damaged(&self, source: LayoutError) -> OpenError {
        OpenError::Layout { path: self.path.clone(), source }
    }
}
