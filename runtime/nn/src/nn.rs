//! The way in: find backends, choose a device, load graphs.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task;
use wick_package::{DeviceKind, GraphSpec, RelPath};

use crate::backend::{
    Backend, Device, DeviceUse, Found, GraphOptions, GraphSource, Refusal, SourceBytes,
};
use crate::batch::Batcher;
use crate::cache::Stamp;
use crate::choose::{self, Candidate, Decision, Offer};
use crate::compute::Compute;
use crate::error::LoadError;
use crate::handle::{GraphHandle, Loaded};
use crate::inventory::Inventory;
use crate::onnxruntime::{self, OnnxRuntime, providers};
use crate::runner::Runner;
use crate::settings::NnSettings;
use crate::stats::Counters;
use crate::tract::{self, Tract};

/// Inferences that a device has at once: one that computes, and one whose inputs are on their way. Others wait
/// for this device, and keep nobody from another or from the processor.
const DEVICE_RUNS: usize = 2;

/// How to get ONNX Runtime.
const INSTALL: &str = "run `wick backend install onnxruntime`";

/// Backends, compute threads and the graph cache of a process. Clones share them.
#[derive(Clone)]
pub struct Nn {
    inner: Arc<Inner>,
}

/// A backend as `wick backend list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BackendInfo {
    pub name: String,
    pub version: String,
    /// The library's file; absent for what is built in.
    pub path: Option<PathBuf>,
    /// Empty if it can't be used.
    pub devices: Vec<Device>,
    /// Providers of it that have no device here, and why.
    pub refused: Vec<Refusal>,
    /// Why it can't be used.
    pub error: Option<String>,
}

/// Why a graph runs where it runs, or why it doesn't.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Explanation {
    pub graph: String,
    /// Kinds of device that its package permits, best first.
    pub wanted: Vec<DeviceKind>,
    pub used: Option<DeviceUse>,
    /// In the order in which it was looked at.
    pub refused: Vec<Refusal>,
    pub error: Option<String>,
}

/// All that it takes to load a graph again as it was loaded before.
#[derive(Clone)]
pub(crate) struct Recipe {
    nn: Arc<Inner>,
    spec: GraphSpec,
    candidate: Candidate,
    bytes: SourceBytes,
    /// How the file looked before it was read.
    stamp: Option<Stamp>,
}

struct Inner {
    settings: NnSettings,
    compute: Arc<Compute>,
    onnxruntime: Option<Arc<OnnxRuntime>>,
    tract: Arc<Tract>,
    /// Of whoever embeds wick, before its own.
    others: Vec<Arc<dyn Backend>>,
    /// Queues of devices beside the processor.
    devices: Mutex<BTreeMap<String, Arc<Compute>>>,
}

// === impl Nn ===

