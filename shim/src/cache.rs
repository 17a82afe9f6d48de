//! The node's cache of compiled components and optimised graphs: filled by the shim, never by
//! a pod, and a folder for each image.
//!
//! ```text
//!  image's layers ─▶ images/KEY ─ done? ── yes ──▶ bound into the worker, read-only
//!                                   └─ no ─ lock ─▶ compile child ─▶ staging ─▶ images/KEY
//! ```
//!
//! A compile child is a worker in a control group and namespaces of its own, without network,
//! with limits on memory and time. The key is made of the folders that containerd has unpacked
//! the image's layers into, which no image can choose. So a package that takes over its compiler
//! spoils what pods of the same image use, and nothing of anybody else.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use containerd_shim::protos::types::mount::Mount;
use oci_spec::runtime::{LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, pidfd_send_signal};
use wick_package::Digest;
use wick_sandbox::Channel;
use wick_sandbox::order::{CACHE_FULL, Order, Settings, Task, User};

use crate::cgroup::{Cgroup, CgroupPath, Limits};
use crate::clone::Birth;
use crate::plan::{Namespace, Namespaces};
use crate::pod::Tools;
use crate::rootfs;
use crate::stdio::Stdio;
use crate::worker::Worker;

/// A component of some megabytes compiles in a second or two; a start waits for it.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Cranelift takes some hundred megabytes for the largest components.
const MEMORY_LIMIT: i64 = 2 << 30;

/// Compiling threads, and a few.
const PROCESS_LIMIT: i64 = 64;

/// Files that one compilation may leave, and their bytes together.
const MAX_FILES: usize = 64;
const MAX_RESULT: u64 = 4 << 30;

/// Folders in a staging folder.
const MAX_DEPTH: u32 = 3;

/// Who a compile child is: nobody that owns anything.
const COMPILER: u32 = 65_533;

/// Bytes of all images together; the ones used longest ago go first.
const MAX_CACHE: u64 = 8 << 30;

/// Nothing is compiled ahead when the cache's device has less room than this.
const MIN_ROOM: u64 = 16 << 20;

/// What did not fit is compiled again when there is this many times the room.
const MORE_ROOM: u64 = 2;

const DONE: &str = "done";
const IMAGES: &str = "images";
const STAGING: &str = "staging";

/// The folder of the container's image, with all that can be compiled ahead in it. None if
/// there is nothing to compile, or if the image's layers can't be told.
///
/// # Errors
/// The cache can't be written. The worker does without.
pub fn fill(
    tools: &Tools,
    cache: &Path,
    order: &Order,
    has_code: bool,
    mounts: &[Mount],
) -> anyhow::Result<Option<PathBuf>> {
    if !has_code && order.backends.is_none() {
        return Ok(None);
    }
    let Some(layers) = layers(mounts) else { return Ok(None) };
    let key = key(&layers, &tools.host.executable()?.identity)?;
    let (folder, done) = (cache.join(IMAGES).join(&key), cache.join(DONE).join(&key));
    if !is_done(&done, cache)? || !folder.exists() {
        fs::create_dir_all(cache.join(DONE)).context("make the folder of markers")?;
        // One compiler an image: the others wait as long as its limits let it run, and find
        // its marker.
        let lock = File::create(done.with_extension("lock")).context("make a lock file")?;
        flock(&lock, FlockOperation::LockExclusive).context("lock")?;
        if !is_done(&done, cache)? || !folder.exists() {
            let room = room(cache)?;
            anyhow::ensure!(room >= MIN_ROOM, "No space left on the cache's device");
            fs::create_dir_all(&folder).context("make the image's folder")?;
            let compiled = compile(tools, cache, order, &key, &folder);
            // Tried once: what fails to compile would cost every start the time limit.
            let short = compiled.as_ref().is_err_and(is_short);
            mark(&done, short.then(|| room.saturating_mul(MORE_ROOM)))?;
            compiled?;
            make_room(cache, MAX_CACHE)?;
        }
    }
    // Used now, for whoever makes room.
    File::open(&folder)?.set_modified(SystemTime::now())?;
    Ok(Some(folder))
}

