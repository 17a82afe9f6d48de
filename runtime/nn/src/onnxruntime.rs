//! The backend for ONNX Runtime, whose library is loaded at run time.
//!
//! Nothing of it is touched before a graph wants it: loading costs about 20 ms and
//! 20 MB. It runs on the CPU, and on other devices by providers, which are libraries of
//! their own and loaded when a graph may run on what they serve. A graph is one ONNX
//! Runtime session, on which any number of threads run at once without a lock.

mod engines;
mod facts;
mod find;
mod graph;
mod library;
mod map;
mod open;
mod plugins;
pub mod preload;
pub mod providers;
mod value;
pub mod vulkan;

use std::path::PathBuf;
use std::sync::Arc;

use wick_package::DeviceKind;

use self::graph::OrtGraph;
use self::library::Library;
use self::providers::Provider;
use crate::backend::{
    Backend, Device, DeviceUse, Found, Graph, GraphOptions, GraphSource, Refusal,
};
use crate::error::LoadError;

pub(crate) use self::find::find;

/// What the backend is called in `wick.toml` and in reports.
pub(crate) const NAME: &str = "onnxruntime";

/// The provider that every ONNX Runtime has.
const CPU_PROVIDER: &str = "CPUExecutionProvider";

/// An ONNX Runtime that was found, loaded or not.
#[derive(Debug)]
pub(crate) struct OnnxRuntime {
    path: PathBuf,
    version: String,
    /// Where providers are.
    folders: Vec<PathBuf>,
}

// === impl OnnxRuntime ===

impl OnnxRuntime {
    /// The library at `path`, which is not loaded yet.
    pub(crate) fn at(path: PathBuf, folders: Vec<PathBuf>) -> Self {
        let version = find::version(&path).unwrap_or_else(|| "unknown".to_owned());
        Self { path, version, folders }
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Load the library if it isn't loaded yet.
    ///
    /// # Errors
    /// [`LoadError::BackendBroken`].
    pub(crate) fn library(&self) -> Result<Arc<Library>, LoadError> {
        Library::load(&self.path).map_err(|detail| LoadError::BackendBroken {
            backend: NAME.to_owned(),
            path: self.path.display().to_string(),
            detail,
        })
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn find(&self, kinds: &[DeviceKind]) -> Found {
        // Every build has the CPU, so the library need not be loaded to know.
        let cpu = kinds.contains(&DeviceKind::Cpu).then(|| Device::cpu(CPU_PROVIDER));
        let mut found = self.find_by(kinds, &plugins::serving(kinds).collect::<Vec<_>>());
        found.devices.extend(cpu);
        found
    }

    fn load(
        &self,
        source: &GraphSource,
        device: &Device,
        options: &GraphOptions,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let library = self.library()?;
        let (session, share) = if device.provider == CPU_PROVIDER {
            (open::open(&library, source, options)?, 1.0)
        } else {
            engines::open_on(&library, source, device, options)?
        };
        let device = DeviceUse {
            backend: NAME.to_owned(),
            backend_version: self.version.clone(),
            device: device.clone(),
            share,
            threads: options.threads,
            refused: Vec::new(),
        };
        let graph = OrtGraph::new(library, session, source, device)?;
        Ok(Arc::new(graph))
    }
}

impl OnnxRuntime {
    /// Devices of `kinds` by these providers. The library is loaded only if one of them could have one.
    pub(crate) fn find_by(&self, kinds: &[DeviceKind], providers: &[&'static Provider]) -> Found {
        let of = |refused| Found { devices: Vec::new(), refused };
        if !providers.iter().any(|provider| plugins::installed(&self.folders, provider).is_some()) {
            return of(providers.iter().map(|provider| plugins::absent(provider)).collect());
        }
        match self.library() {
            Ok(library) => plugins::find(&library, &self.folders, kinds, providers.iter().copied()),
            Err(error) => of(vec![Refusal { what: NAME.to_owned(), why: error.to_string() }]),
        }
    }
}
