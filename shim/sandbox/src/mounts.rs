//! The mounts of the order, put into the root file system one after another.
//!
//! Every mount gets nosuid, nodev and noexec, whatever its options say; `/dev` alone may have
//! devices. Kernel file systems (proc, sysfs, cgroup) are read-only: a worker has nothing to
//! write there. What can't be honoured is refused by its name.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags};

use crate::cgroups;
use crate::error::{LockdownError, Step as _};
use crate::lockdown::Driver;
use crate::order::{Mount, Order};
use crate::root::{self, Attributes, FORCED, Kind, Root, Tree, by_descriptor};

/// Where a worker finds what is its own: beside the pod's mounts, under a small file system.
pub const OWN_FOLDER: &str = "/run/wick";

/// The folder of compiled components in a cache, the only one from which code is mapped.
pub const COMPONENTS: &str = "components";

/// Descriptions of the node's drivers, and the same below the worker's own folder.
pub const DRIVERS: &str = "/run/wick/drivers";
const DRIVERS_BELOW: &str = "drivers";

/// The node's backends, read-only.
pub const BACKENDS: &str = "/run/wick/backends";

/// The node's cache of compiled code, read-only but for a compile task.
pub const CACHE: &str = "/run/wick/cache";

/// The image without anything that is mounted into it: what a guest may see of it. Beside it
/// `/proc` and `/sys` lie, which would tell a guest about the worker that it runs in.
pub const IMAGE: &str = "/run/wick/image";

/// Mounts that Kubernetes makes for a container's own system, and kernel file systems.
const SYSTEM: [&str; 6] =
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"];

/// Options of a mount that mean something here; those of `MS_BIND` and `MS_REC` say what kind
/// of mount it is.
const KNOWN_FLAGS: u64 = libc::MS_RDONLY
    | libc::MS_NOSUID
    | libc::MS_NODEV
    | libc::MS_NOEXEC
    | libc::MS_SYNCHRONOUS
    | libc::MS_DIRSYNC
    | libc::MS_NOATIME
    | libc::MS_NODIRATIME
    | libc::MS_RELATIME
    | libc::MS_STRICTATIME
    | libc::MS_LAZYTIME
    | libc::MS_SILENT
    | libc::MS_BIND
    | libc::MS_REC;

/// Options of the small file systems that are mounted here without being asked for.
const SMALL: &str = "mode=755,size=64k";

/// The same for the worker's own, which has a dozen files of drivers, in pages of up to 64 KiB.
const OWN: &str = "mode=755,size=1m";

/// What the mounts of an order came to.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// The `/dev` that was mounted here, where device nodes may be made.
    pub dev: Option<OwnedFd>,
}

/// Mount what the order lists.
pub(crate) fn mount_all(root: &Root, order: &Order) -> Result<Mounted, LockdownError> {
    let mounts = &order.mounts;
    let mut mounted = Mounted::default();
    for mount in mounts {
        check(mount)?;
        if order.sealed {
            check_sealed(mount)?;
        }
        let is_dev = mount.destination == Path::new("/dev");
        match mount.kind.as_str() {
            _ if mount.flags & libc::MS_BIND != 0 => bind(root, mount)?,
            "bind" => bind(root, mount)?,
            "tmpfs" if is_dev => {
                file_system(root, mount, MountFlags::empty(), MountFlags::NODEV)?;
                mounted.dev = root.find(&mount.destination)?;
            }
            "tmpfs" | "mqueue" => {
                file_system(root, mount, MountFlags::empty(), MountFlags::empty())?;
            }
            // Terminals are devices.
            "devpts" => file_system(root, mount, MountFlags::empty(), MountFlags::NODEV)?,
            "proc" | "sysfs" => {
                file_system(root, mount, MountFlags::RDONLY, MountFlags::empty())?;
            }
            "cgroup" | "cgroup2" => cgroups::mount(root, &mount.destination)?,
            kind => {
                return Err(LockdownError::refused(
                    named(mount),
                    format!(
                        "file systems of type `{kind}` are not mounted for a package: \
                         let the node mount it, and bind it"
                    ),
                ));
            }
        }
    }
    let has = |path: &str| mounts.iter().any(|mount| mount.destination == Path::new(path));
    if !has("/dev") {
        // The image's own /dev is a folder that its author has filled.
        mounted.dev = Some(small(root, Path::new("/dev"), MountFlags::NOEXEC)?);
    }
    if !has("/proc") {
        // Where a worker learns about its threads, its processor and its own files.
        file_system(root, &proc(), MountFlags::RDONLY, MountFlags::empty())?;
    }
    Ok(mounted)
}

