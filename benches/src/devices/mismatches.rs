//! Answers of devices beside those of the CPU: of graphs, and of a package whose handler calls one, here and in pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::pods::{self, Pair};
use super::{Lab, QNN, WEBGPU, json_of};
use crate::bar::report;

/// Example models that WebGPU supports, the part of each that it must run, and sizes of inputs.
const MODELS: [(&str, &str, f32, &str); 4] = [
    ("cls", "ppocr/cls.onnx", 1.0, "x=1,3,80,160"),
    ("det", "ppocr/det.onnx", 0.9, "x=1,3,64,64"),
    ("rec", "ppocr/rec.onnx", 0.7, "x=1,3,48,64"),
    ("magika", "magika/model.onnx", 0.5, ""),
];

/// What the handler is asked about.
const FILES: [&str; 4] = [
    "#!/bin/sh\nset -e\nfor i in 1 2 3; do\n  echo \"$i\"\ndone\n",
    "import os\n\ndef main():\n    print(os.getcwd())\n\nif __name__ == '__main__':\n    main()\n",
    "<!DOCTYPE html>\n<html><head><title>x</title></head><body><p>y</p></body></html>\n",
    "{\"a\": [1, 2, 3], \"b\": {\"c\": null}}\n",
];

/// What lets a CPU pose as a GPU, and as an NPU.
const SOFTWARE: &str = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER";
const EMULATOR: &str = "WICK_QNN_EMULATOR";

/// How far apart scores may be: the tolerance of FP32.
const APART: f64 = 0.002;

pub(super) fn webgpu(lab: &Lab<'_>) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut apart = serde_json::Map::new();
    for (name, file, share, shape) in MODELS {
        let package = lab.package(name, &lab.setup.models.join(file), "gpu", share)?;
        let mut wick = lab.wick();
        lab.soften(&mut wick);
        let verdict = verify(&mut wick, &package, "gpu", shape)?;
        ensure!(verdict.to_string().contains("WebGpuExecutionProvider"), "elsewhere: {verdict}");
        if differs(&verdict) {
            wrong.push(name.to_owned());
        }
        apart.insert(name.to_owned(), verdict["outputs"].clone());
    }
    let mut answers = Vec::new();
    for device in ["cpu", "gpu"] {
        answers.push(by_handler(lab, device)?);
    }
    if !same(&answers[0], &answers[1]) {
        wrong.push("filetype, by its handler".to_owned());
    }
    let (in_pods, differ) = pods::compare(&pairs(lab)?)?;
    wrong.extend(differ);
    let detail = json!({
        "driver": "Mesa's software Vulkan", "models": MODELS.len(), "by_handler": FILES.len(),
        "in_pods": in_pods, "wrong": wrong, "outputs": apart,
    });
    report(WEBGPU, wrong.len() as f64, "models", detail);
    Ok(())
}

/// All of it for pods: the graphs by themselves, and the example's handler.
fn pairs(lab: &Lab<'_>) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (name, file, share, shape) in MODELS {
        let model = lab.setup.models.join(file);
        let of = |device, share| lab.package(name, &model, device, share);
        let sizes = shape.split_once('=').map_or("", |(_, sizes)| sizes).split(',');
        let shape = sizes.filter_map(|size| size.parse().ok()).collect();
        let folders = [of("cpu", 1.0)?, of("gpu", share)?];
        pairs.push(Pair {
            name: name.to_owned(),
            folders,
            device: "gpu",
            variable: SOFTWARE,
            shape,
            files: Vec::new(),
        });
    }
    let folders = [handler(lab, "cpu")?, handler(lab, "gpu")?];
    let files = FILES.map(|file| file.as_bytes().to_vec()).into();
    pairs.push(Pair {
        name: "filetype".to_owned(),
        folders,
        device: "gpu",
        variable: SOFTWARE,
        shape: Vec::new(),
        files,
    });
    Ok(pairs)
}

