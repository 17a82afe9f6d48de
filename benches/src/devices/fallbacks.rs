//! Every provider in each way in which it can't run a graph: without a device, without a library of its own, and with
//! an operator that it lacks. What counts is a graph that runs elsewhere, or in part, and nothing says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};
use wick_nn::providers::{PROVIDERS, Provider};
use wick_testing::onnx;

use super::{FALLBACKS, Lab, json_of};
use crate::bar::report;

/// What became of a case.
struct Case {
    what: String,
    silent: bool,
    said: String,
}

pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<()> {
    let model = lab.setup.folder("fallbacks")?.join("net.onnx");
    fs::write(&model, onnx::conv_net(0))?;
    let mut cases = Vec::new();
    for provider in PROVIDERS {
        cases.push(absent(lab, provider, &model)?);
        cases.push(broken(lab, provider, &model)?);
    }
    cases.extend(unsupported(lab)?);
    for case in &cases {
        let silent = if case.silent { "SILENT" } else { "said" };
        eprintln!("devices: {}: {silent}: {}", case.what, case.said);
    }
    let silent: Vec<_> =
        cases.iter().filter(|case| case.silent).map(|case| case.what.as_str()).collect();
    report(
        FALLBACKS,
        silent.len() as f64,
        "cases",
        json!({"cases": cases.len(), "silent": silent}),
    );
    Ok(())
}

/// As it is installed here, or not installed: nothing here is its device.
fn absent(lab: &Lab<'_>, provider: &Provider, model: &Path) -> anyhow::Result<Case> {
    let name = provider.name;
    let package = lab.package(&format!("absent-{name}"), model, device(provider), 1.0)?;
    let explained = explain(&mut lab.wick(), &package)?;
    Ok(refused(format!("{name} without a device"), name, &explained))
}

/// Its library is there and can't be loaded, as when another that it needs is missing.
fn broken(lab: &Lab<'_>, provider: &Provider, model: &Path) -> anyhow::Result<Case> {
    let name = provider.name;
    let package = lab.package(&format!("broken-{name}"), model, device(provider), 1.0)?;
    let backends = lab.setup.folder(&format!("backends-{name}"))?;
    let folder = backends.join(format!("{name}-9.9.9"));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(provider.library), "no library")?;
    let mut wick = lab.wick();
    wick.env("WICK_BACKENDS", &backends).env("WICK_ORT_DYLIB", &lab.setup.onnxruntime);
    lab.soften(&mut wick);
    wick.env("WICK_QNN_EMULATOR", "1");
    let explained = explain(&mut wick, &package)?;
    Ok(refused(format!("{name} without its library"), name, &explained))
}

/// The first kind that a provider serves.
fn device(provider: &Provider) -> &'static str {
    provider.kinds.first().map_or("gpu", |kind| kind.as_str())
}

/// Graphs with operators that the providers which do run here lack: all of it must be refused where all must be on
/// the device, and the share be told where a part may be elsewhere.
fn unsupported(lab: &Lab<'_>) -> anyhow::Result<Vec<Case>> {
    let magika = lab.setup.models.join("magika/model.onnx");
    let plain = lab.setup.folder("unsupported")?.join("plain.onnx");
    // Not quantised, and an operator that only the CPU has.
    fs::write(&plain, onnx::with_if())?;
    let mut cases = Vec::new();
    for (name, device, model) in [("webgpu", "gpu", &magika), ("qnn", "npu", &plain)] {
        for share in [1.0_f32, 0.01] {
            let package =
                lab.package(&format!("lacks-{name}-{}", share > 0.5), model, device, share)?;
            let mut wick = lab.wick();
            lab.soften(&mut wick);
            wick.env("WICK_QNN_EMULATOR", "1");
            let explained = explain(&mut wick, &package)?;
            let what = format!("{name} with an operator that it lacks, at least {share}");
            let used = &explained["used"];
            cases.push(if used.is_null() {
                refused(what, "", &explained)
            } else {
                let told = used["share"].as_f64().unwrap_or(1.0);
                let silent = told >= 1.0 || share >= 1.0;
                Case { what, silent, said: format!("{told:.2} of it runs there") }
            });
        }
    }
    Ok(cases)
}

/// `wick run --explain` of the package's one graph.
fn explain(wick: &mut Command, package: &Path) -> anyhow::Result<Value> {
    let output = wick.args(["run", "--explain", "--output", "json"]).arg(package).output()?;
    let said = json_of(&output)?;
    let graph = said["graphs"].get(0).cloned();
    let mut graph = graph.with_context(|| format!("no graph in {said}"))?;
    graph["failed"] = json!(!output.status.success());
    Ok(graph)
}

/// It must have failed, and said why this provider is not it.
fn refused(what: String, provider: &str, explained: &Value) -> Case {
    let error = explained["error"].as_str().unwrap_or_default();
    let reasons = explained["refused"].as_array().into_iter().flatten();
    let mut reasons = reasons.filter_map(|one| Some((one["what"].as_str()?, one["why"].as_str()?)));
    let own = reasons.find(|(what, _)| *what == provider).map(|(_, why)| why.to_owned());
    let named = provider.is_empty() || own.as_ref().is_some_and(|why| !why.is_empty());
    let silent = explained["failed"] != json!(true) || error.is_empty() || !named;
    Case { what, silent, said: own.unwrap_or_else(|| error.to_owned()) }
}
