//! The same model behind MLServer in a pod of runc's, as the peer of a cold start. Its files are
//! the machine's own, mounted into the pod: nothing is unpacked, and all may be in the page cache.
//!
//! Nothing holds requests for it. What is timed is the least that any system must do to get an
//! answer from it: ask for one pod, and ask that pod from its first instant on.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use wick_e2e::http::{Request, get};
use wick_e2e::image::Image;
use wick_e2e::kubectl::Namespace;
use wick_e2e::stage::Stage;
use wick_e2e::wait::wait;

use crate::direct::Input;
use crate::packages;
use crate::setup::{Setup, path};

use super::pods::Pods;

const NAME: &str = "mlserver";
const MODEL: &str = include_str!("../../peers/mlserver_ort.py");
const PORT: u16 = 8080;

/// Longest until it answers: it imports for seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two tries, as the activator's.
const TRY: Duration = Duration::from_millis(10);

/// MLServer as a Deployment of no pod.
pub struct Peer {
    /// Unlike the Models' namespace it takes pods with the machine's folders.
    space: Namespace,
    pods: Pods,
    body: Vec<u8>,
}

// === impl Peer ===

impl Peer {
    pub fn new(setup: &Setup, stage: &Stage) -> anyhow::Result<Self> {
        let folder = setup.folder(NAME)?;
        let python = fs::canonicalize(path("WICK_PEER_MLSERVER")?.with_file_name("python3"))?;
        let home = python.ancestors().nth(2).context("Python has no home")?.to_owned();
        let script = path("WICK_PEER_MLSERVER")?.with_file_name("mlserver");
        let environment = script.ancestors().nth(2).context("MLServer has no home")?.to_owned();
        write_settings(setup, &folder)?;
        let image = Image::new("docker.io/local/machine:1");
        let image = image.link("lib", "usr/lib").link("lib64", "usr/lib64").link("bin", "usr/bin");
        stage.cluster.import(&image.entrypoint(&["/bin/true"]))?;
        let space = stage.cluster.kubectl.namespace(NAME)?;
        let folders = [Path::new("/usr").to_owned(), home, environment, folder.clone()];
        space.apply(&deployment(&script, &folder, &folders).to_string())?;
        let pods = Pods::watch(&stage.cluster.kubectl, &space.name, "app=mlserver")?;
        Ok(Self { space, pods, body: body() })
    }

    /// From asking for a pod to its first answer, in seconds.
    pub fn start(&self) -> anyhow::Result<f64> {
        let since = Instant::now();
        self.scale(1)?;
        let ip = self.pods.wait_address(since, LIMIT)?;
        self.first_answer(ip, since)?;
        let took = since.elapsed().as_secs_f64();
        self.scale(0)?;
        wait("the end of MLServer", LIMIT, || {
            let pods = self.space.run(&["get", "pods", "-o", "name"])?;
            Ok(pods.trim().is_empty().then_some(()))
        })?;
        Ok(took)
    }

    fn first_answer(&self, ip: IpAddr, since: Instant) -> anyhow::Result<()> {
        let addr = SocketAddr::from((ip, PORT));
        while since.elapsed() < LIMIT {
            if get(addr, "/v2/models/magika/ready").is_ok_and(|answer| answer.status == 200) {
                let headers = &[("Content-Type", "application/json")];
                let path = "/v2/models/magika/infer";
                let answer = Request { method: "POST", path, headers, body: &self.body };
                let answer = answer.send(addr)?;
                ensure!(answer.status == 200, "MLServer: {} {}", answer.status, answer.text());
                return Ok(());
            }
            thread::sleep(TRY);
        }
        bail!("MLServer did not answer in {LIMIT:?}\n{}", self.space.dump())
    }

    fn scale(&self, replicas: u32) -> anyhow::Result<()> {
        let replicas = format!("--replicas={replicas}");
        self.space.run(&["scale", "deployment", NAME, &replicas]).map(drop)
    }
}

fn write_settings(setup: &Setup, folder: &Path) -> anyhow::Result<()> {
    let settings = json!({
        "parallel_workers": 0, "host": "0.0.0.0", "http_port": PORT, "grpc_port": 8081,
        "metrics_endpoint": null, "debug": false,
    });
    fs::write(folder.join("settings.json"), settings.to_string())?;
    fs::write(folder.join("mlserver_ort.py"), MODEL)?;
    let model = folder.join("magika");
    fs::create_dir_all(&model)?;
    fs::copy(setup.models.join("magika/model.onnx"), model.join("model.onnx"))?;
    let settings = json!({
        "name": "magika", "implementation": "mlserver_ort.OnnxModel",
        "parameters": {"uri": "magika/model.onnx", "extra": {"threaded": true}},
    });
    fs::write(model.join("model-settings.json"), settings.to_string())?;
    Ok(())
}

fn deployment(script: &Path, folder: &Path, folders: &[PathBuf]) -> Value {
    let name = |index: usize| format!("folder-{index}");
    let mounts: Vec<Value> = folders
        .iter()
        .enumerate()
        .map(|(index, folder)| {
            let writable = index + 1 == folders.len();
            json!({"name": name(index), "mountPath": folder, "readOnly": !writable})
        })
        .collect();
    let volumes: Vec<Value> = folders
        .iter()
        .enumerate()
        .map(|(index, folder)| {
            json!({"name": name(index), "hostPath": {"path": folder, "type": "Directory"}})
        })
        .collect();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "enableServiceLinks": false,
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": NAME,
                        "image": "docker.io/local/machine:1",
                        "imagePullPolicy": "IfNotPresent",
                        "command": [script, "start", folder],
                        "workingDir": folder,
                        "env": [{"name": "PYTHONPATH", "value": folder}],
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    })
}

/// What is asked, as JSON.
fn body() -> Vec<u8> {
    let Input::I32(shape, values) = packages::magika_input(1) else { return Vec::new() };
    let input = json!({"name": "bytes", "datatype": "INT32", "shape": shape, "data": values});
    json!({"inputs": [input]}).to_string().into_bytes()
}
