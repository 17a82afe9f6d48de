//! The record in an entry: its files, how they looked, and their digests.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wick_package::Digest;

/// The record's file name.
const NAME: &str = "entry.json";

/// Longest record that is read; a real one has a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What an entry holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    files: Vec<FileRecord>,
}

/// How an entry was found.
#[derive(Debug)]
pub(super) enum State {
    Good,
    Absent,
    Damaged(&'static str),
}

#[derive(Debug, Serialize, Deserialize)]
struct FileRecord {
    name: String,
    stamp: Stamp,
    digest: Digest,
}

/// What the file system says of a file: if none of it has changed, the content has
/// not either. The device is no part of it: each mount of the same image has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub inode: u64,
    pub size: u64,
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

// === impl Stamp ===

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

// === impl Record ===

impl Record {
    /// Record the files of a folder that is complete, after they have reached the
    /// disk: a power cut must not leave a good record over missing data.
    pub(super) fn write(folder: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
            File::open(&path)?.sync_all()?;
            let digest = digest(&path)?;
            files.push(FileRecord { name, stamp: (&fs::metadata(&path)?).into(), digest });
        }
        let text = serde_json::to_vec(&Self { files })?;
        fs::write(folder.join(NAME), text)?;
        File::open(folder.join(NAME))?.sync_all()
    }

    /// Whether the folder holds what its record says. Files that look as they did
    /// are trusted; others are hashed. Those of a `sealed` folder are root's, who has
    /// checked and copied them: only size and last write are compared.
    pub(super) fn check(folder: &Path, sealed: bool) -> io::Result<State> {
        let path = folder.join(NAME);
        let text = match fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_BYTES => return Ok(State::Damaged("its record is large")),
            Ok(_) => fs::read(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if folder.exists() {
                    State::Damaged("it has no record")
                } else {
                    State::Absent
                });
            }
            Err(error) => return Err(error),
        };
        let Ok(record) = serde_json::from_slice::<Self>(&text) else {
            return Ok(State::Damaged("its record is no JSON of ours"));
        };
        if record.files.is_empty() {
            return Ok(State::Damaged("its record is empty"));
        }
        for file in &record.files {
            if !file.matches(folder, sealed)? {
                return Ok(State::Damaged("a file in it has changed"));
            }
        }
        Ok(State::Good)
    }
}

// === impl FileRecord ===

impl FileRecord {
    fn matches(&self, folder: &Path, sealed: bool) -> io::Result<bool> {
        let path = folder.join(&self.name);
        let meta = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            meta => meta?,
        };
        let (now, then) = (Stamp::from(&meta), &self.stamp);
        let copied = sealed && (now.size, now.modified) == (then.size, then.modified);
        if now == *then || copied {
            return Ok(true);
        }
        // A copied or restored cache has other times and the same content.
        Ok(meta.size() == self.stamp.size && digest(&path)? == self.digest)
    }
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(Digest::from_hasher(hasher))
}
