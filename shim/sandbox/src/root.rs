//! The container's root file system while it is put together: paths are resolved in it, never
//! out of it, whatever links the image has.
//!
//! A path becomes a descriptor by `openat2` with `RESOLVE_IN_ROOT`, which resolves absolute
//! links and `..` as if this were `/` already; everything is mounted on descriptors, so a path
//! that changes meanwhile changes nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::error::{LockdownError, Step as _};
use crate::sys;

/// Parts and links that a path may have until its mount point exists. The kernel follows 40
/// links, and a path has at most 4096 bytes.
const MAX_STEPS: usize = 512;

/// Tries at a path that somebody renames meanwhile: another container of the pod may write
/// into a shared volume.
const MAX_TRIES: usize = 64;

/// Attributes that every mount of a worker has.
pub(crate) const FORCED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// What a mount point has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
}

/// The root file system, mounted.
pub(crate) struct Root {
    mount: OwnedFd,
    /// How links in it are resolved.
    links: ResolveFlags,
}

/// A mount that is not attached to anything yet.
pub(crate) struct Tree {
    mount: OwnedFd,
    kind: Kind,
}

/// Attributes of a mount that is about to be attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub set: MountAttrFlags,
    pub clear: MountAttrFlags,
    /// `MS_PRIVATE` or `MS_SLAVE`.
    pub propagation: u64,
    /// Whether they hold for mounts below as well.
    pub recursive: bool,
}

// === impl Root ===

