//! How containers are watched, restarted and ended: probes, hooks, exit codes, Jobs and
//! rollouts.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::claims::Claims;
use support::node::{Folder, Process};
use support::{END_TIMEOUT, PORT, Pod, ended, images, status};
use wick_e2e::cluster::Cluster;
use wick_e2e::package;

const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// Longest until a Deployment has replaced its pods, or a Job its failed pod: controllers
/// wait ten seconds before they try again.
const ROLL_TIMEOUT: Duration = Duration::from_secs(90);

/// A core module whose `_start` calls `proc_exit(42)`.
const EXIT_42: &[u8] = b"\0asm\x01\0\0\0\x01\x08\x02\x60\x01\x7f\0\x60\0\0\x02\x24\x01\
    \x16wasi_snapshot_preview1\x09proc_exit\0\0\x03\x02\x01\x01\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\x01\x0a\x08\x01\x06\0\x41\x2a\x10\0\x0b";

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn http_tcp_and_grpc_probes_watch_a_package() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("life")?;
    let image = images::filetype(&cluster)?;
    let http = |path: &str| json!({"httpGet": {"path": path, "port": PORT}, "periodSeconds": 1});
    let tcp = json!({"tcpSocket": {"port": PORT}, "periodSeconds": 1});
    let good = Pod::new("http", image)
        .probed()
        .container("startupProbe", http("/v2/health/ready"))
        .container("livenessProbe", http("/v2/health/live"));
    let plain = Pod::new("tcp", image)
        .container("readinessProbe", tcp.clone())
        .container("startupProbe", tcp.clone())
        .container("livenessProbe", tcp);
    let health =
        |service: &str| json!({"grpc": {"port": PORT, "service": service}, "periodSeconds": 1});
    let grpc = Pod::new("grpc", image)
        .container("readinessProbe", health("filetype"))
        .container("startupProbe", health(""))
        .container("livenessProbe", health("wick.live"));
    let mut wrong = http("/v2/models/none/ready");
    wrong["failureThreshold"] = 1.into();
    let bad = Pod::new("bad", image).probed().container("livenessProbe", wrong);
    for pod in [good, plain, grpc, bad] {
        space.apply(&pod.yaml())?;
    }
    space.ready_pod("http")?;
    space.ready_pod("tcp")?;
    space.ready_pod("grpc")?;
    let state = space.wait("pod/bad", "a restart", END_TIMEOUT, |pod| {
        let state = status(pod, "main");
        Ok((state["restartCount"].as_u64() >= Some(1)).then(|| state.clone()))
    })?;
    // Killed by its probe, it still ended in order.
    assert_eq!(state["lastState"]["terminated"]["exitCode"], 0, "{state}");
    support::event(&space, &["Unhealthy", "Liveness probe failed", "404"])?;
    for name in ["http", "tcp"] {
        let pod = space.get(&format!("pod/{name}"))?.context("no pod")?;
        assert_eq!(status(&pod, "main")["restartCount"], 0, "{name}");
        assert_eq!(status(&pod, "main")["started"], true, "{name}");
    }
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_pre_stop_hook_by_http_is_called_before_the_end() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("life")?;
    // The hook asks this process, at the host's end of the cluster's cable.
    let node: std::net::Ipv4Addr = cluster.ours()?.node_ip.parse()?;
    let [a, b, c, _] = node.octets();
    let host = IpAddr::from([a, b, c, 1]);
    let listener = TcpListener::bind((host, 0))?;
    let port = listener.local_addr()?.port();
    let hook = json!({"preStop": {"httpGet":
        {"host": host, "port": port, "path": "/stopping"}}});
    let pod = Pod::new("model", images::filetype(&cluster)?).probed().grace(20);
    space.apply(&pod.container("lifecycle", hook).yaml())?;
    let ip = space.ready_pod("model")?;
    let asked = thread::spawn(move || -> anyhow::Result<(String, String)> {
        let (mut stream, _) = listener.accept()?;
        let mut head = [0; 128];
        let length = stream.read(&mut head)?;
        // While the hook waits for its answer, requests are still served.
        let label = support::classify((ip, PORT).into(), PYTHON)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        Ok((String::from_utf8_lossy(&head[..length]).into_owned(), label))
    });
    space.run(&["delete", "pod", "model", "--wait=true"])?;
    // The hook came, or the thread would still listen and this would not be so.
    ensure!(asked.is_finished(), "the pod is gone, and the hook was not called");
    let (head, label) = asked.join().map_err(|_| anyhow::anyhow!("the hook's thread"))??;
    assert!(head.starts_with("GET /stopping "), "{head}");
    assert_eq!(label, "python");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn exit_codes_and_signals_are_what_the_kubelet_reports() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("life")?;
    let core = "docker.io/local/exit-42:1";
    let folder = Folder::new(&cluster, "core")?;
    folder.write("core.wasm", EXIT_42)?;
    package::import_bare(&cluster, &folder.path.join("core.wasm"), core)?;
    let (tool, model) = (images::tool(&cluster)?, images::filetype(&cluster)?);
    let waits = |name: &str| Pod::new(name, tool).once().args(&["print", "waiting"]);
    let late = waits("late").spec("activeDeadlineSeconds", 3.into());
    let server = |name: &str| Pod::new(name, model).once().probed();
    let pods = [
        Pod::new("core", core).once(),
        Pod::new("panic", tool).once().args(&["panic"]),
        waits("killed"),
        waits("told"),
        server("server-killed"),
        server("server-told"),
        late,
    ];
    for pod in &pods {
        space.apply(&pod.yaml())?;
    }
    for name in ["server-killed", "server-told"] {
        space.ready_pod(name)?;
    }
    for (name, signal) in [
        ("killed", "-KILL"),
        ("told", "-TERM"),
        ("server-killed", "-KILL"),
        ("server-told", "-TERM"),
    ] {
        Process::of(&cluster, &space, name, "main")?.kill(signal)?;
    }
    for (name, code, reason) in [
        ("core", 42, "Error"),
        ("killed", 137, "Error"),
        ("told", 143, "Error"),
        ("server-killed", 137, "Error"),
        ("server-told", 0, "Completed"),
        ("late", 143, "Error"),
    ] {
        let state = ended(&space, name)?;
        assert_eq!(
            (&state["exitCode"], &state["reason"]),
            (&json!(code), &json!(reason)),
            "{name}"
        );
    }
    assert_ne!(ended(&space, "panic")?["exitCode"], 0);
    let late = space.get("pod/late")?.context("no pod")?;
    assert_eq!(late["status"]["reason"], "DeadlineExceeded");
    space.delete()
}

