//! The store: an OCI layout that all commands of a machine share.
//!
//! ```text
//!   ROOT/oci-layout, index.json     which images there are, and their names
//!   ROOT/blobs/sha256/HEX           whole blobs: they land by rename, after fsync
//!   ROOT/ingest/HEX                 what is on its way; locked by who fetches or writes it
//!   ROOT/leases/…                   what somebody uses or fetches; locked while he lives
//!   ROOT/lock                       held for a moment: to change any of the above
//! ```
//!
//! Safe for many processes and for a kill at any instant. All locks are `flock`s, which the
//! system takes back from who died. `index.json` is replaced by rename and so is read without a
//! lock. What is referenced there, or named by a living lease, is never deleted.

mod check;
pub mod gc;
mod index;
mod ingest;
mod lease;
mod sweep;
mod walk;
mod work;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use wick_package::oci::{self, Descriptor};
use wick_package::{Digest, Layout, LayoutError, OpenError, Package, Reason, Reference};

pub use check::{Fault, Report};
pub use index::StoredImage;
pub(crate) use ingest::{Claim, Ingest};
pub use lease::Lease;
pub use sweep::{Damaged, Swept};
pub(crate) use walk::{Parts, parts};
pub use work::Work;

/// Below the user's folder for data.
const FOLDER: &str = "wick/store";

const INGEST: &str = "ingest";
const LEASES: &str = "leases";
const LOCK: &str = "lock";

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Held while the store's own files change: for milliseconds.
pub(crate) struct Guard(#[expect(dead_code, reason = "the lock lasts as long as the file")] File);

/// A store that can't be used, or has not got what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("no room for {path}: free some, for instance with `wick gc`; what came stays")]
    Full { path: PathBuf, source: io::Error },
    #[error("blob {digest} has {got} bytes instead of {want}")]
    Length { digest: Digest, want: u64, got: u64 },
    #[error("the bytes for blob {want} have digest {got}")]
    Digest { want: Digest, got: Digest },
    #[error("there is no image {wanted} in {root}")]
    NoImage { wanted: String, root: PathBuf },
    #[error("`{wanted}` is the beginning of several digests in {root}: write more of it")]
    Ambiguous { wanted: String, root: PathBuf },
    #[error("{root} is damaged: mend it with `wick images --repair`")]
    Damaged { root: PathBuf, source: LayoutError },
    #[error("the list of images in {root} is full: remove some with `wick rm`")]
    IndexFull { root: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenError),
}

// === impl Store ===

