//! Models leave memory and come back: when idle, when others need the room, when a request
//! comes. What is decided is in `idle` and `room`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wick_package::{Reason as _, error_text};

use super::idle::{self, Care, Seen};
use super::reserve::{Claim, PATIENCE, Room};
use super::room::{self, Held};
use super::{Inner, Live, Repository, lost};
use crate::respond::Failure;

/// Pauses between two looks at the models. The short one bounds the work, the long one how
/// late a model is seen that was loaded meanwhile.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How often room is looked for again when a model that was to rest got a request.
const MAX_TRIES: usize = 3;

/// What a model may be thought to take, over the size of its files: networks with large
/// intermediate results take several times their weights, and more than that is other
/// models' growth that was measured with it.
const MAX_GROWTH: u64 = 8;
const MAX_EXTRA: u64 = 256 << 20;

/// What a graph takes on a device beside the processor, of the size of its file: its weights, and about as much
/// again for what is between. Providers don't say, so it is only an estimate.
const ON_DEVICE: u64 = 2;

/// What bounds devices.
const DEVICE_LIMIT: &str = "--max-device-memory (wick.dev/device-memory in a pod)";

/// Who needs room.
pub(super) enum Newcomer<'l> {
    /// A package: bytes of its graphs' files, and of those that a device beside the processor may take.
    Package { weights: u64, on_devices: u64 },
    /// A model that rests.
    Resting(&'l Live),
}

/// Room for a load was not found.
#[derive(Debug, Clone)]
pub(super) struct Full {
    pub need: u64,
    pub limit: u64,
    /// The setting that says so.
    pub by: &'static str,
}