pub(super) fn qnn(lab: &Lab<'_>) -> anyhow::Result<()> {
    let package = lab.package("qdq", &lab.quantised, "npu", 1.0)?;
    let mut wick = lab.wick();
    wick.env(EMULATOR, "1");
    let verdict = verify(&mut wick, &package, "npu", "")?;
    ensure!(verdict.to_string().contains("QNNExecutionProvider"), "elsewhere: {verdict}");
    let (in_pods, wrong) = pods::compare(&[Pair {
        name: "qdq".to_owned(),
        folders: [lab.package("qdq", &lab.quantised, "cpu", 1.0)?, package],
        device: "npu",
        variable: EMULATOR,
        shape: Vec::new(),
        files: Vec::new(),
    }])?;
    let detail = json!({
        "device": "emulator", "outputs": verdict["outputs"], "in_pods": in_pods, "wrong": wrong,
    });
    let differ = differs(&verdict) || !wrong.is_empty();
    report(QNN, f64::from(u8::from(differ)), "models", detail);
    Ok(())
}

/// The verdict on the package's one graph. Whoever ends after it, as the emulator does, has said it.
fn verify(wick: &mut Command, package: &Path, device: &str, shape: &str) -> anyhow::Result<Value> {
    wick.args(["verify-device", "--output", "json", "--device", device]).arg(package);
    if !shape.is_empty() {
        wick.args(["--shape", shape]);
    }
    let said = json_of(&wick.output()?)?;
    said["graphs"].get(0).cloned().with_context(|| format!("no graph in {said}"))
}

fn differs(verdict: &Value) -> bool {
    let outputs = verdict["outputs"].as_array();
    outputs.is_none_or(|outputs| {
        outputs.is_empty() || outputs.iter().any(|output| output["within"] != json!(true))
    })
}

/// What the example's handler says of the files, with its graph on this kind of device.
fn by_handler(lab: &Lab<'_>, device: &str) -> anyhow::Result<Vec<Value>> {
    let folder = handler(lab, device)?;
    FILES.iter().enumerate().map(|(at, file)| ask(lab, &folder, at, file)).collect()
}

/// The example whose handler calls a graph, which is for this kind of device.
fn handler(lab: &Lab<'_>, device: &str) -> anyhow::Result<PathBuf> {
    let folder = lab.setup.folder(&format!("filetype-{device}"))?;
    for entry in fs::read_dir(&lab.setup.filetype)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    let manifest = folder.join("wick.toml");
    let text = fs::read_to_string(&manifest)?;
    let devices =
        format!("path = \"model.onnx\"\ndevices = [\"{device}\"]\nmin_device_share = 0.5");
    ensure!(text.contains("path = \"model.onnx\""), "the example has another manifest");
    fs::write(&manifest, text.replacen("path = \"model.onnx\"", &devices, 1))?;
    Ok(folder)
}

/// One inference, by `wick infer` of the package itself.
fn ask(lab: &Lab<'_>, package: &Path, at: usize, file: &str) -> anyhow::Result<Value> {
    let input: PathBuf = lab.setup.folder("files")?.join(at.to_string());
    fs::write(&input, file)?;
    let mut wick = lab.wick();
    lab.soften(&mut wick);
    wick.args(["infer", "--output", "json"]).arg(package);
    wick.arg("-i").arg(format!("bytes=@{}", input.display()));
    json_of(&wick.output()?)
}

/// Whether answers are the same: texts to the letter, numbers within the tolerance.
fn same(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| outputs(one, other))
}

/// Outputs of two answers, by name and data.
fn outputs(one: &Value, other: &Value) -> bool {
    let of = |answer: &Value| answer["outputs"].as_array().cloned().unwrap_or_default();
    let (one, other) = (of(one), of(other));
    let alike = |(a, b): (&Value, &Value)| a["name"] == b["name"] && data(&a["data"], &b["data"]);
    !one.is_empty() && one.len() == other.len() && one.iter().zip(&other).all(alike)
}

fn data(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| data(a, b))
        }
        (Value::Number(one), Value::Number(other)) => {
            let numbers = one.as_f64().zip(other.as_f64());
            numbers.is_some_and(|(one, other)| (one - other).abs() <= APART)
        }
        _ => one == other,
    }
}