fn proc() -> Mount {
    Mount {
        destination: "/proc".into(),
        kind: "proc".into(),
        source: "proc".into(),
        flags: 0,
        propagation: 0,
        data: String::new(),
    }
}

/// A small file system for what is the worker's own.
pub(crate) fn mount_own(
    root: &Root,
    backends: Option<&Path>,
    cache: Option<(&Path, bool)>,
    drivers: &[Driver],
) -> Result<(), LockdownError> {
    let flags = MountFlags::NOEXEC | MountFlags::NODEV;
    let own = file_system_of(root, Path::new(OWN_FOLDER), flags, OWN)?;
    let data = FORCED | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let code = data - MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if let Some(backends) = backends {
        // ONNX Runtime loads providers from here. The files are the node's.
        own_bind(root, backends, Path::new(BACKENDS), Attributes::of(code))?;
    }
    match cache {
        // What has just been compiled is mapped from where it was written; no driver is loaded then.
        Some((cache, true)) => {
            let set = code - MountAttrFlags::MOUNT_ATTR_RDONLY;
            own_bind(root, cache, Path::new(CACHE), Attributes::of(set))?;
        }
        Some((cache, false)) => {
            // Graphs hold bytes of the image as they are, which a driver's loader could take for a library.
            own_bind(root, cache, Path::new(CACHE), Attributes::of(data))?;
            // Compiled code is mapped from here. The files are root's, and checked before.
            let components = cache.join(COMPONENTS);
            if components.is_dir() {
                let place = Path::new(CACHE).join(COMPONENTS);
                own_bind(root, &components, &place, Attributes::of(code))?;
            }
        }
        None => {}
    }
    let image = root.mount_point(Path::new(IMAGE), Kind::Folder)?;
    let attributes = Attributes::of(data);
    root.bare()?.attach(image.as_fd(), attributes, Path::new(IMAGE))?;
    describe(&own, drivers)?;
    root::seal(&own)
}

/// Write what describes drivers into the worker's own file system.
fn describe(own: &OwnedFd, drivers: &[Driver]) -> Result<(), LockdownError> {
    if drivers.is_empty() {
        return Ok(());
    }
    let step = || format!("write the files of {DRIVERS}");
    rustix::fs::mkdirat(own, DRIVERS_BELOW, Mode::from_raw_mode(0o755)).step(step)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    for Driver { name, text } in drivers {
        let path = Path::new(DRIVERS_BELOW).join(name);
        let file = rustix::fs::openat(own, &path, flags, Mode::from_raw_mode(0o644)).step(step)?;
        File::from(file).write_all(text.as_bytes()).step(step)?;
    }
    Ok(())
}

/// Put single files that the pod mounts into what a bare component sees of its image: guests
/// are given folders only, and would find an empty file there. Packages have wants for that.
pub(crate) fn show_files(root: &Root, order: &Order) -> Result<(), LockdownError> {
    let bare = order.args.first().is_some_and(|first| first.ends_with(".wasm"));
    for mount in order.mounts.iter().filter(|mount| bare && is_volume(mount)) {
        let tree = Tree::clone_of(CWD, &mount.source, false)?;
        let below = mount.destination.strip_prefix("/").unwrap_or(&mount.destination);
        let place = Path::new(IMAGE).join(below);
        // One that lies in another volume has no place in the image.
        if tree.kind() == Kind::File && root.find(&place)?.is_some() {
            let point = root.mount_point(&place, Kind::File)?;
            let attributes = Attributes::of(FORCED | MountAttrFlags::MOUNT_ATTR_RDONLY);
            tree.attach(point.as_fd(), attributes, &place)?;
        }
    }
    Ok(())
}

