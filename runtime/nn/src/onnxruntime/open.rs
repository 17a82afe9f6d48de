//! Makes sessions: from the model, or from the optimised graph in the cache.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use ort::ErrorCode;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::library::Library;
use super::{CPU_PROVIDER, NAME};
use crate::backend::{GraphOptions, GraphSource, SourceBytes};
use crate::cache::{GraphCache, Key};
use crate::error::LoadError;
use crate::skeleton::Skeleton;

/// Smaller models load as fast as their saved form.
const MIN_CACHED_BYTES: u64 = 256 << 10;

/// The optimised graph in an entry of the cache.
const SAVED_MODEL: &str = "model.onnx";

/// Its weights, which ONNX Runtime maps.
const SAVED_WEIGHTS: &str = "weights.bin";

/// Smaller weights stay in the model's file: mapping them would cost more.
const MIN_EXTERNAL_BYTES: &str = "1024";

/// Bytes of `/proc/cpuinfo` that are read: the first processor's features are in
/// them, and a large machine has a megabyte of it.
const CPUINFO_BYTES: u64 = 16 << 10;

/// Why no saved graph was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaveError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Ort(#[from] ort::Error),
}

/// Load a model, by the cache if there is one and it helps.
pub(super) fn open(
    library: &Library,
    source: &GraphSource,
    options: &GraphOptions,
) -> Result<Session, LoadError> {
    // What comes from memory was sent by a guest, which must not fill the disk.
    let from_file = matches!(source.bytes, SourceBytes::File { .. });
    let worth = from_file && source.bytes.len() >= MIN_CACHED_BYTES;
    let cache = options.cache.as_deref().filter(|_| worth);
    let Some(folder) = cache else {
        return open_plain(library, source, options, None);
    };
    match GraphCache::open(folder) {
        Ok(cache) => open_cached(library, source, options, &cache),
        Err(error) => {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "optimised graphs are not kept: no cache folder");
            open_plain(library, source, options, None)
        }
    }
}

fn open_cached(
    library: &Library,
    source: &GraphSource,
    options: &GraphOptions,
    cache: &GraphCache,
) -> Result<Session, LoadError> {
    let digested = cache.digest(source)?;
    let digest = digested.digest.to_string();
    // Threads are not in the key: the saved graph does not depend on them.
    let key = Key::of(&[&digest, &library.build, cpu_features(), CPU_PROVIDER]);
    if let Some(entry) = cache.find(&key) {
        match open_saved(library, options, &entry) {
            Ok(session) => return Ok(session),
            Err(error) => {
                let graph = source.name.as_str();
                tracing::warn!(graph, %error, "a saved graph can't be used and is built again");
                cache.remove(&key);
            }
        }
    }
    let bytes = digested.bytes.map_or_else(|| source.read(), Ok)?;
    let skeleton = Skeleton::of(&bytes).map_err(|detail| source.invalid(NAME, detail))?;
    // The key knows nothing of weights that are in other files.
    if !skeleton.external.is_empty() || !cache.is_writable() {
        return open_plain(library, source, options, Some(bytes));
    }
    let saved = cache.store(&key, |folder| save(library, options, &bytes, folder));
    let opened = saved.and_then(|entry| Ok(open_saved(library, options, &entry)?));
    opened.or_else(|error: SaveError| {
        // Whatever was stored does not open.
        cache.remove(&key);
        // If it is the model that is bad, this says so.
        let session = open_plain(library, source, options, Some(bytes))?;
        let graph = source.name.as_str();
        tracing::warn!(graph, %error, "the optimised graph is not kept: the next start is slower");
        Ok(session)
    })
}

/// Build the optimised graph and write it into `folder`.
fn save(
    library: &Library,
    options: &GraphOptions,
    bytes: &[u8],
    folder: &Path,
) -> Result<(), SaveError> {
    let prefix = "session.optimized_model_external_initializers";
    let mut builder = builder(library, options)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(ort::Error::from)?
        .with_optimized_model_path(folder.join(SAVED_MODEL))
        .map_err(ort::Error::from)?
        .with_config_entry(format!("{prefix}_file_name"), SAVED_WEIGHTS)
        .map_err(ort::Error::from)?
        .with_config_entry(format!("{prefix}_min_size_in_bytes"), MIN_EXTERNAL_BYTES)
        .map_err(ort::Error::from)?;
    drop(builder.commit_from_memory(bytes)?);
    if fs::metadata(folder.join(SAVED_MODEL))?.len() == 0 {
        return Err(io::Error::other("the saved graph is empty").into());
    }
    Ok(())
}

fn open_saved(library: &Library, options: &GraphOptions, entry: &Path) -> ort::Result<Session> {
    builder(library, options)?
        // It is optimised already, for exactly this library and CPU.
        .with_optimization_level(GraphOptimizationLevel::Disable)?
        .commit_from_file(entry.join(SAVED_MODEL))
}

fn open_plain(
    library: &Library,
    source: &GraphSource,
    options: &GraphOptions,
    bytes: Option<Bytes>,
) -> Result<Session, LoadError> {
    let bytes = bytes.map_or_else(|| source.read(), Ok)?;
    let skeleton = Skeleton::of(&bytes).map_err(|detail| source.invalid(NAME, detail))?;
    skeleton.check_weights(source)?;
    let make = || {
        let mut builder =
            builder(library, options)?.with_optimization_level(GraphOptimizationLevel::All)?;
        commit(&mut builder, source, &bytes, &skeleton)
    };
    make().map_err(|error: ort::Error| {
        let detail = error.message().trim();
        if error.code() == ErrorCode::NotImplemented {
            source.unsupported("an operator that this ONNX Runtime lacks", detail)
        } else {
            source.invalid(NAME, detail)
        }
    })
}

pub(super) fn commit(
    builder: &mut SessionBuilder,
    source: &GraphSource,
    bytes: &[u8],
    skeleton: &Skeleton,
) -> ort::Result<Session> {
    match &source.bytes {
        // Other files are found beside the model, so it must be a file itself. Where the
        // model must have a digest, they would have none.
        SourceBytes::File { path, offset: 0, digest: None, .. }
            if !skeleton.external.is_empty() =>
        {
            builder.commit_from_file(path)
        }
        _ => builder.commit_from_memory(bytes),
    }
}

fn builder(library: &Library, options: &GraphOptions) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(&library.environment)?
        .with_devices(library.cpu(), None)?
        .with_intra_threads(options.threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?;
    Ok(builder)
}

/// Architecture and features of the CPU, on which the optimised graph depends.
fn cpu_features() -> &'static str {
    static FEATURES: OnceLock<String> = OnceLock::new();
    FEATURES.get_or_init(|| {
        let mut text = String::new();
        // Without the file the architecture alone is the key.
        let file = fs::File::open("/proc/cpuinfo");
        _ = file.and_then(|file| file.take(CPUINFO_BYTES).read_to_string(&mut text));
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or("");
        format!("{} {}{}", std::env::consts::ARCH, line("flags"), line("Features"))
    })
}
