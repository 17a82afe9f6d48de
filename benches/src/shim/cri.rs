//! Pods by containerd's CRI, through the program in `benches/cri`.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::parts::Parts;

/// Where every pod answers.
const PORT: u16 = 8080;

/// A kind of pod.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub handler: &'static str,
    pub image: String,
    pub command: &'static [&'static str],
    pub path: &'static str,
    /// The body of a POST; a GET if empty.
    pub body: String,
    /// A text in the correct answer.
    pub wants: &'static str,
}

/// What one pod took, in milliseconds.
#[derive(Debug, Deserialize)]
pub struct Started {
    pub case: String,
    pub ip: IpAddr,
    pub sandbox: String,
    pub container: String,
    pub sandbox_ms: f64,
    pub create_ms: f64,
    pub start_ms: f64,
    pub first_answer_ms: f64,
}

/// Pods that run until this is dropped.
pub struct Held {
    pub pods: Vec<Started>,
    child: Child,
    /// Its end tells the program to remove the pods.
    stdin: Option<ChildStdin>,
}

/// Start and remove pods, the cases in turns.
pub fn rounds(
    parts: &Parts,
    scratch: &Path,
    cases: &[Case],
    rounds: usize,
) -> anyhow::Result<Vec<Started>> {
    let mut command = command(parts, scratch, cases)?;
    let output =
        command.args(["-rounds", &rounds.to_string()]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "benches/cri failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Start `count` pods of each case and keep them.
pub fn hold(parts: &Parts, scratch: &Path, cases: &[Case], count: usize) -> anyhow::Result<Held> {
    let mut command = command(parts, scratch, cases)?;
    command.args(["-hold", &count.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().context("no standard output")?;
    let mut held = Held { pods: Vec::new(), child, stdin };
    for line in BufReader::new(stdout).lines().take(cases.len() * count) {
        held.pods.push(serde_json::from_str(&line?)?);
    }
    ensure!(held.pods.len() == cases.len() * count, "benches/cri started too few pods");
    Ok(held)
}

fn command(parts: &Parts, scratch: &Path, cases: &[Case]) -> anyhow::Result<Command> {
    let file = scratch.join("cases.json");
    let cases: Vec<Value> = cases.iter().map(Case::json).collect();
    std::fs::write(&file, serde_json::to_vec(&cases)?)?;
    let mut command = Command::new(&parts.cri);
    command
        .arg("-endpoint")
        .arg(&parts.containerd)
        .arg("-cgroup")
        .arg(&parts.cgroup)
        .arg("-cases")
        .arg(&file);
    Ok(command)
}

// === impl Case ===

impl Case {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "handler": self.handler,
            "image": self.image,
            "command": self.command,
            "port": PORT,
            "path": self.path,
            "body": self.body,
            "wants": self.wants,
        })
    }
}

// === impl Started ===

impl Started {
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PORT)
    }

    /// The three calls of the CRI.
    pub fn total_ms(&self) -> f64 {
        self.sandbox_ms + self.create_ms + self.start_ms
    }
}

// === impl Held ===

impl Held {
    /// Remove the pods.
    ///
    /// # Errors
    /// One could not be removed.
    pub fn release(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "benches/cri failed: {status}");
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // After an error, too, the pods go: the program ends with its standard input.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
