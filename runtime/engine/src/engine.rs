//! The way in: an engine for the process. It compiles, links and lends room to
//! instances; the models that it loads answer requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures::future::{try_join, try_join_all};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Linker;
use wasmtime_wasi::FsPerms;
use wick_nn::providers::insisted;
use wick_nn::{GraphHandle, Nn, SourceBytes};
use wick_package::{Blob, DeviceKind, GraphSpec, HostPort, Manifest, Package, RelPath};

use crate::cache::Cache;
use crate::config;
use crate::error::LoadError;
use crate::host;
use crate::http::Pool;
use crate::model::{self, Model};
use crate::program::{Builder, Program};
use crate::state::{Folder, Guest, State};
use crate::ticker::{Running, Ticker};
use crate::witx::{self, CoreState};

/// Guest instances of a process unless it says otherwise: many times the threads of
/// an edge node, since a guest that waits for its graph holds an instance.
const DEFAULT_INSTANCES: u32 = 128;

/// Largest linear memory unless the process says otherwise: all that 32 bits reach,
/// so that packages set their own limits.
const DEFAULT_MEMORY: u64 = 4 << 30;

/// What the host decides about WebAssembly.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Folder for compiled components; none turns caching off.
    pub cache: Option<PathBuf>,
    /// Guest instances that may exist at once in the process. More requests wait.
    pub max_instances: u32,
    /// Largest linear memory of one instance, whatever a package asks, in bytes.
    pub max_memory: u64,
}

/// What the host grants to one package. A package gets the smaller of this and
/// what it wants.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    pub network: Vec<HostPort>,
    /// Environment variables by name.
    pub env: BTreeMap<String, String>,
    /// Host folders by the name that the package's `[wants]` uses.
    pub mounts: BTreeMap<String, PathBuf>,
}

/// Compiler, allocator, linkers and cache of a process.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasm: wasmtime::Engine,
    components: Linker<State>,
    modules: wasmtime::Linker<CoreState>,
    cache: Option<Cache>,
    instances: Arc<Semaphore>,
    /// Requests that wait for a place.
    wanting: AtomicUsize,
    /// Where instances rest that keep a place: one for each model that lets them.
    pools: Mutex<Vec<Weak<Pool>>>,
    ticker: Ticker,
    max_memory: u64,
    nn: Nn,
}

/// Room for one instance, and a clock that ticks while it runs.
pub(crate) struct Slot {
    place: Place,
    _running: Running,
}

/// Room for one instance that does not run.
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Counts a request that waits for a place, for as long as it does.
struct Wanting<'c>(&'c AtomicUsize);

// === impl Slot ===

impl Slot {
    /// The clock need not tick for this instance any more.
    pub(crate) fn rest(self) -> Place {
        self.place
    }
}

// === impl Wanting ===

impl<'c> Wanting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl EngineSettings ===

impl Default for EngineSettings {
    fn default() -> Self {
        Self { cache: None, max_instances: DEFAULT_INSTANCES, max_memory: DEFAULT_MEMORY }
    }
}

// === impl Engine ===

