//! A package folder that appears whole or not at all.
//!
//! ```text
//!   .NAME.wick-import/          beside the folder that is to be, locked by one import
//!     lock
//!     parts/                    what has arrived of files from elsewhere; a cut import leaves it
//!     package/                  becomes NAME by one rename
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags};

use crate::error::ImportError;

/// Where a package is made.
#[derive(Debug)]
pub(crate) struct Staging {
    /// What it becomes.
    target: PathBuf,
    root: PathBuf,
    /// Held until the end; the system gives it back whatever happens.
    _lock: File,
    keep: bool,
}

// === impl Staging ===

impl Staging {
    /// Begin a package that becomes `target`, or go on with one that was cut.
    pub(crate) fn open(target: &Path) -> Result<Self, ImportError> {
        check_free(target)?;
        let name = target.file_name().ok_or_else(|| ImportError::Exists { path: target.into() })?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(parent).map_err(ImportError::write(parent))?;
        let root = parent.join(format!(".{}.wick-import", name.display()));
        fs::create_dir_all(&root).map_err(ImportError::write(&root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(ImportError::write(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ImportError::Busy { path: target.into() }),
            Err(TryLockError::Error(error)) => return Err(ImportError::write(&path)(error)),
        }
        let staging = Self { target: target.to_owned(), root, _lock: lock, keep: false };
        let package = staging.package();
        match fs::remove_dir_all(&package) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ImportError::write(&package)(error));
            }
            _ => {}
        }
        for folder in [package, staging.parts()] {
            fs::create_dir_all(&folder).map_err(ImportError::write(&folder))?;
        }
        Ok(staging)
    }

    /// Where files from elsewhere arrive.
    pub(crate) fn parts(&self) -> PathBuf {
        self.root.join("parts")
    }

    /// The package as it grows.
    pub(crate) fn package(&self) -> PathBuf {
        self.root.join("package")
    }

    /// Leave what has arrived for the next try.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }

    /// Put the package in its place.
    pub(crate) fn publish(self) -> Result<(), ImportError> {
        let package = self.package();
        // The names must be on disk before the folder has its own.
        let folder = File::open(&package).and_then(|folder| folder.sync_all());
        folder.map_err(ImportError::write(&package))?;
        // An empty folder gives way to it; one with files does not, whoever made it meanwhile.
        fs::rename(&package, &self.target).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory => ImportError::Exists { path: self.target.clone() },
            _ => ImportError::write(&self.target)(error),
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // What is left over is replaced by the next import into the same folder.
            drop(fs::remove_dir_all(&self.root));
        }
    }
}

/// Check that a package can appear at `target`: nothing is there, or an empty folder that a rename
/// can replace. To be asked before anything is fetched.
///
/// # Errors
/// Something else is there.
pub fn check_free(target: &Path) -> Result<(), ImportError> {
    let fixed = |what| Err(ImportError::Fixed { path: target.to_owned(), what });
    // Without a slash at its end, behind which a link is what it leads to.
    let bare: PathBuf = target.components().collect();
    // A kernel that does not tell of mounts leaves that to the rename.
    if let Ok(seen) = rustix::fs::statx(CWD, &bare, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        if FileType::from_raw_mode(seen.stx_mode.into()) == FileType::Symlink {
            return fixed("a link");
        }
        if seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return fixed("the root of a file system that is mounted there");
        }
    }
    let exists = || ImportError::Exists { path: target.to_owned() };
    match fs::read_dir(target) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(exists())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(exists()),
        Err(error) => Err(ImportError::read(target)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_package_appears_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b");
        let staging = Staging::open(&target).unwrap();
        fs::write(staging.package().join("wick.toml"), "x").unwrap();
        assert!(!target.exists());
        staging.publish().unwrap();
        assert_eq!(names(&target), ["wick.toml"]);
        assert_eq!(names(&folder.path().join("a")), ["b"]);
    }

    #[test]
    fn an_empty_folder_gives_way_and_a_full_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        fs::create_dir(&target).unwrap();
        let staging = Staging::open(&target).unwrap();
        fs::write(staging.package().join("wick.toml"), "x").unwrap();
        // Somebody is faster.
        fs::write(target.join("mine"), "x").unwrap();
        assert!(matches!(staging.publish(), Err(ImportError::Exists { .. })));
        assert_eq!(names(&target), ["mine"]);
        assert!(matches!(Staging::open(&target), Err(ImportError::Exists { .. })));
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(Staging::open(&file), Err(ImportError::Exists { .. })));
        assert_eq!(names(folder.path()), ["b", "file"]);
    }

    #[test]
    fn what_a_rename_can_not_replace_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, none) = (folder.path().join("empty"), folder.path().join("none"));
        fs::create_dir(&empty).unwrap();
        check_free(&empty).unwrap();
        check_free(&none).unwrap();
        for (name, leads) in [("link", &empty), ("dangling", &none)] {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(leads, &link).unwrap();
            for link in [link.clone(), link.join("")] {
                let error = check_free(&link).unwrap_err();
                assert!(error.to_string().contains("is a link"), "{error}");
            }
        }
        let error = check_free(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("mounted there"), "{error}");
    }

    #[test]
    fn what_arrived_is_there_for_the_next_try_and_half_a_package_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let staging = Staging::open(&target).unwrap();
        fs::write(staging.parts().join("p"), "x").unwrap();
        fs::write(staging.package().join("half"), "x").unwrap();
        staging.keep();
        let staging = Staging::open(&target).unwrap();
        assert_eq!(names(&staging.parts()), ["p"]);
        assert!(names(&staging.package()).is_empty());
        drop(staging);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn one_import_at_a_time_writes_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let _first = Staging::open(&target).unwrap();
        assert!(matches!(Staging::open(&target), Err(ImportError::Busy { .. })));
    }
}
