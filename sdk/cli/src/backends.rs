//! ONNX Runtime and its providers from their Python wheels into a folder of backends.
//!
//! ```text
//!   pip download ──▶ wheel ──▶ sha256 against the pin ──▶ libonnxruntime*.so*
//!                                                             │ temporary folder
//!                                                             ▼ rename
//!                                       ROOT/onnxruntime-1.32.0/libonnxruntime.so.1.32.0
//! ```
//!
//! Somebody who looks at the folder meanwhile sees all of it or nothing.

mod what;
mod wheel;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use wick_package::Digest;

use crate::failure::Outcome;
use crate::output::Format;

pub use self::what::What;

/// The version that wick is built and tested with.
pub const DEFAULT_VERSION: &str = "1.32.0";

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

/// Install something below `root`.
///
/// # Errors
/// pip is missing or fails, a digest differs, or the folder can't be written.
pub fn install(
    root: &Path,
    what: What,
    origin: &Origin,
    force: bool,
    format: Format,
) -> Outcome<Installed> {
    if let Origin::PyPi(version) = origin
        && !force
        && let Some(installed) = find(root, what, version)
    {
        return Ok(installed);
    }
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    // Beside its final place, so that the last step is a rename.
    let scratch = tempfile::Builder::new().prefix(".install-").tempdir_in(root);
    let scratch = scratch.with_context(|| format!("cannot write into {}", root.display()))?;
    let ready = scratch.path().join("ready");
    fs::create_dir(&ready).with_context(|| format!("cannot write into {}", root.display()))?;

    let keep = |name: &str| what.keeps(name);
    let digest = match origin {
        Origin::PyPi(version) => {
            let pin = what.pin(version, std::env::consts::ARCH)?;
            let wheel = wheel::download(&pin, scratch.path(), format)?;
            wheel::check(&wheel, &pin)?;
            wheel::unpack(&wheel, &ready, &keep, format)?;
            Some(pin.digest()?)
        }
        Origin::Local(path) if path.is_dir() => {
            copy_libraries(path, &ready, &keep)?;
            None
        }
        Origin::Local(path) => {
            let digest = wheel::digest(path)?;
            wheel::unpack(path, &ready, &keep, format)?;
            Some(digest)
        }
    };
    let version = what.version_in(&ready, origin)?;
    if !force && let Some(installed) = find(root, what, &version) {
        return Ok(installed);
    }
    let path = put(root, &ready, &what.folder(&version))?;
    Ok(Installed { backend: what.name(), version, path, digest, fresh: true })
}

/// Remove one version or all, and say what was removed.
///
/// # Errors
/// A folder can't be removed.
pub fn remove(root: &Path, what: What, version: Option<&str>) -> Outcome<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(root) else { return Ok(removed) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let prefix = what.folder("");
        let own = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let Some(own) = own else { continue };
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

fn find(root: &Path, what: What, version: &str) -> Option<Installed> {
    let path = root.join(what.folder(version));
    let is_there = path.join(what.library(version)).is_file();
    let version = version.to_owned();
    let backend = what.name();
    is_there.then_some(Installed { backend, version, path, digest: None, fresh: false })
}

/// Move the finished folder to its place. What was there is moved aside first: a running
/// process keeps what it has mapped.
fn put(root: &Path, ready: &Path, folder: &str) -> Outcome<PathBuf> {
    let path = root.join(folder);
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

fn copy_libraries(from: &Path, to: &Path, keep: &dyn Fn(&str) -> bool) -> Outcome {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(keep) && entry.path().is_file() {
            let target = to.join(&name);
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn folder_with(name: &str, content: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        folder
    }

    fn install_from(root: &Path, from: &Path, force: bool) -> Outcome<Installed> {
        install(root, What::OnnxRuntime, &Origin::Local(from.to_owned()), force, Format::Json)
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
        assert!(remove(root.path(), What::OnnxRuntime, Some("9.9")).unwrap().is_empty());
        assert_eq!(remove(root.path(), What::OnnxRuntime, None).unwrap(), [first.path]);
    }

    #[test]
    fn a_folder_without_the_library_is_refused_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let from = folder_with("libother.so", "");
        let failure = install_from(root.path(), from.path(), false).unwrap_err();
        assert_eq!(failure.exit(), Exit::BadData);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_provider_is_installed_with_what_it_needs_and_beside_others() {
        let root = tempfile::tempdir().unwrap();
        let from = folder_with("libonnxruntime_providers_cuda.so", "cuda");
        fs::write(from.path().join("libonnxruntime.so.1.31.1"), "its own").unwrap();
        fs::write(from.path().join("libonnxruntime_providers_tensorrt.so"), "another").unwrap();
        let cuda = "cuda".parse::<What>().unwrap();
        let origin = Origin::Local(from.path().to_owned());
        let first = install(root.path(), cuda, &origin, false, Format::Json).unwrap();
        assert_eq!((first.backend, first.fresh), ("cuda", true));
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(
            names(&first.path),
            ["libonnxruntime.so.1.31.1", "libonnxruntime_providers_cuda.so"]
        );
        assert!(!install(root.path(), cuda, &origin, false, Format::Json).unwrap().fresh);
        assert!(remove(root.path(), What::OnnxRuntime, None).unwrap().is_empty());
        assert_eq!(remove(root.path(), cuda, None).unwrap(), [first.path]);
        // A folder with something else is not it.
        let webgpu = "webgpu".parse::<What>().unwrap();
        assert!(install(root.path(), webgpu, &origin, false, Format::Json).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
