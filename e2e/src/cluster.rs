//! The cluster that a test runs in. Either `cargo xtask e2e` has started one and named it,
//! or one exists already, or the test starts one for itself, which then is its own and is
//! stopped when dropped.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::image::Image;
use crate::kubectl::Kubectl;
use crate::registry;

/// Kubeconfig of a cluster that exists.
const EXISTING: &str = "WICK_E2E_KUBECONFIG";

/// How to import an archive into an existing cluster: a command that takes its path last,
/// such as `k3s ctr images import`.
const IMPORT: &str = "WICK_E2E_IMPORT";

/// Address of a registry that an existing cluster pulls from, and its name in references.
const REGISTRY: &str = "WICK_E2E_REGISTRY";
const REGISTRY_NAME: &str = "WICK_E2E_REGISTRY_NAME";

/// Name of the cluster that `cargo xtask e2e` has started.
const NAMED: &str = "WICK_E2E_CLUSTER";

/// Folder with the programs that images of tests are made of.
const PROGRAMS: &str = "WICK_E2E_PROGRAMS";

/// The `xtask` to call; cargo builds one when it is not set.
const XTASK: &str = "WICK_XTASK";

/// Counts archives, so that two threads never write the same.
static ARCHIVES: AtomicU32 = AtomicU32::new(0);

/// A cluster.
pub struct Cluster {
    pub kubectl: Kubectl,
    /// None for one that `cargo xtask cluster` did not start.
    pub ours: Option<Ours>,
    owned: bool,
}

/// A cluster of `cargo xtask cluster`.
#[derive(Clone, Debug, Deserialize)]
pub struct Ours {
    #[serde(skip)]
    pub name: String,
    pub kubeconfig: PathBuf,
    /// containerd's socket, which the host reaches by the same path.
    pub containerd_address: PathBuf,
    pub node_ip: String,
    pub registry: SocketAddr,
    pub registry_name: String,
    pub programs: PathBuf,
    /// Folder with `ctr`.
    pub bin: PathBuf,
    pub logs: PathBuf,
    /// What containerd runs for pods of the class `wick`.
    pub shim: PathBuf,
    /// Where CDI specifications are read.
    pub cdi: PathBuf,
    /// The kubelet's folder, where it meets drivers.
    pub kubelet: PathBuf,
    /// The policy of its node, read at each start of a package.
    pub policy: PathBuf,
    /// The node's store of signatures.
    pub signatures: PathBuf,
    pub processes: Vec<Process>,
}

/// A process of a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// Its number on the machine, for `/proc` and `kill`.
    pub pid: u32,
    /// Its number for containerd and everything else inside.
    pub inner_pid: u32,
    pub command: String,
    pub pss_kib: u64,
}

// === impl Cluster ===

impl Cluster {
    /// The cluster that the tests are run with.
    pub fn attach() -> anyhow::Result<Self> {
        if let Some(kubeconfig) = env::var_os(EXISTING) {
            let kubectl = Kubectl::new(&PathBuf::from(kubeconfig));
            return Ok(Self { kubectl, ours: None, owned: false });
        }
        let name = env::var(NAMED).with_context(|| {
            format!("no cluster: run `cargo xtask e2e`, or set {EXISTING} or {NAMED}")
        })?;
        Self::of(&name, false)
    }

