//! Loads graphs onto devices that are no CPU. Some providers compile for seconds or minutes: what comes of it is
//! kept, as an ONNX model whose nodes are what the provider has made (`com.microsoft.EPContext`), and is the
//! next start's.
//!
//! An engine is good for one model, ONNX Runtime, provider, device, driver and set of options, all of which are
//! in its key; whoever changes one of them compiles again. A provider that refuses an engine all the same has it
//! made anew.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::facts::Assignment;
use super::library::Library;
use super::open::{SaveError, commit};
use super::providers::of_registered;
use super::{NAME, plugins};
use crate::backend::{Device, GraphOptions, GraphSource, SourceBytes};
use crate::cache::{GraphCache, Key};
use crate::error::LoadError;
use crate::inventory::Inventory;
use crate::skeleton::Skeleton;

/// Part of what ONNX Runtime says when it was told to leave nothing to the CPU.
const FALLBACK_REFUSED: &str = "fallback to CPU EP has been explicitly disabled";

/// The model in an entry of the cache. What the provider has made is in it or beside it.
const ENGINE: &str = "engine.onnx";

/// The part of the nodes that the device has got. In an engine they are one node, so that it can't be told.
const SHARE: &str = "share";

/// All that it takes to open a graph on a device.
struct Opening<'a> {
    library: &'a Library,
    source: &'a GraphSource,
    device: &'a Device,
    options: &'a GraphOptions,
}

/// Load a model onto a device that is no CPU, and say which part of it runs there.
pub(super) fn open_on(
    library: &Library,
    source: &GraphSource,
    device: &Device,
    options: &GraphOptions,
) -> Result<(Session, f32), LoadError> {
    let opening = Opening { library, source, device, options };
    let compiles = of_registered(&device.provider).is_some_and(|provider| provider.compiles);
    // What comes from memory was sent by a guest, which must not fill the disk.
    let from_file = matches!(source.bytes, SourceBytes::File { .. });
    let Some(folder) = options.cache.as_deref().filter(|_| compiles && from_file) else {
        return opening.compile(&source.read()?);
    };
    match GraphCache::open(folder) {
        Ok(cache) => opening.cached(&cache),
        Err(error) => {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "engines are not kept: no cache folder");
            opening.compile(&source.read()?)
        }
    }
}

// === impl Opening ===

