//! kubectl, and a namespace of one test in which it applies, looks, waits and cleans up. A
//! wait that runs out tells what the namespace looked like: states, events, logs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::wait::wait;

/// Longest that one request may take; a wait asks again.
const REQUEST_TIMEOUT: &str = "--request-timeout=30s";

/// Longest until a pod of a test is ready. An image that is there needs a second, and a
/// machine that compiles at the same time ten.
pub const POD_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest until the controllers have done something small.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest until the objects of a test are gone; its pods may take their grace periods.
const DELETE_TIMEOUT: &str = "--timeout=90s";

/// Lines of each log in a dump.
const DUMP_LINES: &str = "--tail=30";

/// Counts the namespaces of this process, so that two tests never share one.
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// kubectl for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

/// A namespace of its own, deleted when dropped.
pub struct Namespace {
    kubectl: Kubectl,
    pub name: String,
    /// Whether there is nothing to delete.
    gone: bool,
}

// === impl Kubectl ===

impl Kubectl {
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned() }
    }

    /// For other clients of the same cluster.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What the command prints; an error has what it says about its failure.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run_with(args, "")
    }

    /// An object, or none if it does not exist.
    pub fn get(&self, args: &[&str]) -> anyhow::Result<Option<Value>> {
        let mut words = vec!["get", "-o", "json", "--ignore-not-found"];
        words.extend(args);
        let text = self.run(&words)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).with_context(|| format!("read {}", args.join(" ")))
    }

    /// Create or change what the manifests describe.
    pub fn apply(&self, namespace: &str, manifests: &str) -> anyhow::Result<()> {
        self.run_with(&["apply", "--namespace", namespace, "-f", "-"], manifests).map(drop)
    }

    /// A namespace for one test. Its name starts with `prefix`.
    pub fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace> {
        let count = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{count}", std::process::id());
        self.run(&["create", "namespace", &name])?;
        let namespace = Namespace { kubectl: self.clone(), name, gone: false };
        // A pod is refused until its namespace has the account.
        wait("the namespace's default account", CONTROL_TIMEOUT, || {
            namespace.get("serviceaccount/default")
        })?;
        Ok(namespace)
    }

    /// The same with `input` on its standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg(REQUEST_TIMEOUT).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("run kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
        // A kubectl that fails early reads none of it; its own words say more.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let output = child.wait_with_output().context("wait for kubectl")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), error.trim());
        String::from_utf8(output.stdout).context("kubectl's output is no text")
    }
}

// === impl Namespace ===

impl Namespace {
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.kubectl.apply(&self.name, manifests)
    }

    /// An object such as `pod/a`, or none if it does not exist.
    pub fn get(&self, object: &str) -> anyhow::Result<Option<Value>> {
        self.kubectl.get(&["--namespace", &self.name, object])
    }

    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut words = vec!["--namespace", self.name.as_str()];
        words.extend(args);
        self.kubectl.run(&words)
    }

    pub fn logs(&self, pod: &str) -> anyhow::Result<String> {
        self.run(&["logs", pod])
    }

    /// Look at an object until `look` finds something in it.
    pub fn wait<T>(
        &self,
        object: &str,
        what: &str,
        limit: Duration,
        look: impl Fn(&Value) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let found = wait(&format!("{object} {what}"), limit, || {
            self.get(object)?.map_or(Ok(None), |value| look(&value))
        });
        found.map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.dump()))
    }

    /// Wait until a pod is ready, and return its address.
    pub fn ready_pod(&self, pod: &str) -> anyhow::Result<IpAddr> {
        self.wait(&format!("pod/{pod}"), "ready", POD_TIMEOUT, |value| {
            let conditions = value["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            let address = value["status"]["podIP"].as_str().filter(|_| ready);
            address.map(|address| address.parse().context("the pod's address")).transpose()
        })
    }

    /// Wait until a pod has ended well, and return what it printed.
    pub fn output_of(&self, pod: &str) -> anyhow::Result<String> {
        self.wait(&format!("pod/{pod}"), "ended", POD_TIMEOUT, |value| {
            match value["status"]["phase"].as_str() {
                Some("Succeeded") => Ok(Some(())),
                Some("Failed") => bail!("it failed"),
                _ => Ok(None),
            }
        })?;
        self.logs(pod)
    }

    /// Everything that helps to see why something did not happen.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        let mut add = |title: &str, args: &[&str]| {
            let shown = self.run(args).unwrap_or_else(|error| format!("{error:#}\n"));
            // Writing to a string does not fail.
            write!(text, "--- {title}\n{shown}").ok();
        };
        add("objects", &["get", "all", "-o", "wide"]);
        add("events", &["get", "events", "--sort-by=.lastTimestamp"]);
        add(
            "states",
            &[
                "get",
                "pods",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}: \
                        {.status.containerStatuses}{\"\\n\"}{end}",
            ],
        );
        let pods = self.run(&["get", "pods", "-o", "name"]).unwrap_or_default();
        for pod in pods.lines() {
            add(&format!("log of {pod}"), &["logs", DUMP_LINES, "--all-containers", pod]);
        }
        text
    }

    /// Leave it to the end of its cluster, which the test stops itself.
    pub fn abandon(mut self) {
        self.gone = true;
    }

    /// Delete what is in it and wait until that is gone. The namespace itself goes later:
    /// its controller waits five seconds before it even looks.
    pub fn delete(self) -> anyhow::Result<()> {
        self.run(&["delete", "all", "--all", DELETE_TIMEOUT]).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let args = ["delete", "namespace", &self.name, "--wait=false"];
        // The cluster may be gone, and then so is the namespace.
        self.kubectl.run(&args).ok();
    }
}
