//! Providers in this process: each registered once, when a graph first wants a kind of
//! device that it serves.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use ort::device::Device as OrtDevice;
use ort::memory::DeviceType;
use parking_lot::Mutex;
use wick_package::DeviceKind;

use super::find::{entries, name, provider as newest};
use super::library::Library;
use super::providers::{PROVIDERS, Provider};
use super::{facts, map};
use crate::backend::{Device, Found, Refusal};

/// Names providers that are to list devices which are not there, for tests of what is chosen and refused: ONNX Runtime
/// lets a library do that which is registered under a name with this end. No graph runs there.
const VIRTUAL_DEVICES: &str = "WICK_VIRTUAL_DEVICES";
const VIRTUAL: &str = ".virtual";

/// What became of each provider that was registered.
#[derive(Debug, Default)]
pub(super) struct Plugins(Mutex<BTreeMap<&'static str, Result<(), String>>>);

/// Devices of `kinds` by some providers, and why others have none.
pub(super) fn find(
    library: &Library,
    folders: &[PathBuf],
    kinds: &[DeviceKind],
    providers: impl IntoIterator<Item = &'static Provider>,
) -> Found {
    let mut found = Found::default();
    for provider in providers {
        let done = match installed(folders, provider) {
            None => Err(not_installed(provider)),
            Some((path, _)) => library.register(provider, &path),
        };
        let devices = match done {
            Err(why) => Err(why),
            Ok(()) => some(devices(library, provider)),
        };
        match devices {
            Ok(devices) => {
                found.devices.extend(devices.into_iter().filter(|d| kinds.contains(&d.kind)));
            }
            Err(why) => found.refused.push(Refusal { what: provider.name.to_owned(), why }),
        }
    }
    found
}

/// What to say of a provider while there is no ONNX Runtime or it is not installed.
pub(super) fn absent(provider: &Provider) -> Refusal {
    Refusal { what: provider.name.to_owned(), why: not_installed(provider) }
}

/// ONNX Runtime's own record of a device that [`find`] returned.
pub(super) fn pick<'l>(library: &'l Library, device: &Device) -> Option<OrtDevice<'l>> {
    of_provider(library, &device.provider).nth(device.ordinal)
}

/// The version that a device's provider gives of itself.
pub(super) fn version(library: &Library, device: &Device) -> Option<String> {
    facts::provider_metadata(&pick(library, device)?, c"version")
}

/// Providers for devices of `kinds`. None is loaded for the CPU, which needs none.
pub(super) fn serving(kinds: &[DeviceKind]) -> impl Iterator<Item = &'static Provider> {
    let others: Vec<_> = kinds.iter().copied().filter(|&kind| kind != DeviceKind::Cpu).collect();
    PROVIDERS.into_iter().filter(move |provider| provider.serves_one_of(&others))
}

pub(super) fn installed(folders: &[PathBuf], provider: &Provider) -> Option<(PathBuf, String)> {
    newest(folders, &provider.folder_prefix(), provider.library)
}

/// Libraries of a provider's folder that the loader would not find when it loads the provider.
fn before(provider: &Provider, library: &Path) -> Vec<PathBuf> {
    let folder = library.parent().unwrap_or(library);
    let named = |start: &&str| {
        let starts = |path: &PathBuf| name(path).is_some_and(|name| name.starts_with(*start));
        entries(folder).filter(starts).max()
    };
    provider.before.iter().filter_map(named).collect()
}

fn not_installed(provider: &Provider) -> String {
    let (name, serves) = (provider.name, provider.serves);
    format!("not installed (`wick backend install {name}`, for {serves})")
}

fn some(devices: Vec<Device>) -> Result<Vec<Device>, String> {
    if devices.is_empty() { Err("it finds no device here".to_owned()) } else { Ok(devices) }
}

fn of_provider<'l>(library: &'l Library, registered: &str) -> impl Iterator<Item = OrtDevice<'l>> {
    // Some call themselves what they are registered as.
    let is_its = move |device: &OrtDevice<'_>| {
        device.ep().is_ok_and(|name| name.strip_suffix(VIRTUAL).unwrap_or(name) == registered)
    };
    library.environment.devices().filter(is_its)
}