impl Nn {
    /// Look for backends. None is loaded before a graph wants it, so a library that
    /// is there but broken shows when a graph is loaded, or in [`Nn::backends`].
    ///
    /// # Errors
    /// The libonnxruntime that the settings name is not there.
    pub fn new(settings: NnSettings) -> Result<Self, LoadError> {
        let path = match &settings.onnxruntime {
            Some(path) if !path.is_file() => {
                return Err(LoadError::BackendBroken {
                    backend: onnxruntime::NAME.to_owned(),
                    path: path.display().to_string(),
                    detail: "there is no such file; the setting or WICK_ORT_DYLIB names it"
                        .to_owned(),
                });
            }
            Some(path) => Some(path.clone()),
            None => onnxruntime::find(&settings.backend_dirs),
        };
        let folders = &settings.backend_dirs;
        let onnxruntime = path.map(|path| Arc::new(OnnxRuntime::at(path, folders.clone())));
        let compute = Arc::new(Compute::new(settings.cpus));
        let tract = Arc::new(Tract::default());
        let (others, devices) = (Vec::new(), Mutex::default());
        let inner = Inner { settings, compute, onnxruntime, tract, others, devices };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same, with another backend that is asked before wick's own. What was loaded before does not
    /// know of it.
    #[must_use]
    pub fn with_backend(&self, backend: Arc<dyn Backend>) -> Self {
        let inner = &self.inner;
        let others = inner.others.iter().cloned().chain([backend]).collect();
        Self {
            inner: Arc::new(Inner {
                settings: inner.settings.clone(),
                compute: Arc::clone(&inner.compute),
                onnxruntime: inner.onnxruntime.clone(),
                tract: Arc::clone(&inner.tract),
                others,
                devices: Mutex::default(),
            }),
        }
    }

    /// What was found, best first. Loads what isn't loaded yet, to know whether it
    /// works; that takes some 20 ms.
    pub fn backends(&self) -> Vec<BackendInfo> {
        let describe = |backend: &dyn Backend, path, error: Option<LoadError>| {
            let found = match error {
                None => backend.find(&DeviceKind::ALL),
                Some(_) => Found::default(),
            };
            BackendInfo {
                name: backend.name().to_owned(),
                version: backend.version().to_owned(),
                path,
                devices: found.devices,
                refused: found.refused,
                error: error.map(|error| error.to_string()),
            }
        };
        let onnxruntime = self.inner.onnxruntime.as_ref().map(|backend| {
            describe(&**backend, Some(backend.path().clone()), backend.library().err())
        });
        let tract = describe(&*self.inner.tract, None, None);
        let others = self.inner.others.iter().map(|backend| describe(&**backend, None, None));
        others.chain(onnxruntime).chain([tract]).collect()
    }

    /// The hardware of this machine and which providers can use it, and what else they find;
    /// and why others find nothing. Loads every provider.
    pub fn devices(&self) -> (Inventory, Vec<Refusal>) {
        let mut inventory = Inventory::detect();
        let mut refused = Vec::new();
        for backend in self.backends() {
            refused.extend(backend.refused);
            let why = backend.error.map(|why| Refusal { what: backend.name.clone(), why });
            refused.extend(why);
            backend.devices.iter().for_each(|device| inventory.add(device));
        }
        (inventory, refused)
    }

    /// Load a graph as its package permits: devices in its order, for each the
    /// backends in theirs. `resolve` opens a file of the package.
    ///
    /// # Errors
    /// See [`LoadError`]; each says what to do.
    pub async fn load(
        &self,
        spec: &GraphSpec,
        resolve: &(dyn Fn(&RelPath) -> io::Result<SourceBytes> + Sync),
    ) -> Result<GraphHandle, LoadError> {
        self.attempt(spec, resolve, &mut Vec::new()).await
    }

    /// Load a graph as [`Nn::load`] does, and tell what was refused on the way and why.
    pub async fn explain(
        &self,
        spec: &GraphSpec,
        resolve: &(dyn Fn(&RelPath) -> io::Result<SourceBytes> + Sync),
    ) -> Explanation {
        let mut refused = Vec::new();
        let loaded = self.attempt(spec, resolve, &mut refused).await;
        let (graph, (used, error)) = match &loaded {
            Ok(handle) => (spec.name.to_string(), (Some(handle.device().clone()), None)),
            Err(error) => (spec.name.to_string(), (None, Some(error.to_string()))),
        };
        Explanation { graph, wanted: spec.devices.clone(), used, refused, error }
    }

    /// Load a graph; everything that is refused before goes into `refused`, with the reason.
    async fn attempt(
        &self,
        spec: &GraphSpec,
        resolve: &(dyn Fn(&RelPath) -> io::Result<SourceBytes> + Sync),
        refused: &mut Vec<Refusal>,
    ) -> Result<GraphHandle, LoadError> {
        let decision = self.inner.decide(spec)?;
        refused.extend(decision.refused);
        if decision.candidates.is_empty() {
            return Err(self.inner.no_device(spec, refused));
        }
        let mut first_error = None;
        for candidate in decision.candidates {
            let bytes = resolve(&candidate.path).map_err(|source| LoadError::Io {
                graph: spec.name.to_string(),
                path: candidate.path.to_string(),
                source,
            })?;
            let what = candidate.device.to_string();
            // What the package's first choice needs says nothing of what it got instead.
            let first = spec.devices.first() == Some(&candidate.device.kind);
            let passed_over = if first { Vec::new() } else { refused.clone() };
            let loaded = self.try_candidate(spec, candidate, bytes, passed_over).await;
            match loaded {
                // Another backend or device may do what this one can't.
                Err(
                    error @ (LoadError::Unsupported { .. }
                    | LoadError::DeviceShare { .. }
                    | LoadError::DeviceFailed { .. }),
                ) => {
                    tracing::debug!(graph = spec.name.as_str(), %error, "tried and refused");
                    refused.push(Refusal { what, why: error.to_string() });
                    first_error.get_or_insert(error);
                }
                loaded => return loaded,
            }
        }
        Err(first_error.unwrap_or_else(|| self.inner.no_device(spec, refused)))
    }

    async fn try_candidate(
        &self,
        spec: &GraphSpec,
        candidate: Candidate,
        bytes: SourceBytes,
        passed_over: Vec<Refusal>,
    ) -> Result<GraphHandle, LoadError> {
        let backend = candidate.backend;
        let stamp = stamp(&bytes);
        let nn = Arc::clone(&self.inner);
        let recipe = Recipe { nn, spec: spec.clone(), candidate, bytes, stamp };
        let work = task::spawn_blocking(move || recipe.load(passed_over));
        work.await.unwrap_or_else(|error| {
            Err(LoadError::Invalid {
                graph: spec.name.to_string(),
                backend: backend.to_owned(),
                detail: error.to_string(),
            })
        })
    }
}

// === impl Recipe ===

impl Recipe {
    fn load(self, passed_over: Vec<Refusal>) -> Result<GraphHandle, LoadError> {
        let loaded = self.nn.load(
            &self.spec,
            &self.candidate,
            self.bytes.clone(),
            Arc::new(Counters::default()),
        )?;
        let compute = self.nn.queue_of(&self.candidate.device);
        // Bytes in memory would have to be kept, which is what resting is to spare.
        let again = matches!(self.bytes, SourceBytes::File { .. });
        Ok(GraphHandle::new(loaded, compute, again.then_some(self), passed_over))
    }

