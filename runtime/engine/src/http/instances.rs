//! Instances of a `wasi:http` guest: a fresh one for each request, or, if the package asks for
//! it, one for a number of requests, one after another.
//!
//! A used instance is faster, since it is neither made nor initialised, and it remembers what
//! its guest remembers. That is the package's choice, and it ends: after `reuse` requests, after
//! any failure, when more instances rest than [`MAX_RESTING`], and when a request of any model
//! waits for a place that a resting one has.

use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::body::{HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostIncomingRequest, HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView as _};

use crate::engine::{Place, Slot};
use crate::error::InferError;
use crate::failure::failed;
use crate::model::Inner;
use crate::output::Output;
use crate::program::Program;
use crate::state::{self, Limited as _, State};

/// Instances of one model that rest between two requests. Each keeps its memory and its place
/// in the engine's pool.
const MAX_RESTING: usize = 64;

type Request = wasmtime::component::Resource<HostIncomingRequest>;
type Answer = wasmtime::component::Resource<HostResponseOutparam>;

/// Where instances come from.
pub(crate) struct Instances {
    pre: ProxyPre<State>,
    /// Requests that one instance answers, at least 1.
    reuse: u32,
    pool: Arc<Pool>,
}

/// Instances of one model that rest.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Resting>>);

/// A guest that runs.
pub(super) struct Instance {
    guest: Box<Guest>,
    /// Dropped last, after the store.
    slot: Slot,
}

/// A guest between two requests.
struct Resting {
    guest: Box<Guest>,
    place: Place,
}

/// What is kept from one request to the next.
struct Guest {
    store: Store<State>,
    /// None until the first call.
    proxy: Option<Proxy>,
    output: Arc<Output>,
    answered: u32,
}

// === impl Instances ===

impl Instances {
    pub(crate) fn new(pre: ProxyPre<State>, reuse: u32) -> Self {
        Self { pre, reuse: reuse.max(1), pool: Arc::default() }
    }

    /// An instance for one request that ends at `deadline`.
    ///
    /// # Errors
    /// A granted folder is gone.
    pub(super) async fn take(
        &self,
        model: &Inner,
        deadline: Instant,
    ) -> Result<Instance, InferError> {
        // The lock must not be held any longer.
        let resting = self.pool.0.lock().pop();
        if let Some(resting) = resting {
            return Ok(resting.wake(model, deadline));
        }
        let slot = model.engine.slot().await;
        let output = Output::new(model.guest.model.clone(), false);
        let state = State::new(&model.guest, &output, &[])
            .map_err(|error| InferError::Unavailable(format!("{error:#}")))?;
        let store = state::store(model.engine.wasm(), state, deadline);
        let guest = Box::new(Guest { store, proxy: None, output, answered: 0 });
        Ok(Instance { guest, slot })
    }

    /// Drop the instances that rest.
    pub(crate) fn clear(&self) {
        let dropped = std::mem::take(&mut *self.pool.0.lock());
        drop(dropped);
    }

    pub(crate) fn pool(&self) -> Weak<Pool> {
        Arc::downgrade(&self.pool)
    }

    /// Keep an instance for another request, if it may have one.
    pub(super) fn give_back(&self, model: &Inner, instance: Instance) {
        let Instance { mut guest, slot } = instance;
        if guest.answered >= self.reuse || guest.has_left_something_open() {
            return;
        }
        guest.output.restart();
        let mut resting = self.pool.0.lock();
        if resting.len() < MAX_RESTING {
            resting.push(Resting { guest, place: slot.rest() });
        }
        drop(resting);
        // Somebody may have begun to wait for a place before this one rested in it.
        model.engine.make_room();
    }
}

// === impl Pool ===

impl Pool {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// End the instance that has rested longest.
    pub(crate) fn end_one(&self) {
        let mut resting = self.0.lock();
        let ended = (!resting.is_empty()).then(|| resting.remove(0));
        // Its memory is given back without the lock.
        drop(resting);
        drop(ended);
    }
}

// === impl Instance ===

impl Instance {
    pub(super) fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.guest.store.data_mut().http()
    }

    pub(super) async fn call(
        &mut self,
        model: &Inner,
        request: Request,
        answer: Answer,
        started: Instant,
    ) -> Result<(), InferError> {
        let Guest { store, proxy, output, answered } = &mut *self.guest;
        *answered += 1;
        let called = async {
            let Some(Program::Http(instances)) = &model.program else { return Ok(()) };
            let proxy = match proxy {
                Some(proxy) => proxy,
                None => proxy.insert(instances.pre.instantiate_async(&mut *store).await?),
            };
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut *store, request, answer).await
        };
        called.await.map_err(|error| {
            failed(&model.guest.model, &error, &store.data().limits, output, started.elapsed())
        })
    }
}

// === impl Guest ===

impl Guest {
    /// Whether the guest still holds a part of its request or answer. Only the end of its
    /// store closes that, and its client waits for it.
    fn has_left_something_open(&mut self) -> bool {
        let is_open = |entry: &mut (dyn Any + Send)| {
            entry.is::<HostIncomingRequest>()
                || entry.is::<HostIncomingBody>()
                || entry.is::<HostOutgoingResponse>()
                || entry.is::<HostOutgoingBody>()
                || entry.is::<HostResponseOutparam>()
        };
        self.store.data_mut().table.iter_mut().any(is_open)
    }
}

// === impl Resting ===

impl Resting {
    fn wake(self, model: &Inner, deadline: Instant) -> Instance {
        let Self { mut guest, place } = self;
        guest.store.data_mut().limits().set_deadline(deadline);
        // The next tick asks for the deadline, however many there were meanwhile.
        guest.store.set_epoch_deadline(1);
        Instance { guest, slot: model.engine.run(place) }
    }
}
