//! The root file system of a container: mounted where the bundle wants it, opened without
//! leaving it, and unmounted.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use containerd_shim::mount::mount_rootfs;
use containerd_shim::protos::types::mount::Mount;
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{UnmountFlags, unmount};

/// Mounts that may lie on top of each other on one folder.
const MAX_STACKED: u32 = 16;

/// Where the spec says that the root file system is.
pub fn path(spec: &Spec, bundle: &Path) -> PathBuf {
    let root = spec.root().as_ref().map(|r| r.path().clone());
    // `join` takes an absolute path as it is.
    bundle.join(root.unwrap_or_else(|| "rootfs".into()))
}

/// Mount what the request gives. It may move the calling thread's working folder.
///
/// # Errors
/// A mount fails; what was mounted before it is taken off again.
pub fn mount(mounts: &[Mount], bundle: &Path) -> anyhow::Result<()> {
    let target = bundle.join("rootfs");
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&target).context("make the folder for the root file system")?;
    for mount in mounts {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (kind, source) = (some(&mount.type_), some(&mount.source));
        let mounted = mount_rootfs(kind.as_deref(), source.as_deref(), &mount.options, &target);
        if let Err(error) = mounted {
            unmount_all(&target);
            return Err(error).context("mount the root file system");
        }
    }
    Ok(())
}

/// Take off everything that is mounted on a folder, whoever still uses it.
pub fn unmount_all(target: &Path) {
    for _ in 0..MAX_STACKED {
        // EINVAL: nothing is mounted there any more.
        if unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            return;
        }
    }
}

/// Open a file of an image as the container would see it: no link leads out of its root.
///
/// # Errors
/// It is missing, not a plain file, or behind a link that nothing may follow.
pub fn open(root: &Path, file: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let folder =
        openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(folder, file, flags, Mode::empty(), resolve)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// The text of a small file of an image.
///
/// # Errors
/// As [`open`], and if it is longer than `limit` or not text.
pub fn read_text(root: &Path, file: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    open(root, file)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_out_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("plain"), "inside").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/plain", root.join("absolute")).unwrap();
        let read = |name: &str| read_text(&root, Path::new(name), 100).ok();
        assert_eq!(read("/plain").as_deref(), Some("inside"));
        assert_eq!(read("absolute").as_deref(), Some("inside"));
        assert_eq!(read("up"), None);
        assert_eq!(read("../secret"), None);
        assert_eq!(read_text(&root, Path::new("plain"), 3).ok(), None);
    }
}
