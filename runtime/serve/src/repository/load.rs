//! From paths to live models: open, choose versions, load, warm and probe, switch over.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use wick_engine::{InferRequest, Model, ModelKind};
use wick_package::{Blob, DeviceKind, GraphSpec, Package, RelPath};

use super::live::Memory;
use super::reserve::Room;
use super::rest::Newcomer;
use super::state::Event;
use super::{Entry, Inner, Live, MIN_CONCURRENCY, RepositoryError, Slot, rest};
use crate::body::Whose;
use crate::codec;
use crate::gate::Gate;

/// Open a package without blocking the runtime.
pub(super) async fn open(inner: &Inner, path: PathBuf) -> Result<Package, RepositoryError> {
    let opener = inner.cycle.opener.clone();
    let opened = tokio::task::spawn_blocking(move || {
        opener
            .open(&path)
            .map_err(|source| RepositoryError::Open { path, source: Box::new(source) })
    });
    opened.await.map_err(|error| RepositoryError::Task(error.to_string()))?
}

/// Load the versions of a model that the policy wants, and let go of the others. `only` is
/// the package that has changed; without it all are opened again.
///
/// # Errors
/// The first of them, in the order of the packages. What was live goes on serving.
pub(super) async fn versions(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    only: Option<&Path>,
) -> Result<(), RepositoryError> {
    let turn = Arc::clone(&entry.loading).lock_owned().await;
    let slots = entry.slots.load_full();
    let mut failed = None;
    let mut found = Vec::new();
    for slot in slots.iter() {
        match reopened(inner, entry, slot, only).await {
            Ok(package) => found.push((Arc::clone(slot), package)),
            Err(error) => {
                slot.failed(&error);
                failed.get_or_insert(error);
                if slot.live.load().is_some() {
                    found.push((Arc::clone(slot), None));
                }
            }
        }
    }
    let numbers: Vec<_> = found.iter().map(|(slot, package)| slot.number(package)).collect();
    let chosen = inner.cycle.versions.choose(&numbers.iter().collect::<Vec<_>>());
    entry.chosen.store(chosen.iter().filter(|wanted| **wanted).count(), Ordering::Relaxed);
    let mut wanted = Vec::new();
    let mut unwanted = Vec::new();
    for ((slot, package), is_wanted) in found.into_iter().zip(chosen) {
        if is_wanted {
            wanted.push((slot, package));
        } else {
            unwanted.push(slot);
        }
    }
    let loads = wanted.iter_mut().map(|(slot, package)| {
        let package = package.take();
        async move {
            if package.is_none() && slot.live.load().is_some() {
                return Ok(());
            }
            one(inner, entry, slot, package).await
        }
    });
    for loaded in futures::future::join_all(loads).await {
        failed = failed.or_else(|| loaded.err());
    }
    // An older version goes on in the place of one that can't be loaded.
    let all_live = wanted.iter().all(|(slot, _)| slot.live.load().is_some());
    let dropped = unwanted.iter().filter(|_| all_live).filter_map(|slot| slot.take(entry));
    let drains: Vec<_> = dropped.collect();
    unwanted.iter().filter(|slot| slot.live.load().is_none()).for_each(|slot| slot.skipped());
    entry.answer();
    if !drains.is_empty() {
        let (inner, entry) = (Arc::clone(inner), Arc::clone(entry));
        // The next load waits for it, and nobody else does.
        tokio::spawn(async move {
            drain(&inner, &entry, drains).await;
            drop(turn);
        });
    }
    failed.map_or(Ok(()), Err)
}

/// Let the requests of versions end that take no new ones, and drop them.
pub(super) async fn drain(inner: &Inner, entry: &Entry, drains: Vec<(Arc<Slot>, Arc<Live>)>) {
    let ends = drains.iter().map(|(_, live)| {
        live.gate.close();
        ended(inner, live)
    });
    futures::future::join_all(ends).await;
    let gone: Vec<_> = drains.iter().flat_map(|(_, live)| live.model.graphs()).collect();
    inner.set_devices(entry, &gone);
    let slots: Vec<_> = drains.into_iter().map(|(slot, _)| slot).collect();
    inner.give_back();
    slots.iter().for_each(|slot| slot.on(Event::Drained));
}

