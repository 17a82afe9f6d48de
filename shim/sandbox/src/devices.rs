//! Device nodes under the container's own `/dev`: a few that every program expects, and those
//! that the order grants. Whether they may be opened is the device control group's say, which
//! the shim has set.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::error::{LockdownError, Step as _};
use crate::order::Device;
use crate::root::{Attributes, Tree};

/// Name, major and minor number of devices that every program expects; they do no harm.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links that every program expects.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Whether it is a character device beside those that every container has: accelerators are, and disks are not.
pub(crate) fn has_driver(device: &Device) -> bool {
    let number = (device.major, device.minor);
    let is_default = DEFAULT.iter().any(|(_, major, minor)| number == (*major, *minor));
    matches!(device.kind, 'c' | 'u') && !is_default
}

/// Make the nodes. `dev` is the `/dev` that was mounted for this container, if one was.
pub(crate) fn make_all(dev: Option<&OwnedFd>, granted: &[Device]) -> Result<(), LockdownError> {
    let Some(dev) = dev else {
        // The node's own /dev, bound by the pod: nothing is made in it.
        return match granted.iter().find(|device| !exists(device)) {
            None => Ok(()),
            Some(device) => Err(LockdownError::refused(
                named(device),
                "the pod binds a folder to /dev, in which no node is made",
            )),
        };
    };
    for (name, major, minor) in DEFAULT {
        if !granted.iter().any(|device| device.path == Path::new("/dev").join(name)) {
            let path = PathBuf::from(format!("/dev/{name}"));
            let device = Device { path, kind: 'c', major, minor, mode: 0o666, uid: 0, gid: 0 };
            make(dev, &device)?;
        }
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, dev, name)
            .step(|| format!("make the link /dev/{name} of the container"))?;
    }
    granted.iter().try_for_each(|device| make(dev, device))
}

fn make(dev: &OwnedFd, device: &Device) -> Result<(), LockdownError> {
    let below = device.path.strip_prefix("/dev").ok().filter(|path| path.file_name().is_some());
    let Some(below) = below else {
        let why = "devices are made below /dev only: choose a path there";
        return Err(LockdownError::refused(named(device), why));
    };
    let kind = match device.kind {
        'c' | 'u' => FileType::CharacterDevice,
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        other => {
            let why = format!("`{other}` is no kind of device: it is c, u, b or p");
            return Err(LockdownError::refused(named(device), why));
        }
    };
    let step = || format!("make the device {} of the container", device.path.display());
    let folder = folder_of(dev, below).step(step)?;
    let name = below.file_name().unwrap_or_default();
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode & 0o777);
    match rustix::fs::mknodat(&folder, name, kind, mode, number) {
        Ok(()) => {}
        // No right to make nodes: the node's own may still be lent.
        Err(Errno::PERM) => return lend(&folder, device, kind),
        Err(error) => return Err(error).step(step),
    }
    // The mask of new files does not hold for devices.
    rustix::fs::chmodat(&folder, name, mode, AtFlags::empty()).step(step)?;
    let (user, group) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(&folder, name, Some(user), Some(group), flags).step(step)
}

/// Open the folder of a device, and make what is missing of it, without leaving `/dev`: a
/// volume that is mounted below it belongs to the pod.
fn folder_of(dev: &OwnedFd, below: &Path) -> Result<OwnedFd, Errno> {
    let mut folder = open_below(dev, Path::new("."))?;
    for part in below.parent().into_iter().flat_map(Path::components) {
        let part = Path::new(part.as_os_str());
        match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        folder = open_below(&folder, part)?;
    }
    Ok(folder)
}

fn open_below(folder: &OwnedFd, part: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(folder, part, flags, Mode::empty(), resolve)
}

/// Bind the node's own device of the same path and number.
fn lend(folder: &OwnedFd, device: &Device, kind: FileType) -> Result<(), LockdownError> {
    let step = || format!("bind the device {} of the node", device.path.display());
    let stat = rustix::fs::statat(CWD, &device.path, AtFlags::SYMLINK_NOFOLLOW).step(step)?;
    let number = rustix::fs::makedev(device.major, device.minor);
    if stat.st_rdev != number || FileType::from_raw_mode(stat.st_mode) != kind {
        let why = "no node may be made, and the node has another device there";
        return Err(LockdownError::refused(named(device), why));
    }
    let name = device.path.file_name().unwrap_or_default();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644)).step(step)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = rustix::fs::openat(folder, name, flags, Mode::empty()).step(step)?;
    let attributes =
        Attributes::of(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC);
    Tree::clone_of(CWD, &device.path, false)?.attach(point.as_fd(), attributes, &device.path)
}

fn exists(device: &Device) -> bool {
    let number = rustix::fs::makedev(device.major, device.minor);
    rustix::fs::statat(CWD, &device.path, AtFlags::empty()).is_ok_and(|stat| stat.st_rdev == number)
}

fn named(device: &Device) -> String {
    format!("the device {}", device.path.display())
}
