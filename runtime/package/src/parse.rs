//! `wick.toml`, read once into the types of the manifest.
//!
//! Every mistake is found in one pass: a section that is wrong is reported and
//! left out, and the next is read all the same. Only broken TOML stops at once,
//! since what follows it has no certain meaning. No file is looked at here.

mod graph;
mod tensor;
mod wants;

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use crate::manifest::{Handler, Idle, Limits, Manifest, Warmup};
use crate::mistakes::{ManifestErrors, Mistakes};
use crate::names::{PackageName, RelPath};
use crate::reader::Reader;

/// Name of the manifest inside a package.
pub const MANIFEST_FILE: &str = "wick.toml";

/// Longest manifest, in bytes. Real ones have a few kilobytes.
pub(crate) const MAX_MANIFEST_LEN: u64 = 1 << 20;

/// Longest description, in bytes: one line, and an annotation of the image.
const MAX_DESCRIPTION_LEN: usize = 512;

/// Memory of a guest: at least one page of WebAssembly, at most what 32 bits address.
const MEMORY: RangeInclusive<u64> = 65_536..=4 << 30;

/// Time for one request. A day is longer than any connection is kept.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

/// Requests in work at once; far above what the cores of one machine can use.
const CONCURRENCY: RangeInclusive<u32> = 1..=65_536;

/// Requests of one instance. Whatever a guest leaks or keeps is gone after the last.
const REUSE: RangeInclusive<u32> = 1..=100_000;

/// Requests that wait; each holds its body in memory.
const QUEUE: RangeInclusive<u32> = 0..=1_000_000;

/// Body of a request. Bodies are held in memory, so the top is what a large machine has.
const REQUEST: RangeInclusive<u64> = 1..=1 << 40;

/// Warm-up requests run before a package is ready, so many would only delay it.
const WARMUPS: RangeInclusive<u32> = 0..=10_000;

/// Shares of the processor; a model that should get more than this times another's
/// belongs in a process of its own.
const WEIGHT: RangeInclusive<u32> = 1..=100;

/// Time without a request. Below a second, each gap between requests would cost a load;
/// after a month nobody remembers that the model is there.
const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

const ROOT_KEYS: [&str; 9] =
    ["package", "handler", "graph", "input", "output", "limits", "idle", "warmup", "wants"];

struct Identity {
    name: PackageName,
    version: semver::Version,
    description: Option<String>,
}

/// Parse the text of a `wick.toml`; `file` is named in errors.
///
/// # Errors
/// All mistakes of the text together, each with its line and column and the fix.
pub fn parse(text: &str, file: &Path) -> Result<Manifest, ManifestErrors> {
    let mistakes = Mistakes::new(text);
    let (document, broken) = DeTable::parse_recoverable(text);
    let manifest = if broken.is_empty() {
        read(Reader::new(document.get_ref(), 0, "wick.toml", &ROOT_KEYS, &mistakes))
    } else {
        report_syntax(text, &broken, &mistakes);
        None
    };
    mistakes.finish(file, manifest)
}