fn devices(library: &Library, provider: &Provider) -> Vec<Device> {
    let all = of_provider(library, provider.registered).enumerate();
    let device = |(ordinal, device): (usize, OrtDevice<'_>)| {
        let hardware = device.hardware_device();
        let kind = kind(provider, hardware.ty())?;
        // What poses has the vendor of the CPU below, which says nothing of it.
        let poses = hardware.ty() == DeviceType::CPU && kind != DeviceKind::Cpu;
        let vendor = || vendor(facts::vendor_id(&hardware), hardware.vendor().unwrap_or_default());
        Some(Device {
            kind,
            provider: provider.registered.to_owned(),
            vendor: if poses { None } else { vendor() },
            pci: facts::metadata(&hardware, c"pci_bus_id"),
            ordinal,
        })
    };
    all.filter_map(device).collect()
}

/// What a device counts as; none if the provider is not for it.
fn kind(provider: &Provider, hardware: DeviceType) -> Option<DeviceKind> {
    let kind = match hardware {
        DeviceType::GPU => DeviceKind::Gpu,
        DeviceType::NPU => DeviceKind::Npu,
        // A CPU that poses as the device is taken where somebody has asked for that.
        _ if provider.on_cpu.is_some_and(|variable| env::var_os(variable).is_some()) => {
            return provider.kinds.first().copied();
        }
        _ => DeviceKind::Cpu,
    };
    provider.kinds.contains(&kind).then_some(kind)
}

fn is_virtual(provider: &Provider) -> bool {
    let names = env::var(VIRTUAL_DEVICES).unwrap_or_default();
    names.split(',').any(|name| name == provider.name)
}

/// A vendor as `wick.toml` spells it.
fn vendor(id: u32, text: &str) -> Option<String> {
    let known = crate::inventory::vendor(id).map(str::to_owned);
    known.or_else(|| (!text.is_empty()).then(|| text.to_ascii_lowercase()))
}

// === impl Library ===

impl Library {
    /// Register a provider's library, unless that was done or has failed before.
    fn register(&self, provider: &'static Provider, path: &Path) -> Result<(), String> {
        let mut plugins = self.plugins.0.lock();
        let register = || {
            let version = self.version();
            if let Some(only) = provider.only_with
                && version != only
            {
                let beside = path.with_file_name(format!("libonnxruntime.so.{only}"));
                return Err(format!(
                    "it works with ONNX Runtime {only} alone, and {version} is in use: add \
                     --onnxruntime {}",
                    beside.display()
                ));
            }
            for file in before(provider, path) {
                map::map(file.as_os_str())?;
            }
            let name = if is_virtual(provider) {
                format!("{}{VIRTUAL}", provider.registered)
            } else {
                provider.registered.to_owned()
            };
            let registered = self.environment.register_ep_library(name, path);
            registered.map_err(|error| error.message().trim().to_owned())
        };
        plugins.entry(provider.name).or_insert_with(register).clone()
    }

    /// The version that the library itself gives.
    fn version(&self) -> String {
        let cpu = self.cpu();
        let version = cpu.first().and_then(|cpu| facts::provider_metadata(cpu, c"version"));
        version.unwrap_or_else(|| "an unknown version".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::onnxruntime::providers::named;

    #[test]
    fn libraries_that_the_loader_would_not_find_come_in_their_order() {
        let root = tempfile::tempdir().unwrap();
        let library = root.path().join("libonnxruntime_providers_nv_tensorrt_rtx.so");
        let names = ["libtensorrt_rtx.so.1.7.1", "libcudart.so.13.4.36", "libtensorrt_plugins.so"];
        for name in names {
            fs::write(root.path().join(name), "").unwrap();
        }
        let found = before(named("tensorrt-rtx").unwrap(), &library);
        assert_eq!(found, [names[1], names[0]].map(|name| root.path().join(name)));
        assert!(before(named("webgpu").unwrap(), &library).is_empty());
    }
}
