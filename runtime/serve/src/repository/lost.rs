//! Models that do not answer: they are asked whether they work, and loaded again onto a device that was lost. When
//! that is due is decided in `idle`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wick_package::{Reason as _, error_text};

use super::idle::{Care, MANY, WELL};
use super::{Inner, Live, rest};

/// What is said of a model whose graph fails.
const LOST: (&str, &str) = ("device-lost", "a graph fails on its device");

/// Longest load of a model that is loaded again: a provider may compile for minutes. One that hangs is tried
/// anew.
const LOAD: Duration = Duration::from_secs(600);

/// A model that is asked. Nobody else asks it meanwhile.
struct Asked(Arc<Live>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.memory.asking.store(false, Ordering::Release);
    }
}

/// Ask a model in a task of its own: a device that hangs keeps nobody else from being looked after.
pub(super) fn ask(inner: &Arc<Inner>, live: Arc<Live>, care: Care) {
    if live.memory.asking.swap(true, Ordering::AcqRel) {
        return;
    }
    let (inner, asked) = (Arc::clone(inner), Asked(live));
    tokio::spawn(async move {
        match care {
            Care::Reload => reload(&inner, &asked.0).await,
            Care::Probe | Care::Rest | Care::Later(_) => probe(&inner, &asked.0).await,
        }
    });
}

/// Ask a model whether it still works. It is no request: nobody waits for it, and it keeps
/// nothing in memory.
async fn probe(inner: &Inner, live: &Live) {
    let before = live.model.failures_on_devices();
    let answered = live.model.probe(live.memory.probe.clone()).await;
    asked(inner, live);
    let failures = live.model.failures_on_devices();
    match answered {
        // The graph that fails was not asked.
        Ok(()) if failures >= MANY => {
            lose(live);
            live.set_fault(Some((LOST.0, LOST.1.to_owned())));
        }
        Ok(()) => live.set_fault(None),
        // It was taken out of memory meanwhile: nothing is wrong.
        Err(_) if live.is_cold() => {}
        Err(error) => {
            tracing::warn!(model = live.name, code = error.code(), %error, "the probe failed");
            if failures > before {
                lose(live);
            }
            live.set_fault(Some((error.code(), error.to_string())));
        }
    }
}

fn lose(live: &Live) {
    if !live.memory.lost.swap(true, Ordering::Relaxed) {
        tracing::warn!(model = live.name, version = live.version, "its device is lost");
    }
}

/// Load a model again whose graph fails on its device: a driver that was reset, or a device that had no memory, gives
/// new graphs what the old ones don't get any more. Requests meanwhile are refused; those in work keep the old graph
/// until they end.
async fn reload(inner: &Inner, live: &Live) {
    if live.is_cold() {
        return bring_back(inner, live).await;
    }
    let memory = &live.memory;
    // One that is loaded right now is another's.
    let Ok(turn) = memory.turn.try_lock() else { return };
    if live.is_cold() {
        return;
    }
    // Nothing is taken away that can't be brought back.
    if !live.model.is_unchanged() {
        asked(inner, live);
        let text = "a graph fails on its device, and its file has changed: load the model again";
        live.set_fault(Some((LOST.0, text.to_owned())));
        return;
    }
    lose(live);
    count(inner, live);
    tracing::info!(model = live.name, version = live.version, "loading it onto its device again");
    live.set_fault(Some((LOST.0, LOST.1.to_owned())));
    memory.away.store(true, Ordering::Release);
    let model = live.model.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || model.rest()).await {
        tracing::error!(model = live.name, %error, "a model did not leave its device");
    }
    let loaded = tokio::time::timeout(LOAD, live.model.wake()).await;
    asked(inner, live);
    let (code, text) = match loaded {
        Ok(Ok(())) => {
            memory.lost.store(false, Ordering::Relaxed);
            live.set_fault(None);
            memory.away.store(false, Ordering::Release);
            drop(turn);
            if live.model.manifest().warmup.requests > 0 {
                probe(inner, live).await;
            }
            return;
        }
        Ok(Err(error)) => (error.code(), error_text(&error)),
        Err(_) => (LOST.0, format!("its device has not taken it for {} s", LOAD.as_secs())),
    };
    tracing::warn!(model = live.name, code, text, "not loaded again");
    live.set_fault(Some((code, text)));
}

/// Load a model that could not come back when somebody asked for it.
async fn bring_back(inner: &Inner, live: &Live) {
    // A request may have brought it meanwhile. What nobody asks for takes no other model's place.
    let stuck = live.memory.stuck.load(Ordering::Relaxed);
    if !stuck || !live.model.is_unchanged() || !inner.has_room(live) {
        asked(inner, live);
        return;
    }
    count(inner, live);
    // What is wrong is noted for whoever looks, and in the log.
    let woken = tokio::time::timeout(LOAD, rest::wake(inner, live)).await;
    asked(inner, live);
    if woken.is_err() {
        let text = format!("its device has not taken it for {} s", LOAD.as_secs());
        live.set_fault(Some((LOST.0, text)));
    }
}

/// Pauses run from here.
fn asked(inner: &Inner, live: &Live) {
    live.memory.asked.store(inner.millis(Instant::now()), Ordering::Relaxed);
}

fn count(inner: &Inner, live: &Live) {
    let (memory, now) = (&live.memory, inner.millis(Instant::now()));
    let last = memory.reloaded.swap(now, Ordering::Relaxed);
    if Duration::from_millis(now.saturating_sub(last)) > WELL {
        memory.reloads.store(0, Ordering::Relaxed);
    }
    memory.reloads.fetch_add(1, Ordering::Relaxed);
    live.metrics.reloads.inc();
}
