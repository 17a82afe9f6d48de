//! `[[graph]]` and `[[graph.variant]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::path;
use crate::manifest::{Batch, DeviceKind, GraphSpec, Variant};

use crate::names::{GraphName, RelPath};
use crate::reader::{At, Reader, to_u64};
use crate::spelling;

/// Rows of a joined request. One row is no batch; beyond the top no device gains.
const BATCH_MAX: RangeInclusive<u32> = 2..=4096;

/// Wait for other requests. More than seconds would only look like a hang.
const BATCH_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);

/// Wait for other requests when only `max` is written: short against an inference
/// that gains from batching.
const DEFAULT_BATCH_DELAY: Duration = Duration::from_millis(2);

/// Threads of one inference; the CPU quota bounds them further.
const THREADS: RangeInclusive<u32> = 1..=1024;

/// Part of the graph on the chosen device when nothing is written: all of it, so
/// that no model runs slowly on the CPU unnoticed.
const DEFAULT_DEVICE_SHARE: f32 = 1.0;

const GRAPH: &str = "[[graph]]";
const GRAPH_KEYS: [&str; 8] =
    ["name", "path", "devices", "min_device_share", "batch", "threads", "backend", "variant"];
const VARIANT: &str = "[[graph.variant]]";
const OPTIONS: &str = "options = { qnn = { htp_performance_mode = \"burst\" } }";

/// Longest value of an option.
const MAX_OPTION: usize = 1024;

/// All graphs that are right; what is wrong is reported.
pub(super) fn graphs(root: &Reader<'_>) -> Vec<GraphSpec> {
    let readers = root.tables("graph", GRAPH, &GRAPH_KEYS);
    check_count(root, &readers);
    let mut names = BTreeSet::new();
    let mut graphs = Vec::with_capacity(readers.len());
    for reader in &readers {
        let name = reader.parsed::<GraphName>("name");
        if let Some(At { at, value }) = &name
            && !names.insert(value.clone())
        {
            let message = format!("graph `{value}` is there twice: give one another name");
            reader.mistake(*at, message);
        }
        graphs.extend(graph(reader, name.map(|name| name.value)));
    }
    graphs
}

fn check_count(root: &Reader<'_>, readers: &[Reader<'_>]) {
    if root.has("handler") {
        return;
    }
    if !root.has("graph") {
        root.mistake(
            root.at(),
            "there is neither a graph nor a handler: add [[graph]] with a model, \
             or [handler] with a component",
        );
    }
    if let Some(second) = readers.get(1) {
        second.mistake(
            second.at(),
            "without [handler] there must be exactly one graph: remove this one, \
             or add a handler that calls both",
        );
    }
}

fn graph(reader: &Reader<'_>, name: Option<GraphName>) -> Option<GraphSpec> {
    reader.require("name", "name = \"model\"");
    reader.require("path", "path = \"model.onnx\"");
    let path = path(reader, "path");
    let devices = devices(reader);
    let min_device_share = reader.share("min_device_share").unwrap_or(DEFAULT_DEVICE_SHARE);
    let batch = batch(reader);
    let threads = reader.integer("threads", THREADS).and_then(NonZeroU32::new);
    let backend = reader.parsed("backend").map(|backend| backend.value);
    let variants = variants(reader, devices.as_deref(), path.as_ref());
    Some(GraphSpec {
        name: name?,
        path: path?,
        devices: devices?,
        min_device_share,
        batch,
        threads,
        backend,
        variants,
    })
}

/// The permitted kinds, in order; none if some can't be known, so that variants are not
/// judged by half a list.
fn devices(reader: &Reader<'_>) -> Option<Vec<DeviceKind>> {
    if !reader.has("devices") {
        return Some(vec![DeviceKind::Cpu]);
    }
    let count =
        reader.array("devices", "an array of strings, for instance [\"npu\", \"cpu\"]")?.len();
    let texts = reader.texts("devices", "[\"npu\", \"cpu\"]")?;
    let (empty, mut known) = (count == 0, texts.len() == count);
    let mut devices = Vec::with_capacity(texts.len().min(DeviceKind::ALL.len()));
    for text in texts {
        let Some(kind) = device(reader, text) else {
            known = false;
            continue;
        };
        if devices.contains(&kind) {
            let message = format!("device `{kind}` is listed twice: list it once, best first");
            reader.mistake(text.at, message);
        } else {
            devices.push(kind);
        }
    }
    if empty {
        reader.mistake(
            reader.at_of("devices"),
            "`devices` in [[graph]] is empty, so the graph could run nowhere: \
             write for instance [\"cpu\"]",
        );
    }
    (known && !empty).then_some(devices)
}

