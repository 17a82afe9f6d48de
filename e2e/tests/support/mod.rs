//! What the tests of the shim share: pods as they are needed, images of real packages, and a
//! request to a real model.

#![allow(dead_code, unused_imports, reason = "each suite uses a part of it")]

pub mod machine;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wick_e2e::cluster::Cluster;
use wick_e2e::http::{Answer, Request};
use wick_e2e::kubectl::Namespace;

pub use wick_e2e::filetype::classify;
pub use wick_e2e::say;

pub mod claims;
pub mod driver;
pub mod node;
pub mod plugin;
pub mod policy;

/// Longest until a pod has ended.
pub const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Where workers listen.
pub const PORT: u16 = 8080;

/// A pod of one container, `main`, in the class `wick`.
#[derive(Clone)]
pub struct Pod {
    value: Value,
}

pub mod images {
    use super::*;

    /// The real Magika behind its handler.
    pub fn filetype(cluster: &Cluster) -> anyhow::Result<&'static str> {
        let reference = "docker.io/local/filetype:1";
        package(cluster, "filetype", reference)
    }

    /// A bare command that does what its arguments say.
    pub fn tool(cluster: &Cluster) -> anyhow::Result<&'static str> {
        let reference = "docker.io/local/tool:1";
        let guest = wick_e2e::package::guest("tool")?;
        wick_e2e::package::import_bare(cluster, &guest, reference)?;
        Ok(reference)
    }

    /// The same command as a package with these wants: the text of a table `[wants]`.
    pub fn wanting(cluster: &Cluster, reference: &str, wants: &str) -> anyhow::Result<()> {
        let tool = wick_e2e::package::guest("tool")?;
        let manifest = format!(
            "[package]\nname = \"tool\"\nversion = \"1.0.0\"\n\n\
             [handler]\ncomponent = \"tool.wasm\"\n\n[wants]\n{wants}\n"
        );
        let image = wick_e2e::image::Image::new(reference).file("/wick.toml", manifest);
        let bytes = std::fs::read(&tool).with_context(|| format!("read {}", tool.display()))?;
        cluster.import(&image.file("/tool.wasm", bytes).entrypoint(&["/wick.toml"]))
    }

    /// Magika's package without its weights, which it looks for at `weights`.
    pub fn weightless(cluster: &Cluster, reference: &str, weights: &str) -> anyhow::Result<()> {
        let folder = wick_e2e::package::example("filetype")?;
        let read = |name: &str| {
            let file = folder.join(name);
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
        };
        let manifest = read("wick.toml")?.replace("\"model.onnx\"", &format!("\"{weights}\""));
        ensure!(manifest.contains(weights), "the manifest names no model.onnx");
        let handler = std::fs::read(folder.join("handler.wasm")).context("read the handler")?;
        let image = wick_e2e::image::Image::new(reference).file("/wick.toml", manifest);
        cluster.import(&image.file("/handler.wasm", handler).entrypoint(&["/wick.toml"]))
    }

    /// An ordinary image for side-cars.
    pub fn httpd(cluster: &Cluster) -> anyhow::Result<&'static str> {
        let reference = "docker.io/local/side-car:1";
        let image = wick_e2e::image::Image::new(reference);
        let image = image.program("/httpd", &cluster.program("httpd")?)?.entrypoint(&["/httpd"]);
        cluster.import(&image.env("ANSWER", "beside"))?;
        Ok(reference)
    }

    /// A program of the harness, which is all that its image has.
    pub fn program(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
        let (reference, path) = (format!("docker.io/local/{name}:1"), format!("/{name}"));
        let image = wick_e2e::image::Image::new(&reference).entrypoint(&[&path]);
        cluster.import(&image.program(&path, &cluster.program(name)?)?)?;
        Ok(reference)
    }

    /// A bare `wasi:http` component.
    pub fn web(cluster: &Cluster) -> anyhow::Result<&'static str> {
        let reference = "docker.io/local/bare-web:1";
        wick_e2e::package::import_bare(cluster, &wick_e2e::package::guest("web")?, reference)?;
        Ok(reference)
    }

    /// A package of a guest, with what its manifest says beside its name and handler.
    pub fn guest(
        cluster: &Cluster,
        guest: &str,
        reference: &'static str,
        manifest: &str,
    ) -> anyhow::Result<&'static str> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let head = format!(
            "[package]\nname = \"{guest}\"\nversion = \"1.0.0\"\n\n\
             [handler]\ncomponent = \"handler.wasm\"\n\n{manifest}\n"
        );
        std::fs::write(folder.path().join("wick.toml"), head)?;
        let component = wick_e2e::package::guest(guest)?;
        std::fs::copy(component, folder.path().join("handler.wasm"))?;
        wick_e2e::package::import(cluster, folder.path(), reference)?;
        Ok(reference)
    }

    /// A handler that does what each request's parameter `mode` says, most of it bad.
    pub fn hostile(cluster: &Cluster, manifest: &str) -> anyhow::Result<&'static str> {
        let tensor = |kind: &str, name: &str| {
            format!("[[{kind}]]\nname = \"{name}\"\ndatatype = \"FP32\"\nshape = [-1]\n\n")
        };
        let manifest = tensor("input", "x") + &tensor("output", "y") + manifest;
        guest(cluster, "hostile", "docker.io/local/hostile:1", &manifest)
    }

    pub fn package(
        cluster: &Cluster,
        example: &str,
        reference: &'static str,
    ) -> anyhow::Result<&'static str> {
        let folder = wick_e2e::package::example(example)?;
        wick_e2e::package::import(cluster, &folder, reference)?;
        Ok(reference)
    }
}

