//! What one says to a running cluster: orders to its supervisor, `kubectl`, `ctr`, and
//! programs that run inside its namespaces. Decides nothing about when.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::instance::{Place, Record};
use super::processes;

/// Longest that an order takes: stopping everything waits for each daemon in turn.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest that one request to the API server takes.
const REQUEST_TIMEOUT: &str = "--request-timeout=10s";

/// Give an order and wait until it is done.
pub fn order(place: &Place, order: &str) -> anyhow::Result<()> {
    let path = place.control_socket();
    let answer = ask(&path, order).with_context(|| {
        format!("`{order}` to the cluster {} by {}", place.name.as_str(), path.display())
    })?;
    ensure!(answer == "ok", "`{order}`: {answer}");
    Ok(())
}

/// kubectl as the cluster's administrator.
pub fn kubectl(place: &Place) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("--kubeconfig").arg(place.kubeconfig()).arg(REQUEST_TIMEOUT);
    kubectl
}

/// containerd's own client, in the namespace where the kubelet looks for images.
pub fn ctr(place: &Place, bin: &Path) -> Command {
    let mut ctr = Command::new(bin.join("ctr"));
    ctr.arg("--address").arg(place.containerd_socket()).args(["--namespace", "k8s.io"]);
    ctr
}

/// A program inside the cluster's namespaces: it sees its processes, mounts and network.
pub fn inside(record: &Record) -> anyhow::Result<Command> {
    let inner = processes::child_of(record.supervisor.pid);
    let inner = inner.filter(|_| record.supervisor.is_alive());
    let inner = inner.with_context(|| {
        let name = record.name.as_str();
        format!("the cluster {name} does not run: cargo xtask cluster up {name}")
    })?;
    let mut enter = Command::new("nsenter");
    enter.args(["--pid", "--mount", "--net", "--target", &inner.to_string(), "--"]);
    Ok(enter)
}

fn ask(path: &Path, order: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(path).context("connect")?;
    stream.set_read_timeout(Some(ORDER_TIMEOUT))?;
    stream.write_all(format!("{order}\n").as_bytes()).context("send")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("wait for the answer")?;
    Ok(answer.trim_end().to_owned())
}