/// A Job whose pods do what `pod` does.
fn job(name: &str, pod: &Pod, backoff: u32) -> anyhow::Result<String> {
    let pod: Value = serde_json::from_str(&pod.yaml())?;
    let template = json!({"metadata": {"labels": {"job": name}}, "spec": pod["spec"]});
    let spec = json!({"backoffLimit": backoff, "template": template});
    Ok(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
        .to_string())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn jobs_and_failed_containers_are_tried_again_until_they_succeed() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("life")?;
    let folder = Folder::new(&cluster, "job")?;
    let tool = images::tool(&cluster)?;
    let source = json!({"hostPath": {"path": folder.path, "type": "Directory"}});
    // It fails until there is something to read.
    let reads = |name: &str, file: &str| {
        let path = format!("/job/{file}");
        Pod::new(name, tool).once().args(&["cat", &path]).volume("w", "/job", true, source.clone())
    };
    space.apply(&job("retried", &reads("retried", "first"), 3)?)?;
    space.apply(&job("hopeless", &reads("hopeless", "never"), 0)?)?;
    let again = reads("again", "second").spec("restartPolicy", "OnFailure".into());
    space.apply(&again.yaml())?;
    space.wait("job/retried", "a failed pod", END_TIMEOUT, |job| {
        Ok((job["status"]["failed"].as_u64() >= Some(1)).then_some(()))
    })?;
    folder.write("first", "at last")?;
    space.wait("pod/again", "a restart", END_TIMEOUT, |pod| {
        Ok((status(pod, "main")["restartCount"].as_u64() >= Some(1)).then_some(()))
    })?;
    folder.write("second", "at last")?;
    let job = space.wait("job/retried", "completed", ROLL_TIMEOUT, |job| {
        Ok((job["status"]["succeeded"] == 1).then(|| job.clone()))
    })?;
    ensure!(job["status"]["failed"].as_u64() >= Some(1), "{}", job["status"]);
    space.output_of("again")?;
    // Without retries the Job has failed, and says why.
    let hopeless = space.get("job/hopeless")?.context("no job")?;
    let conditions = hopeless["status"]["conditions"].to_string();
    assert!(conditions.contains("BackoffLimitExceeded"), "{conditions}");
    assert_eq!(hopeless["status"]["failed"], 1);
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_example_of_a_job_labels_the_files_of_a_claim() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let image = "docker.io/local/batch:1";
    images::package(&cluster, "batch", image)?;
    let (data, out) = (Folder::new(&cluster, "data")?, Folder::new(&cluster, "out")?);
    data.write("one.py", PYTHON)?;
    data.write("below/two.html", "<!DOCTYPE html>\n<html><body><p>two</p></body></html>\n")?;
    // `fsGroup` does not change a folder of the node, which a hostPath is.
    std::fs::set_permissions(&out.path, std::fs::Permissions::from_mode(0o777))?;
    let mut claims = Claims::new(&cluster, cluster.kubectl.namespace("life")?);
    claims.add("batch-data", &data)?;
    claims.add("batch-out", &out)?;
    let space = claims.space();
    let manifest = std::fs::read_to_string(package::example("batch")?.join("job.yaml"))?;
    let ours = manifest.replace("registry.example.com/batch:1.0.0\n", &format!("{image}\n"));
    ensure!(ours.contains(image), "the example names another image: {manifest}");
    space.apply(&ours)?;
    space.wait("job/batch", "completed", ROLL_TIMEOUT, |job| {
        Ok((job["status"]["succeeded"] == 1).then_some(()))
    })?;
    let results = out.read("results.jsonl")?;
    let mut labels = Vec::new();
    for line in results.lines() {
        let line: Value = serde_json::from_str(line)?;
        labels.push((line["file"].to_string(), line["label"].to_string()));
    }
    let wanted = [("\"below/two.html\"", "\"html\""), ("\"one.py\"", "\"python\"")];
    assert_eq!(labels, wanted.map(|(file, label)| (file.to_owned(), label.to_owned())));
    claims.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_rolling_update_fails_no_request() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("life")?;
    let pod = Pod::new("model", images::filetype(&cluster)?).probed().grace(20);
    let pod: Value = serde_json::from_str(&pod.yaml())?;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "model"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "model"}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": {"app": "model"}}, "spec": pod["spec"]},
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "model"},
        "spec": {"selector": {"app": "model"}, "ports": [{"port": 80, "targetPort": PORT}]},
    });
    space.apply(&deployment.to_string())?;
    space.apply(&service.to_string())?;
    let rolled = ["rollout", "status", "deployment/model", "--timeout=90s"];
    space.run(&[&rolled[..], &["--request-timeout=100s"]].concat())?;
    let address = space.wait("service/model", "an address", END_TIMEOUT, |service| {
        let ip = service["spec"]["clusterIP"].as_str();
        ip.map(|ip| ip.parse::<IpAddr>().context("the Service's address")).transpose()
    })?;
    wick_e2e::wait::wait("the Service", END_TIMEOUT, || {
        Ok(support::classify((address, 80).into(), PYTHON).ok())
    })?;
    let over = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || -> anyhow::Result<u32> {
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) {
                    let label = support::classify((address, 80).into(), PYTHON)
                        .with_context(|| format!("after {answered} requests"))?;
                    ensure!(label == "python", "{label}");
                    answered += 1;
                }
                Ok(answered)
            })
        })
        .collect();
    let before = space.run(&["get", "pods", "-o", "name"])?;
    let done = space
        .run(&["rollout", "restart", "deployment/model"])
        .and_then(|_| space.run(&[&rolled[..], &["--request-timeout=100s"]].concat()))
        .and_then(|_| {
            wick_e2e::wait::wait("the old pods to be gone", ROLL_TIMEOUT, || {
                let now = space.run(&["get", "pods", "-o", "name"])?;
                Ok((!before.lines().any(|pod| now.contains(pod))).then_some(()))
            })
        });
    over.store(true, Ordering::Relaxed);
    for thread in asking {
        let answered = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(answered > 20, "only {answered} requests");
    }
    done?;
    space.delete()
}
