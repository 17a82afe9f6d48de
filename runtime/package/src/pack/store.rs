//! Where a layout's blobs are written: a folder or a tar, under a temporary name until
//! all of it is there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::layout::is_tar_of_layout;
use crate::oci;
use crate::pack::Format;
use crate::pack::error::PackError;
use crate::pack::layer::{Out, headers};
use crate::tarslice::{BLOCK, padded};

/// All that a layout folder holds. A folder with anything else in it is not replaced,
/// since that would delete it.
const LAYOUT_NAMES: [&str; 4] = [oci::LAYOUT_FILE, oci::INDEX_FILE, "blobs", "ingest"];

/// End of the name of what is being written.
const PARTIAL: &str = "partial";

/// How often a file is made anew that was taken for a dead packer's before it was locked.
const TRIES: usize = 16;

/// Name of a blob while its digest is not known.
const INCOMING: &str = "incoming";

/// A layout that is being written.
pub(super) struct Store {
    out: PathBuf,
    temporary: PathBuf,
    kind: Kind,
    finished: bool,
}

enum Kind {
    Folder,
    Tar { file: File, at: u64 },
}

/// Writes a blob and hashes it.
struct Sink<'a> {
    file: &'a File,
    path: &'a Path,
    hasher: Sha256,
    count: u64,
}

// === impl Store ===

impl Store {
    /// Begin. What lies at `out` stays until [`Store::finish`].
    pub(super) fn create(out: &Path, format: Format) -> Result<Self, PackError> {
        check_place(out, format)?;
        let (temporary, kind) = match format {
            Format::Folder => {
                let path = beside(out, PARTIAL)?;
                let made = fs::create_dir(&path);
                made.map_err(|source| PackError::Write { path: path.clone(), source })?;
                (path, Kind::Folder)
            }
            Format::Tar => {
                remove_left(out);
                let (path, file) = create_file(out)?;
                (path, Kind::Tar { file, at: 0 })
            }
        };
        // From here on dropping the store cleans up.
        let store = Self { out: out.to_owned(), temporary, kind, finished: false };
        if format == Format::Folder {
            let blobs = store.temporary.join("blobs/sha256");
            fs::create_dir_all(&blobs)
                .map_err(|source| PackError::Write { path: blobs.clone(), source })?;
        }
        Ok(store)
    }

    /// Write a small file.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        match &mut self.kind {
            Kind::Folder => {
                let path = self.temporary.join(name);
                let written = File::create(&path).and_then(|mut file| {
                    file.write_all(bytes)?;
                    file.sync_all()
                });
                written.map_err(|source| PackError::Write { path, source })
            }
            Kind::Tar { file, at } => {
                let mut member = headers(name, bytes.len() as u64);
                member.extend_from_slice(bytes);
                member.resize(member.len().next_multiple_of(BLOCK as usize), 0);
                *at += member.len() as u64;
                let path = self.temporary.clone();
                file.write_all(&member).map_err(|source| PackError::Write { path, source })
            }
        }
    }

    /// Write a blob that is in memory.
    pub(super) fn blob_of(&mut self, bytes: &[u8]) -> Result<Digest, PackError> {
        self.blob(bytes.len() as u64, &mut |out| out.write(bytes))
    }

    /// Write a blob of exactly `len` bytes; its name is the digest of what `fill` writes.
    pub(super) fn blob(
        &mut self,
        len: u64,
        fill: &mut dyn FnMut(&mut dyn Out) -> Result<(), PackError>,
    ) -> Result<Digest, PackError> {
        match &mut self.kind {
            Kind::Folder => folder_blob(&self.temporary, len, fill),
            Kind::Tar { file, at } => tar_blob(file, at, &self.temporary, len, fill),
        }
    }

    /// Put the whole layout in place.
    pub(super) fn finish(mut self) -> Result<(), PackError> {
        let write = |path: &Path, source| PackError::Write { path: path.to_owned(), source };
        if let Kind::Tar { file, .. } = &mut self.kind {
            let end = [0; 2 * BLOCK as usize];
            let written = file.write_all(&end).and_then(|()| file.sync_all());
            written.map_err(|source| write(&self.temporary, source))?;
        }
        let folder = matches!(self.kind, Kind::Folder);
        if folder && self.out.exists() {
            self.replace_folder()?;
        } else {
            // A rename over a file is atomic.
            fs::rename(&self.temporary, &self.out).map_err(|source| write(&self.out, source))?;
        }
        self.finished = true;
        Ok(())
    }

    /// Folders can't be renamed over others, so the old one steps aside and comes back
    /// if the new one can't take its place.
    fn replace_folder(&self) -> Result<(), PackError> {
        let write = |source| PackError::Write { path: self.out.clone(), source };
        let old = beside(&self.out, "old")?;
        fs::rename(&self.out, &old).map_err(write)?;
        if let Err(error) = fs::rename(&self.temporary, &self.out) {
            fs::rename(&old, &self.out).map_err(write)?;
            return Err(write(error));
        }
        fs::remove_dir_all(&old).map_err(|source| PackError::Write { path: old, source })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Best effort: the error that led here is the one to report.
        let _ = match self.kind {
            Kind::Folder => fs::remove_dir_all(&self.temporary),
            Kind::Tar { .. } => fs::remove_file(&self.temporary),
        };
    }
}

