//! Paths of the container that are hidden or can't be written, whatever is mounted there.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::mount::{MountAttrFlags, MountFlags};

use crate::error::{LockdownError, Step as _};
use crate::root::{self, Attributes, FORCED, Root, Tree, by_descriptor};

/// What a hidden file reads as.
const NOTHING: &str = "/dev/null";

/// Hide paths: a folder behind an empty one, a file behind nothing. Those that are not there
/// need no hiding.
pub(crate) fn hide(root: &Root, paths: &[PathBuf]) -> Result<(), LockdownError> {
    for path in paths {
        let Some(place) = root.find(path)? else { continue };
        let step = || format!("hide {} of the container", path.display());
        let stat = rustix::fs::statat(&place, "", AtFlags::EMPTY_PATH).step(step)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags =
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let target = by_descriptor(&place);
            rustix::mount::mount("tmpfs", target, "tmpfs", flags, c"size=0,mode=555").step(step)?;
        } else {
            // It must be a device still: nodev would make it unreadable, not empty.
            let attributes = Attributes::of(FORCED - MountAttrFlags::MOUNT_ATTR_NODEV);
            let nothing = Tree::clone_of(CWD, Path::new(NOTHING), false)?;
            nothing.attach(place.as_fd(), attributes, path)?;
        }
    }
    Ok(())
}

/// Make paths read-only, with all below them.
pub(crate) fn protect(root: &Root, paths: &[PathBuf]) -> Result<(), LockdownError> {
    for path in paths {
        let Some(place) = root.find(path)? else { continue };
        if root::is_read_only(&place) {
            continue;
        }
        let set = FORCED | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let attributes = Attributes { recursive: true, ..Attributes::of(set) };
        Tree::clone_of(&place, Path::new(""), true)?.attach(place.as_fd(), attributes, path)?;
    }
    Ok(())
}