impl Opening<'_> {
    /// Open the engine that is kept, or make one, keep it and open it.
    fn cached(&self, cache: &GraphCache) -> Result<(Session, f32), LoadError> {
        let graph = self.source.name.as_str();
        let digested = cache.digest(self.source)?;
        let key = self.key(&digested.digest.to_string());
        if let Some(entry) = cache.find(&key) {
            match self.open_engine(&entry) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::warn!(graph, %error, "a kept engine can't be used and is made again");
                    cache.remove(&key);
                }
            }
        }
        let bytes = digested.bytes.map_or_else(|| self.source.read(), Ok)?;
        let skeleton = self.skeleton(&bytes)?;
        // The key knows nothing of weights that are in other files.
        if !skeleton.external.is_empty() || !cache.is_writable() {
            return self.compile(&bytes);
        }
        let kept = cache.store(&key, |folder| self.keep(&bytes, &skeleton, folder));
        let opened = kept.and_then(|entry| self.open_engine(&entry));
        opened.or_else(|error: SaveError| {
            cache.remove(&key);
            // If it is the graph or the device that is bad, this says so.
            let opened = self.compile(&bytes)?;
            tracing::warn!(graph, %error, "the engine is not kept: the next start is slower");
            Ok(opened)
        })
    }

    /// Compile into `folder`.
    fn keep(&self, bytes: &Bytes, skeleton: &Skeleton, folder: &Path) -> Result<(), SaveError> {
        let engine = folder.join(ENGINE);
        let path =
            engine.to_str().ok_or_else(|| io::Error::other("the folder's name is no text"))?;
        let mut builder = self
            .builder(self.whole())?
            .with_config_entry("ep.context_enable", "1")
            .map_err(ort::Error::from)?
            .with_config_entry("ep.context_file_path", path)
            .map_err(ort::Error::from)?
            .with_config_entry("ep.context_embed_mode", "0")
            .map_err(ort::Error::from)?;
        let session = commit(&mut builder, self.source, bytes, skeleton)?;
        let share = Assignment::of(&session, &self.device.provider)?.share();
        if !engine.is_file() {
            return Err(io::Error::other("the provider has made none of this graph").into());
        }
        Ok(fs::write(folder.join(SHARE), share.to_string())?)
    }

    fn open_engine(&self, entry: &Path) -> Result<(Session, f32), SaveError> {
        let share = fs::read_to_string(entry.join(SHARE))?;
        let share: f32 = share.trim().parse().map_err(io::Error::other)?;
        let session = self.builder(self.whole())?.commit_from_file(entry.join(ENGINE))?;
        // The node that holds an engine runs on its device or not at all, but somebody must have taken it.
        if Assignment::of(&session, &self.device.provider)?.on_device == 0 {
            return Err(io::Error::other("the device has not taken it").into());
        }
        Ok((session, share))
    }

    /// Load it without keeping anything.
    fn compile(&self, bytes: &Bytes) -> Result<(Session, f32), LoadError> {
        let failed = |error: ort::Error| LoadError::DeviceFailed {
            graph: self.source.name.to_string(),
            device: self.device.to_string(),
            detail: error.message().trim().to_owned(),
        };
        let skeleton = self.skeleton(bytes)?;
        let open = |whole| commit(&mut self.builder(whole)?, self.source, bytes, &skeleton);
        // ONNX Runtime itself refuses to leave a node to the CPU where all must be on the device.
        // What it refuses is loaded once more, to say how much the device would have got.
        let session = match open(self.whole()) {
            Err(error) if error.message().contains(FALLBACK_REFUSED) => open(false),
            opened => opened,
        };
        let session = session.map_err(failed)?;
        let assignment = Assignment::of(&session, &self.device.provider).map_err(failed)?;
        let (graph, device) = (self.source.name.as_str(), self.device);
        tracing::debug!(graph, %device, ?assignment, "nodes are assigned");
        Ok((session, assignment.share()))
    }

    fn skeleton(&self, bytes: &Bytes) -> Result<Skeleton, LoadError> {
        let skeleton = Skeleton::of(bytes).map_err(|detail| self.source.invalid(NAME, detail))?;
        skeleton.check_weights(self.source)?;
        Ok(skeleton)
    }

    fn whole(&self) -> bool {
        self.options.min_device_share >= 1.0
    }

    fn builder(&self, whole: bool) -> ort::Result<SessionBuilder> {
        let picked = plugins::pick(self.library, self.device)
            .ok_or_else(|| ort::Error::new("the device is not there any more"))?;
        let provider = &self.device.provider;
        let told = self.told().into_iter();
        let told: Vec<_> =
            told.map(|(key, value)| (format!("{provider}.{key}"), value.to_owned())).collect();
        let builder = Session::builder(&self.library.environment)?
            .with_devices([picked], Some(&told))?
            .with_config_entry("session.record_ep_graph_assignment_info", "1")?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.options.threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?;
        Ok(if whole { builder.with_disable_cpu_fallback()? } else { builder })
    }

    /// What the provider is told: its row's options, and over them the package's.
    fn told(&self) -> BTreeMap<&str, &str> {
        let usual = of_registered(&self.device.provider).map_or(&[][..], |row| row.options).iter();
        let mut told: BTreeMap<&str, &str> = usual.copied().collect();
        let own = self.options.provider.iter();
        told.extend(own.map(|(name, value)| (name.as_str(), value.as_str())));
        told
    }

    /// All that an engine depends on. What the machine says of the device is its name and its driver.
    fn key(&self, digest: &str) -> Key {
        let inventory = Inventory::detect();
        let hardware = inventory.of(self.device);
        let of = |fact: fn(&crate::inventory::Hardware) -> &Option<String>| {
            hardware.and_then(|hardware| fact(hardware).as_deref()).unwrap_or_default()
        };
        let told = format!("{:?}", self.told());
        let vendor = self.device.vendor.as_deref().unwrap_or_default();
        Key::of(&[
            "engine",
            digest,
            &self.library.build,
            &self.device.provider,
            &plugins::version(self.library, self.device).unwrap_or_default(),
            self.device.kind.as_str(),
            vendor,
            of(|hardware| &hardware.name),
            of(|hardware| &hardware.driver),
            &told,
            if self.whole() { "whole" } else { "part" },
        ])
    }
}