impl Store {
    /// Open a store, or make it.
    ///
    /// # Errors
    /// The folder can't be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for folder in ["blobs/sha256", INGEST, LEASES] {
            let path = store.root.join(folder);
            fs::create_dir_all(&path).map_err(|source| store_io(&path, source))?;
        }
        let marker = store.root.join(oci::LAYOUT_FILE);
        if !marker.exists() || !store.root.join(oci::INDEX_FILE).exists() {
            let _guard = store.lock()?;
            store.begin()?;
        }
        Ok(store)
    }

    /// Where a user's store is: `$XDG_DATA_HOME/wick/store`, or below `~/.local/share`.
    pub fn default_root(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let data = env("XDG_DATA_HOME").map(PathBuf::from).filter(absolute);
        let home = || env("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        data.or_else(home).map(|data| data.join(FOLDER))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The store as a layout, to read documents and blobs.
    ///
    /// # Errors
    /// It was damaged from outside.
    pub fn layout(&self) -> Result<Layout, StoreError> {
        Ok(Layout::open(&self.root)?)
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join(oci::blob_name(digest))
    }

    /// Whether a blob is here in its whole length.
    pub fn has(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob_path(blob.digest)).is_ok_and(|meta| meta.len() == blob.size)
    }

    /// Open a package of the store. Hold the lease for as long as the package is used: its
    /// files may be deleted without.
    ///
    /// # Errors
    /// It is damaged, or is no package.
    pub fn open_package(&self, image: &Descriptor) -> Result<(Package, Lease), StoreError> {
        let lease = self.hold(image)?;
        Ok((Package::open_image(&self.root, image.digest)?, lease))
    }

    /// A lease on an image that is used from now on. Only its documents are read: whoever asks for
    /// signatures has not looked at them yet.
    ///
    /// # Errors
    /// Its documents are damaged, or not here.
    pub fn hold(&self, image: &Descriptor) -> Result<Lease, StoreError> {
        let lease = self.lease()?;
        lease.protect_image(image)?;
        self.used(image.digest)?;
        Ok(lease)
    }

    /// Store a small blob.
    ///
    /// # Errors
    /// The disk is full, for instance.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(digest);
        // Not by length alone: a document is short enough to look at.
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(digest);
        }
        self.write_whole(&path, bytes)?;
        Ok(digest)
    }

    /// Take a whole blob that is a file of the same file system already, without copying.
    ///
    /// # Errors
    /// It can't be renamed.
    pub(crate) fn adopt(&self, file: &Path, digest: Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        fs::rename(file, &path).map_err(|source| store_io(&path, source))?;
        self.sync_folder(&path)
    }

    /// Take over the only image of a layout folder, whose files may be renamed into the store, and
    /// name it. For layouts that were made for this; the folder is no layout afterwards.
    ///
    /// # Errors
    /// The layout is damaged or has several images, or the disk is full.
    pub fn import_layout(
        &self,
        layout: &Path,
        reference: &Reference,
    ) -> Result<Descriptor, StoreError> {
        let from = Layout::open(layout)?;
        let damaged =
            |source| StoreError::Open(OpenError::Layout { path: layout.to_owned(), source });
        let image = from.only_image().map_err(damaged)?;
        let parts = parts(&from, &image).map_err(damaged)?;
        let lease = self.lease()?;
        lease.protect(parts.blobs.keys().copied())?;
        for leaf in &parts.leaves {
            let blob = from.find(leaf, "blob").map_err(damaged)?;
            if self.has(leaf) {
                continue;
            }
            let whole = blob.offset == 0 && blob.path != self.blob_path(leaf.digest);
            // On another file system it is copied, and checked on the way.
            if !whole || self.adopt(&blob.path, leaf.digest).is_err() {
                let mut reader = blob.open().map_err(|source| store_io(&blob.path, source))?;
                self.ingest(leaf, &mut reader)?;
            }
        }
        for document in &parts.documents {
            self.put(&from.document(document, "manifest").map_err(damaged)?)?;
        }
        self.name(&lease, &image, reference)?;
        Ok(image)
    }

    /// Find an image by reference, or by its digest or the beginning of it.
    ///
    /// # Errors
    /// There is none, or several digests begin so.
    pub fn find(&self, wanted: &str) -> Result<StoredImage, StoreError> {
        let reference: Option<Reference> = wanted.parse().ok();
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let images = self.images()?;
        let named = |image: &&StoredImage| {
            reference.as_ref().is_some_and(|reference| image.answers(reference))
        };
        if let Some(image) = images.iter().find(named) {
            return Ok(image.clone());
        }
        let none = || StoreError::NoImage { wanted: wanted.to_owned(), root: self.root.clone() };
        if hex.len() < MIN_PREFIX || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none());
        }
        let mut found = images.iter().filter(|image| image.digest().hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(image.clone()),
            (None, _) => Err(none()),
            _ => Err(StoreError::Ambiguous { wanted: wanted.to_owned(), root: self.root.clone() }),
        }
    }

    /// Wait for the store's lock. Nobody holds it for longer than a few milliseconds.
    pub(crate) fn lock(&self) -> Result<Guard, StoreError> {
        let path = self.root.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.and_then(|file| file.lock().map(|()| file));
        Ok(Guard(file.map_err(|source| store_io(&path, source))?))
    }

    /// Write a file so that others see all of it or nothing, even after a power cut.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let io = |source| store_io(path, source);
        let mut work = self.scratch_file()?;
        let file = &mut work.made;
        file.write_all(bytes).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(readable).map_err(io)?;
        work.made.persist(path).map_err(|error| io(error.error))?;
        self.sync_folder(path)
    }

    /// Make a rename into this file's folder last.
    pub(crate) fn sync_folder(&self, path: &Path) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.root);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| store_io(folder, source))
    }

    /// The files of an empty store, where they are missing.
    fn begin(&self) -> Result<(), StoreError> {
        let marker = self.root.join(oci::LAYOUT_FILE);
        if !marker.exists() {
            let version = oci::Marker { image_layout_version: oci::LAYOUT_VERSION.to_owned() };
            self.write_whole(&marker, &serde_json::to_vec(&version).unwrap_or_default())?;
        }
        // An index that is gone while images are there was lost: `repair` makes it anew, and
        // an empty one would have their blobs collected.
        let blobs = self.root.join("blobs/sha256");
        let empty =
            fs::read_dir(&blobs).map_err(|source| store_io(&blobs, source))?.next().is_none();
        if empty && !self.root.join(oci::INDEX_FILE).exists() {
            self.write_index(Vec::new())?;
        }
        Ok(())
    }
}

/// Fewest digits of a digest that stand for an image: shorter ones are words too often.
const MIN_PREFIX: usize = 6;

/// Files without a lease and without a reference that are younger than this are somebody's
/// work: of a pull that was killed, and will go on where it stopped.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// An error of the file system. A full disk has its own words.
pub(crate) fn store_io(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { path, source }
        }
        _ => StoreError::Io { path, source },
    }
}

// === impl StoreError ===

impl Reason for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::IndexFull { .. } => "store-unusable",
            Self::Full { .. } => "disk-full",
            Self::Length { .. } | Self::Digest { .. } => "damaged-transfer",
            Self::NoImage { .. } => "image-not-found",
            Self::Ambiguous { .. } => "ambiguous-digest",
            Self::Damaged { .. } => "damaged-store",
            Self::Open(error) => error.code(),
        }
    }
}
