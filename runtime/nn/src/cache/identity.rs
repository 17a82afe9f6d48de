//! Notes on the digests of model files, so that an unchanged file is not read to
//! know it.
//!
//! A note holds for one file as it looked: inode, size, and the times of
//! its last write and last change to the nanosecond. A file that was changed too
//! shortly before it was read gets no note, because a later write could leave the
//! same times.

use std::fs;
use std::io::{self, Write as _};
use std::path::{self, Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use wick_package::Digest;

use super::Key;
use super::record::Stamp;

/// Clocks of file systems tick every few milliseconds.
const TICK: Duration = Duration::from_millis(100);

/// Times without nanoseconds come from a file system that counts in whole or even
/// pairs of seconds.
const COARSE_TICK: Duration = Duration::from_secs(3);

/// Most notes. They are only hints, so all go when there are more.
const MAX_NOTES: usize = 1024;

/// A file, or a part of it.
pub(super) struct Part<'a> {
    pub path: &'a Path,
    pub offset: u64,
    pub len: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Checked against the part, in case two share a name.
    path: PathBuf,
    offset: u64,
    len: u64,
    stamp: Stamp,
    digest: Digest,
}

// === impl Part ===

impl Part<'_> {
    pub(super) fn state(&self) -> io::Result<Stamp> {
        Ok((&fs::metadata(self.path)?).into())
    }

    fn absolute(&self) -> PathBuf {
        path::absolute(self.path).unwrap_or_else(|_| self.path.to_owned())
    }

    fn file_name(&self) -> String {
        let path = self.absolute();
        let (offset, len) = (self.offset.to_string(), self.len.to_string());
        let Key(name) = Key::of(&[&path.to_string_lossy(), &offset, &len]);
        format!("{name}.json")
    }
}

/// The digest that was noted for this part while its file looked as it does now.
pub(super) fn find(folder: &Path, part: &Part<'_>, now: &Stamp) -> Option<Digest> {
    let text = fs::read(folder.join(part.file_name())).ok()?;
    let note: Note = serde_json::from_slice(&text).ok()?;
    let same = note.path == part.absolute()
        && (note.offset, note.len) == (part.offset, part.len)
        && note.stamp == *now;
    same.then_some(note.digest)
}

/// Note the digest of a part that looked like `before` before it was read.
pub(super) fn note(
    folder: &Path,
    part: &Part<'_>,
    before: &Stamp,
    digest: Digest,
) -> io::Result<()> {
    if part.state()? != *before || !is_settled(before, SystemTime::now()) {
        return Err(io::Error::other("the file has changed just now"));
    }
    if fs::read_dir(folder).is_ok_and(|notes| notes.count() >= MAX_NOTES) {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let note =
        Note { path: part.absolute(), offset: part.offset, len: part.len, stamp: *before, digest };
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(&note)?)?;
    file.persist(folder.join(part.file_name())).map(drop).map_err(Into::into)
}

/// Whether the file's last change is so long ago that the next one will show.
fn is_settled(stamp: &Stamp, now: SystemTime) -> bool {
    let (seconds, nanos) = stamp.modified.max(stamp.changed);
    let tick = if stamp.modified.1 == 0 { COARSE_TICK } else { TICK };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
        return false;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    now.duration_since(changed).is_ok_and(|age| age > tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_settled_when_its_next_change_must_show() {
        let at = |seconds, nanos| Stamp {
            inode: 1,
            size: 1,
            modified: (seconds, nanos),
            changed: (seconds, nanos),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert!(is_settled(&at(99, 800_000_000), now));
        assert!(!is_settled(&at(99, 950_000_000), now));
        assert!(!is_settled(&at(98, 0), now), "whole seconds are too coarse");
        assert!(is_settled(&at(90, 0), now));
        assert!(!is_settled(&at(200, 1), now), "a time to come proves nothing");
        assert!(!is_settled(&at(-5, 1), now));
    }
}