/// Wait for the requests of something that gets no new ones.
async fn ended(inner: &Inner, live: &Live) {
    let ended = tokio::time::timeout(inner.settings.drain, live.gate.idle()).await.is_ok();
    inner.metrics.take_graphs(&live.name, &live.model, &live.metrics);
    if !ended {
        let (running, waiting) = live.gate.load();
        let (model, version) = (&live.name, &live.version);
        tracing::warn!(
            model,
            version,
            running,
            waiting,
            "requests of a version that is gone go on"
        );
    }
}

/// The package of a slot, if it is to be loaded: opened now, or when it was added.
async fn reopened(
    inner: &Inner,
    entry: &Entry,
    slot: &Slot,
    only: Option<&Path>,
) -> Result<Option<Package>, RepositoryError> {
    let opened = slot.opened.lock().take();
    let package = match opened {
        Some(package) => package,
        None if only.is_none_or(|only| only == slot.source.path) => {
            open(inner, slot.source.path.clone()).await?
        }
        None => return Ok(None),
    };
    let (name, version) = (package.manifest().name.as_str(), &package.manifest().version);
    if name != entry.name {
        let (model, now) = (entry.name.clone(), name.to_owned());
        return Err(RepositoryError::Renamed { model, now });
    }
    entry.check_free(version, slot)?;
    slot.report.lock().version = version.clone();
    Ok(Some(package))
}

/// Load, warm and probe one version, then switch requests over to it.
async fn one(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    slot: &Slot,
    package: Option<Package>,
) -> Result<(), RepositoryError> {
    slot.on(Event::Load);
    let loaded = match package {
        Some(package) => load(inner, entry, slot, package).await,
        None => match open(inner, slot.source.path.clone()).await {
            Ok(package) => load(inner, entry, slot, package).await,
            Err(error) => Err(error),
        },
    };
    let (live, room) = loaded.inspect_err(|error| slot.failed(error))?;
    *entry.kind.lock() = Some(live.model.kind());
    let old = {
        let mut report = slot.report.lock();
        report.last_error = None;
        slot.live.swap(Some(live))
    };
    slot.on(Event::Live);
    entry.answer();
    // From here on whoever looks for room sees it.
    drop(room);
    let gone = old.as_ref().map_or_else(Vec::new, |old| old.model.graphs());
    inner.set_devices(entry, &gone);
    if let Some(old) = old {
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            ended(&inner, &old).await;
            drop(old);
            inner.give_back();
        });
    }
    Ok(())
}

/// Load the model of a package, beside what is live, into the room that it keeps.
async fn load<'i>(
    inner: &'i Arc<Inner>,
    entry: &Entry,
    slot: &Slot,
    package: Package,
) -> Result<(Arc<Live>, Room<'i>), RepositoryError> {
    let name = &entry.name;
    let start = Instant::now();
    let request = warmup_request(name, &package).await?;
    let weights = package.manifest().graphs.iter();
    let weights = weights.filter_map(|graph| Some(package.file(&graph.path).ok()?.len)).sum();
    let no_room = |full: rest::Full| RepositoryError::NoRoom {
        model: name.clone(),
        need: full.need,
        limit: full.limit,
        by: full.by,
    };
    let permits = |graph: &GraphSpec| graph.devices.iter().any(|&kind| kind != DeviceKind::Cpu);
    let on_devices = package.manifest().graphs.iter().filter(|graph| permits(graph));
    let on_devices = on_devices.filter_map(|graph| Some(package.file(&graph.path).ok()?.len)).sum();
    let newcomer = Newcomer::Package { weights, on_devices };
    let mut room = inner.room(newcomer).await.map_err(no_room)?;
    let before = rest::resident();
    let opened = Instant::now();

    let failed = |source| RepositoryError::Load { model: name.clone(), source };
    let grants = slot.source.grants.clone();
    let load = Box::pin(inner.engine.load(package, grants));
    let model = room.during(load).await.map_err(failed)?;
    if model.kind() == ModelKind::Command {
        *slot.command.lock() = Some(model);
        return Err(RepositoryError::Command { model: name.clone() });
    }
    slot.on(Event::Loaded);
    let loaded = Instant::now();
    room.during(Box::pin(model.warm(request.clone()))).await.map_err(failed)?;
    let warmed = Instant::now();

    let metrics = &inner.metrics;
    metrics.set_cold_start(name, "open", opened - start);
    metrics.set_cold_start(name, "load", loaded - opened);
    metrics.set_cold_start(name, "warm", warmed - loaded);
    metrics.set_cold_start(name, "total", warmed - start);
    tracing::info!(
        model = name,
        version = %model.manifest().version,
        open_ms = (opened - start).as_millis() as u64,
        load_ms = (loaded - opened).as_millis() as u64,
        warm_ms = (warmed - loaded).as_millis() as u64,
        "ready"
    );
    let live = live(inner, name.clone(), model, request);
    inner.taken(&live, before).await;
    // On which device it runs is known only now; without room there it does not stay.
    inner.room_on_devices(&live).await.map_err(no_room)?;
    Ok((live, room))
}