    /// Load it again; its counts go on. Blocks.
    pub(crate) fn make(&self, counters: Arc<Counters>) -> Result<Loaded, LoadError> {
        if !self.is_unchanged() {
            return Err(LoadError::Changed { graph: self.spec.name.to_string() });
        }
        self.nn.load(&self.spec, &self.candidate, self.bytes.clone(), counters)
    }

    pub(crate) fn is_unchanged(&self) -> bool {
        stamp(&self.bytes) == self.stamp
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.bytes.len()
    }
}

fn stamp(bytes: &SourceBytes) -> Option<Stamp> {
    let SourceBytes::File { path, .. } = bytes else { return None };
    path.metadata().ok().map(|meta| Stamp::from(&meta))
}

// === impl Inner ===

impl Inner {
    fn backend(&self, name: &str) -> &dyn Backend {
        if let Some(other) = self.others.iter().find(|backend| backend.name() == name) {
            return &**other;
        }
        match &self.onnxruntime {
            Some(backend) if name == onnxruntime::NAME => &**backend,
            _ => &*self.tract,
        }
    }

    /// Where inferences on a device wait for their turn.
    fn queue_of(&self, device: &Device) -> Arc<Compute> {
        if device.kind == DeviceKind::Cpu {
            return Arc::clone(&self.compute);
        }
        let mut devices = self.devices.lock();
        let queue =
            devices.entry(device.place()).or_insert_with(|| Arc::new(Compute::new(DEVICE_RUNS)));
        Arc::clone(queue)
    }

    /// What a graph may be offered: of a provider that it insists on, what that one has alone.
    fn offers_for(&self, spec: &GraphSpec) -> Vec<Offer> {
        match (providers::insisted(spec), &self.onnxruntime) {
            (Some(provider), Some(onnxruntime)) => {
                let found = onnxruntime.find_by(&spec.devices, &[provider]);
                vec![Offer { backend: onnxruntime::NAME, found }]
            }
            _ => self.offers(&spec.devices),
        }
    }

    fn offers(&self, kinds: &[DeviceKind]) -> Vec<Offer> {
        let own = self.onnxruntime.iter().map(|_| onnxruntime::NAME).chain([tract::NAME]);
        let names = self.others.iter().map(|backend| backend.name()).chain(own);
        let offer = |backend| Offer { backend, found: self.backend(backend).find(kinds) };
        names.map(offer).collect()
    }

