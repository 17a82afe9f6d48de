//! The registry, and `wick` as its client.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::setup::Setup;

/// Longest wait for the registry to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are written at once.
const CHUNK: usize = 1 << 20;

/// A running registry.
pub struct Part {
    pub addr: SocketAddr,
    child: Child,
}

// === impl Part ===

impl Part {
    pub fn start(executable: &Path, folder: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        drop(listener);
        let file = folder.join("config.yml");
        let data = folder.join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{addr}', secret: bench}}\n",
            data.display()
        );
        fs::write(&file, config)?;
        let mut command = Command::new(executable);
        command.arg("serve").arg(file).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let part = Self { addr, child };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(part)
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/bench/{name}", self.addr)
    }

    /// Push a package with weights of these lengths.
    pub fn push(
        &self,
        setup: &Setup,
        name: &str,
        component: &str,
        weights: &[u64],
    ) -> anyhow::Result<Value> {
        let package =
            package(&setup.folder(name.split(':').next().unwrap_or(name))?, component, weights)?;
        let package = package.to_str().context("a path that is no text")?;
        let store = setup.folder("push")?;
        let store = store.to_str().context("a path that is no text")?;
        wick(setup, &["push", package, &self.image(name), "--plain-http", "--store", store])
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A `wick` with nothing of this user.
pub fn command(setup: &Setup, args: &[&str]) -> Command {
    let mut command = Command::new(&setup.wick);
    command.args(args).args(["--output", "json"]).env("HOME", setup.scratch.path());
    for variable in ["XDG_DATA_HOME", "WICK_STORE", "WICK_MIRRORS", "WICK_PLAIN_HTTP"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Run it, and read its JSON.
pub fn wick(setup: &Setup, args: &[&str]) -> anyhow::Result<Value> {
    let output = command(setup, args).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wick {args:?}: {said}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("wick {args:?}: {said}"))
}

/// A package folder. Nothing loads the weights, which don't compress and don't repeat.
fn package(folder: &Path, component: &str, weights: &[u64]) -> anyhow::Result<PathBuf> {
    let mut manifest = "[package]\nname = \"bench\"\nversion = \"1.0.0\"\n\
                        [handler]\ncomponent = \"handler.wasm\"\n\
                        [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1]\n"
        .to_owned();
    for (number, len) in weights.iter().enumerate() {
        manifest += &format!("[[graph]]\nname = \"g{number}\"\npath = \"{number}.onnx\"\n");
        let path = folder.join(format!("{number}.onnx"));
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == *len) {
            continue;
        }
        let mut file = fs::File::create(path)?;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number as u64 + 1);
        let mut left = *len;
        while left > 0 {
            let mut chunk = vec![0_u8; CHUNK];
            for word in chunk.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            chunk.truncate(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
            file.write_all(&chunk)?;
            left -= chunk.len() as u64;
        }
    }
    fs::write(folder.join("wick.toml"), manifest)?;
    fs::write(folder.join("handler.wasm"), component)?;
    Ok(folder.to_owned())
}
