//! What a pod mounts and what its variables come from, as a package and as a bare component
//! see it.

mod support;

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::claims::{Claims, claimed};
use support::node::Folder;
use support::{PORT, Pod, container, ended, images, outputs};
use wick_e2e::cluster::Cluster;
use wick_e2e::image::Image;
use wick_e2e::kubectl::Namespace;
use wick_e2e::package;

/// A text that Magika knows.
const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// A config map `config` with a greeting and a secret `secret` with a token.
fn settings(space: &Namespace) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"},
        "data": {"greeting": "hello from config", "GREETING": "hello from env"},
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"},
        "stringData": {"token": "s3cr3t"},
    });
    space.apply(&config.to_string())?;
    space.apply(&secret.to_string())
}

/// The answer of Magika in a pod that has just become ready.
fn classified(space: &Namespace, pod: &str) -> anyhow::Result<String> {
    support::classify((space.ready_pod(pod)?, PORT).into(), PYTHON)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn config_maps_and_secrets_are_files_and_variables() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    settings(&space)?;
    let runs: [(&str, &[&str]); 4] = [
        ("env", &["env"]),
        ("config", &["cat", "/etc/config/greeting"]),
        ("secret", &["cat", "/etc/secret/token"]),
        ("write", &["write", "/etc/config/greeting", "mine"]),
    ];
    let from = json!([{"configMapRef": {"name": "config"}}]);
    let token = json!([{"name": "TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "secret", "key": "token"}}}]);
    let pod = Pod::of_runs("bare", images::tool(&cluster)?, &runs)
        .container("envFrom", from)
        .container("env", token)
        .shared("config", "/etc/config", json!({"configMap": {"name": "config"}}))
        .shared("secret", "/etc/secret", json!({"secret": {"secretName": "secret"}}));
    space.apply(&pod.yaml())?;
    let [env, config, secret, write] =
        outputs(&space, "bare", ["env", "config", "secret", "write"])?;
    assert!(env.contains("GREETING=hello from env") && env.contains("TOKEN=s3cr3t"), "{env}");
    assert!(config.contains("hello from config"), "{config}");
    assert!(secret.contains("s3cr3t"), "{secret}");
    assert!(write.contains("refused"), "a config map was written: {write}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_gets_of_its_pod_what_it_wants_and_no_more() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    settings(&space)?;
    let image = "docker.io/local/wants-settings:1";
    let wants = "env = [\"GREETING\"]\n\
        mounts = [{ name = \"config\", path = \"/settings\", writable = false }]";
    images::wanting(&cluster, image, wants)?;
    let runs: [(&str, &[&str]); 4] = [
        ("env", &["env"]),
        ("config", &["cat", "/settings/greeting"]),
        ("secret", &["cat", "/etc/secret/token"]),
        ("place", &["cat", "/etc/config/greeting"]),
    ];
    let token = json!([{"name": "TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "secret", "key": "token"}}}]);
    let pod = Pod::of_runs("package", image, &runs)
        .container("envFrom", json!([{"configMapRef": {"name": "config"}}]))
        .container("env", token)
        .shared("config", "/etc/config", json!({"configMap": {"name": "config"}}))
        .shared("secret", "/etc/secret", json!({"secret": {"secretName": "secret"}}));
    space.apply(&pod.yaml())?;
    let [env, config, secret, place] =
        outputs(&space, "package", ["env", "config", "secret", "place"])?;
    assert!(env.contains("GREETING=hello from env"), "{env}");
    assert!(!env.contains("TOKEN") && !env.contains("KUBERNETES"), "unwanted: {env}");
    assert!(config.contains("hello from config"), "{config}");
    assert!(secret.contains("refused") && !secret.contains("s3cr3t"), "unwanted: {secret}");
    assert!(place.contains("refused"), "a mount is only where it is wanted: {place}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_downward_api_tells_a_pod_about_itself() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    let runs: [(&str, &[&str]); 2] = [("env", &["env"]), ("labels", &["cat", "/etc/about/labels"])];
    let field = |name: &str, path: &str| {
        let from = json!({"fieldRef": {"fieldPath": path}});
        json!({"name": name, "valueFrom": from})
    };
    let memory = json!({"name": "MEMORY", "valueFrom": {"resourceFieldRef":
        {"resource": "limits.memory", "divisor": "1Mi"}}});
    let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
    let pod = Pod::of_runs("about", images::tool(&cluster)?, &runs)
        .memory("200Mi")
        .container(
            "env",
            json!([field("POD", "metadata.name"), field("ADDRESS", "status.podIP"), memory,]),
        )
        .shared("about", "/etc/about", json!({"downwardAPI": {"items": items}}));
    space.apply(&pod.yaml())?;
    let [env, labels] = outputs(&space, "about", ["env", "labels"])?;
    let pod = space.get("pod/about")?.context("no pod")?;
    let address = pod["status"]["podIP"].as_str().context("no address")?;
    for line in ["POD=about", &format!("ADDRESS={address}"), "MEMORY=200"] {
        assert!(env.lines().any(|known| known == line), "{line}: {env}");
    }
    assert!(labels.contains("app=\"about\""), "{labels}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_empty_dir_is_written_by_a_guest_and_read_by_a_side_car() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    let runs: [(&str, &[&str]); 2] = [
        ("disk", &["write", "/shared/disk", "from the guest"]),
        ("memory", &["write", "/memory/memory", "kept in memory"]),
    ];
    let httpd = images::httpd(&cluster)?;
    let readers = [("read-disk", "/shared/disk"), ("read-memory", "/memory/memory")];
    let mut pod = Pod::of_runs("shared", images::tool(&cluster)?, &runs);
    for (name, path) in readers {
        pod = pod.beside("containers", container(name, httpd, &["cat", path]));
    }
    let pod = pod.shared("shared", "/shared", json!({"emptyDir": {}})).shared(
        "memory",
        "/memory",
        json!({"emptyDir": {"medium": "Memory"}}),
    );
    space.apply(&pod.yaml())?;
    let [disk, memory] = outputs(&space, "shared", ["read-disk", "read-memory"])?;
    assert_eq!(disk, "from the guest\n");
    assert_eq!(memory, "kept in memory\n");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_claim_is_written_where_the_pod_says_so_and_only_there() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let mut claims = Claims::new(&cluster, cluster.kubectl.namespace("volumes")?);
    let folder = Folder::new(&cluster, "claim")?;
    folder.write("question", "six times nine")?;
    folder.write("part/answer", "forty-two")?;
    claims.add("data", &folder)?;
    let space = claims.space();
    let runs: [(&str, &[&str]); 7] = [
        ("main", &["write", "/data/new", "by the guest"]),
        ("read", &["cat", "/data/question"]),
        ("refused", &["write", "/frozen/question", "spoiled"]),
        ("frozen", &["cat", "/frozen/question"]),
        ("part", &["cat", "/part/answer"]),
        ("file", &["cat", "/single/answer"]),
        ("sealed", &["write", "/single/answer", "spoiled"]),
    ];
    let mut pod = Pod::of_runs("claim", images::tool(&cluster)?, &runs);
    pod = pod.shared("data", "/data", claimed("data"));
    let mut value: Value = serde_json::from_str(&pod.yaml())?;
    for container in value["spec"]["containers"].as_array_mut().into_iter().flatten() {
        let mounts = container["volumeMounts"].as_array_mut().context("no mounts")?;
        mounts.extend([
            json!({"name": "data", "mountPath": "/frozen", "readOnly": true}),
            json!({"name": "data", "mountPath": "/part", "subPath": "part"}),
            json!({"name": "data", "mountPath": "/single/answer", "subPath": "part/answer"}),
        ]);
    }
    space.apply(&value.to_string())?;
    let names = ["main", "read", "refused", "frozen", "part", "file", "sealed"];
    let [_, read, refused, frozen, part, file, sealed] = outputs(space, "claim", names)?;
    assert_eq!(folder.read("new")?, "by the guest");
    assert!(read.contains("six times nine"), "{read}");
    assert!(refused.contains("refused"), "a read-only mount was written: {refused}");
    assert!(frozen.contains("six times nine"), "{frozen}");
    assert_eq!(folder.read("question")?, "six times nine");
    assert!(part.contains("forty-two"), "{part}");
    // A single file is in the image, which can't be written.
    assert!(file.contains("forty-two"), "{file}");
    assert!(sealed.contains("refused"), "{sealed}");
    claims.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn weights_come_from_a_claim_as_a_folder_or_as_a_single_file() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let mut claims = Claims::new(&cluster, cluster.kubectl.namespace("volumes")?);
    let folder = Folder::new(&cluster, "weights")?;
    folder.write("model.onnx", fs::read(package::example("filetype")?.join("model.onnx"))?)?;
    claims.add("data", &folder)?;
    let space = claims.space();
    let (below, beside) = ("docker.io/local/weightless-a:1", "docker.io/local/weightless-b:1");
    images::weightless(&cluster, below, "weights/model.onnx")?;
    images::weightless(&cluster, beside, "model.onnx")?;
    let pod = Pod::new("folder", below).probed().volume("w", "/weights", true, claimed("data"));
    space.apply(&pod.yaml())?;
    let single = json!([{"name": "w", "mountPath": "/model.onnx", "subPath": "model.onnx",
        "readOnly": true}]);
    let pod = Pod::new("single", beside)
        .probed()
        .volume("w", "/weights", true, claimed("data"))
        .container("volumeMounts", single);
    space.apply(&pod.yaml())?;
    // Without the volume, the package says what it misses.
    space.apply(&Pod::new("without", beside).once().yaml())?;
    assert_eq!(classified(space, "folder")?, "python");
    assert_eq!(classified(space, "single")?, "python");
    let state = ended(space, "without")?;
    ensure!(state["message"].as_str().is_some_and(|m| m.contains("model.onnx")), "{state}");
    claims.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_image_volume_holds_weights_and_data() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    let weights = "docker.io/local/weights:1";
    let model = fs::read(package::example("filetype")?.join("model.onnx"))?;
    cluster.import(&Image::new(weights).file("/model.onnx", model).file("/about", "Magika"))?;
    let below = "docker.io/local/weightless-a:1";
    images::weightless(&cluster, below, "weights/model.onnx")?;
    let source = json!({"image": {"reference": weights, "pullPolicy": "IfNotPresent"}});
    let pod = Pod::new("model", below).probed().volume("w", "/weights", true, source.clone());
    space.apply(&pod.yaml())?;
    // A package reads the same volume as data, if it wants it.
    let wanting = "docker.io/local/wants-weights:1";
    let wants = "mounts = [{ name = \"weights\", path = \"/about\", writable = true }]";
    images::wanting(&cluster, wanting, wants)?;
    let runs: [(&str, &[&str]); 2] =
        [("read", &["cat", "/about/about"]), ("write", &["write", "/about/about", "mine"])];
    let pod = Pod::of_runs("data", wanting, &runs).shared("w", "/mnt/weights", source);
    space.apply(&pod.yaml())?;
    assert_eq!(classified(&space, "model")?, "python");
    let [read, write] = outputs(&space, "data", ["read", "write"])?;
    assert!(read.contains("Magika"), "{read}");
    assert!(write.contains("refused"), "an image was written: {write}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn credentials_are_only_for_a_package_that_wants_them() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let image = "docker.io/local/wants-account:1";
    let wants = "mounts = [{ name = \"serviceaccount\", path = \"/account\" }]";
    images::wanting(&cluster, image, wants)?;
    let runs: [(&str, &[&str]); 1] = [("read", &["cat", "/account/namespace"])];
    space.apply(&Pod::of_runs("wanting", image, &runs).yaml())?;
    let file = format!("{account}/namespace");
    let runs: [(&str, &[&str]); 2] = [("ls", &["ls", account]), ("cat", &["cat", &file])];
    space.apply(&Pod::of_runs("bare", images::tool(&cluster)?, &runs).yaml())?;
    let [read] = outputs(&space, "wanting", ["read"])?;
    assert!(read.contains(&space.name), "{read}");
    let [ls, cat] = outputs(&space, "bare", ["ls", "cat"])?;
    assert!(cat.contains("refused") && !cat.contains(&space.name), "{cat}");
    // The mount point is part of the image; what is mounted there is not shown.
    for name in ["token", "namespace", "ca.crt"] {
        assert!(!ls.lines().any(|line| line == name), "{ls}");
    }
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_projected_volume_joins_sources_in_one_folder() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("volumes")?;
    settings(&space)?;
    let sources = json!([
        {"configMap": {"name": "config"}},
        {"secret": {"name": "secret"}},
        {"serviceAccountToken": {"path": "identity", "audience": "wick", "expirationSeconds": 600}},
    ]);
    let runs: [(&str, &[&str]); 2] =
        [("ls", &["ls", "/all"]), ("identity", &["cat", "/all/identity"])];
    let pod = Pod::of_runs("all", images::tool(&cluster)?, &runs)
        .spec("automountServiceAccountToken", false.into())
        .shared("all", "/all", json!({"projected": {"sources": sources}}));
    space.apply(&pod.yaml())?;
    let [ls, identity] = outputs(&space, "all", ["ls", "identity"])?;
    for name in ["greeting", "token", "identity"] {
        assert!(ls.lines().any(|line| line == name), "{name}: {ls}");
    }
    // A token of its own audience, which the pod has asked for itself.
    let is_token = |line: &str| line.starts_with("ey") && line.split('.').count() == 3;
    assert!(identity.lines().any(is_token), "no token");
    space.delete()
}
