//! Packages for other devices than the CPU in pods, in the worker's sandbox: WebGPU on a software driver, QNN on its
//! emulator, and a GPU of NVIDIA's where there is one. The software driver is Mesa's, which `cargo xtask e2e` unpacks
//! and names in containerd's environment, with where this machine has NVIDIA's libraries.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::plugin::Plugin;
use support::{END_TIMEOUT, PORT, Pod};
use wick_e2e::cluster::Cluster;
use wick_e2e::filetype::{self, PYTHON};
use wick_e2e::http;
use wick_e2e::kubectl::Namespace;
use wick_e2e::package;

/// How far apart scores may be: the tolerance of FP32.
const APART: f64 = 0.002;

/// Where a GPU of NVIDIA's is.
const NVIDIA: &str = "/dev/nvidia0";

/// Lets a software driver count as a GPU.
const SOFTWARE: &str = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER";

/// Magika behind its handler, for these kinds of device.
fn filetype_for(cluster: &Cluster, version: &str, devices: &str) -> anyhow::Result<String> {
    let scratch = tempfile::tempdir().context("make a folder")?;
    let folder = scratch.path().join("package");
    package::example_as("filetype", version, &folder)?;
    let manifest = folder.join("wick.toml");
    let text = fs::read_to_string(&manifest)?;
    let path = "path = \"model.onnx\"";
    ensure!(text.contains(path), "the example has another manifest");
    let on = format!("{path}\ndevices = [{devices}]\nmin_device_share = 0.5");
    fs::write(&manifest, text.replacen(path, &on, 1))?;
    let reference = format!("docker.io/local/filetype-for:{version}");
    package::import(cluster, &folder, &reference)?;
    Ok(reference)
}

fn score(addr: SocketAddr, text: &str) -> anyhow::Result<(String, f64)> {
    let answer = filetype::ask(addr, text)?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let output = |name: &str| {
        let outputs = answer["outputs"].as_array().into_iter().flatten();
        outputs.clone().find(|output| output["name"] == name).map(|o| o["data"][0].clone())
    };
    let label = output("label").and_then(|label| label.as_str().map(str::to_owned));
    let score = output("score").and_then(|score| score.as_f64());
    Ok((label.context("no label")?, score.context("no score")?))
}

/// What a model says its graph runs on.
fn graph(addr: SocketAddr) -> anyhow::Result<Value> {
    let answer = http::get(addr, "/v2/models/filetype")?;
    let about: Value = serde_json::from_slice(&answer.body)?;
    Ok(about["properties"]["graphs"][0].clone())
}

/// Both say the same of some texts, within the tolerance.
fn same_answers(gpu: SocketAddr, cpu: SocketAddr) -> anyhow::Result<()> {
    for text in [PYTHON, "#!/bin/sh\nset -e\necho one\n", "{\"a\": [1, 2], \"b\": null}\n"] {
        let ((label, score), (other, beside)) = (score(gpu, text)?, score(cpu, text)?);
        ensure!(
            label == other && (score - beside).abs() <= APART,
            "{label} {score}, {other} {beside}"
        );
    }
    Ok(())
}

