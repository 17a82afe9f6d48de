//! The seam between wick and inference libraries.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use wick_package::{DeviceKind, Digest, GraphName, TensorSpec};

use crate::error::{InferError, LoadError};
use crate::tensor::Tensor;

/// An inference library.
pub trait Backend: Send + Sync + fmt::Debug {
    /// `tract`, `onnxruntime`, ...
    fn name(&self) -> &'static str;

    /// The library's version, for reports and cache keys.
    fn version(&self) -> &str;

    /// What of these kinds it can run on, on this machine. What only other kinds need is
    /// not loaded for it.
    fn find(&self, kinds: &[DeviceKind]) -> Found;

    /// Load a model onto one of the devices of [`Backend::find`]. Blocks; may take seconds.
    ///
    /// # Errors
    /// See [`LoadError`]; a bad file never ends the process.
    fn load(
        &self,
        source: &GraphSource,
        device: &Device,
        options: &GraphOptions,
    ) -> Result<Arc<dyn Graph>, LoadError>;
}

/// A loaded model: immutable, shared by everything that runs it.
pub trait Graph: Send + Sync {
    /// Inputs in the model's order.
    fn inputs(&self) -> &[TensorSpec];

    /// Outputs in the model's order.
    fn outputs(&self) -> &[TensorSpec];

    /// Where it really runs.
    fn device(&self) -> &DeviceUse;

    /// Scratch space for one inference at a time. Cheap enough to make on demand;
    /// the caller pools them.
    ///
    /// # Errors
    /// The backend has no memory left.
    fn session(&self) -> Result<Box<dyn Session>, InferError>;
}

/// One inference at a time.
pub trait Session: Send {
    /// Run on `inputs`, which are in the model's order and already checked, and
    /// return all outputs in the model's order. Blocks. Polls or registers with
    /// `cancel`, and returns [`InferError::Cancelled`] soon after it is set.
    ///
    /// # Errors
    /// The session stays usable after any error.
    fn run(&mut self, inputs: &[Tensor], cancel: &Cancel) -> Result<Vec<Tensor>, InferError>;
}

/// The bytes of a model and where they are.
#[derive(Debug, Clone)]
pub struct GraphSource {
    pub name: GraphName,
    pub bytes: SourceBytes,
}

/// Part of a file, or memory.
#[derive(Debug, Clone)]
pub enum SourceBytes {
    /// `len` bytes of `path` from `offset` on: a whole file, or a file inside an
    /// uncompressed layer. Backends map it.
    File {
        path: PathBuf,
        offset: u64,
        len: u64,
        /// What the bytes must hash to, each time they are read; none if nobody asks for that.
        digest: Option<Digest>,
    },
    Memory(bytes::Bytes),
}

/// How to load and run a graph.
#[derive(Debug, Clone)]
pub struct GraphOptions {
    /// Threads that one inference may use; at least 1.
    pub threads: usize,
    /// Part of the nodes that must run on the device, 0.0 to 1.0.
    pub min_device_share: f32,
    /// Folder for optimised graphs; none turns caching off.
    pub cache: Option<PathBuf>,
    /// What the device's provider is told: names of its options with their values.
    pub provider: Vec<(String, String)>,
}

/// What a backend has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub devices: Vec<Device>,
    /// What is there and can't be used, or is not there.
    pub refused: Vec<Refusal>,
}

/// Why something is not used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// A backend, a provider, or a device of one.
    pub what: String,
    pub why: String,
}

/// Hardware that a backend can use.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    pub kind: DeviceKind,
    /// The backend's provider, for instance `CPUExecutionProvider` or `tract`.
    pub provider: String,
    /// Lower case, as far as the backend tells.
    pub vendor: Option<String>,
    /// Its place on the PCI bus, such as `0000:01:00.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// How many devices of this provider come before it.
    #[serde(skip)]
    pub ordinal: usize,
}

/// Where a graph runs, for metadata, metrics and status.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DeviceUse {
    pub backend: String,
    pub backend_version: String,
    pub device: Device,
    /// Part of the nodes that run on the device.
    pub share: f32,
    /// Threads of one inference on a CPU.
    pub threads: usize,
    /// What the package would have had rather, and why that is not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusal>,
}

/// A flag that stops an inference, and a hook for backends that can be stopped
/// only by a call.
#[derive(Clone, Default)]
pub struct Cancel(Arc<CancelInner>);

#[derive(Default)]
struct CancelInner {
    set: AtomicBool,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

// === impl Device ===

impl Device {
    /// A CPU, by this provider.
    pub fn cpu(provider: &str) -> Self {
        let provider = provider.to_owned();
        Self { kind: DeviceKind::Cpu, provider, vendor: None, pci: None, ordinal: 0 }
    }
}

impl Device {
    /// The hardware, whichever provider uses it: where it is on the bus, or else what its provider calls it.
    pub fn place(&self) -> String {
        match &self.pci {
            Some(pci) => format!("{} at {pci}", self.kind),
            None => format!("{} {} of {}", self.kind, self.ordinal, self.provider),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.kind, self.provider)?;
        self.pci.as_ref().map_or(Ok(()), |pci| write!(f, " at {pci}"))
    }
}

// === impl Cancel ===

impl Cancel {
    /// Stop the inference. A second call does nothing.
    pub fn cancel(&self) {
        // The hook runs under the lock, so that `clear_hook` waits for it.
        let mut hook = self.0.hook.lock();
        self.0.set.store(true, Ordering::SeqCst);
        if let Some(hook) = hook.take() {
            hook();
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Call `hook` when cancelled, at once if that has already happened. There is
    /// one hook at a time; clear it with [`Cancel::clear_hook`]. The hook must be
    /// quick and must not use this `Cancel`: it runs under its lock.
    pub fn set_hook(&self, hook: impl FnOnce() + Send + 'static) {
        let mut slot = self.0.hook.lock();
        if self.is_cancelled() {
            hook();
        } else {
            *slot = Some(Box::new(hook));
        }
    }

    /// Forget the hook. When this returns, it is neither running nor going to run.
    pub fn clear_hook(&self) {
        self.0.hook.lock().take();
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({})", self.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_hook_that_is_set_late_is_called_at_once() {
        let (cancel, calls) = (Cancel::default(), Arc::new(AtomicUsize::new(0)));
        cancel.cancel();
        let count = Arc::clone(&calls);
        cancel.set_hook(move || _ = count.fetch_add(1, Ordering::SeqCst));
        cancel.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn clearing_waits_for_a_hook_that_is_running() {
        let (cancel, done) = (Cancel::default(), Arc::new(AtomicBool::new(false)));
        let (started, wait) = std::sync::mpsc::channel();
        let finished = Arc::clone(&done);
        cancel.set_hook(move || {
            started.send(()).unwrap();
            thread::sleep(Duration::from_millis(30));
            finished.store(true, Ordering::SeqCst);
        });
        let other = cancel.clone();
        let thread = thread::spawn(move || other.cancel());
        wait.recv().unwrap();
        cancel.clear_hook();
        assert!(done.load(Ordering::SeqCst));
        thread.join().unwrap();
    }
}
