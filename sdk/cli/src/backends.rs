//! ONNX Runtime from its Python wheel into a folder of backends.
//!
//! ```text
//!   pip download ──▶ wheel ──▶ sha256 against the pin ──▶ libonnxruntime*.so*
//!                                                             │ temporary folder
//!                                                             ▼ rename
//!                                       ROOT/onnxruntime-1.32.0/libonnxruntime.so.1.32.0
//! ```
//!
//! Somebody who looks at the folder meanwhile sees all of it or nothing.

mod wheel;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use wick_package::Digest;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Format;

/// The version that wick is built and tested with.
pub const DEFAULT_VERSION: &str = "1.32.0";

/// What every installed version's folder is called, before its version.
const PREFIX: &str = "onnxruntime-";

/// How the library's file is called, before its version.
const LIBRARY: &str = "libonnxruntime.so.";

/// Where a backend comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This version, by pip.
    PyPi(String),
    /// A wheel, or a folder with the library.
    Local(PathBuf),
}

/// What was installed.
#[derive(Debug, Serialize)]
pub struct Installed {
    pub backend: &'static str,
    pub version: String,
    pub path: PathBuf,
    /// Of the wheel that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// False if it was there already.
    #[serde(rename = "installed")]
    pub fresh: bool,
}

/// Install ONNX Runtime below `root`.
///
/// # Errors
/// pip is missing or fails, a digest differs, or the folder can't be written.
pub fn install(root: &Path, origin: &Origin, force: bool, format: Format) -> Outcome<Installed> {
    if let Origin::PyPi(version) = origin
        && !force
        && let Some(installed) = find(root, version)
    {
        return Ok(installed);
    }
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    // Beside its final place, so that the last step is a rename.
    let scratch = tempfile::Builder::new().prefix(".install-").tempdir_in(root);
    let scratch = scratch.with_context(|| format!("cannot write into {}", root.display()))?;
    let ready = scratch.path().join("ready");
    fs::create_dir(&ready).with_context(|| format!("cannot write into {}", root.display()))?;

    let digest = match origin {
        Origin::PyPi(version) => {
            let pin = wheel::pin(version, std::env::consts::ARCH)?;
            let wheel = wheel::download(pin, scratch.path(), format)?;
            wheel::check(&wheel, pin)?;
            wheel::unpack(&wheel, &ready, format)?;
            Some(pin.digest()?)
        }
        Origin::Local(path) if path.is_dir() => {
            copy_libraries(path, &ready)?;
            None
        }
        Origin::Local(path) => {
            let digest = wheel::digest(path)?;
            wheel::unpack(path, &ready, format)?;
            Some(digest)
        }
    };
    let version = version_in(&ready)?;
    if !force && let Some(installed) = find(root, &version) {
        return Ok(installed);
    }
    let path = put(root, &ready, &version)?;
    Ok(Installed { backend: "onnxruntime", version, path, digest, fresh: true })
}

/// Remove one version or all, and say what was removed.
///
/// # Errors
/// A folder can't be removed.
pub fn remove(root: &Path, version: Option<&str>) -> Outcome<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(root) else { return Ok(removed) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(own) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if version.is_none_or(|version| version == own) {
            let path = entry.path();
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
            removed.push(path);
        }
    }
    removed.sort();
    Ok(removed)
}

fn find(root: &Path, version: &str) -> Option<Installed> {
    let path = root.join(format!("{PREFIX}{version}"));
    let is_there = path.join(format!("{LIBRARY}{version}")).is_file();
    let version = version.to_owned();
    let backend = "onnxruntime";
    is_there.then_some(Installed { backend, version, path, digest: None, fresh: false })
}

/// Move the finished folder to its place. What was there is moved aside first: a running
/// process keeps what it has mapped.
fn put(root: &Path, ready: &Path, version: &str) -> Outcome<PathBuf> {
    let path = root.join(format!("{PREFIX}{version}"));
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(ready, readable).context("cannot make the folder readable")?;
    let old = ready.with_file_name("old");
    match fs::rename(&path, &old) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let context = format!("cannot replace {}", path.display());
            return Err(anyhow::Error::new(error).context(context).into());
        }
    }
    fs::rename(ready, &path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

fn copy_libraries(from: &Path, to: &Path) -> Outcome {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(wheel::is_library) && entry.path().is_file() {
            let target = to.join(&name);
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The version in the library's file name.
fn version_in(folder: &Path) -> Outcome<String> {
    let names = fs::read_dir(folder).context("cannot read what was unpacked")?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut versions = names.filter_map(|name| name.strip_prefix(LIBRARY).map(str::to_owned));
    versions.find(|version| version.contains('.')).ok_or_else(|| {
        Failure::new(Exit::BadData, "no-library", format!("there is no {LIBRARY}VERSION in it"))
            .help("give a wheel of onnxruntime for Linux, or a folder with the library")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(name: &str, content: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        folder
    }

    fn install_from(root: &Path, from: &Path, force: bool) -> Outcome<Installed> {
        install(root, &Origin::Local(from.to_owned()), force, Format::Json)
    }

    #[test]
    fn a_library_in_a_folder_is_installed_once_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let from = folder_with("libonnxruntime.so.1.2.3", "one");
        let first = install_from(root.path(), from.path(), false).unwrap();
        assert!(first.fresh);
        assert_eq!(first.version, "1.2.3");
        fs::write(from.path().join("libonnxruntime.so.1.2.3"), "two").unwrap();
        assert!(!install_from(root.path(), from.path(), false).unwrap().fresh);
        let library = first.path.join("libonnxruntime.so.1.2.3");
        assert_eq!(fs::read_to_string(&library).unwrap(), "one");
        assert!(install_from(root.path(), from.path(), true).unwrap().fresh);
        assert_eq!(fs::read_to_string(&library).unwrap(), "two");
        // Nothing but the installed folder is left.
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(remove(root.path(), Some("9.9")).unwrap().is_empty());
        assert_eq!(remove(root.path(), None).unwrap(), [first.path]);
    }

    #[test]
    fn a_folder_without_the_library_is_refused_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let from = folder_with("libother.so", "");
        let failure = install_from(root.path(), from.path(), false).unwrap_err();
        assert_eq!(failure.exit(), Exit::BadData);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
