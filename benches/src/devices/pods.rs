//! Answers of a device beside those of the CPU, both of workers in pods: each package twice, on either.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::package;

use crate::http::{Client, Prepared};

/// Where workers listen.
const PORT: u16 = 8080;

/// How far an FP32 value may be from the CPU's, of the output's largest.
const TOLERANCE: f32 = 0.002;

/// A package of each device: the CPU's comes first.
pub(super) struct Pair {
    pub name: String,
    pub folders: [PathBuf; 2],
    /// The other device's kind, and what lets a CPU pose as one.
    pub device: &'static str,
    pub variable: &'static str,
    /// Sizes of its input, where its model leaves more than the rows open.
    pub shape: Vec<usize>,
    /// What is sent, for inputs that are no numbers made up here.
    pub files: Vec<Vec<u8>>,
}

/// An output: its name, and its bytes.
type Output = (String, Value, Vec<u8>);

/// How many answers were compared, and packages whose answers differ.
pub(super) fn compare(pairs: &[Pair]) -> anyhow::Result<(usize, Vec<String>)> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("devices")?;
    let (mut answers, mut wrong) = (0, Vec::new());
    for pair in pairs {
        eprintln!("devices: {} in a pod on each device", pair.name);
        let [cpu, other] = [0, 1].map(|at| pair.answers(&cluster, &space, at));
        let (cpu, other) = (cpu?, other?);
        answers += cpu.len();
        if !alike(&cpu, &other) {
            wrong.push(format!("{}, in a pod", pair.name));
        }
    }
    space.delete()?;
    Ok((answers, wrong))
}

fn alike(cpu: &[Vec<Output>], other: &[Vec<Output>]) -> bool {
    let same = |(one, other): (&Output, &Output)| {
        one.0 == other.0 && (one.1 == other.1 || one.1 == "FP32") && within(one, other)
    };
    cpu.len() == other.len()
        && cpu.iter().zip(other).all(|(one, other)| {
            !one.is_empty() && one.len() == other.len() && one.iter().zip(other).all(same)
        })
}

fn within((_, datatype, one): &Output, (_, _, other): &Output) -> bool {
    if *datatype != "FP32" {
        return one == other;
    }
    let (one, other) = (floats(one), floats(other));
    let most = one.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * most;
    one.len() == other.len() && one.iter().zip(&other).all(near)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let one = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
    bytes.as_chunks().0.iter().map(one).collect()
}

// === impl Pair ===

impl Pair {
    /// What the package answers in a pod on its device, which is gone afterwards.
    fn answers(
        &self,
        cluster: &Cluster,
        space: &Namespace,
        at: usize,
    ) -> anyhow::Result<Vec<Vec<Output>>> {
        let device = ["cpu", self.device][at];
        let pod = format!("{}-{device}", self.name);
        let image = format!("docker.io/bench/{pod}:1");
        package::import(cluster, &self.folders[at], &image)?;
        space.apply(&manifest(&pod, &image, self.variable).to_string())?;
        let addr = SocketAddr::from((space.ready_pod(&pod)?, PORT));
        let mut client = Client::connect(addr)?;
        let about = client.get(&format!("/v2/models/{}", self.name))?;
        let about: Value = serde_json::from_slice(&about.body)?;
        let used = &about["properties"]["graphs"][0]["device"];
        ensure!(used["kind"] == device, "{pod} runs elsewhere: {about}");
        let requests = self.requests(&about)?;
        let asked = requests.iter().map(|request| outputs(&mut client, request));
        let answers = asked.collect::<anyhow::Result<Vec<_>>>().with_context(|| pod.clone())?;
        space.run(&["delete", "pod", &pod])?;
        Ok(answers)
    }

    fn requests(&self, about: &Value) -> anyhow::Result<Vec<Prepared>> {
        let input = &about["inputs"][0];
        let datatype = input["datatype"].as_str().context("no datatype")?;
        let of = |shape: &[usize], bytes: &[u8]| {
            let header = json!({
                "parameters": {"binary_data_output": true},
                "inputs": [{"name": input["name"], "datatype": datatype, "shape": shape,
                    "parameters": {"binary_data_size": bytes.len()}}],
            });
            Prepared::infer(&self.name, &header, &[bytes])
        };
        if !self.files.is_empty() {
            return Ok(self.files.iter().map(|file| of(&[file.len()], file)).collect());
        }
        let sizes = input["shape"].as_array().into_iter().flatten();
        // One row, where the number of rows is all that is open.
        let sizes = sizes.map(|size| size.as_u64().map_or(1, |size| size as usize));
        let shape = if self.shape.is_empty() { sizes.collect() } else { self.shape.clone() };
        let count: usize = shape.iter().product();
        // The same numbers each time: fractions for images, small integers for bytes of files.
        let numbers = (0..count).map(|at| (at * 7919 % 251) as u8);
        let bytes: Vec<u8> = match datatype {
            "FP32" => numbers.flat_map(|n| (f32::from(n) / 251.0).to_le_bytes()).collect(),
            "INT32" => numbers.flat_map(|n| i32::from(n).to_le_bytes()).collect(),
            other => anyhow::bail!("{}: no inputs of {other} are made up here", self.name),
        };
        Ok(vec![of(&shape, &bytes)])
    }
}

fn outputs(client: &mut Client, request: &Prepared) -> anyhow::Result<Vec<Output>> {
    let answer = client.send(request)?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    let mut rest = answer.tensors()?;
    let length = answer.body.len() - rest.len();
    let header: Value = serde_json::from_slice(&answer.body[..length])?;
    let mut outputs = Vec::new();
    for output in header["outputs"].as_array().context("no outputs")? {
        let size = output["parameters"]["binary_data_size"].as_u64().context("no size")?;
        let taken = rest.split_at_checked(usize::try_from(size)?).context("a short answer")?;
        let name = output["name"].as_str().context("no name")?.to_owned();
        outputs.push((name, output["datatype"].clone(), taken.0.to_vec()));
        rest = taken.1;
    }
    Ok(outputs)
}

fn manifest(pod: &str, image: &str, variable: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
        "spec": {
            "runtimeClassName": "wick", "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": image, "imagePullPolicy": "IfNotPresent",
                "env": [{"name": variable, "value": "1"}],
                "readinessProbe": {"periodSeconds": 1,
                    "httpGet": {"path": "/v2/health/ready", "port": PORT}},
            }],
        },
    })
}