    /// The ways to run a graph, and why there are not more.
    fn decide(&self, spec: &GraphSpec) -> Result<Decision, LoadError> {
        let mut offers = self.offers_for(spec);
        if self.onnxruntime.is_none() && spec.devices.iter().any(|&kind| kind != DeviceKind::Cpu) {
            let why = format!("every gpu and npu needs it, and it is not installed: {INSTALL}");
            let refused = vec![Refusal { what: onnxruntime::NAME.to_owned(), why }];
            let found = Found { devices: Vec::new(), refused };
            offers.insert(0, Offer { backend: onnxruntime::NAME, found });
        }
        if let Some(wanted) = &spec.backend
            && !offers.iter().any(|offer| choose::permitted(spec, offer.backend))
        {
            let hint = if wanted.as_str() == onnxruntime::NAME {
                format!("it is not installed: {INSTALL}")
            } else if providers::insisted(spec).is_some() {
                format!("it needs {}, which is not installed: {INSTALL}", onnxruntime::NAME)
            } else {
                providers::options::known_backends()
            };
            let (graph, backend) = (spec.name.to_string(), wanted.to_string());
            return Err(LoadError::BackendMissing { graph, backend, hint });
        }
        let is_other = |device: &Device| device.kind != DeviceKind::Cpu;
        let others = offers.iter().any(|offer| offer.found.devices.iter().any(is_other));
        // Nobody has to be granted a CPU, and so nothing is read for one.
        let inventory = if others { Inventory::detect() } else { Inventory::default() };
        Ok(choose::decide(spec, &offers, &inventory))
    }

    fn no_device(&self, spec: &GraphSpec, refused: &[Refusal]) -> LoadError {
        // What else is there, which is known without loading anything.
        let mut kinds = spec.devices.clone();
        kinds.push(DeviceKind::Cpu);
        let mut offers = self.offers(&kinds);
        offers.retain(|offer| choose::permitted(spec, offer.backend));
        LoadError::DeviceUnavailable {
            graph: spec.name.to_string(),
            wanted: choose::wanted(spec),
            have: choose::have(&offers),
            reasons: choose::reasons(refused),
        }
    }

    fn load(
        &self,
        spec: &GraphSpec,
        candidate: &Candidate,
        bytes: SourceBytes,
        counters: Arc<Counters>,
    ) -> Result<Loaded, LoadError> {
        let source = GraphSource { name: spec.name.clone(), bytes };
        let cpus = self.settings.cpus.max(1);
        let wanted = spec.threads.map_or(cpus, |threads| threads.get() as usize);
        let options = GraphOptions {
            threads: wanted.clamp(1, cpus),
            min_device_share: spec.min_device_share,
            cache: self.settings.cache.clone(),
            provider: candidate.options.clone(),
        };
        let backend = self.backend(candidate.backend);
        let graph = backend
            .load(&source, &candidate.device, &options)
            .map_err(|error| self.advise(spec, error))?;
        let share = graph.device().share;
        if share < spec.min_device_share {
            return Err(LoadError::DeviceShare {
                graph: spec.name.to_string(),
                device: graph.device().device.to_string(),
                share,
                min: spec.min_device_share,
            });
        }
        let on_cpu = candidate.device.kind == DeviceKind::Cpu;
        let at_once = if on_cpu { cpus / options.threads } else { DEVICE_RUNS };
        let runner = Arc::new(Runner::new(spec.name.clone(), graph, counters));
        let batcher = spec.batch.map(|batch| Batcher::new(Arc::clone(&runner), batch, at_once));
        Ok(Loaded { runner, batcher: batcher.transpose()?.map(Arc::new) })
    }

    /// Say what to do about a model that tract refuses.
    fn advise(&self, spec: &GraphSpec, error: LoadError) -> LoadError {
        match error {
            LoadError::Unsupported { graph, need, detail } if detail == tract::REFUSAL => {
                let detail = if self.onnxruntime.is_none() {
                    format!("it is not installed: {INSTALL}")
                } else if spec.backend.is_some() {
                    "the package insists on tract: remove `backend` from its graph".to_owned()
                } else {
                    detail
                };
                LoadError::Unsupported { graph, need, detail }
            }
            error => error,
        }
    }
}
