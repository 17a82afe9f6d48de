//! The whole way of an image: packed, pushed to a real registry with a password, signed there,
//! pulled by the kubelet, and run by the shim under a policy; and what of it is refused.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use support::policy::InForce;
use support::{PORT, Pod, classify, event};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::package;
use wick_e2e::wait::wait;

/// Names Debian's `docker-registry`, as `cargo xtask e2e` does.
const REGISTRY: &str = "WICK_TEST_REGISTRY";

/// Longest wait for the registry to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);

/// `ann` with the password `secret`, as htpasswd writes it.
const HTPASSWD: &str = "ann:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// The name of the Secret with that password.
const SECRET: &str = "registry";

/// The event of a refused start begins so.
const DENIED: &str = "policy does not let this package run";

const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// A registry of the test's own that the node reaches, and who pushes to it.
struct Site<'a> {
    ours: &'a wick_e2e::cluster::Ours,
    force: InForce<'a>,
    /// As references name it.
    host: String,
    child: Child,
    /// Where containerd was told to speak plain HTTP with it.
    told: PathBuf,
    scratch: tempfile::TempDir,
}

// === impl Site ===

impl<'a> Site<'a> {
    fn start(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let ours = cluster.ours()?;
        let scratch = tempfile::tempdir()?;
        let addr = address_towards(&ours.node_ip)?;
        let host = addr.to_string();
        let folder = ours.logs.parent().context("the cluster has no folder")?;
        let told = folder.join("conf/certs.d").join(&host);
        // containerd reads it at each pull.
        fs::create_dir_all(&told)?;
        let text = format!(
            "server = \"http://{host}\"\n\n[host.\"http://{host}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(told.join("hosts.toml"), text)?;
        let force = InForce::new(&ours.policy, &format!("{host}/vision/*"))?;
        let child = serve(addr, &scratch)?;
        let site = Self { ours, force, host, child, told, scratch };
        wait("the registry", LISTEN_TIMEOUT, || Ok(TcpStream::connect(addr).ok()))?;
        Ok(site)
    }

    fn image(&self, name: &str) -> String {
        format!("{}/vision/{name}", self.host)
    }

    /// `wick` with the password and a store of its own, as on the machine called `machine`.
    fn wick(&self, machine: &str, args: &[&str]) -> anyhow::Result<Value> {
        let store = self.scratch.path().join(machine).display().to_string();
        let user = format!("{}=ann", self.host);
        let more = ["--plain-http-for", &self.host, "--registry-user", &user, "--store", &store];
        let args = [args, &more, &["--output", "json"]].concat();
        let printed = package::wick_with(&args, &[("WICK_REGISTRY_PASSWORD", "secret")])?;
        serde_json::from_str(&printed).context("read what wick prints")
    }

    /// Push Magika's package with this version; the digest.
    fn push(&self, image: &str, version: &str) -> anyhow::Result<String> {
        let folder = self.scratch.path().join(format!("package-{version}"));
        package::example_as("filetype", version, &folder)?;
        let folder = folder.display().to_string();
        let pushed = self.wick("build", &["push", &folder, image])?;
        Ok(pushed["digest"].as_str().context("no digest")?.to_owned())
    }

    /// A pod of an image that the kubelet pulls with the password, whatever the node has.
    fn pod(&self, name: &str, image: &str) -> Pod {
        let pod = Pod::new(name, image).container("imagePullPolicy", "Always".into());
        pod.spec("imagePullSecrets", json!([{"name": SECRET}]))
    }

    /// A namespace with the password in a Secret.
    fn space(&self, cluster: &Cluster) -> anyhow::Result<Namespace> {
        let space = cluster.kubectl.namespace("registry")?;
        let server = format!("--docker-server={}", self.host);
        let secret = ["create", "secret", "docker-registry", SECRET, &server];
        let user = ["--docker-username=ann", "--docker-password=secret"];
        space.run(&[&secret[..], &user].concat())?;
        Ok(space)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // The test's own failure is the one to see.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.told).ok();
    }
}

/// A free port of this machine at the address that the node knows it by.
fn address_towards(node: &str) -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent: the system only chooses a way.
    socket.connect((node, 9))?;
    let listener = TcpListener::bind((socket.local_addr()?.ip(), 0))?;
    Ok(listener.local_addr()?)
}

