//! The runtime in this process: flags become settings, settings become backends and an
//! engine.

use std::io;
use std::path::{Path, PathBuf};

use wick_engine::{Engine, EngineSettings, Grants, Model};
use wick_nn::{Nn, NnSettings, SourceBytes};
use wick_package::{Blob, Package, RelPath};

use crate::failure::{Failure, Outcome};

/// Flags of commands that load packages.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Host")]
pub struct HostArgs {
    /// A folder with backends, searched before the user's own
    #[arg(long, value_name = "DIR", env = "WICK_BACKENDS")]
    backends: Option<PathBuf>,
    /// A libonnxruntime to use instead of searching for one
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
    /// Keep no compiled components and no optimised graphs on disk
    #[arg(long)]
    no_cache: bool,
}

/// What loads packages.
pub struct Host {
    pub engine: Engine,
    pub cpus: usize,
}

// === impl HostArgs ===

impl HostArgs {
    pub fn nn_settings(&self) -> NnSettings {
        let mut settings = NnSettings::detect();
        if let Some(backends) = &self.backends {
            settings.backend_dirs.insert(0, backends.clone());
        }
        if let Some(onnxruntime) = &self.onnxruntime {
            settings.onnxruntime = Some(onnxruntime.clone());
        }
        if self.no_cache {
            settings.cache = None;
        }
        settings
    }

    /// # Errors
    /// A backend that was named is not there.
    pub fn nn(&self) -> Outcome<Nn> {
        Nn::new(self.nn_settings()).map_err(|error| Failure::of(&error))
    }

    /// # Errors
    /// A backend that was named is not there, or this machine can't run WebAssembly.
    pub fn host(&self) -> Outcome<Host> {
        let settings = self.nn_settings();
        let cpus = settings.cpus;
        // Beside the folder of optimised graphs.
        let cache = settings.cache.as_ref().map(|graphs| graphs.with_file_name("components"));
        let nn = Nn::new(settings).map_err(|error| Failure::of(&error))?;
        let settings = EngineSettings { cache, ..EngineSettings::default() };
        let engine = Engine::new(settings, nn).map_err(|error| Failure::of(&error))?;
        Ok(Host { engine, cpus })
    }
}

impl Host {
    /// Load a package and warm it.
    ///
    /// # Errors
    /// It can't be loaded, or its warm-up fails.
    pub async fn load(&self, package: Package, grants: Grants) -> Outcome<Model> {
        let load = self.engine.load(package, grants).await;
        let model = load.map_err(|error| Failure::of(&error))?;
        model.warm(None).await.map_err(|error| Failure::of(&error))?;
        Ok(model)
    }
}

/// Open a package.
///
/// # Errors
/// Every mistake in it, together.
pub fn open(path: &Path) -> Outcome<Package> {
    Package::open(path).map_err(|error| Failure::open(&error))
}

/// Where a file of a package is, for its graphs.
///
/// # Errors
/// It is not in the package.
pub fn source(package: &Package, path: &RelPath) -> io::Result<SourceBytes> {
    let blob = package.file(path)?;
    let digest = package.must_have(&blob);
    let Blob { path, offset, len, .. } = blob;
    Ok(SourceBytes::File { path, offset, len, digest })
}

/// Run to the end of `work`, on `workers` threads for requests and timers; inference has
/// threads of its own. Work that is still going on in the background is left behind: the
/// process ends anyway.
///
/// # Errors
/// Those of `work`, or the system has no threads left.
pub fn block_on<T>(workers: usize, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(workers.max(1)).enable_all().build();
    let runtime =
        built.map_err(|error| anyhow::Error::new(error).context("cannot start threads"))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}