fn live(inner: &Arc<Inner>, name: String, model: Model, probe: Option<InferRequest>) -> Arc<Live> {
    let limits = &model.manifest().limits;
    let default = default_concurrency(inner.settings.cpus, &model.manifest().graphs);
    let concurrency = limits.concurrency.map_or(default, |most| most.get() as usize);
    let gate = Gate::new(concurrency, limits.queue as usize);
    let version = model.manifest().version.to_string();
    let metrics = inner.metrics.model(&name, &version);
    let now = inner.millis(Instant::now());
    let computes = model.kind() != ModelKind::Http && model.manifest().wants.network.is_empty();
    let part = computes.then(|| inner.cores.part(limits.weight, batched(&model.manifest().graphs)));
    Arc::new_cyclic(|me| {
        let memory = Memory {
            origin: inner.origin,
            home: Arc::downgrade(inner),
            me: Weak::clone(me),
            cold: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
            bytes: AtomicU64::new(0),
            used: AtomicU64::new(now),
            asked: AtomicU64::new(now),
            probe,
            fault: parking_lot::Mutex::default(),
            reloads: AtomicU32::new(0),
            reloaded: AtomicU64::new(0),
            asking: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            away: AtomicBool::new(false),
        };
        let whose = Whose::Loaded(format!("model `{name}`").into());
        Live { model, name, version, whose, gate, metrics, part, memory }
    })
}

/// Requests in work at once, where the package does not say. A batch can only join
/// requests that are in work, so there is room for two of the largest: one that is
/// computed and one that collects.
fn default_concurrency(cpus: usize, graphs: &[GraphSpec]) -> usize {
    MIN_CONCURRENCY.max(cpus * 2).max(batched(graphs))
}

/// Requests that two of the largest batches join.
fn batched(graphs: &[GraphSpec]) -> usize {
    let batches = graphs.iter().filter_map(|graph| graph.batch);
    batches.map(|batch| batch.max.get() as usize).max().unwrap_or(0) * 2
}

/// Read the package's own warm-up request, if it has one.
async fn warmup_request(
    name: &str,
    package: &Package,
) -> Result<Option<InferRequest>, RepositoryError> {
    let manifest = package.manifest();
    let Some(path) = &manifest.warmup.request else { return Ok(None) };
    let failed = |source| RepositoryError::WarmupFile {
        model: name.to_owned(),
        path: path.to_string(),
        source,
    };
    let limit = manifest.limits.request;
    let (reader, file) = (package.clone(), path.clone());
    let text = tokio::task::spawn_blocking(move || read_file(&reader, &file, limit));
    let text = text.await.map_err(|error| RepositoryError::Task(error.to_string()))?;
    let text = text.map_err(failed)?;
    let decoded = codec::decode(None, &text, &manifest.inputs).map_err(|error| {
        let detail = error.to_string();
        RepositoryError::WarmupRequest { model: name.to_owned(), path: path.to_string(), detail }
    })?;
    Ok(Some(decoded.request))
}

fn read_file(package: &Package, path: &RelPath, limit: u64) -> io::Result<Bytes> {
    let blob = package.file(path)?;
    let must = package.must_have(&blob);
    let Blob { path, offset, len, .. } = blob;
    if len > limit {
        let text = format!("it has {len} bytes, and requests of this package may have {limit}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.take(len).read_to_end(&mut text)?;
    must.map_or(Ok(()), |must| must.check(&text))?;
    Ok(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn two_batches_fit_into_the_default_concurrency() {
        let default = |batch: &str| {
            let text = format!(
                "[package]\nname = \"m\"\nversion = \"1.0.0\"\n\
                 [[graph]]\nname = \"g\"\npath = \"m.onnx\"\n{batch}"
            );
            let manifest = wick_package::parse(&text, Path::new("wick.toml")).unwrap();
            default_concurrency(2, &manifest.graphs)
        };
        assert_eq!(default(""), 4);
        assert_eq!(default("batch = { max = 16 }"), 32);
    }
}
