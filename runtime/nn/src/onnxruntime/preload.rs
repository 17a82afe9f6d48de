//! What a process maps before it gives up the right to map code from anywhere: ONNX Runtime, and for devices beside
//! the CPU what providers load of the system, down to the devices' drivers. Nothing of it is called. Providers
//! themselves are loaded later, from where they are then: they look for their own files beside themselves.

use std::ffi::OsStr;
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
    /// Names of the container's variables: some let a CPU pose as a device.
    pub variables: &'a [&'a str],
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
/// [`LoadError::BackendBroken`] for ONNX Runtime itself. Any other library that can't be mapped is in
/// [`Preloaded::refused`]: what a provider makes of that is seen when it is registered.
pub fn preload(wanted: Wanted<'_>) -> Result<Preloaded, LoadError> {
    let mut done = Preloaded { runtime: runtime(wanted), ..Preloaded::default() };
    let Some(runtime) = done.runtime.clone() else { return Ok(done) };
    Library::map(&runtime).map_err(|detail| LoadError::BackendBroken {
        backend: NAME.to_owned(),
        path: runtime.display().to_string(),
        detail,
    })?;
    let version = find::version(&runtime);
    for provider in serving(wanted.kinds).filter(|provider| wanted.has_device(provider)) {
        let fits = provider.only_with.is_none_or(|only| version.as_deref() == Some(only));
        if fits && installed(wanted.folders, provider).is_some() {
            done.map_for(provider);
        }
    }
    Ok(done)
}

/// The ONNX Runtime to use: a provider's own, where the provider has a device and runs with no other.
fn runtime(wanted: Wanted<'_>) -> Option<PathBuf> {
    let own = |provider: &Provider| {
        let (library, _) = installed(wanted.folders, provider)?;
        let file = library.with_file_name(format!("{}.{}", find::FILE_PREFIX, provider.only_with?));
        file.is_file().then_some(file)
    };
    let mut owners = serving(wanted.kinds).filter(|provider| wanted.has_device(provider));
    owners.find_map(own).or_else(|| find(wanted.folders))
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Whether a provider may have a device here. Most nodes have none, and mapping costs time and memory.
    fn has_device(&self, provider: &Provider) -> bool {
        let mut nodes = self.nodes.iter().filter_map(|node| node.to_str());
        let granted = nodes.any(|node| provider.nodes.iter().any(|start| node.starts_with(start)));
        granted || provider.on_cpu.is_some_and(|variable| self.variables.contains(&variable))
    }
}

// === impl Preloaded ===

impl Preloaded {
    /// Variables by which drivers are found whose files were written to `folder`.
    pub fn variables(&self, folder: &Path) -> Vec<(String, String)> {
        if self.drivers.is_empty() { Vec::new() } else { vulkan::variables(&self.drivers, folder) }
    }

    fn map_for(&mut self, provider: &Provider) {
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
    use std::fs;

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
            runtime(Wanted { folders: &folders, kinds, nodes: &nodes, variables: &[] })
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
    fn providers_without_a_device_are_left_alone() {
        let has = |name: &str, nodes: &[&str], variables: &[&str]| {
            let nodes: Vec<_> = nodes.iter().map(PathBuf::from).collect();
            let wanted = Wanted { folders: &[], kinds: &[], nodes: &nodes, variables };
            wanted.has_device(super::super::providers::named(name).unwrap())
        };
        assert!(has("webgpu", &["/dev/dri/renderD128"], &[]));
        assert!(has("webgpu", &[], &["PATH", "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"]));
        assert!(!has("webgpu", &["/dev/fuse"], &["WICK_QNN_EMULATOR"]));
        assert!(
            has("openvino", &["/dev/accel/accel0"], &[]) && has("qnn", &["/dev/fastrpc-cdsp"], &[])
        );
        assert!(!has("cuda", &["/dev/dri/renderD128"], &[]));
    }

    #[test]
    fn what_can_t_be_mapped_is_named_with_what_the_loader_says() {
        let root = tempfile::tempdir().unwrap();
        let broken = install(root.path(), "broken.so");
        let mut done = Preloaded::default();
        assert!(!done.map("one", broken.as_os_str()) && done.map("two", OsStr::new("libm.so.6")));
        let [refusal] = &done.refused[..] else { panic!("{:?}", done.refused) };
        assert!(refusal.what == "one" && refusal.why.contains("broken.so"), "{refusal:?}");
        assert!(done.drivers.is_empty() && done.variables(Path::new("/x")).is_empty());
    }
}