// === impl Sink ===

impl Out for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
        let mut file = self.file;
        file.write_all(bytes)
            .map_err(|source| PackError::Write { path: self.path.to_owned(), source })
    }
}

fn folder_blob(
    root: &Path,
    len: u64,
    fill: &mut dyn FnMut(&mut dyn Out) -> Result<(), PackError>,
) -> Result<Digest, PackError> {
    let path = root.join(INCOMING);
    let write = |source| PackError::Write { path: path.clone(), source };
    let file = File::create(&path).map_err(write)?;
    let mut sink = Sink { file: &file, path: &path, hasher: Sha256::new(), count: 0 };
    fill(&mut sink)?;
    debug_assert_eq!(sink.count, len, "the length of a blob is known before");
    let digest = Digest::from_hasher(sink.hasher);
    file.sync_all().map_err(write)?;
    fs::rename(&path, root.join(oci::blob_name(digest))).map_err(write)?;
    Ok(digest)
}

/// The header comes first and holds the digest, which is known last: room is left and
/// filled in afterwards, so that weights are read only once.
fn tar_blob(
    file: &mut File,
    at: &mut u64,
    path: &Path,
    len: u64,
    fill: &mut dyn FnMut(&mut dyn Out) -> Result<(), PackError>,
) -> Result<Digest, PackError> {
    let write = |source| PackError::Write { path: path.to_owned(), source };
    file.write_all(&[0; BLOCK as usize]).map_err(write)?;
    let mut sink = Sink { file, path, hasher: Sha256::new(), count: 0 };
    fill(&mut sink)?;
    debug_assert_eq!(sink.count, len, "the length of a blob is known before");
    let digest = Digest::from_hasher(sink.hasher);
    let whole = padded(len).ok_or_else(|| write(io::Error::from(io::ErrorKind::FileTooLarge)))?;
    let rest = usize::try_from(whole - len).unwrap_or_default();
    file.write_all(&[0; BLOCK as usize][..rest]).map_err(write)?;
    file.write_all_at(&headers(&oci::blob_name(digest), len), *at).map_err(write)?;
    *at += BLOCK + whole;
    Ok(digest)
}

/// Only a layout, or nothing, may lie where one is written.
fn check_place(out: &Path, format: Format) -> Result<(), PackError> {
    let occupied = || Err(PackError::Occupied { path: out.to_owned() });
    let meta = match fs::symlink_metadata(out) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(PackError::Write { path: out.to_owned(), source }),
    };
    match format {
        Format::Tar if meta.is_file() && is_tar_of_layout(out) => Ok(()),
        Format::Folder if meta.is_dir() => {
            let read = |source| PackError::Write { path: out.to_owned(), source };
            let mut empty = true;
            for entry in fs::read_dir(out).map_err(read)? {
                let name = entry.map_err(read)?.file_name();
                if !LAYOUT_NAMES.iter().any(|known| name == *known) {
                    return occupied();
                }
                empty = false;
            }
            if empty || out.join(oci::LAYOUT_FILE).is_file() { Ok(()) } else { occupied() }
        }
        _ => occupied(),
    }
}

/// A file to write to, locked for as long as it is open.
fn create_file(out: &Path) -> Result<(PathBuf, File), PackError> {
    for _ in 0..TRIES {
        let path = beside(out, PARTIAL)?;
        let file = File::options().write(true).create_new(true).open(&path);
        let file = file.map_err(|source| PackError::Write { path: path.clone(), source })?;
        // Where files can't be locked, nothing is removed either.
        let _ = file.try_lock();
        if path.exists() {
            return Ok((path, file));
        }
    }
    let source = io::Error::other("what is written is removed again and again");
    Err(PackError::Write { path: out.to_owned(), source })
}

/// Remove what killed packers have left of the same file: they may be as large as a disk. Those who
/// live hold a lock. Best effort: nothing depends on it.
fn remove_left(out: &Path) {
    let Some(name) = out.file_name().and_then(|name| name.to_str()) else { return };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or_else(|| Path::new(".")));
    for path in entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        let hidden = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = hidden.strip_prefix(&format!(".{name}."));
        let id = id.and_then(|rest| rest.strip_suffix(&format!(".{PARTIAL}")));
        let ours = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if id.is_some_and(ours) && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// A hidden name in the same folder, so that the rename stays on one file system. Id and
/// time keep two packers apart, and what a killed one left, even in containers, where
/// ids repeat.
fn beside(out: &Path, what: &str) -> Result<PathBuf, PackError> {
    let Some(name) = out.file_name() else {
        return Err(PackError::Occupied { path: out.to_owned() });
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hidden.push(format!(".{}-{}.{what}", std::process::id(), since.as_nanos()));
    Ok(out.with_file_name(hidden))
}
