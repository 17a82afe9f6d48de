//! The providers that wick knows: libraries that ONNX Runtime loads beside itself to run
//! graphs on other devices than the CPU. One row each; nothing else in wick names one.

mod cuda;
mod openvino;
pub mod options;
mod qnn;
mod tensorrt_rtx;
mod webgpu;

use wick_package::{DeviceKind, GraphSpec};

pub use options::{Known, check};

/// Every provider, best first for a device that several can use.
pub const PROVIDERS: [&Provider; 5] = [
    &cuda::PROVIDER,
    &tensorrt_rtx::PROVIDER,
    &openvino::PROVIDER,
    &qnn::PROVIDER,
    // It runs on any GPU with Vulkan, and so comes after what knows its device.
    &webgpu::PROVIDER,
];

/// A provider as a row of the table.
#[derive(Debug)]
pub struct Provider {
    /// For `wick backend install`, and before the version in its folder's name.
    pub name: &'static str,
    /// What ONNX Runtime calls it.
    pub registered: &'static str,
    /// The file that is registered; others of its folder are loaded by it.
    pub library: &'static str,
    /// Kinds of device that it serves. On a CPU it runs only graphs that insist on it: every ONNX Runtime runs there by
    /// itself.
    pub kinds: &'static [DeviceKind],
    /// What it runs on, for people.
    pub serves: &'static str,
    /// The one version of ONNX Runtime that it runs with; none where any recent one does.
    pub only_with: Option<&'static str>,
    /// A variable that lets it pose as its first kind on a CPU, for tests.
    pub on_cpu: Option<&'static str>,
    /// What it is told for each session, unless a package says otherwise.
    pub options: &'static [(&'static str, &'static str)],
    /// What packages may tell it.
    pub takes: &'static [Known],
    /// Libraries of its folder that are mapped before it, by how their names start: it wants them by names that are no
    /// files.
    pub before: &'static [&'static str],
    /// Libraries of the system that it is linked with or loads by name, those of its devices' drivers included: a
    /// worker maps them before it gives up the right to. Those of C and C++ need no mention.
    pub later: &'static [&'static str],
    /// Whether its drivers are Vulkan's, which are found by files.
    pub vulkan: bool,
    /// How the names of its devices' files start.
    pub nodes: &'static [&'static str],
    /// Variables that tell its libraries which devices to use: a container's reach them.
    pub environment: &'static [&'static str],
    /// Whether it makes engines of graphs, which are kept.
    pub compiles: bool,
    /// Package and version at PyPI.
    pub package: &'static str,
    pub version: &'static str,
    pub wheels: &'static [Wheel],
    /// Files of the wheel that are installed: how their names start.
    pub files: &'static [&'static str],
}

/// A wheel whose content is known.
#[derive(Debug, Clone, Copy)]
pub struct Wheel {
    /// As Rust spells it.
    pub arch: &'static str,
    /// Platform tag.
    pub platform: &'static str,
    /// Implementation and ABI tags of Python.
    pub python: [&'static str; 2],
    pub sha256: &'static str,
}

/// Tags of a wheel that works with every Python.
const ANY_PYTHON: [&str; 2] = ["py", "none"];

/// Tags of a wheel that is there for each Python; one of them is enough, since the
/// libraries in all are the same.
const PYTHON_3_11: [&str; 2] = ["cp", "cp311"];

// === impl Provider ===

impl Provider {
    /// How the name of its folder starts.
    pub(crate) fn folder_prefix(&self) -> String {
        format!("{}-", self.name)
    }

    /// Whether it serves one of `kinds`.
    pub(crate) fn serves_one_of(&self, kinds: &[DeviceKind]) -> bool {
        self.kinds.iter().any(|kind| kinds.contains(kind))
    }
}

/// The provider that a graph insists on by its `backend`, if that is one.
pub fn insisted(spec: &GraphSpec) -> Option<&'static Provider> {
    spec.backend.as_ref().and_then(|backend| named(backend.as_str()))
}

/// Whether a container's variable is one that a provider's libraries look at and may be told.
pub fn may_be_told(variable: &str) -> bool {
    let looks = |provider: &Provider| {
        provider.environment.contains(&variable) || provider.on_cpu == Some(variable)
    };
    PROVIDERS.into_iter().any(looks)
}

/// The row of what ONNX Runtime calls `registered`.
pub(crate) fn of_registered(registered: &str) -> Option<&'static Provider> {
    PROVIDERS.into_iter().find(|provider| provider.registered == registered)
}

/// The row of a name.
pub fn named(name: &str) -> Option<&'static Provider> {
    PROVIDERS.into_iter().find(|provider| provider.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_told_apart_and_their_pins_are_digests() {
        let names: BTreeSet<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
        let registered: BTreeSet<_> = PROVIDERS.iter().map(|p| p.registered).collect();
        assert_eq!((names.len(), registered.len()), (PROVIDERS.len(), PROVIDERS.len()));
        for provider in PROVIDERS {
            assert!(!provider.kinds.is_empty(), "{provider:?}");
            assert!(!provider.wheels.is_empty(), "{provider:?}");
            let taken = provider.files.iter().any(|start| provider.library.starts_with(start));
            assert!(taken, "{provider:?}");
            for wheel in provider.wheels {
                let hex =
                    wheel.sha256.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
                assert!(hex && wheel.sha256.len() == 64, "{provider:?}");
            }
        }
        assert!(named("cuda").is_some() && named("cpu").is_none());
        assert!(may_be_told("CUDA_VISIBLE_DEVICES") && may_be_told("WICK_QNN_EMULATOR"));
        assert!(!may_be_told("LD_LIBRARY_PATH") && !may_be_told("VK_DRIVER_FILES"));
    }
}