/// Whether a mount is of the pod's own choice.
pub fn is_volume(mount: &Mount) -> bool {
    let binds = mount.kind == "bind" || mount.flags & libc::MS_BIND != 0;
    binds && !SYSTEM.iter().any(|path| mount.destination.starts_with(path))
}

fn own_bind(
    root: &Root,
    source: &Path,
    target: &Path,
    attributes: Attributes,
) -> Result<(), LockdownError> {
    let tree = Tree::clone_of(CWD, source, false)?;
    let point = root.mount_point(target, Kind::Folder)?;
    tree.attach(point.as_fd(), attributes, target)
}

/// Mount a small, empty file system and open it.
fn small(root: &Root, path: &Path, flags: MountFlags) -> Result<OwnedFd, LockdownError> {
    file_system_of(root, path, flags, SMALL)
}

/// The same with options of its own.
fn file_system_of(
    root: &Root,
    path: &Path,
    flags: MountFlags,
    options: &str,
) -> Result<OwnedFd, LockdownError> {
    let point = root.mount_point(path, Kind::Folder)?;
    let text = CString::new(options).unwrap_or_default();
    let flags = flags | MountFlags::NOSUID;
    rustix::mount::mount("tmpfs", by_descriptor(&point), "tmpfs", flags, text.as_c_str())
        .step(|| format!("mount a file system on {} of the container", path.display()))?;
    root.mount_point(path, Kind::Folder)
}

fn check(mount: &Mount) -> Result<(), LockdownError> {
    if !mount.destination.is_absolute() {
        let why = "its path in the container must begin with /";
        return Err(LockdownError::refused(named(mount), why));
    }
    let own = Path::new(OWN_FOLDER);
    if mount.destination.starts_with(own) || mount.destination == Path::new("/") {
        let why = format!("that place is the worker's own ({OWN_FOLDER}, and the image at /)");
        return Err(LockdownError::refused(named(mount), why));
    }
    let unknown = mount.flags & !KNOWN_FLAGS;
    if unknown != 0 {
        let why = format!("it has options that mean nothing for a package: MS_* {unknown:#x}");
        return Err(LockdownError::refused(named(mount), why));
    }
    Ok(())
}

/// Over an image with a signature a mount lies where its path says. And the worker's own folder,
/// where it reads the image, lies in none: who else has a volume could put another in its place.
fn check_sealed(mount: &Mount) -> Result<(), LockdownError> {
    let up = mount.destination.components().any(|part| part == Component::ParentDir);
    let around = Path::new(OWN_FOLDER).starts_with(&mount.destination);
    let why = match (up, around) {
        (true, _) => "in an image whose signature was asked for, its path has no `..`",
        (_, true) => "an image whose signature was asked for is read below it: mount it elsewhere",
        _ => return Ok(()),
    };
    Err(LockdownError::refused(named(mount), why))
}

fn bind(root: &Root, mount: &Mount) -> Result<(), LockdownError> {
    let propagation = propagation(mount)?;
    let mut set = FORCED;
    set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, mount.flags & libc::MS_RDONLY != 0);
    let mut clear = MountAttrFlags::empty();
    if mount.flags & libc::MS_NOATIME != 0 {
        set |= MountAttrFlags::MOUNT_ATTR_NOATIME;
        clear |= MountAttrFlags::MOUNT_ATTR__ATIME;
    }
    // Read-only holds for what is mounted below as well: a package is never surprised by a
    // part that can be written.
    let recursive = mount.flags & libc::MS_REC != 0;
    let attributes = Attributes { set, clear, propagation, recursive };
    let tree = Tree::clone_of(CWD, &mount.source, recursive)?;
    let point = root.mount_point(&mount.destination, tree.kind())?;
    tree.attach(point.as_fd(), attributes, &mount.destination)
}

fn propagation(mount: &Mount) -> Result<u64, LockdownError> {
    match mount.propagation & !libc::MS_REC {
        0 | libc::MS_PRIVATE => Ok(libc::MS_PRIVATE),
        libc::MS_SLAVE => Ok(libc::MS_SLAVE),
        libc::MS_SHARED => Err(LockdownError::refused(
            named(mount),
            "a package mounts nothing for the node: use mountPropagation HostToContainer or None",
        )),
        other => Err(LockdownError::refused(
            named(mount),
            format!("its propagation {other:#x} is neither private nor slave"),
        )),
    }
}

