//! Packages, commands and servers for the tests.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wick_testing::onnx;

/// Longest wait for a server or a process: generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of a test's own.
pub struct Sandbox(pub tempfile::TempDir);

/// A running `wick run`.
pub struct Server {
    pub child: Child,
    pub ready: Value,
}

impl Sandbox {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `y = x + 1` on FP32 `[-1, 4]`, without a handler.
    pub fn package(&self, name: &str) -> PathBuf {
        self.package_of(name, &onnx::add_scalar(1.0, &[-1, 4]), "")
    }

    /// A package without a handler, with more keys for its graph.
    pub fn package_of(&self, name: &str, model: &[u8], graph: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.2.3\"\n\n\
             [[graph]]\nname = \"g\"\npath = \"model.onnx\"\n{graph}\n"
        );
        fs::write(dir.join("wick.toml"), manifest).unwrap();
        fs::write(dir.join("model.onnx"), model).unwrap();
        dir
    }

    /// `wick` with folders of its own, so that nothing of this user is read or written.
    pub fn wick(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wick"));
        command.args(args).current_dir(self.0.path());
        command.env("HOME", self.path("home"));
        for variable in [
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
            "RUST_LOG",
            "WICK_ADDR",
            "WICK_BACKENDS",
            "WICK_ORT_DYLIB",
            "WICK_SDK",
            "MLFLOW_TRACKING_URI",
            "WICK_POLICY",
            "WICK_KEY_PASSPHRASE",
            "WICK_STORE",
            "WICK_PLAIN_HTTP",
            "WICK_MIRRORS",
            "WICK_REGISTRY_CA",
            "WICK_REGISTRY_USER",
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
        ] {
            command.env_remove(variable);
        }
        command.env("WICK_SIGNATURES", self.path("signatures"));
        command.env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.wick(args).output().unwrap()
    }

    /// Run it, expect success, and read its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--output", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Start `wick run` on a free port and wait until it is ready.
    pub fn serve(&self, args: &[&str]) -> Server {
        let base = ["run", "--addr", "127.0.0.1:0", "--output", "json"];
        let mut command = self.wick(&[&base, args].concat());
        // Its log belongs to the test's own output.
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}"));
        Server { child, ready }
    }
}

impl Server {
    pub fn url(&self) -> &str {
        self.ready["url"].as_str().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Wait for the end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// All that a process said, for messages.
pub fn text(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    format!("{stdout}{}", String::from_utf8_lossy(&output.stderr))
}

pub fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}