/// Room on the cache's device. There may be more at the next start, so a full one is no reason
/// for the marker that says "tried".
fn room(cache: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(cache)?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Say that an image was tried; for one that did not fit, until when: its device has this much
/// room.
fn mark(done: &Path, until: Option<u64>) -> anyhow::Result<()> {
    let written = fs::write(done, until.map(|room| room.to_string()).unwrap_or_default());
    if written.is_err() {
        // An empty one would say "for good".
        let _ = fs::remove_file(done);
    }
    written.context("write the marker")
}

/// Whether an image was tried, and there is no reason to try again.
fn is_done(done: &Path, cache: &Path) -> io::Result<bool> {
    match fs::read_to_string(done) {
        Ok(until) => match until.parse::<u64>() {
            Ok(until) => Ok(room(cache)? < until),
            Err(_) => Ok(true),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it failed because the cache's device is too small for it.
fn is_short(error: &anyhow::Error) -> bool {
    let full = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    };
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(full)
}

/// The folders of the image's layers, of an overlay.
fn layers(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    let lower = mount.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
    let lower = lower.filter(|_| mount.type_ == "overlay")?;
    Some(lower.split(':').map(PathBuf::from).collect())
}

/// Names the layers of an image on this node, for one use of it; none where they can't be told.
///
/// # Errors
/// A layer is not there.
pub fn layers_key(mounts: &[Mount], what: &str) -> anyhow::Result<Option<String>> {
    layers(mounts).map(|layers| key(&layers, what)).transpose()
}

/// Names an image on this node for one version of the worker. An unpacked layer never changes,
/// and when its folder's name is used again for another, the time of its last change is later.
fn key(layers: &[PathBuf], worker: &str) -> anyhow::Result<String> {
    let mut text = worker.to_owned();
    for layer in layers {
        let about = layer.metadata().with_context(|| format!("look at {}", layer.display()))?;
        let (inode, second, nano) = (about.ino(), about.ctime(), about.ctime_nsec());
        text.push_str(&format!("\n{} {inode} {second} {nano}", layer.display()));
    }
    Ok(Digest::of(text.as_bytes()).hex())
}

/// Remove the images used longest ago, until the rest has at most `limit` bytes.
fn make_room(cache: &Path, limit: u64) -> anyhow::Result<()> {
    let mut images = Vec::new();
    for entry in fs::read_dir(cache.join(IMAGES))? {
        let entry = entry?;
        let mut files = Vec::new();
        list(&entry.path(), Path::new(""), MAX_DEPTH, usize::MAX, &mut files)?;
        // A file may go while its folder is looked at: it takes no room then.
        let size = |file| entry.path().join(file).symlink_metadata().map_or(0, |m| m.len());
        let bytes: u64 = files.iter().map(size).sum();
        images.push((entry.metadata()?.modified()?, bytes, entry.file_name()));
    }
    images.sort_unstable();
    let mut total: u64 = images.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, name) in images {
        if total <= limit {
            break;
        }
        fs::remove_file(cache.join(DONE).join(&name)).ok();
        fs::remove_dir_all(cache.join(IMAGES).join(&name))?;
        total -= bytes;
    }
    Ok(())
}

fn compile(
    tools: &Tools,
    cache: &Path,
    order: &Order,
    key: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let name = format!("{}-{}", std::process::id(), &key[..16]);
    let staging = cache.join(STAGING).join(&name);
    fs::create_dir_all(&staging).context("make a staging folder")?;
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&staging, Some(COMPILER), Some(COMPILER))?;
    // Not in the container's group: that limit is for the package at work.
    let group = CgroupPath::parse(&format!("/wick-compile-{name}"))?;
    let cgroup = Cgroup::new(Arc::clone(&tools.layout), group);
    let compiled = run(tools, &cgroup, order, &staging);
    cgroup.kill();
    if let Err(error) = cgroup.remove() {
        tracing::warn!("{error}");
    }
    let stored = compiled.and_then(|()| store(&staging, folder));
    let _ = fs::remove_dir_all(&staging);
    stored
}

fn run(tools: &Tools, cgroup: &Cgroup, order: &Order, staging: &Path) -> anyhow::Result<()> {
    let memory = LinuxMemoryBuilder::default().limit(MEMORY_LIMIT).build()?;
    let pids = LinuxPidsBuilder::default().limit(PROCESS_LIMIT).build()?;
    let resources = LinuxResourcesBuilder::default().memory(memory).pids(pids).build()?;
    cgroup.create(&Limits::at_creation(Some(&resources)))?;
    let Stdio { ends, .. } = Stdio::null()?;
    let (ours, theirs) = Channel::pair()?;
    let birth = Birth {
        executable: tools.host.executable()?.file()?,
        args: [c"wick", c"worker"].map(CString::from).to_vec(),
        env: tools.host.environment(),
        stdio: ends,
        channel: theirs.stream().try_clone()?.into(),
        entry: cgroup.entry()?,
        namespaces: Namespaces {
            network: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            pid: Namespace::New,
        },
    };
    drop(theirs);
    let child = tools.cloner.clone_process(birth)?;
    let mut worker = Worker::new(ours);
    let order = compile_order(order, staging);
    let told = worker.prepare(&order).and_then(|_| worker.start());
    let limit = Timespec { tv_sec: TIME_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let mut ended = [PollFd::new(&child.pidfd, PollFlags::IN)];
    let in_time = told.is_ok() && poll(&mut ended, Some(&limit))? == 1;
    // When it has ended the signal finds nobody.
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    told?;
    anyhow::ensure!(in_time, "compiling took longer than {TIME_LIMIT:?}");
    match worker.last_word() {
        Some(word) if word.starts_with(CACHE_FULL) => {
            Err(io::Error::new(io::ErrorKind::StorageFull, word).into())
        }
        Some(word) => anyhow::bail!("{word}"),
        None => Ok(()),
    }
}

/// The container's order with everything taken away that compiling does not need.
fn compile_order(order: &Order, staging: &Path) -> Order {
    Order {
        task: Task::Compile,
        mounts: Vec::new(),
        devices: Vec::new(),
        env: Vec::new(),
        cwd: "/".into(),
        user: User { uid: COMPILER, gid: COMPILER, ..User::default() },
        rlimits: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        hostname: None,
        accelerators: Vec::new(),
        cache: Some(staging.to_owned()),
        settings: Settings::default(),
        ..order.clone()
    }
}

/// Copy the plain files of a staging folder into an image's, owned by the shim's user.
fn store(staging: &Path, cache: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    list(staging, Path::new(""), MAX_DEPTH, MAX_FILES, &mut files)?;
    anyhow::ensure!(files.len() <= MAX_FILES, "the compiler left {} files", files.len());
    let sizes = files.iter().map(|f| staging.join(f).symlink_metadata().map(|m| m.len()));
    let bytes: u64 = sizes.sum::<io::Result<u64>>()?;
    anyhow::ensure!(bytes <= MAX_RESULT, "the compiler left {bytes} bytes");
    for file in files {
        let to = cache.join(&file);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = to.with_extension("new");
        let copied = copy(staging, &file, &new).and_then(|()| fs::rename(&new, &to));
        if copied.is_err() {
            // A part of it is of no use, and takes room.
            let _ = fs::remove_file(&new);
        }
        copied.with_context(|| format!("store {}", file.display()))?;
    }
    Ok(())
}

/// A copy and not the file itself: whoever made it may still hold it open.
fn copy(staging: &Path, file: &Path, new: &Path) -> io::Result<()> {
    let mut source = rootfs::open(staging, file)?;
    let mut target = File::create(new)?;
    io::copy(&mut source, &mut target)?;
    // For workers of any user: it holds nothing that their image does not.
    target.set_permissions(fs::Permissions::from_mode(0o644))?;
    // By which a worker knows that it is the file that was recorded.
    target.set_modified(source.metadata()?.modified()?)?;
    target.sync_all()
}

/// Plain files in a folder, at most one more than `max`.
fn list(
    root: &Path,
    below: &Path,
    depth: u32,
    max: usize,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, below.join(entry.file_name()));
        if kind.is_dir() && depth > 0 {
            list(root, &path, depth - 1, max, files)?;
        } else if kind.is_file() && files.len() <= max {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_reach_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, cache) = (folder.path().join("staging"), folder.path().join("cache"));
        fs::create_dir_all(staging.join("aot")).unwrap();
        fs::create_dir(&cache).unwrap();
        fs::write(staging.join("aot/abc.cwasm"), "code").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", staging.join("link")).unwrap();
        store(&staging, &cache).unwrap();
        assert_eq!(fs::read(cache.join("aot/abc.cwasm")).unwrap(), b"code");
        assert!(!cache.join("link").exists());
    }

    #[test]
    fn an_image_is_known_by_its_layers_and_by_nothing_that_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let overlay = |lower: &Path| Mount {
            type_: "overlay".to_owned(),
            options: vec![format!("lowerdir={}:{}", lower.display(), lower.display())],
            ..Default::default()
        };
        let key_of = |mounts: &[Mount]| key(&layers(mounts).unwrap(), "worker").unwrap();
        let (one, other) = (folder.path().join("1"), folder.path().join("2"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        assert_eq!(key_of(&[overlay(&one)]), key_of(&[overlay(&one)]));
        assert_ne!(key_of(&[overlay(&one)]), key_of(&[overlay(&other)]));
        let before = key_of(&[overlay(&one)]);
        fs::remove_dir(&one).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::create_dir(&one).unwrap();
        assert_ne!(before, key_of(&[overlay(&one)]), "another layer under the old name");
        let bind = Mount { type_: "bind".to_owned(), ..overlay(&one) };
        assert!(layers(&[bind]).is_none() && layers(&[]).is_none());
    }

    #[test]
    fn the_images_used_longest_ago_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path();
        fs::create_dir(cache.join(DONE)).unwrap();
        for (age, name) in [(3, "old"), (2, "middle"), (1, "new")] {
            let image = cache.join(IMAGES).join(name);
            fs::create_dir_all(&image).unwrap();
            fs::write(image.join("code"), [0; 100]).unwrap();
            fs::write(cache.join(DONE).join(name), "").unwrap();
            let used = SystemTime::now() - Duration::from_secs(age);
            File::open(&image).unwrap().set_modified(used).unwrap();
        }
        make_room(cache, 200).unwrap();
        let left = |name: &str| {
            (cache.join(IMAGES).join(name).exists(), cache.join(DONE).join(name).exists())
        };
        assert_eq!(
            [left("old"), left("middle"), left("new")],
            [(false, false), (true, true), (true, true)]
        );
        make_room(cache, 0).unwrap();
        assert_eq!(left("new"), (false, false));
    }

    #[test]
    fn a_compiler_that_leaves_too_much_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..=MAX_FILES {
            fs::write(folder.path().join(n.to_string()), "").unwrap();
        }
        assert!(store(folder.path(), &folder.path().join("cache")).is_err());
    }

    #[test]
    fn what_did_not_fit_is_tried_again_when_there_is_more_room() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, done) = (folder.path(), folder.path().join("marker"));
        assert!(!is_done(&done, cache).unwrap());
        mark(&done, None).unwrap();
        assert!(is_done(&done, cache).unwrap());
        mark(&done, Some(u64::MAX)).unwrap();
        assert!(is_done(&done, cache).unwrap());
        mark(&done, Some(0)).unwrap();
        assert!(!is_done(&done, cache).unwrap());
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(is_short(&anyhow::Error::from(full()).context("store")));
        assert!(!is_short(&anyhow::anyhow!("compiling took longer")));
    }
}