/// One broken line often breaks the parser several times; the first says it best.
pub(crate) fn report_syntax(text: &str, broken: &[toml::de::Error], mistakes: &Mistakes<'_>) {
    let mut last_line = None;
    for error in broken {
        let at = error.span().map_or(text.len(), |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        if last_line != Some(line) {
            mistakes.add(at, format!("this is not TOML: {}", error.message()));
        }
        last_line = Some(line);
    }
}

fn read(root: Reader<'_>) -> Option<Manifest> {
    let identity = identity(&root);
    let handler = handler(&root);
    let graphs = graph::graphs(&root);
    let inputs = tensor::specs(&root, "input", "[[input]]");
    let outputs = tensor::specs(&root, "output", "[[output]]");
    let limits = limits(&root);
    let idle = idle(&root);
    let warmup = warmup(&root);
    let wants = wants::wants(&root);
    let Identity { name, version, description } = identity?;
    Some(Manifest {
        name,
        version,
        description,
        handler,
        graphs,
        inputs,
        outputs,
        limits,
        idle,
        warmup,
        wants,
    })
}

fn identity(root: &Reader<'_>) -> Option<Identity> {
    root.require("package", "[package]");
    let package = root.table("package", "[package]", &["name", "version", "description"])?;
    package.require("name", "name = \"filetype\"");
    package.require("version", "version = \"1.0.0\"");
    let name = package.parsed("name");
    let version = version(&package);
    let description = package.text("description");
    let bad = |text: &str| text.len() > MAX_DESCRIPTION_LEN || text.contains(char::is_control);
    if let Some(text) = description.filter(|text| bad(text.value)) {
        let message = format!(
            "`description` in [package] must be one line of at most {MAX_DESCRIPTION_LEN} bytes"
        );
        package.mistake(text.at, message);
    }
    let description = description.map(|text| text.value.to_owned());
    Some(Identity { name: name?.value, version: version?, description })
}

fn version(package: &Reader<'_>) -> Option<semver::Version> {
    let text = package.text("version")?;
    match text.value.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            let message = format!(
                "`{}` is not a version ({error}): write three numbers, for instance \"1.2.0\"",
                text.value
            );
            package.mistake(text.at, message);
            None
        }
    }
}

fn handler(root: &Reader<'_>) -> Option<Handler> {
    let handler = root.table("handler", "[handler]", &["component", "reuse"])?;
    handler.require("component", "component = \"handler.wasm\"");
    let reuse = handler.integer("reuse", REUSE).unwrap_or(1);
    Some(Handler { component: path(&handler, "component")?, reuse })
}

fn limits(root: &Reader<'_>) -> Limits {
    let default = Limits::default();
    let keys = ["memory", "timeout", "concurrency", "queue", "queue_timeout", "weight", "request"];
    let Some(limits) = root.table("limits", "[limits]", &keys) else { return default };
    Limits {
        memory: limits.size("memory", MEMORY).unwrap_or(default.memory),
        timeout: limits.duration("timeout", TIMEOUT).unwrap_or(default.timeout),
        concurrency: limits.integer("concurrency", CONCURRENCY).and_then(NonZeroU32::new),
        queue: limits.integer("queue", QUEUE).unwrap_or(default.queue),
        queue_timeout: limits.duration("queue_timeout", TIMEOUT),
        weight: limits.integer("weight", WEIGHT).unwrap_or(default.weight),
        request: limits.size("request", REQUEST).unwrap_or(default.request),
    }
}

fn idle(root: &Reader<'_>) -> Idle {
    let Some(idle) = root.table("idle", "[idle]", &["graph"]) else { return Idle::default() };
    Idle { graph: idle.duration("graph", IDLE) }
}

fn warmup(root: &Reader<'_>) -> Warmup {
    let default = Warmup::default();
    let Some(warmup) = root.table("warmup", "[warmup]", &["requests", "request"]) else {
        return default;
    };
    Warmup {
        requests: warmup.integer("requests", WARMUPS).unwrap_or(default.requests),
        request: path(&warmup, "request"),
    }
}

/// A path inside the package that an image can hold too.
fn path(reader: &Reader<'_>, key: &str) -> Option<RelPath> {
    let found = reader.parsed::<RelPath>(key)?;
    let text = found.value.as_str();
    let fault = if text == MANIFEST_FILE {
        "is the manifest itself: name another file"
    } else if text.split('/').any(|part| part.starts_with(".wh.")) {
        "would delete a file of the image: choose a name that does not begin with `.wh.`"
    } else if text.contains(char::is_control) {
        "has a control character: rename the file"
    } else {
        return Some(found.value);
    };
    reader.mistake(found.at, format!("`{text}` {fault}"));
    None
}