/// NVIDIA's GPU as its own device plugin grants it: by CDI, with the nodes that there are.
fn nvidia_specification() -> Value {
    let nodes = ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
    let paths = nodes.iter().map(|node| format!("/dev/{node}"));
    let there: Vec<Value> = paths
        .filter(|path| Path::new(path).exists())
        .map(|path| json!({"path": path, "permissions": "rw"}))
        .collect();
    json!({
        "cdiVersion": "0.6.0", "kind": "wick.test/gpu",
        "devices": [{"name": "all", "containerEdits": {"deviceNodes": there}}],
    })
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_runs_on_nvidia_s_gpu_where_there_is_one() -> anyhow::Result<()> {
    if !Path::new(NVIDIA).exists() {
        println!("no such device: this machine has no GPU of NVIDIA's");
        return Ok(());
    }
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("nvidia")?;
    fs::write(cluster.ours()?.cdi.join("gpu.json"), nvidia_specification().to_string())?;
    let plugin = Plugin { resource: "nvidia.com/gpu", devices: 1 };
    plugin.start(&cluster, &space, &json!({"cdi_devices": [{"name": "wick.test/gpu=all"}]}))?;
    let image = filetype_for(&cluster, "7.0.5", "\"gpu\", \"cpu\"")?;
    let limits = json!({"limits": {plugin.resource: 1}});
    space.apply(&Pod::new("with", &image).probed().container("resources", limits).yaml())?;
    space.apply(&Pod::new("without", &image).probed().yaml())?;
    let gpu: SocketAddr = (space.ready_pod("with")?, PORT).into();
    let cpu: SocketAddr = (space.ready_pod("without")?, PORT).into();
    let (about_gpu, about_cpu) = (graph(gpu)?, graph(cpu)?);
    println!("{about_gpu}");
    ensure!(about_gpu["device"]["kind"] == "gpu", "{about_gpu}");
    ensure!(about_gpu["device"]["vendor"] == "nvidia", "{about_gpu}");
    ensure!(about_cpu["device"]["kind"] == "cpu", "{about_cpu}");
    same_answers(gpu, cpu)?;
    plugin.stop(&cluster, &space)?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_for_the_gpu_runs_on_it_and_answers_as_on_the_cpu() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("providers")?;
    let env = json!([{"name": SOFTWARE, "value": "1"}]);
    let on_gpu = filetype_for(&cluster, "7.0.1", "\"gpu\"")?;
    space.apply(&Pod::new("gpu", &on_gpu).probed().container("env", env).yaml())?;
    let on_cpu = filetype_for(&cluster, "7.0.2", "\"gpu\", \"cpu\"")?;
    // Without the variable its driver counts as no GPU, and the package permits the CPU.
    space.apply(&Pod::new("cpu", &on_cpu).probed().yaml())?;
    let gpu: SocketAddr = (space.ready_pod("gpu")?, PORT).into();
    let cpu: SocketAddr = (space.ready_pod("cpu")?, PORT).into();
    let (about_gpu, about_cpu) = (graph(gpu)?, graph(cpu)?);
    ensure!(about_gpu["device"]["kind"] == "gpu", "{about_gpu}");
    ensure!(about_gpu.to_string().contains("WebGpuExecutionProvider"), "{about_gpu}");
    ensure!(about_cpu["device"]["kind"] == "cpu", "{about_cpu}");
    ensure!(about_cpu.to_string().contains("webgpu"), "nothing says why not: {about_cpu}");
    same_answers(gpu, cpu)?;
    let metrics = http::get(gpu, "/metrics")?.text();
    ensure!(metrics.contains("wick_device_share"), "{metrics}");
    space.delete()
}

/// A quantised graph of the tests' own in a pod, and what it answers.
fn quantised(cluster: &Cluster, space: &Namespace, device: &str) -> anyhow::Result<Value> {
    let scratch = tempfile::tempdir().context("make a folder")?;
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/devices/qdq.onnx");
    fs::copy(model, scratch.path().join("model.onnx")).with_context(|| format!("copy {model}"))?;
    let manifest = format!(
        "[package]\nname = \"qdq\"\nversion = \"1.0.0\"\n\n[[graph]]\nname = \"qdq\"\n\
         path = \"model.onnx\"\ndevices = [\"{device}\"]\n"
    );
    fs::write(scratch.path().join("wick.toml"), manifest)?;
    let image = format!("docker.io/local/qdq-{device}:1");
    package::import(cluster, scratch.path(), &image)?;
    let env = json!([{"name": "WICK_QNN_EMULATOR", "value": "1"}]);
    space.apply(&Pod::new(device, &image).probed().container("env", env).yaml())?;
    let addr: SocketAddr = (space.ready_pod(device)?, PORT).into();
    let about: Value = serde_json::from_slice(&http::get(addr, "/v2/models/qdq")?.body)?;
    let used = &about["properties"]["graphs"][0]["device"];
    ensure!(used["kind"] == device, "{about}");
    let input = &about["inputs"][0];
    let shape: Vec<u64> = input["shape"]
        .as_array()
        .context("no shape")?
        .iter()
        .map(|size| size.as_u64().unwrap_or(1))
        .collect();
    let data: Vec<f64> = (0..shape.iter().product()).map(|at: u64| (at % 7) as f64 / 7.0).collect();
    let body = json!({"inputs": [{"name": input["name"], "datatype": input["datatype"],
        "shape": shape, "data": data}]});
    let (path, body) = ("/v2/models/qdq/infer", body.to_string());
    let request = http::Request { method: "POST", path, headers: &[], body: body.as_bytes() };
    let answer = request.send(addr)?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    let answer: Value = serde_json::from_slice(&answer.body)?;
    Ok(answer["outputs"][0]["data"].clone())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_quantised_graph_runs_on_the_emulated_npu_and_answers_as_on_the_cpu() -> anyhow::Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        // The emulator is in the wheel for x86-64 alone.
        return Ok(());
    }
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("providers")?;
    let [npu, cpu] = ["npu", "cpu"].map(|device| quantised(&cluster, &space, device));
    let (npu, cpu) = (npu?, cpu?);
    let numbers =
        |data: &Value| -> Option<Vec<f64>> { data.as_array()?.iter().map(Value::as_f64).collect() };
    let (npu, cpu) = (numbers(&npu).context("no numbers")?, numbers(&cpu).context("no numbers")?);
    let most = cpu.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    ensure!(most > 0.0 && npu.len() == cpu.len(), "{cpu:?} {npu:?}");
    // One step of the quantisation is 1/255 of it.
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= most / 100.0;
    ensure!(npu.iter().zip(&cpu).all(near), "{cpu:?} {npu:?}");
    space.delete()
}

/// The message of a pod that ends without having been ready.
fn message(space: &Namespace, pod: &str) -> anyhow::Result<String> {
    space.wait(&format!("pod/{pod}"), "ended", END_TIMEOUT, |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["ready"] != true, "it is ready: {status}");
        let state = |name: &str| status[name]["terminated"]["message"].as_str().map(str::to_owned);
        Ok(state("state").or_else(|| state("lastState")))
    })
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_that_needs_more_of_its_device_than_its_pod_may_have_is_refused() -> anyhow::Result<()>
{
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("providers")?;
    let image = filetype_for(&cluster, "7.0.4", "\"gpu\"")?;
    let env = json!([{"name": SOFTWARE, "value": "1"}]);
    let pod = Pod::new("small", &image).probed().container("env", env);
    space.apply(&pod.annotation("wick.dev/device-memory", "1Mi").yaml())?;
    let message = message(&space, "small")?;
    ensure!(message.contains("wick.dev/device-memory"), "{message}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_without_its_device_is_never_ready_and_says_why() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("providers")?;
    let image = filetype_for(&cluster, "7.0.3", "\"gpu\"")?;
    space.apply(&Pod::new("without", &image).probed().yaml())?;
    let message = message(&space, "without")?;
    ensure!(message.contains("webgpu: it finds no device here"), "{message}");
    space.delete()
}
