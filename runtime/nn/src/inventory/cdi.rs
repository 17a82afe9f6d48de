//! Names that CDI specifications, in JSON or YAML, give to device files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::kernel::names;

/// Where specifications are, the fixed ones first.
const FOLDERS: [&str; 2] = ["etc/cdi", "var/run/cdi"];

/// Bytes of one specification that are read.
const MAX_SPEC: u64 = 4 << 20;

/// A specification, as far as names need it.
#[derive(Debug, Deserialize)]
pub(super) struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
struct Edits {
    #[serde(default, rename = "deviceNodes")]
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    path: String,
}

/// All specifications; one that can't be read is left out.
pub(super) fn read(root: &Path) -> Vec<Spec> {
    let mut specs = Vec::new();
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        for name in names(&folder) {
            let json = name.ends_with(".json");
            if !json && !name.ends_with(".yaml") {
                continue;
            }
            let path = folder.join(&name);
            let mut text = String::new();
            let read = File::open(&path).map(|file| file.take(MAX_SPEC).read_to_string(&mut text));
            match read.map(|_| parse(&text, json)) {
                Ok(Ok(spec)) => specs.push(spec),
                Ok(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "a CDI specification is left out");
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "a CDI specification is left out");
                }
            }
        }
    }
    specs
}

fn parse(text: &str, json: bool) -> Result<Spec, String> {
    if json {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

/// What a device with these files is called: names that have one of them.
pub(super) fn names_of(specs: &[Spec], nodes: &[String]) -> Vec<String> {
    // The first file is the device's own; others may be shared with more.
    let Some(own) = nodes.first() else { return Vec::new() };
    let devices = specs.iter().flat_map(|spec| spec.devices.iter().map(move |d| (spec, d)));
    let has = |(_, device): &(&Spec, &Named)| device.edits.nodes.iter().any(|n| n.path == *own);
    devices.filter(has).map(|(spec, device)| format!("{}={}", spec.kind, device.name)).collect()
}