impl Root {
    /// Cut this mount namespace off from the node's, and mount the image over itself, so that
    /// it can become `/`. In a sealed one no path goes through a link: a signed image has none,
    /// and one in a volume would bring a mount to a place that its path does not name.
    pub(crate) fn open(image: &Path, sealed: bool) -> Result<Self, LockdownError> {
        // Slaves: what the node mounts later still arrives in mounts that ask for it, and
        // nothing that happens here reaches the node.
        let slaves = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slaves)
            .step(|| "cut the mounts off from the node's".to_owned())?;
        let tree = Tree::clone_of(CWD, image, false)?;
        let attributes = Attributes::of(MountAttrFlags::empty());
        tree.set(attributes).step(|| "make the image's mount private".to_owned())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&tree.mount, "", CWD, image, flags)
            .step(|| format!("mount the image at {}", image.display()))?;
        tree.settle(attributes)?;
        let links = if sealed { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::NO_MAGICLINKS };
        Ok(Self { mount: tree.mount, links })
    }

    /// Open what is at `path`, without access to its content. None if nothing is there.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<OwnedFd>, LockdownError> {
        match self.resolve(path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).step(|| format!("find {} in the container", path.display())),
        }
    }

    /// Open the mount point at `path`, and make what is missing of it. It is not the root
    /// itself: a mount on it would lie over the image, and what comes after it in neither.
    pub(crate) fn mount_point(&self, path: &Path, kind: Kind) -> Result<OwnedFd, LockdownError> {
        let found = self.made(path, kind)?;
        let step = || format!("look at {} in the container", path.display());
        let stat = rustix::fs::fstat(&found).step(step)?;
        let root = rustix::fs::fstat(&self.mount).step(step)?;
        if (stat.st_dev, stat.st_ino) == (root.st_dev, root.st_ino) {
            let why = "in the image it is a link to the root itself";
            return Err(LockdownError::refused(format!("the mount on {}", path.display()), why));
        }
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (is, wanted) = match (is_folder, kind) {
            (true, Kind::File) => ("a folder", "a file"),
            (false, Kind::Folder) => ("a file", "a folder"),
            _ => return Ok(found),
        };
        Err(LockdownError::refused(
            format!("the mount on {}", path.display()),
            format!("the image has {is} there, and {wanted} is mounted: choose another path"),
        ))
    }

    /// Open what is at `path`, and make what is missing of it.
    pub(crate) fn made(&self, path: &Path, kind: Kind) -> Result<OwnedFd, LockdownError> {
        let step = || format!("make the mount point {} in the container", path.display());
        let mut parts = parts(path);
        for _ in 0..MAX_STEPS {
            match self.resolve(&joined(&parts)) {
                Ok(found) => return Ok(found),
                Err(Errno::NOENT) => self.make_one(&mut parts, kind).step(step)?,
                Err(Errno::LOOP) if self.is_sealed() => {
                    let why = "a volume has a link on the way there, and nothing is mounted \
                               through links into an image whose signature was asked for";
                    let what = format!("the path {} of the container", path.display());
                    return Err(LockdownError::refused(what, why));
                }
                Err(error) => return Err(error).step(step),
            }
        }
        Err(Errno::LOOP).step(step)
    }

    /// Make the first part of a path that is missing, or replace a link to nothing by its text.
    fn make_one(&self, parts: &mut Vec<OsString>, kind: Kind) -> Result<(), Errno> {
        let mut parent = self.resolve(Path::new("."))?;
        for at in 0..parts.len() {
            match self.resolve(&joined(&parts[..=at])) {
                Ok(found) => parent = found,
                Err(Errno::NOENT) => {
                    let last = at + 1 == parts.len();
                    let made = make(&parent, &parts[at], if last { kind } else { Kind::Folder });
                    if made != Err(Errno::EXIST) {
                        return made;
                    }
                    if self.is_sealed() {
                        // Either way the next try tells: a link is refused by then.
                        return Ok(());
                    }
                    // It is a link to nothing, or somebody else has just made it.
                    return follow(&parent, parts, at);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_sealed(&self) -> bool {
        self.links.contains(ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | self.links;
        for _ in 0..MAX_TRIES {
            match rustix::fs::openat2(&self.mount, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The image alone, without anything that is mounted into it.
    pub(crate) fn bare(&self) -> Result<Tree, LockdownError> {
        Tree::clone_of(&self.mount, Path::new(""), false)
    }

    /// From here on nothing in the image can be written.
    pub(crate) fn seal(&self) -> Result<(), LockdownError> {
        seal(&self.mount)
    }

    /// Become `/`, and let go of the node's file systems.
    pub(crate) fn enter(self) -> Result<(), LockdownError> {
        let change = || "change the root to the container's".to_owned();
        rustix::process::fchdir(&self.mount).step(change)?;
        // The old root is put over the new one, at the same place, and taken off again.
        rustix::process::pivot_root(".", ".").step(change)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)
            .step(|| "let go of the node's file systems".to_owned())?;
        rustix::process::chdir("/").step(change)
    }
}

// === impl Tree ===

impl Tree {
    /// A copy of the mount at a path, with all below it if `recursive`.
    pub(crate) fn clone_of(
        folder: impl AsFd,
        path: &Path,
        recursive: bool,
    ) -> Result<Self, LockdownError> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
        flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
        let step = || format!("bind {}", path.display());
        let mount = rustix::mount::open_tree(folder, path, flags).step(step)?;
        let stat = rustix::fs::fstat(&mount).step(step)?;
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok(Self { mount, kind: if folder { Kind::Folder } else { Kind::File } })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Mount it with these attributes.
    pub(crate) fn attach(
        self,
        target: BorrowedFd<'_>,
        attributes: Attributes,
        path: &Path,
    ) -> Result<(), LockdownError> {
        let step = || format!("mount on {} of the container", path.display());
        self.set(attributes).step(step)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&self.mount, "", target, "", flags).step(step)?;
        self.settle(attributes)
    }

    /// Set attributes, where the kernel can do so before anybody sees the mount.
    fn set(&self, attributes: Attributes) -> io::Result<()> {
        let Attributes { set, clear, propagation, recursive } = attributes;
        match sys::mount_setattr(&self.mount, recursive, set, clear, propagation) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            result => result,
        }
    }

    /// Set attributes as kernels before 5.12 do, after the mount; for others nothing.
    fn settle(&self, attributes: Attributes) -> Result<(), LockdownError> {
        let nothing = (MountAttrFlags::empty(), MountAttrFlags::empty());
        match sys::mount_setattr(&self.mount, false, nothing.0, nothing.1, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            _ => return Ok(()),
        }
        let place = by_descriptor(&self.mount);
        let step = || "set the attributes of a mount".to_owned();
        if !attributes.set.is_empty() {
            let flags = rustix::mount::MountFlags::BIND | old_flags(attributes.set);
            rustix::mount::mount_remount(&place, flags, c"").step(step)?;
        }
        let bits = u32::try_from(attributes.propagation).unwrap_or_default();
        let propagation = MountPropagationFlags::from_bits_retain(bits);
        rustix::mount::mount_change(&place, propagation).step(step)
    }
}

// === impl Attributes ===

impl Attributes {
    /// These, for one private mount.
    pub(crate) fn of(set: MountAttrFlags) -> Self {
        let clear = MountAttrFlags::empty();
        Self { set, clear, propagation: libc::MS_PRIVATE, recursive: false }
    }
}

/// From here on nothing on this mount can be written.
pub(crate) fn seal(mount: &OwnedFd) -> Result<(), LockdownError> {
    let step = || "make a mount read-only".to_owned();
    let tree = Tree { mount: mount.try_clone().step(step)?, kind: Kind::Folder };
    let attributes = Attributes::of(FORCED | MountAttrFlags::MOUNT_ATTR_RDONLY);
    tree.set(attributes).step(step)?;
    tree.settle(attributes)
}

/// A path to the very file of a descriptor, for calls that take only paths. It needs the
/// node's `/proc`, which is there until the root is changed.
pub(crate) fn by_descriptor(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Whether what is mounted at a place can't be written anyway.
pub(crate) fn is_read_only(place: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(place).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

fn joined(parts: &[OsString]) -> PathBuf {
    // `.` is the root itself: an empty path would be an error.
    std::iter::once(OsStr::new(".")).chain(parts.iter().map(OsString::as_os_str)).collect()
}

fn make(parent: &OwnedFd, name: &OsStr, kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Folder => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// Replace the part `at`, which is a link, by what it says. The next try resolves it anew.
fn follow(parent: &OwnedFd, parts: &mut Vec<OsString>, at: usize) -> Result<(), Errno> {
    let text = match rustix::fs::readlinkat(parent, &parts[at], Vec::new()) {
        Ok(text) => text,
        // No link: somebody else has made the part, which is as good.
        Err(Errno::INVAL) => return Ok(()),
        Err(error) => return Err(error),
    };
    let text = Path::new(OsStr::from_bytes(text.as_bytes()));
    let first = if text.is_absolute() { 0 } else { at };
    parts.splice(first..=at, self::parts(text));
    Ok(())
}

fn old_flags(attributes: MountAttrFlags) -> rustix::mount::MountFlags {
    use rustix::mount::MountFlags as Old;
    let pairs = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, Old::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, Old::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, Old::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, Old::NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_NOATIME, Old::NOATIME),
    ];
    let set = pairs.into_iter().filter(|(new, _)| attributes.contains(*new));
    set.fold(Old::empty(), |flags, (_, old)| flags | old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_without_its_root() {
        let text = |path: &str| joined(&parts(Path::new(path))).display().to_string();
        assert_eq!(text("/a/./b/../c"), "./a/b/../c");
        assert_eq!(text("/"), ".");
        assert_eq!(text("a"), "./a");
    }
}
