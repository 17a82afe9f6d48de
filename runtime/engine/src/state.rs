//! What one instance has: its wasi context, its resources and its limits. A store
//! is made for each request and dropped with it.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wick_nn::{GraphHandle, Nn};
use wick_package::{DeviceKind, HostPort};

use crate::account::Account;
use crate::failure::OutOfTime;
use crate::host::Brought;
use crate::network::Outgoing;
use crate::output::{Channel, Output};

/// Resources (tensors, graphs, streams, …) that an instance may hold at once. A
/// handler that passes one on per input needs dozens; one that leaks them is ended.
pub(crate) const MAX_RESOURCES: usize = 10_000;

/// Tables, instances and memories of one store: what the pool has for a component.
const MAX_TABLES: usize = 16;
const MAX_CORE_INSTANCES: usize = 64;
const MAX_MEMORIES: usize = 4;

/// Elements of all tables of an instance; only reserved until they are used.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;

/// What all instances of a model share.
pub(crate) struct Guest {
    pub model: Arc<str>,
    pub graphs: Vec<GraphHandle>,
    pub nn: Nn,
    /// Graphs that instances brought as bytes, so that the next one finds them loaded.
    pub brought: Brought,
    /// Kinds of device that the package permits any of its graphs.
    pub devices: Vec<DeviceKind>,
    /// Linear memory of one instance, in bytes; as much again for host tensors.
    pub memory: u64,
    pub env: Vec<(String, String)>,
    pub network: Arc<[HostPort]>,
    pub folders: Vec<Folder>,
}

/// A folder that guests see. It is kept open, so that they go on seeing the one that
/// was there when the package was loaded, whatever happens to its name.
pub(crate) struct Folder {
    host: PathBuf,
    guest: String,
    perms: FsPerms,
    _open: OwnedFd,
}

/// Data of a component's store.
pub(crate) struct State {
    pub guest: Arc<Guest>,
    pub table: ResourceTable,
    pub account: Arc<Account>,
    /// Graphs that this instance loaded from bytes.
    pub loaded: usize,
    pub limits: Limits,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
}

/// Bounds on what WebAssembly itself takes.
pub(crate) struct Limits {
    /// When the guest is stopped.
    deadline: Instant,
    memory: usize,
    /// Bytes of all linear memories now.
    used: usize,
    /// The guest asked for more memory than it may have.
    pub exhausted: bool,
}

/// Data with [`Limits`], so that components and core modules get the same store.
pub(crate) trait Limited: Send + 'static {
    fn limits(&mut self) -> &mut Limits;
}

// === impl Guest ===

impl Guest {
    /// The wasi context of a new instance. Nothing of the host's own: no stdin, no
    /// environment, no folder and no network that was not granted.
    ///
    /// # Errors
    /// A granted folder is gone.
    pub(crate) fn wasi(
        &self,
        output: &Arc<Output>,
        args: &[String],
    ) -> wasmtime::Result<WasiCtxBuilder> {
        let mut builder = WasiCtx::builder();
        builder
            .stdout(output.printer(Channel::Stdout))
            .stderr(output.printer(Channel::Stderr))
            .args(args)
            .envs(&self.env);
        for folder in &self.folders {
            builder.preopened_dir(&folder.host, &folder.guest, folder.perms)?;
        }
        Ok(builder)
    }

    /// Find a graph by the name that the package gives it.
    pub(crate) fn graph(&self, name: &str) -> Option<&GraphHandle> {
        self.graphs.iter().find(|graph| graph.name() == name)
    }
}

// === impl Folder ===

impl Folder {
    /// # Errors
    /// It is no folder, or can't be read.
    pub(crate) fn open(host: &Path, guest: &str, perms: FsPerms) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(host, flags, Mode::empty())?;
        let by_fd = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        // A system without `/proc` has only the name.
        let host = if by_fd.is_dir() { by_fd } else { host.to_owned() };
        Ok(Self { host, guest: guest.to_owned(), perms, _open: open })
    }
}

// === impl State ===

impl State {
    pub(crate) fn new(
        guest: &Arc<Guest>,
        output: &Arc<Output>,
        args: &[String],
    ) -> wasmtime::Result<Self> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Ok(Self {
            table,
            account: Account::new(guest.memory),
            loaded: 0,
            limits: Limits::new(guest.memory),
            wasi: guest.wasi(output, args)?.build(),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(Arc::clone(&guest.network), Arc::clone(&guest.model)),
            guest: Arc::clone(guest),
        })
    }
}

impl Limited for State {
    fn limits(&mut self) -> &mut Limits {
        &mut self.limits
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

// === impl Limits ===

impl Limits {
    pub(crate) fn new(memory: u64) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        Self { deadline: Instant::now(), memory, used: 0, exhausted: false }
    }

    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// For the next call of an instance that is used again.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.memory || maximum.is_some_and(|maximum| desired > maximum) {
            self.exhausted = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// A store with all limits set, whose guest stops at `deadline`.
pub(crate) fn store<T: Limited>(engine: &wasmtime::Engine, data: T, deadline: Instant) -> Store<T> {
    let mut store = Store::new(engine, data);
    store.data_mut().limits().deadline = deadline;
    store.limiter(|data| data.limits());
    // Nothing that a guest passes in one call can be larger than its memory, unless
    // it passes the same bytes many times over.
    let memory = store.data_mut().limits().memory();
    store.set_hostcall_fuel(memory);
    // At each tick the guest gives its thread to others and its caller the chance
    // to go away. The deadline is checked here and not left to a timer, since a
    // runtime whose threads all run guests looks at its timers late.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        if Instant::now() >= store.data_mut().limits().deadline {
            return Err(OutOfTime.into());
        }
        Ok(UpdateDeadline::Yield(1))
    });
    store
}