/// Mount a file system of its own: the order's flags and the forced ones, but for `without`.
fn file_system(
    root: &Root,
    mount: &Mount,
    more: MountFlags,
    without: MountFlags,
) -> Result<(), LockdownError> {
    let forced = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let bits = u32::try_from(mount.flags).unwrap_or_default();
    let flags = (MountFlags::from_bits_retain(bits) | forced | more) - without;
    let data = CString::new(mount.data.as_str()).map_err(|_| {
        LockdownError::refused(named(mount), "its options have a zero byte in them")
    })?;
    let point = root.mount_point(&mount.destination, Kind::Folder)?;
    // The source is only a name for people: `tmpfs`, `proc`.
    let source: PathBuf = mount.source.clone();
    rustix::mount::mount(source, by_descriptor(&point), mount.kind.as_str(), flags, data.as_c_str())
        .step(|| {
            let (kind, path) = (&mount.kind, mount.destination.display());
            format!("mount {kind} on {path} of the container (options `{}`)", mount.data)
        })
}

fn named(mount: &Mount) -> String {
    format!("the mount on {}", mount.destination.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, flags: u64, propagation: u64) -> Mount {
        Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: "/tmp".into(),
            flags,
            propagation,
            data: String::new(),
        }
    }

    #[test]
    fn what_can_not_be_honoured_is_refused_by_name() {
        let refused = |mount: Mount| {
            let error = check(&mount).and_then(|()| propagation(&mount)).unwrap_err();
            assert_eq!(error.code(), "sandbox-refused");
            error.to_string()
        };
        assert!(refused(mount("data", 0, 0)).contains("must begin with /"));
        assert!(refused(mount("/", 0, 0)).contains("the worker's own"));
        assert!(refused(mount("/run/wick/cache", 0, 0)).contains("/run/wick/cache is refused"));
        assert!(refused(mount("/data", libc::MS_REMOUNT, 0)).contains("0x20"));
        assert!(refused(mount("/data", 0, libc::MS_SHARED)).contains("HostToContainer"));
    }

    #[test]
    fn a_mount_into_a_signed_image_lies_where_its_path_says_and_not_around_the_worker_s_own() {
        let refused = |path: &str| {
            let error = check_sealed(&mount(path, 0, 0)).unwrap_err();
            assert_eq!(error.code(), "sandbox-refused");
            error.to_string()
        };
        assert!(refused("/data/../model.onnx").contains("no `..`"));
        assert!(refused("/../image/model.onnx").contains("no `..`"));
        assert!(refused("/run").contains("elsewhere"));
        assert!(refused("//run/.").contains("elsewhere"));
        for fine in ["/data", "/run/secrets", "/runs", "/var/run/secrets"] {
            check_sealed(&mount(fine, 0, 0)).unwrap();
        }
    }

    #[test]
    fn volumes_are_what_the_pod_mounts_and_not_what_its_system_needs() {
        for own in ["/data", "/etc/config", "/mnt/models", "/etc/hosts.d"] {
            assert!(is_volume(&mount(own, 0, 0)), "{own}");
        }
        for system in ["/etc/hosts", "/dev/shm", "/dev/termination-log", "/sys/fs/cgroup"] {
            assert!(!is_volume(&mount(system, 0, 0)), "{system}");
        }
        assert!(!is_volume(&Mount { kind: "tmpfs".into(), ..mount("/cache", 0, 0) }));
    }

    #[test]
    fn propagation_is_private_unless_it_is_slave() {
        let of = |bits| propagation(&mount("/data", 0, bits)).unwrap();
        assert_eq!(of(0), libc::MS_PRIVATE);
        assert_eq!(of(libc::MS_PRIVATE | libc::MS_REC), libc::MS_PRIVATE);
        assert_eq!(of(libc::MS_SLAVE | libc::MS_REC), libc::MS_SLAVE);
    }
}