    /// A cluster of this test's own.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        xtask(&["cluster", "up", name])?;
        Self::of(name, true)
    }

    /// Stop it, whoever started it, and check that nothing of it is left.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.owned = false;
        let name = self.ours()?.name.clone();
        xtask(&["cluster", "down", &name])?;
        let left = found(&name)?;
        ensure!(is_empty(&left), "the cluster {name} left {left}");
        Ok(())
    }

    /// What is known of a cluster of ours; an error for another.
    pub fn ours(&self) -> anyhow::Result<&Ours> {
        self.ours.as_ref().context("this test needs a cluster of `cargo xtask cluster`")
    }

    /// Its processes now.
    pub fn processes(&self) -> anyhow::Result<Vec<Process>> {
        Ok(Ours::read(&self.ours()?.name)?.processes)
    }

    /// Make an image known to the node without a registry.
    pub fn import(&self, image: &Image) -> anyhow::Result<()> {
        let count = ARCHIVES.fetch_add(1, Ordering::Relaxed);
        let name = format!("wick-e2e-{}-{count}.tar", std::process::id());
        let archive = env::temp_dir().join(name);
        image.write(&archive)?;
        let imported = self.import_archive(&archive);
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        imported
    }

    /// Make the images of a tar known to the node.
    pub fn import_archive(&self, archive: &Path) -> anyhow::Result<()> {
        let output = self.import_command()?.arg(archive).output().context("run the import")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "import {}: {}", archive.display(), error.trim());
        Ok(())
    }

    /// Push an image to the registry; its reference must start with `registry_name`.
    pub fn push(&self, image: &Image) -> anyhow::Result<()> {
        let address = match &self.ours {
            Some(ours) => ours.registry,
            None => variable(REGISTRY)?.parse().with_context(|| format!("read {REGISTRY}"))?,
        };
        registry::push(address, &image.build()?)
    }

    /// The registry's name in references of images.
    pub fn registry_name(&self) -> anyhow::Result<String> {
        self.ours
            .as_ref()
            .map_or_else(|| variable(REGISTRY_NAME), |ours| Ok(ours.registry_name.clone()))
    }

    /// A program for an image, such as `httpd`.
    pub fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = env::var_os(PROGRAMS).map(PathBuf::from);
        let folder = folder.or_else(|| self.ours.as_ref().map(|ours| ours.programs.clone()));
        let program = folder.with_context(|| format!("{PROGRAMS} is not set"))?.join(name);
        ensure!(program.is_file(), "no {}: run `cargo xtask e2e`", program.display());
        Ok(program)
    }

    /// containerd's own client, with the namespace of Kubernetes' images and pods.
    pub fn ctr(&self) -> anyhow::Result<Command> {
        let ours = self.ours()?;
        let mut ctr = Command::new(ours.bin.join("ctr"));
        ctr.arg("--address").arg(&ours.containerd_address).args(["--namespace", "k8s.io"]);
        Ok(ctr)
    }

    fn of(name: &str, owned: bool) -> anyhow::Result<Self> {
        let ours = Ours::read(name)?;
        Ok(Self { kubectl: Kubectl::new(&ours.kubeconfig), ours: Some(ours), owned })
    }

    fn import_command(&self) -> anyhow::Result<Command> {
        if self.ours.is_some() {
            let mut ctr = self.ctr()?;
            ctr.args(["images", "import"]);
            return Ok(ctr);
        }
        let words = variable(IMPORT)?;
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().with_context(|| format!("{IMPORT} is empty"))?);
        command.args(words);
        Ok(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let (true, Some(ours)) = (self.owned, &self.ours) {
            // The test has failed, and its own error is the one to see.
            xtask(&["cluster", "down", &ours.name]).ok();
        }
    }
}

// === impl Ours ===

impl Ours {
    fn read(name: &str) -> anyhow::Result<Self> {
        let mut status = status(name)?;
        let cluster = status["cluster"].take();
        if cluster.is_null() {
            bail!("the cluster {name} does not run: cargo xtask cluster up {name}");
        }
        let ours: Self = serde_json::from_value(cluster).context("read the cluster's status")?;
        Ok(Self { name: name.to_owned(), ..ours })
    }
}

/// What of a cluster is on the machine: lists by kind, all empty when it left nothing.
pub fn found(name: &str) -> anyhow::Result<Value> {
    Ok(status(name)?["found"].take())
}

/// Whether `found` says that there is nothing.
pub fn is_empty(found: &Value) -> bool {
    let lists = found.as_object().into_iter().flatten();
    found.is_object()
        && lists.into_iter().all(|(_, list)| list.as_array().is_some_and(Vec::is_empty))
}

/// `cargo xtask cluster status` of one cluster.
fn status(name: &str) -> anyhow::Result<Value> {
    let text = xtask(&["cluster", "status", name, "--output", "json"])?;
    let mut list: Vec<Value> = serde_json::from_str(&text).context("read the status")?;
    list.pop().context("no status")
}

/// Run a command of the project's tools and return what it prints.
pub fn xtask(args: &[&str]) -> anyhow::Result<String> {
    let mut command = match env::var_os(XTASK) {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
            cargo
        }
    };
    let output = command.args(args).output().context("run xtask")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "xtask {}: {}", args.join(" "), error.trim());
    String::from_utf8(output.stdout).context("xtask's output is no text")
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set, and the cluster is not ours"))
}