fn device(reader: &Reader<'_>, text: At<&str>) -> Option<DeviceKind> {
    let kind = DeviceKind::ALL.into_iter().find(|kind| kind.as_str() == text.value);
    if kind.is_none() {
        let fix = match spelling::nearest(text.value, DeviceKind::ALL.map(DeviceKind::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "use `cpu`, `gpu` or `npu`".to_owned(),
        };
        reader.mistake(text.at, format!("unknown device `{}`: {fix}", text.value));
    }
    kind
}

fn batch(reader: &Reader<'_>) -> Option<Batch> {
    let batch = reader.table("batch", "`batch`", &["max", "delay"])?;
    batch.require("max", "batch = { max = 16, delay = \"2ms\" }");
    let max = batch.integer("max", BATCH_MAX).and_then(NonZeroU32::new);
    let delay = batch.duration("delay", BATCH_DELAY).unwrap_or(DEFAULT_BATCH_DELAY);
    Some(Batch { max: max?, delay })
}

fn variants(
    reader: &Reader<'_>,
    permitted: Option<&[DeviceKind]>,
    own: Option<&RelPath>,
) -> Vec<Variant> {
    let readers = reader.tables("variant", VARIANT, &["device", "vendor", "path", "options"]);
    let mut seen = BTreeSet::new();
    let mut variants = Vec::with_capacity(readers.len());
    for reader in &readers {
        let Some(variant) = variant(reader, permitted, own) else { continue };
        if !seen.insert((variant.device.as_str(), variant.vendor.clone())) {
            let message = format!(
                "there are two variants for device `{}` and the same vendor: keep one",
                variant.device
            );
            reader.mistake(reader.at(), message);
        }
        variants.push(variant);
    }
    variants
}

fn variant(
    reader: &Reader<'_>,
    permitted: Option<&[DeviceKind]>,
    own: Option<&RelPath>,
) -> Option<Variant> {
    reader.require("device", "device = \"npu\"");
    if !reader.has("options") {
        reader.require("path", "path = \"model.npu.onnx\"");
    }
    let text = reader.text("device");
    let device = text.and_then(|text| device(reader, text));
    if let (Some(text), Some(device), Some(permitted)) = (text, device, permitted)
        && !permitted.contains(&device)
    {
        let message = format!(
            "the variant is for `{device}`, which `devices` of its graph does not permit: \
             add \"{device}\" there, or remove the variant"
        );
        reader.mistake(text.at, message);
    }
    let vendor = vendor(reader);
    let path = if reader.has("path") { path(reader, "path") } else { own.cloned() };
    let options = options(reader);
    Some(Variant { device: device?, vendor, path: path?, options })
}

/// `options = { cuda = { gpu_mem_limit = 1073741824 } }`: what each provider is told, as the text that it reads.
fn options(reader: &Reader<'_>) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for (provider, table) in reader.entries("options", OPTIONS) {
        let Some(table) = table.value.as_table() else {
            let what = format!("`{provider}` in `options` is no table: write `{OPTIONS}`");
            reader.mistake(table.at, what);
            continue;
        };
        let mut told = BTreeMap::new();
        for (name, value) in table {
            let text = match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(number) => to_u64(number).map(|number| number.to_string()),
                DeValue::Boolean(on) => Some(if *on { "1" } else { "0" }.to_owned()),
                _ => None,
            };
            let Some(text) = text.filter(|text| text.len() <= MAX_OPTION) else {
                let what = format!(
                    "option `{}` must be true, false, a whole number, or a string of at most {MAX_OPTION} bytes",
                    name.get_ref()
                );
                reader.mistake(value.span().start, what);
                continue;
            };
            told.insert(name.get_ref().to_string(), text);
        }
        options.insert(provider.to_owned(), told);
    }
    options
}

fn vendor(reader: &Reader<'_>) -> Option<String> {
    let text = reader.text("vendor")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.value.is_empty() || text.value.len() > 63 || !text.value.bytes().all(plain) {
        let message = format!(
            "`{}` is not a vendor: use a-z, 0-9 and `-`, for instance \"qualcomm\"",
            text.value
        );
        reader.mistake(text.at, message);
    }
    Some(text.value.to_owned())
}
