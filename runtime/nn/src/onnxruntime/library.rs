//! The library in this process: one, loaded once, never unloaded.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::device::Device;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, DeviceType, MemoryInfo, MemoryType};
use parking_lot::Mutex;

use super::CPU_PROVIDER;
use super::plugins::Plugins;

/// The loaded library. ONNX Runtime has global state, so a process has at most one.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// A loaded ONNX Runtime.
#[derive(Debug)]
pub(crate) struct Library {
    path: PathBuf,
    pub(super) environment: Environment,
    /// Describes memory that we own, for inputs that are not copied.
    pub(super) host_memory: MemoryInfo<'static>,
    /// Version, commit and compiler flags: what saved graphs depend on.
    pub(super) build: String,
    /// Providers that were registered, each once.
    pub(super) plugins: Plugins,
}

// === impl Library ===

impl Library {
    /// Load the library at `path`, or return it if it is the one that is loaded.
    ///
    /// # Errors
    /// Text for a detail: it can't be loaded, is too old, or another one is loaded.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, String> {
        let path = path.canonicalize().map_err(|error| error.to_string())?;
        let mut loaded = LOADED.lock();
        if let Some(library) = loaded.as_ref() {
            if library.path == path {
                return Ok(Arc::clone(library));
            }
            let other = library.path.display();
            return Err(format!("a process can have one ONNX Runtime, and {other} is loaded"));
        }
        let opened = catch_unwind(|| Self::open(path));
        let library =
            opened.unwrap_or_else(|_| Err("the library is no ONNX Runtime".to_owned()))?;
        let library = Arc::new(library);
        *loaded = Some(Arc::clone(&library));
        Ok(library)
    }

    /// Map the library into this process, and nothing more: no thread is started and no
    /// environment made. A later [`Library::load`] of the same file, whatever its path is
    /// by then, finds it mapped.
    ///
    /// # Errors
    /// Text for a detail: it can't be mapped, or is too old.
    pub(super) fn map(path: &Path) -> Result<(), String> {
        let mapped = catch_unwind(|| ort::init_from(path).map(drop));
        match mapped {
            Ok(mapped) => mapped.map_err(|error| error.to_string()),
            Err(_) => Err("the library is no ONNX Runtime".to_owned()),
        }
    }

    fn open(path: PathBuf) -> Result<Self, String> {
        let builder = ort::init_from(&path).map_err(|error| error.to_string())?;
        let environment = builder
            .with_name("wick")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| error.to_string())?;
        let host_memory =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUInput);
        Ok(Self {
            path,
            environment,
            host_memory: host_memory.map_err(|error| error.to_string())?,
            build: ort::info().to_owned(),
            plugins: Plugins::default(),
        })
    }

    /// The CPU, for `with_devices`: without it `ort` sets a policy that chooses
    /// devices by itself, and fails once a plugin is registered.
    pub(super) fn cpu(&self) -> Vec<Device<'_>> {
        let is_cpu = |device: &Device<'_>| {
            device.hardware_device().ty() == DeviceType::CPU
                && device.ep().is_ok_and(|provider| provider == CPU_PROVIDER)
        };
        self.environment.devices().filter(is_cpu).collect()
    }
}

/// ONNX Runtime's log lines become ours. Its errors are also returned, where they
/// reach whoever has made them: logging each loudly would let a client fill the log.
fn log(level: LogLevel, category: &str, id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info | LogLevel::Warning | LogLevel::Error => {
            tracing::debug!(category, id, place, "onnxruntime: {message}");
        }
        LogLevel::Fatal => tracing::error!(category, id, place, "onnxruntime: {message}"),
    }
}