impl Repository {
    /// Let models rest that nobody uses, and probe those that have answered nothing lately,
    /// until `stop` is cancelled.
    pub async fn tend(&self, stop: CancellationToken) {
        loop {
            let pause = self.look().await.clamp(MIN_PAUSE, MAX_PAUSE);
            // Neither loses anything when dropped.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Look at each model once. The time until something is due.
    async fn look(&self) -> Duration {
        let mut next = MAX_PAUSE;
        for live in self.inner.lives() {
            match idle::care(&self.inner.seen(&live)) {
                Care::Rest => {
                    if rest(&self.inner, &live).await {
                        tracing::info!(model = live.name, version = live.version, "cold: idle");
                    }
                }
                care @ (Care::Probe | Care::Reload) => lost::ask(&self.inner, live, care),
                Care::Later(after) => next = next.min(after.unwrap_or(MAX_PAUSE)),
            }
        }
        next
    }
}

// === impl Inner ===

impl Inner {
    fn seen(&self, live: &Live) -> Seen {
        let now = self.millis(Instant::now());
        let manifest = live.model.manifest();
        let busy = live.gate.load() != (0, 0);
        if busy {
            live.memory.used.fetch_max(now, Ordering::Relaxed);
        }
        let used = live.memory.used.load(Ordering::Relaxed);
        Seen {
            busy,
            cold: live.is_cold(),
            stuck: live.memory.stuck.load(Ordering::Relaxed),
            unused: Duration::from_millis(now.saturating_sub(used)),
            unproved: live.unproved(now),
            rest_after: match self.cycle.idle_graph {
                Some(Duration::ZERO) => None,
                Some(after) => Some(after),
                None => manifest.idle.graph,
            },
            probed: manifest.warmup.requests > 0,
            failures: live.model.failures_on_devices(),
            lost: live.memory.lost.load(Ordering::Relaxed),
            reloads: live.memory.reloads.load(Ordering::Relaxed),
            unasked: live.unasked(now),
        }
    }

    /// Everything that answers requests.
    fn lives(&self) -> Vec<Arc<Live>> {
        let entries = self.entries.load();
        entries.values().flat_map(|entry| entry.answers.load().to_vec()).collect()
    }

    /// Find room for a model: others rest, and where loads that take long have it, they are waited for.
    /// Without a limit for such a model there is always room.
    pub(super) async fn room(&self, newcomer: Newcomer<'_>) -> Result<Room<'_>, Full> {
        let claim = newcomer.claim();
        let on_device = claim.device > 0 && self.cycle.max_device_memory.is_some();
        if self.cycle.max_loaded_memory.is_none() && !on_device {
            return Ok(self.rooms.unlimited());
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let turn = self.rooms.turn(claim).await;
            let Err(full) = self.find_room(&newcomer, claim).await else { return Ok(turn) };
            // Looked for while it is this one's turn, or the end might be missed.
            let Some(end) = self.rooms.an_end() else { return Err(full) };
            drop(turn);
            tokio::time::timeout_at(until, end).await.map_err(|_| full)?;
        }
    }

    /// Find room once.
    async fn find_room(&self, newcomer: &Newcomer<'_>, claim: Claim) -> Result<(), Full> {
        if let Some(limit) = self.cycle.max_loaded_memory {
            let full = Full { need: claim.memory, limit, by: "--max-loaded-memory" };
            self.make_room(full, self.rooms.reserved().memory, taken).await?;
        }
        match newcomer {
            Newcomer::Package { .. } => self.room_beside(claim.device).await,
            Newcomer::Resting(live) => self.room_on_devices(live).await?,
        }
        Ok(())
    }

    /// Have room for so much on each device in use, for a model that is about to be loaded onto one of them.
    /// Whether there is enough is seen when it is known onto which.
    async fn room_beside(&self, need: u64) {
        let Some(limit) = self.cycle.max_device_memory.filter(|_| need > 0) else { return };
        let devices: BTreeSet<_> =
            self.lives().iter().flat_map(|live| live.model.on_devices().into_keys()).collect();
        for device in devices {
            let on_it = |other: &Live| on_device(other, &device);
            let full = Full { need, limit, by: DEVICE_LIMIT };
            _ = self.make_room(full, self.rooms.reserved().device, on_it).await;
        }
    }

    /// Find room for a model on the devices that its graphs are for. Whoever calls this has its turn.
    pub(super) async fn room_on_devices(&self, live: &Live) -> Result<(), Full> {
        let Some(limit) = self.cycle.max_device_memory else { return Ok(()) };
        for (device, bytes) in live.model.on_devices() {
            let need = bytes.saturating_mul(ON_DEVICE);
            let on_it = |other: &Live| {
                if std::ptr::eq(other, live) { 0 } else { on_device(other, &device) }
            };
            let full = Full { need, limit, by: DEVICE_LIMIT };
            self.make_room(full, self.rooms.reserved().device, on_it).await?;
        }
        Ok(())
    }

    /// Whether a model that is not loaded has room though no other rests.
    pub(super) fn has_room(&self, live: &Live) -> bool {
        let reserved = self.rooms.reserved();
        let fits = |limit: u64, need: u64, bytes: &dyn Fn(&Live) -> u64| {
            let lives = self.lives();
            let held = lives.iter().filter(|other| !other.is_cold()).map(|other| bytes(other));
            held.sum::<u64>().saturating_add(need) <= limit
        };
        let here = self.cycle.max_loaded_memory;
        let beside = |limit| {
            let mut devices = live.model.on_devices().into_iter();
            devices.all(|(device, bytes)| {
                let need = bytes.saturating_mul(ON_DEVICE).saturating_add(reserved.device);
                fits(limit, need, &|other| on_device(other, &device))
            })
        };
        here.is_none_or(|limit| fits(limit, taken(live).saturating_add(reserved.memory), &taken))
            && self.cycle.max_device_memory.is_none_or(beside)
    }

    /// Other models rest until what is needed is within the limit, beside what is reserved; `bytes` says what one of
    /// them has.
    async fn make_room(
        &self,
        full: Full,
        reserved: u64,
        bytes: impl Fn(&Live) -> u64,
    ) -> Result<(), Full> {
        let Full { need, limit, by } = full;
        for _ in 0..MAX_TRIES {
            let lives = self.lives();
            let held =
                lives.iter().enumerate().filter_map(|(at, live)| held(at, live, bytes(live)));
            let loading = Held { id: lives.len(), bytes: reserved, used: u64::MAX, busy: true };
            let held: Vec<_> = held.chain([loading]).collect();
            let resting = room::make_room(limit, need, &held).map_err(|no| {
                tracing::warn!(need, limit, by, busy = no.busy, "no room for a model");
                full.clone()
            })?;
            let mut all = true;
            for at in resting {
                let live = &lives[at];
                let rests = rest(self, live).await;
                if rests {
                    tracing::info!(model = live.name, version = live.version, "cold: no room");
                }
                all &= rests || live.is_cold();
            }
            if all {
                return Ok(());
            }
        }
        Err(full)
    }

    /// Note what a model has taken since `before`, which is the memory then, and let others
    /// rest if that is more than was thought.
    pub(super) async fn taken(&self, live: &Live, before: u64) {
        let weights = live.model.weights_len();
        let Some(limit) = self.cycle.max_loaded_memory else { return };
        self.give_back();
        let most = weights.saturating_mul(MAX_GROWTH).saturating_add(MAX_EXTRA);
        let bytes = resident().saturating_sub(before).clamp(weights, most);
        live.memory.bytes.store(bytes, Ordering::Relaxed);
        // This one is needed now; what can't be had for it is found by the next load.
        let full = Full { need: bytes, limit, by: "--max-loaded-memory" };
        _ = self.make_room(full, self.rooms.reserved().memory, taken).await;
    }

    /// Give memory that was freed back to the system.
    pub(super) fn give_back(&self) {
        if let Some(give_back) = self.cycle.give_back {
            give_back();
        }
    }
}

// === impl Newcomer ===

impl Newcomer<'_> {
    fn claim(&self) -> Claim {
        let (memory, on_devices) = match self {
            Self::Package { weights, on_devices } => (*weights, *on_devices),
            Self::Resting(live) => (taken(live), live.model.on_devices().into_values().sum()),
        };
        Claim { memory, device: on_devices.saturating_mul(ON_DEVICE) }
    }
}

/// What a model takes in this process.
fn taken(live: &Live) -> u64 {
    live.memory.bytes.load(Ordering::Relaxed)
}

/// What a model takes on a device.
fn on_device(live: &Live, device: &str) -> u64 {
    let bytes = live.model.on_devices().get(device).copied().unwrap_or_default();
    bytes.saturating_mul(ON_DEVICE)
}

/// A model that has some of what is needed.
fn held(at: usize, live: &Live, bytes: u64) -> Option<Held<usize>> {
    (bytes > 0 && !live.is_cold()).then(|| Held {
        id: at,
        bytes,
        used: live.memory.used.load(Ordering::Relaxed),
        busy: live.gate.load() != (0, 0),
    })
}

/// Take a model out of memory, if nobody is in it. False if nothing was done.
async fn rest(inner: &Inner, live: &Arc<Live>) -> bool {
    // One that is loaded right now is in use, and whoever loads it may wait for a device for long.
    let Ok(_turn) = live.memory.turn.try_lock() else { return false };
    let cool = || live.memory.cold.store(true, Ordering::Release);
    if live.is_cold() || !live.gate.when_idle(cool) {
        return false;
    }
    // The next request tries its device anew.
    live.memory.away.store(false, Ordering::Release);
    if live.memory.lost.swap(false, Ordering::Relaxed) {
        live.set_fault(None);
    }
    let model = live.model.clone();
    let give_back = inner.cycle.give_back;
    let freed = tokio::task::spawn_blocking(move || {
        model.rest();
        if let Some(give_back) = give_back {
            give_back();
        }
    });
    if let Err(error) = freed.await {
        tracing::error!(model = live.name, %error, "a model did not leave memory");
    }
    true
}

/// Bring a model back.
pub(super) async fn wake(inner: &Inner, live: &Live) -> Result<(), Failure> {
    if !live.is_cold() {
        return Ok(());
    }
    // In this order: who waits for another's turn with the model keeps nobody from finding room.
    let _turn = live.memory.turn.lock().await;
    // Another request has brought it while this one waited.
    if !live.is_cold() {
        return Ok(());
    }
    let no_room = |full: Full| Failure::NoRoom {
        model: live.name.clone(),
        need: full.need,
        limit: full.limit,
        by: full.by,
    };
    let mut room = inner.room(Newcomer::Resting(live)).await.map_err(no_room)?;
    let start = Instant::now();
    let woken = room.during(Box::pin(live.model.wake())).await;
    live.memory.asked.store(inner.millis(Instant::now()), Ordering::Relaxed);
    live.memory.stuck.store(woken.is_err(), Ordering::Relaxed);
    if let Err(error) = woken {
        let text = error_text(&error);
        tracing::warn!(model = live.name, code = error.code(), error = text, "not loaded again");
        live.set_fault(Some((error.code(), text.clone())));
        return Err(Failure::Asleep { model: live.name.clone(), why: text });
    }
    live.set_fault(None);
    live.memory.cold.store(false, Ordering::Release);
    let took = start.elapsed();
    inner.metrics.set_cold_start(&live.name, "wake", took);
    tracing::info!(model = live.name, wake_ms = took.as_millis() as u64, "loaded again");
    drop(room);
    Ok(())
}

/// Bytes of this process in memory; 0 where the system does not tell.
pub(super) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0_u64) << 10
}
