//! What a process maps before it gives up the right to map code: ONNX Runtime, and for devices beside the CPU
//! providers with all that they load lazily, down to the devices' drivers. Nothing of it is called.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use wick_package::DeviceKind;

use super::library::Library;
use super::plugins::{installed, serving};
use super::providers::Provider;
use super::vulkan::{self, DriverFile};
use super::{NAME, find, map};
use crate::backend::Refusal;
use crate::error::LoadError;

/// What there is to map for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Folders of backends.
    pub folders: &'a [PathBuf],
    /// Kinds of device that graphs may run on.
    pub kinds: &'a [DeviceKind],
    /// Files of devices that were granted.
    pub nodes: &'a [PathBuf],
}

/// What was mapped.
#[derive(Debug, Default)]
pub struct Preloaded {
    /// The one ONNX Runtime that this process can use from now on.
    pub runtime: Option<PathBuf>,
    /// Vulkan's drivers.
    pub drivers: Vec<DriverFile>,
    /// What could not be mapped.
    pub refused: Vec<Refusal>,
}

/// Map what is wanted into this process, and start nothing.
///
/// # Errors
/// [`LoadError::BackendBroken`] for ONNX Runtime itself. A provider's library that can't be mapped is in
/// [`Preloaded::refused`].
pub fn preload(wanted: Wanted<'_>) -> Result<Preloaded, LoadError> {
    let mut done = Preloaded { runtime: runtime(wanted), ..Preloaded::default() };
    let Some(runtime) = done.runtime.clone() else { return Ok(done) };
    Library::map(&runtime).map_err(|detail| LoadError::BackendBroken {
        backend: NAME.to_owned(),
        path: runtime.display().to_string(),
        detail,
    })?;
    let version = find::version(&runtime);
    for provider in serving(wanted.kinds) {
        let fits = provider.only_with.is_none_or(|only| version.as_deref() == Some(only));
        if fits && let Some((library, _)) = installed(wanted.folders, provider) {
            done.map_provider(provider, &library);
        }
    }
    Ok(done)
}

/// The ONNX Runtime to use: a provider's own, where the provider has a device and runs with no other.
fn runtime(wanted: Wanted<'_>) -> Option<PathBuf> {
    let has_device = |provider: &&Provider| {
        let mut nodes = wanted.nodes.iter().filter_map(|node| node.to_str());
        nodes.any(|node| provider.nodes.iter().any(|start| node.starts_with(start)))
    };
    let own = |provider: &Provider| {
        let (library, _) = installed(wanted.folders, provider)?;
        let file = library.with_file_name(format!("{}.{}", find::FILE_PREFIX, provider.only_with?));
        file.is_file().then_some(file)
    };
    let owners = serving(wanted.kinds).filter(has_device);
    owners.into_iter().find_map(own).or_else(|| find(wanted.folders))
}

/// Libraries beside a provider's, which it loads itself; its ONNX Runtime is not one of them.
fn beside(library: &Path) -> Vec<PathBuf> {
    let entries = library.parent().and_then(|folder| fs::read_dir(folder).ok());
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        path != library && name.contains(".so") && !name.starts_with(find::FILE_PREFIX)
    };
    let mut files: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_library)
        .collect();
    files.sort_unstable();
    files
}

// === impl Preloaded ===

impl Preloaded {
    /// Variables by which drivers are found whose files were written to `folder`.
    pub fn variables(&self, folder: &Path) -> Vec<(String, String)> {
        if self.drivers.is_empty() { Vec::new() } else { vulkan::variables(&self.drivers, folder) }
    }

    fn map_provider(&mut self, provider: &Provider, library: &Path) {
        if !self.map(provider.name, library.as_os_str()) {
            return;
        }
        for file in beside(library) {
            self.map(provider.name, file.as_os_str());
        }
        for name in provider.later {
            self.map(provider.name, OsStr::new(name));
        }
        if provider.vulkan {
            let found = vulkan::find(vulkan::named().as_deref());
            let mapped =
                found.into_iter().filter(|one| self.map(&one.name, OsStr::new(&one.library)));
            self.drivers = mapped.collect();
        }
    }

    /// Map one library, and note why if that fails.
    fn map(&mut self, what: &str, library: &OsStr) -> bool {
        let mapped = map::map(library);
        if let Err(why) = &mapped {
            self.refused.push(Refusal { what: what.to_owned(), why: why.clone() });
        }
        mapped.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, file: &str) -> PathBuf {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn a_provider_that_needs_its_own_runtime_has_it_where_its_device_is() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().to_owned()];
        let usual = install(root.path(), "onnxruntime-1.32.0/libonnxruntime.so.1.32.0");
        let of = |kinds: &[DeviceKind], nodes: &[&str]| {
            let nodes: Vec<_> = nodes.iter().map(PathBuf::from).collect();
            runtime(Wanted { folders: &folders, kinds, nodes: &nodes })
        };
        let (cpu, gpu) = ([DeviceKind::Cpu], [DeviceKind::Gpu, DeviceKind::Cpu]);
        assert_eq!(of(&gpu, &["/dev/nvidia0"]), Some(usual.clone()), "CUDA is not installed");
        install(root.path(), "cuda-1.31.1/libonnxruntime_providers_cuda.so");
        assert_eq!(of(&gpu, &["/dev/nvidia0"]), Some(usual.clone()), "its own is not there");
        let own = install(root.path(), "cuda-1.31.1/libonnxruntime.so.1.31.1");
        assert_eq!(of(&gpu, &["/dev/fuse", "/dev/nvidia0"]), Some(own));
        assert_eq!(of(&gpu, &["/dev/dri/renderD128"]), Some(usual.clone()));
        assert_eq!(of(&cpu, &["/dev/nvidia0"]), Some(usual));
    }

    #[test]
    fn what_lies_beside_a_provider_is_mapped_but_for_a_runtime() {
        let root = tempfile::tempdir().unwrap();
        let library = install(root.path(), "p.so");
        let (a, b) = (install(root.path(), "libA.so"), install(root.path(), "libb.so.1.0"));
        install(root.path(), "libonnxruntime.so.1.31.1");
        install(root.path(), "LICENSE");
        assert_eq!(beside(&library), [a, b]);
    }

    #[test]
    fn a_provider_that_can_t_be_mapped_is_refused_with_what_the_loader_says() {
        let root = tempfile::tempdir().unwrap();
        let broken = install(root.path(), "broken.so");
        let mut done = Preloaded::default();
        done.map_provider(super::super::providers::named("webgpu").unwrap(), &broken);
        assert_eq!(done.refused.len(), 1, "{:?}", done.refused);
        assert!(done.refused[0].why.contains("broken.so"), "{:?}", done.refused);
        assert!(done.drivers.is_empty() && done.variables(Path::new("/x")).is_empty());
    }
}
