//! Whether the files of a container are the signed ones: all of them, and no others, and nothing
//! mounted over them.
//!
//! Hashing is done once for the layers of an image: what was hashed is remembered with each
//! file's inode, size and times, in a folder of root's. containerd's layers don't change, and
//! whoever can change them could as well change the shim.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use containerd_shim::protos::types::mount::Mount;
use sha2::{Digest as _, Sha256};
use wick_package::signature::ListedFiles;
use wick_package::{Digest, MANIFEST_FILE};
use wick_sandbox::order::Order;

use crate::{cache, rootfs};

/// Entries of an image's root that are looked at; packages have some ten.
const MAX_ENTRIES: usize = 16_384;

/// Folders in folders.
const MAX_DEPTH: usize = 32;

/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;

/// Longest manifest that is parsed for the files that it names.
const MAX_MANIFEST: u64 = 1 << 20;

/// Images whose hashes are remembered; beyond, all are forgotten and hashed again.
const MAX_REMEMBERED: usize = 4096;

/// What is compared.
pub struct Sealed<'a> {
    pub files: &'a ListedFiles,
    pub order: &'a Order,
    pub mounts: &'a [Mount],
    pub checked: Option<&'a Path>,
}

/// A difference.
#[derive(Debug)]
pub enum Broken {
    Unlisted(String),
    Missing(String),
    NotAFile(String),
    Changed { path: String, want: Digest, got: Digest },
    Covered { path: String, mount: PathBuf },
    Command(String),
    NotPacked { path: String },
    Large,
    Io { path: PathBuf, source: io::Error },
}

/// Each file of the root, and what it is known by.
type Found = BTreeMap<String, String>;

/// # Errors
/// The first difference.
pub fn check(sealed: &Sealed<'_>) -> Result<(), Broken> {
    let root = &sealed.order.rootfs;
    let mut found = Found::new();
    let mut entries = 0;
    walk(root, "", MAX_DEPTH, &mut entries, &mut found)?;
    for path in found.keys() {
        if sealed.files.digest(path).is_none() {
            return Err(Broken::Unlisted(path.clone()));
        }
    }
    for (path, _) in sealed.files.iter() {
        if !found.contains_key(path) {
            return Err(Broken::Missing(path.to_owned()));
        }
    }
    covered(sealed)?;
    command(sealed)?;
    let text = remembered_text(sealed.files, &found);
    let memory = sealed.checked.and_then(|folder| memory(folder, sealed.mounts));
    if memory.as_ref().is_some_and(|file| fs::read_to_string(file).is_ok_and(|old| old == text)) {
        return Ok(());
    }
    for (path, want) in sealed.files.iter() {
        let got = hash(root, path)?;
        if got != want {
            return Err(Broken::Changed { path: path.to_owned(), want, got });
        }
    }
    if let Some(file) = memory
        && let Err(error) = remember(&file, &text)
    {
        // It is hashed again next time.
        tracing::warn!("what was hashed is not remembered in {}: {error}", file.display());
    }
    Ok(())
}

/// Every file below a folder of the root.
fn walk(
    root: &Path,
    below: &str,
    depth: usize,
    entries: &mut usize,
    found: &mut Found,
) -> Result<(), Broken> {
    let folder = root.join(below);
    let io = |source| Broken::Io { path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        *entries += 1;
        if *entries > MAX_ENTRIES || depth == 0 {
            return Err(Broken::Large);
        }
        let name = entry.file_name();
        let path = match (below, name.to_str()) {
            ("", Some(name)) => name.to_owned(),
            (_, Some(name)) => format!("{below}/{name}"),
            (_, None) => return Err(Broken::Unlisted(name.to_string_lossy().into_owned())),
        };
        // Of the entry itself: a link is none of a package's files.
        let about = entry.metadata().map_err(io)?;
        if about.is_dir() {
            walk(root, &path, depth - 1, entries, found)?;
        } else if about.is_file() {
            let (modified, changed) = (about.mtime_nsec(), about.ctime_nsec());
            let known = format!(
                "{} {} {}.{modified} {}.{changed}",
                about.ino(),
                about.size(),
                about.mtime(),
                about.ctime()
            );
            found.insert(path, known);
        } else {
            return Err(Broken::NotAFile(path));
        }
    }
    Ok(())
}

