//! `kubectl get --watch`: a line for each change of an object, as soon as the API server tells it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use wick_e2e::kubectl::Kubectl;

/// Ended when dropped.
pub struct Watch(Child);

// === impl Watch ===

impl Watch {
    /// Watch what `kubectl get` with these words gets, and call `note` with each line and when it came.
    pub fn start(
        kubectl: &Kubectl,
        namespace: &str,
        words: &[&str],
        mut note: impl FnMut(&str, Instant) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(kubectl.kubeconfig());
        command.args(["--namespace", namespace, "get", "--watch"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("watch with kubectl")?;
        let stdout = child.stdout.take().context("kubectl has no standard output")?;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                note(&line, Instant::now());
            }
        });
        Ok(Self(child))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