fn serve(addr: SocketAddr, scratch: &tempfile::TempDir) -> anyhow::Result<Child> {
    let program = std::env::var_os(REGISTRY);
    let program = program.with_context(|| format!("{REGISTRY} is not set: cargo xtask e2e"))?;
    let root = scratch.path().display();
    fs::write(scratch.path().join("htpasswd"), HTPASSWD)?;
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\n\
         storage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
         http: {{addr: '{addr}', secret: tests}}\n\
         auth: {{htpasswd: {{realm: tests, path: {root}/htpasswd}}}}\n"
    );
    let file = scratch.path().join("config.yml");
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("serve").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().context("start the registry")
}

/// What the package in a pod says of a Python program.
fn answers(space: &Namespace, pod: &str) -> anyhow::Result<()> {
    let ip = space.ready_pod(pod)?;
    anyhow::ensure!(classify((ip, PORT).into(), PYTHON)? == "python", "{pod} says something else");
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_kubelet_pulls_what_was_pushed_and_signed_and_the_shim_runs_it() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let site = Site::start(&cluster)?;
    let space = site.space(&cluster)?;
    let tagged = site.image("filetype:1");
    let digest = site.push(&tagged, "9.1.1")?;
    let pinned = format!("{}@{digest}", site.image("filetype"));
    let signed = site.wick("build", &["sign", &tagged, "--key", &site.force.key()])?;
    assert_eq!(signed["digest"], digest.as_str());

    // Without the password nothing comes.
    let pod = site.pod("stranger", &pinned).spec("imagePullSecrets", json!([])).once();
    space.apply(&pod.yaml())?;
    event(&space, &["Failed to pull image", &digest])?;

    // Whoever has the public key makes the envelope; the private one stays where it was.
    let file = site.scratch.path().join("envelope.json").display().to_string();
    let key = site.force.public_key();
    let verified = site.wick("desk", &["verify", &pinned, "--key", &key, "--out", &file])?;
    assert_eq!(verified["envelope"], file.as_str());
    let envelope = fs::read_to_string(&file)?;
    // As docs/kubernetes.md has it.
    let manifest = site.scratch.path().join("pod.json");
    fs::write(&manifest, site.pod("annotated", &pinned).probed().yaml())?;
    let manifest = manifest.display().to_string();
    let annotation = format!("wick.dev/signature={envelope}");
    let annotate = ["annotate", "--local", "-f", &manifest, "-o", "json", &annotation];
    space.apply(&space.run(&annotate)?)?;
    answers(&space, "annotated")?;
    event(&space, &["Successfully pulled image", &digest])?;

    // The same for pods that carry nothing, pinned or by the tag.
    let store = site.ours.signatures.display().to_string();
    let node = ["verify", &tagged, "--key", &key, "--node", "--signatures", &store];
    assert_eq!(site.wick("node", &node)?["envelope"], store.as_str());
    space.apply(&site.pod("plain", &pinned).probed().yaml())?;
    answers(&space, "plain")?;
    space.apply(&site.pod("by-tag", &tagged).probed().yaml())?;
    answers(&space, "by-tag")?;

    // The tag moves to what nobody has signed: it has no envelope, and the old one is not its.
    let moved = site.push(&tagged, "9.1.2")?;
    assert_ne!(moved, digest);
    space.apply(&site.pod("moved", &tagged).once().yaml())?;
    let said = event(&space, &[DENIED, &tagged, "has no signature"])?;
    assert!(said.contains("wick sign"), "{said}");
    let pod = site.pod("old-envelope", &tagged).once();
    space.apply(&pod.annotation("wick.dev/signature", &envelope).yaml())?;
    event(&space, &[DENIED, "what runs is not what was signed"])?;
    // Whoever has pinned it has it still.
    space.apply(&site.pod("pinned", &pinned).probed().yaml())?;
    answers(&space, "pinned")?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn what_was_pushed_and_not_signed_is_refused_by_name() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let site = Site::start(&cluster)?;
    let space = site.space(&cluster)?;
    let tagged = site.image("unsigned:1");
    let digest = site.push(&tagged, "9.1.3")?;
    let pinned = format!("{}@{digest}", site.image("unsigned"));
    for (name, image) in [("tagged", &tagged), ("pinned", &pinned)] {
        space.apply(&site.pod(name, image).once().yaml())?;
        let said = event(&space, &[DENIED, image])?;
        for words in ["has no signature", "by release", "wick sign", "wick verify", "annotation"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    // There is no envelope to be had for it either.
    let key = site.force.public_key();
    let file = site.scratch.path().join("envelope.json").display().to_string();
    let error = site.wick("desk", &["verify", &tagged, "--key", &key, "--out", &file]).unwrap_err();
    assert!(error.to_string().contains("wick verify"), "{error:#}");
    assert!(!PathBuf::from(&file).exists());
    space.delete()
}