/// No mount hides a signed file, as far as its path tells: whoever wrote the pod learns of it. What
/// a link in a volume does is the sandbox's to prevent, see [`Order::sealed`].
fn covered(sealed: &Sealed<'_>) -> Result<(), Broken> {
    for mount in &sealed.order.mounts {
        let place = plain(&mount.destination);
        let hides = |(path, _): &(&str, Digest)| Path::new(path).starts_with(&place);
        if let Some((path, _)) = sealed.files.iter().find(hides) {
            let mount = mount.destination.clone();
            return Err(Broken::Covered { path: path.to_owned(), mount });
        }
    }
    Ok(())
}

/// What the container's command names is signed, and so is what its manifest names: weights
/// from a volume are not.
fn command(sealed: &Sealed<'_>) -> Result<(), Broken> {
    let order = sealed.order;
    let first = order.args.first().map(String::as_str).unwrap_or_default();
    let path = plain(&order.cwd.join(first));
    let listed =
        |path: &Path| path.to_str().is_some_and(|path| sealed.files.digest(path).is_some());
    if !listed(&path) {
        return Err(Broken::Command(first.to_owned()));
    }
    if path.file_name().is_none_or(|name| name != MANIFEST_FILE) {
        return Ok(());
    }
    let text = rootfs::read_text(&order.rootfs, &path, MAX_MANIFEST);
    let text = text.map_err(|source| Broken::Io { path: path.clone(), source })?;
    // A broken manifest is the worker's to report.
    let Ok(manifest) = wick_package::parse(&text, &path) else { return Ok(()) };
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let files = manifest.files();
    let missing = files.iter().find(|file| !listed(&folder.join(file.path.as_str())));
    match missing {
        Some(file) => Err(Broken::NotPacked { path: file.path.to_string() }),
        None => Ok(()),
    }
}

/// A path from the root without `.` and `..`, and without the slash before it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

fn hash(root: &Path, path: &str) -> Result<Digest, Broken> {
    let io = |source| Broken::Io { path: path.into(), source };
    let mut file = rootfs::open(root, Path::new(path)).map_err(io)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// A line for each file: what it hashed to, and what it is known by.
fn remembered_text(files: &ListedFiles, found: &Found) -> String {
    let mut text = String::new();
    for (path, digest) in files.iter() {
        let known = found.get(path).map(String::as_str).unwrap_or_default();
        text.push_str(&format!("{digest} {known} {path}\n"));
    }
    text
}

/// The file that remembers the layers of an image; none where layers can't be told.
fn memory(folder: &Path, mounts: &[Mount]) -> Option<PathBuf> {
    let key = cache::layers_key(mounts, "checked").ok()??;
    Some(folder.join(key))
}

fn remember(file: &Path, text: &str) -> io::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    fs::create_dir_all(folder)?;
    if fs::read_dir(folder)?.count() > MAX_REMEMBERED {
        fs::remove_dir_all(folder)?;
        fs::create_dir_all(folder)?;
    }
    // Pods of one image start together: each writes the same, whole.
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

// === impl Broken ===

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlisted(path) => write!(f, "the image has `{path}`, which was not signed"),
            Self::Missing(path) => write!(f, "`{path}` is missing"),
            Self::NotAFile(path) => write!(f, "`{path}` is a link, a device or a pipe"),
            Self::Changed { path, want, got } => {
                write!(f, "`{path}` has digest {got} instead of {want}")
            }
            Self::Covered { path, mount } => write!(
                f,
                "the pod mounts {} over the signed `{path}`: mount it elsewhere",
                mount.display()
            ),
            Self::Command(first) => {
                write!(f, "the container's command `{first}` is none of the signed files")
            }
            Self::NotPacked { path } => write!(
                f,
                "wick.toml names `{path}`, which is not in the image: pack it with the package"
            ),
            Self::Large => f.write_str("the image has too many files or folders"),
            Self::Io { path, source } => write!(f, "{} can't be read: {source}", path.display()),
        }
    }
}