impl Pod {
    pub fn new(name: &str, image: &str) -> Self {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}, "annotations": {}},
            "spec": {
                "runtimeClassName": "wick",
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 2,
                "containers": [
                    {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
                ],
                "volumes": [],
            },
        });
        Self { value }
    }

    /// A pod of containers that each run an image once, with arguments of their own.
    pub fn of_runs(name: &str, image: &str, runs: &[(&str, &[&str])]) -> Self {
        let mut pod = Self::new(name, image).once();
        let containers: Vec<Value> =
            runs.iter().map(|(name, args)| container(name, image, args)).collect();
        pod.value["spec"]["containers"] = containers.into();
        pod
    }

    /// A field of the container.
    pub fn container(mut self, field: &str, value: Value) -> Self {
        self.value["spec"]["containers"][0][field] = value;
        self
    }

    /// A field of the pod's spec.
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.value["spec"][field] = value;
        self
    }

    /// A field of the pod's metadata.
    pub fn metadata(mut self, field: &str, value: Value) -> Self {
        self.value["metadata"][field] = value;
        self
    }

    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.value["metadata"]["annotations"][name] = value.into();
        self
    }

    pub fn args(self, args: &[&str]) -> Self {
        self.container("args", json!(args))
    }

    /// Ready when the model is.
    pub fn probed(self) -> Self {
        let probe = json!({
            "httpGet": {"path": "/v2/health/ready", "port": PORT},
            "periodSeconds": 1,
        });
        self.container("readinessProbe", probe)
    }

    /// Never started again.
    pub fn once(self) -> Self {
        self.spec("restartPolicy", "Never".into())
    }

    pub fn grace(self, seconds: u32) -> Self {
        self.spec("terminationGracePeriodSeconds", seconds.into())
    }

    pub fn memory(self, limit: &str) -> Self {
        self.container("resources", json!({"limits": {"memory": limit, "cpu": "1"}}))
    }

    /// A volume, mounted at a path.
    pub fn volume(mut self, name: &str, path: &str, read_only: bool, source: Value) -> Self {
        let mut volume = json!({"name": name});
        for (key, value) in source.as_object().into_iter().flatten() {
            volume[key] = value.clone();
        }
        let spec = &mut self.value["spec"];
        let mount = json!({"name": name, "mountPath": path, "readOnly": read_only});
        if let Some(volumes) = spec["volumes"].as_array_mut() {
            volumes.push(volume);
        }
        self::mount(&mut spec["containers"][0], mount);
        self
    }

    /// A volume, mounted at a path of every container.
    pub fn shared(mut self, name: &str, path: &str, source: Value) -> Self {
        self = self.volume(name, path, false, source);
        let containers = self.value["spec"]["containers"].as_array_mut();
        for container in containers.into_iter().flatten().skip(1) {
            mount(container, json!({"name": name, "mountPath": path}));
        }
        self
    }

    /// Another container beside `main`, or before it.
    pub fn beside(mut self, list: &str, container: Value) -> Self {
        match self.value["spec"][list].as_array_mut() {
            Some(all) => all.push(container),
            None => self.value["spec"][list] = json!([container]),
        }
        self
    }

    /// The manifest; kubectl takes JSON as well.
    pub fn yaml(&self) -> String {
        self.value.to_string()
    }
}

/// A container for [`Pod::beside`].
pub fn container(name: &str, image: &str, args: &[&str]) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "args": args})
}

fn mount(container: &mut Value, mount: Value) {
    match container["volumeMounts"].as_array_mut() {
        Some(mounts) => mounts.push(mount),
        None => container["volumeMounts"] = json!([mount]),
    }
}

/// What the hostile package says when it is told to do something.
pub fn hostile(addr: SocketAddr, mode: &str, path: &str) -> anyhow::Result<Answer> {
    let body = json!({
        "parameters": {"mode": mode, "path": path},
        "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}],
    })
    .to_string();
    let path = "/v2/models/hostile/infer";
    Request { method: "POST", path, headers: &[], body: body.as_bytes() }.send(addr)
}

/// How the only container of a pod ended.
pub fn ended(space: &Namespace, pod: &str) -> anyhow::Result<Value> {
    space.wait(&format!("pod/{pod}"), "ended", END_TIMEOUT, |pod| {
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        Ok((!state.is_null()).then(|| state.clone()))
    })
}

/// What a container that may fail has printed.
pub fn output(space: &Namespace, pod: &str) -> anyhow::Result<String> {
    ended(space, pod)?;
    space.logs(pod)
}

/// What each container of a pod of runs has printed, when all have ended.
pub fn outputs<const N: usize>(
    space: &Namespace,
    pod: &str,
    containers: [&str; N],
) -> anyhow::Result<[String; N]> {
    space.wait(&format!("pod/{pod}"), "ended", END_TIMEOUT, |pod| {
        let phase = pod["status"]["phase"].as_str();
        Ok(matches!(phase, Some("Succeeded" | "Failed")).then_some(()))
    })?;
    let mut outputs = [const { String::new() }; N];
    for (output, container) in outputs.iter_mut().zip(containers) {
        *output = space.run(&["logs", pod, "-c", container])?;
    }
    Ok(outputs)
}

/// The status of a container of whatever kind; null before the kubelet has written one.
pub fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.into_iter().find(|status| status["name"] == container).unwrap_or(&Value::Null)
}

/// Wait for an event of the namespace whose message has all these words.
pub fn event(space: &Namespace, words: &[&str]) -> anyhow::Result<String> {
    let found = wick_e2e::wait::wait(&format!("an event with {words:?}"), END_TIMEOUT, || {
        let path = "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
        let events = space.run(&["get", "events", "-o", path])?;
        let mut lines = events.lines();
        let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
        Ok(line.map(str::to_owned))
    });
    found.map_err(|error| anyhow::anyhow!("{error:#}\n{}", space.dump()))
}