impl Engine {
    /// An engine with the largest pool of instances that the address space has room
    /// for. A cache folder that can't be used is a warning.
    ///
    /// # Errors
    /// wasmtime does not support this machine.
    pub fn new(settings: EngineSettings, nn: Nn) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let built = config::build(&settings)?;
        let wasm = built.engine;
        let mut components = Linker::new(&wasm);
        host::link(&mut components).map_err(failed)?;
        let mut modules = wasmtime::Linker::new(&wasm);
        witx::link(&mut modules).map_err(failed)?;
        let ticker = Ticker::start(&wasm).map_err(|error| LoadError::Engine(error.to_string()))?;
        let instances = Arc::new(Semaphore::new(built.max_instances as usize));
        let cache = settings.cache.as_deref().and_then(|path| {
            let opened = Cache::open(path).inspect_err(|error| {
                let folder = path.display();
                tracing::warn!(%folder, %error, "compiled components are not cached");
            });
            opened.ok()
        });
        let max_memory = settings.max_memory;
        let inner = Inner {
            wasm,
            components,
            modules,
            cache,
            instances,
            wanting: AtomicUsize::new(0),
            pools: Mutex::default(),
            ticker,
            max_memory,
            nn,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Why a compiled component was not kept in the cache, if one was not.
    pub fn unkept(&self) -> Option<&std::io::Error> {
        self.inner.cache.as_ref().and_then(Cache::unkept)
    }

    /// Load a package: graphs in parallel, component from the cache or compiled.
    ///
    /// # Errors
    /// See [`LoadError`]. Nothing of a failed load stays behind.
    pub async fn load(&self, package: Package, grants: Grants) -> Result<Model, LoadError> {
        let graphs = self.graphs(&package, &package.manifest().graphs);
        let program = self.program(&package);
        let (graphs, program) = try_join(graphs, program).await?;
        let guest = self.guest(&package, graphs, &grants)?;
        if let Some(Program::Http(instances)) = &program {
            let mut pools = self.inner.pools.lock();
            pools.retain(|pool| pool.strong_count() > 0);
            pools.push(instances.pool());
        }
        Ok(model::new(self.clone(), package.manifest().clone(), program, guest))
    }

    /// Fill the caches with what a start of `package` would make itself on the CPU: the native code of its
    /// component, and its graphs. Devices are the start's own.
    ///
    /// # Errors
    /// As [`Engine::load`], but for graphs that may not run on the CPU, or there only by a provider: they are left out.
    pub async fn compile(&self, package: &Package) -> Result<(), LoadError> {
        let here = |spec: &GraphSpec| {
            let cpu = spec.devices.contains(&DeviceKind::Cpu) && insisted(spec).is_none();
            cpu.then(|| GraphSpec { devices: vec![DeviceKind::Cpu], ..spec.clone() })
        };
        let specs: Vec<_> = package.manifest().graphs.iter().filter_map(here).collect();
        try_join(self.graphs(package, &specs), self.program(package)).await?;
        Ok(())
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.inner.wasm
    }

    /// Wait for room for an instance. While there is none, no instance rests: each would
    /// keep a place that another model's request could have.
    pub(crate) async fn slot(&self) -> Slot {
        let instances = Arc::clone(&self.inner.instances);
        let permit = match Arc::clone(&instances).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let _wanting = Wanting::new(&self.inner.wanting);
                self.make_room();
                // The semaphore is never closed; without a permit the pool itself says no.
                instances.acquire_owned().await.ok()
            }
        };
        self.run(Place { _permit: permit })
    }

    /// If a request waits for a place, end an instance that rests, of the model that has
    /// most of them. Called by whoever begins to wait, and by whoever has begun to rest.
    pub(crate) fn make_room(&self) {
        if self.inner.wanting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let pools: Vec<_> = self.inner.pools.lock().iter().filter_map(Weak::upgrade).collect();
        if let Some(pool) = pools.iter().max_by_key(|pool| pool.len()) {
            pool.end_one();
        }
    }

    /// Let an instance that has its place run.
    pub(crate) fn run(&self, place: Place) -> Slot {
        Slot { place, _running: self.inner.ticker.run() }
    }

    async fn graphs(
        &self,
        package: &Package,
        specs: &[GraphSpec],
    ) -> Result<Vec<GraphHandle>, LoadError> {
        let resolve = |path: &RelPath| {
            let blob = package.file(path)?;
            let digest = package.must_have(&blob);
            let Blob { path, offset, len, .. } = blob;
            Ok(SourceBytes::File { path, offset, len, digest })
        };
        let loads = specs.iter().map(|spec| self.inner.nn.load(spec, &resolve));
        Ok(try_join_all(loads).await?)
    }

    async fn program(&self, package: &Package) -> Result<Option<Program>, LoadError> {
        let manifest = package.manifest();
        let Some(handler) = &manifest.handler else { return Ok(None) };
        let inner = Arc::clone(&self.inner);
        let (package, path) = (package.clone(), handler.component.clone());
        let reuse = handler.reuse;
        let built = tokio::task::spawn_blocking(move || {
            let model = package.manifest().name.as_str();
            let blob = package.file(&path).map_err(|source| LoadError::Io {
                model: model.to_owned(),
                path: path.to_string(),
                source,
            })?;
            let builder = Builder {
                engine: &inner.wasm,
                components: &inner.components,
                modules: &inner.modules,
                cache: inner.cache.as_ref(),
                reuse,
                model,
                path: path.as_str(),
            };
            builder.build(&blob, package.must_have(&blob))
        });
        let built = built.await.map_err(|error| LoadError::Component {
            model: manifest.name.to_string(),
            path: handler.component.to_string(),
            detail: format!("the compiler failed: {error}"),
        })?;
        built.map(Some)
    }

    fn guest(
        &self,
        package: &Package,
        graphs: Vec<GraphHandle>,
        grants: &Grants,
    ) -> Result<Arc<Guest>, LoadError> {
        let manifest = package.manifest();
        let mut devices: Vec<_> =
            manifest.graphs.iter().flat_map(|graph| graph.devices.iter().copied()).collect();
        if devices.is_empty() {
            devices.push(DeviceKind::Cpu);
        }
        Ok(Arc::new(Guest {
            model: manifest.name.as_str().into(),
            graphs,
            nn: self.inner.nn.clone(),
            brought: host::Brought::default(),
            devices,
            memory: manifest.limits.memory.min(self.inner.max_memory),
            env: env(manifest, grants),
            network: network(manifest, grants),
            folders: folders(package, grants)?,
        }))
    }
}

