//! From a path to a live model: open, load, warm and probe.

use std::error::Error;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use wick_engine::{InferRequest, Model, ModelKind};
use wick_package::{Blob, GraphSpec, Package, RelPath};

use super::{Entry, Inner, Live, MIN_CONCURRENCY, RepositoryError};
use crate::codec;
use crate::gate::Gate;

/// Open a package without blocking the runtime.
pub(super) async fn open(path: PathBuf) -> Result<Package, RepositoryError> {
    let opened = tokio::task::spawn_blocking(move || {
        Package::open(&path)
            .map_err(|source| RepositoryError::Open { path, source: Box::new(source) })
    });
    opened.await.map_err(|error| RepositoryError::Task(error.to_string()))?
}

/// Load the model of an entry from its path, beside what is live.
pub(super) async fn load(inner: &Inner, entry: &Entry) -> Result<Live, RepositoryError> {
    let name = &entry.name;
    let start = Instant::now();
    let opened = entry.opened.lock().take();
    let package = match opened {
        Some(package) => package,
        None => open(entry.source.path.clone()).await?,
    };
    if package.manifest().name.as_str() != name {
        let now = package.manifest().name.to_string();
        return Err(RepositoryError::Renamed { model: name.clone(), now });
    }
    let request = warmup_request(name, &package).await?;
    let opened = Instant::now();

    let failed = |source| RepositoryError::Load { model: name.clone(), source };
    let grants = entry.source.grants.clone();
    let model = inner.engine.load(package, grants).await.map_err(failed)?;
    if model.kind() == ModelKind::Command {
        *entry.command.lock() = Some(model);
        return Err(RepositoryError::Command { model: name.clone() });
    }
    let loaded = Instant::now();
    model.warm(request).await.map_err(failed)?;
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
    Ok(live(inner, name.clone(), model))
}

fn live(inner: &Inner, name: String, model: Model) -> Live {
    let limits = &model.manifest().limits;
    let default = default_concurrency(inner.settings.cpus, &model.manifest().graphs);
    let concurrency = limits.concurrency.map_or(default, |most| most.get() as usize);
    let gate = Gate::new(concurrency, limits.queue as usize);
    let version = model.manifest().version.to_string();
    let metrics = inner.metrics.model(&name, &version);
    Live { model, name, version, gate, metrics }
}

/// Requests in work at once, where the package does not say. A batch can only join
/// requests that are in work, so there is room for two of the largest: one that is
/// computed and one that collects.
fn default_concurrency(cpus: usize, graphs: &[GraphSpec]) -> usize {
    let batches = graphs.iter().filter_map(|graph| graph.batch);
    let largest = batches.map(|batch| batch.max.get() as usize).max().unwrap_or(0);
    MIN_CONCURRENCY.max(cpus * 2).max(largest * 2)
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
    let Blob { path, offset, len, .. } = package.file(path)?;
    if len > limit {
        let text = format!("it has {len} bytes, and requests of this package may have {limit}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.take(len).read_to_end(&mut text)?;
    Ok(Bytes::from(text))
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
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
