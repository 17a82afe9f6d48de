//! Fills the package folders under `examples/` with what git does not hold: models from
//! the cache and components from the target folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::guests;
use crate::house::House;
use crate::tools;

/// Where a file of an example comes from.
#[derive(Clone, Copy)]
enum Source {
    /// Under the models folder.
    Model(&'static str),
    /// A built component, or a core module.
    Component(&'static str),
    Module(&'static str),
}

use Source::{Component, Model, Module};

/// Example, file in it, source. `fill` fails if an example's `wick.toml` names a file that
/// neither git nor this table provides.
const FILES: &[(&str, &str, Source)] = &[
    ("filetype", "handler.wasm", Component("filetype.wasm")),
    ("filetype", "model.onnx", Model("magika/model.onnx")),
    ("ocr", "handler.wasm", Component("ocr.wasm")),
    ("ocr", "det.onnx", Model("ppocr/det.onnx")),
    ("ocr", "rec.onnx", Model("ppocr/rec.onnx")),
    ("passthrough", "model.onnx", Model("ppocr/cls.onnx")),
    ("foreign-component", "handler.wasm", Component("foreign-component.wasm")),
    ("foreign-component", "model.onnx", Model("ppocr/cls.onnx")),
    ("foreign-module", "handler.wasm", Module("foreign-module.wasm")),
    ("foreign-module", "model.onnx", Model("ppocr/cls.onnx")),
    ("batch", "handler.wasm", Component("batch.wasm")),
    ("batch", "model.onnx", Model("magika/model.onnx")),
];

/// Copy what is missing or has changed, then check that every package is whole.
pub fn fill(house: &House) -> anyhow::Result<()> {
    for &(example, file, source) in FILES {
        let from = path(house, source);
        let to = house.examples().join(example).join(file);
        let bytes = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        eprintln!("setup: {} from {}", house.shown(&to), from.display());
        tools::write_whole(&to, &bytes)?;
    }
    for folder in fs::read_dir(house.examples())? {
        let folder = folder?.path();
        if folder.join("wick.toml").is_file() {
            check(&folder).with_context(|| format!("{} is not whole", house.shown(&folder)))?;
        }
    }
    Ok(())
}

fn path(house: &House, source: Source) -> PathBuf {
    match source {
        Model(file) => house.models().join(file),
        Component(file) => house.guests(guests::COMPONENT).join(file),
        Module(file) => house.guests(guests::MODULE).join(file),
    }
}

/// Every path that a `wick.toml` names exists.
fn check(folder: &Path) -> anyhow::Result<()> {
    let manifest: toml::Table = fs::read_to_string(folder.join("wick.toml"))?.parse()?;
    for path in paths(&manifest) {
        if !folder.join(path).is_file() {
            bail!("wick.toml names {path}, which xtask/src/examples.rs does not provide");
        }
    }
    Ok(())
}

fn paths(manifest: &toml::Table) -> Vec<&str> {
    let component = manifest.get("handler").and_then(|handler| handler.get("component"));
    let request = manifest.get("warmup").and_then(|warmup| warmup.get("request"));
    let graphs = items(manifest.get("graph"));
    let variants = graphs.iter().flat_map(|graph| items(graph.get("variant")));
    let files = graphs.iter().chain(variants).filter_map(|graph| graph.get("path"));
    let files = component.into_iter().chain(request).chain(files);
    files.filter_map(toml::Value::as_str).collect()
}

fn items(value: Option<&toml::Value>) -> &[toml::Value] {
    value.and_then(toml::Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_a_manifest_are_found() -> anyhow::Result<()> {
        let text = "[handler]\ncomponent = \"h\"\n[warmup]\nrequest = \"w\"\n\
                    [[graph]]\npath = \"a\"\n[[graph.variant]]\npath = \"v\"\n\
                    [[graph]]\npath = \"b\"\n";
        assert_eq!(paths(&text.parse()?), ["h", "w", "a", "b", "v"]);
        assert!(paths(&"[package]\nname = \"x\"".parse()?).is_empty());
        Ok(())
    }
}