fn not_granted(model: &str, what: &str, name: &str) {
    tracing::warn!(model, "the package wants {what} `{name}`, which this host does not grant");
}

fn env(manifest: &Manifest, grants: &Grants) -> Vec<(String, String)> {
    let wanted = manifest.wants.env.iter();
    wanted
        .filter_map(|name| {
            let value = grants.env.get(name);
            if value.is_none() {
                not_granted(manifest.name.as_str(), "the environment variable", name);
            }
            Some((name.clone(), value?.clone()))
        })
        .collect()
}

fn network(manifest: &Manifest, grants: &Grants) -> Arc<[HostPort]> {
    let wanted = manifest.wants.network.iter();
    wanted
        .filter(|want| {
            let granted = grants.network.contains(want);
            if !granted {
                let name = format!("{}:{}", want.host, want.port);
                not_granted(manifest.name.as_str(), "the network destination", &name);
            }
            granted
        })
        .cloned()
        .collect()
}

/// The package's own folder, read-only, and the mounts that are wanted and granted.
fn folders(package: &Package, grants: &Grants) -> Result<Vec<Folder>, LoadError> {
    let manifest = package.manifest();
    let mut folders = Vec::new();
    if let Some(root) = package.guest_root() {
        let folder = Folder::open(root, "/", FsPerms::ReadOnly);
        folders.push(folder.map_err(|source| LoadError::Io {
            model: manifest.name.to_string(),
            path: root.display().to_string(),
            source,
        })?);
    }
    for want in &manifest.wants.mounts {
        let Some(host) = grants.mounts.get(&want.name) else {
            not_granted(manifest.name.as_str(), "the mount", &want.name);
            continue;
        };
        let perms = if want.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let folder = Folder::open(host, &want.path, perms);
        folders.push(folder.map_err(|error| LoadError::NotGranted {
            model: manifest.name.to_string(),
            what: format!("the mount `{}`", want.name),
            hint: format!("{}: {error}", host.display()),
        })?);
    }
    Ok(folders)
}
