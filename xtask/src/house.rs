//! Where everything is: the tree, the target folder, the caches. Read from `cargo metadata`
//! and the environment once; knows no command.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{onnxruntime, tools};

/// The tree and its folders.
pub struct House {
    pub root: PathBuf,
    pub target: PathBuf,
    /// What is fetched: `$XDG_CACHE_HOME` or `~/.cache`, then `wick`.
    pub cache: PathBuf,
    pub members: Vec<Package>,
    /// Whether cargo builds by `benches/profile.toml`.
    optimised: bool,
}

/// What `cargo metadata` says, as far as it is used here.
#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    /// None for a crate of this tree.
    pub source: Option<String>,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
    pub targets: Vec<Target>,
    /// `[package.metadata]`.
    #[serde(default)]
    pub metadata: serde_json::Value,
}

#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `dev`, `build`, or none for an ordinary one.
    pub kind: Option<String>,
    pub optional: bool,
    /// The `cfg(…)` that it is limited to.
    pub target: Option<String>,
}

#[derive(Deserialize)]
pub struct Target {
    pub crate_types: Vec<String>,
}

// === impl House ===

impl House {
    pub fn find() -> anyhow::Result<Self> {
        let metadata = Metadata::read(&["--no-deps"])?;
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        // The XDG specification says to ignore a relative one.
        let cache = match cache.filter(|folder| folder.is_absolute()) {
            Some(folder) => folder,
            None => env::home_dir().context("HOME is not set")?.join(".cache"),
        };
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
            cache: cache.join("wick"),
            members: metadata.packages,
            optimised: false,
        })
    }

    /// The same for who measures.
    pub fn optimised(self) -> Self {
        Self { optimised: true, ..self }
    }

    pub fn models(&self) -> PathBuf {
        self.cache.join("models")
    }

    pub fn backends(&self) -> PathBuf {
        self.cache.join("backends")
    }

    /// libonnxruntime, as a file.
    pub fn onnxruntime(&self) -> PathBuf {
        self.backends().join(onnxruntime::FOLDER).join(onnxruntime::LIBRARY)
    }

    /// Compiled guests of one WebAssembly target.
    pub fn guests(&self, target: &str) -> PathBuf {
        self.target.join(target).join("guest")
    }

    pub fn examples(&self) -> PathBuf {
        self.root.join("examples")
    }

    /// The `wick` that tests, demo and benchmarks run.
    pub fn wick(&self) -> PathBuf {
        self.target.join("debug/wick")
    }

    /// Cargo in the tree, with the variables that tests and benchmarks read.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // What `cargo run` set for xtask is not meant for the builds that it starts.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        if self.optimised {
            command.arg("--config").arg(self.root.join("benches/profile.toml"));
        }
        command.current_dir(&self.root);
        self.set_variables(&mut command);
        command
    }

    /// Tell a child where models, libraries and guests are.
    pub fn set_variables(&self, command: &mut Command) {
        command
            .env("WICK_MODELS", self.models())
            .env("WICK_ORT_DYLIB", self.onnxruntime())
            .env("WICK_GUESTS", self.guests(crate::guests::COMPONENT))
            .env("WICK_MODULES", self.guests(crate::guests::MODULE))
            .env("WICK_EXAMPLES", self.examples());
    }

    /// A path as the tree names it.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

// === impl Metadata ===

impl Metadata {
    /// All packages that this machine's build uses. The network is reached only for those
    /// that no build has needed yet.
    pub fn read_all() -> anyhow::Result<Self> {
        let platform = host()?;
        let platform = ["--filter-platform", platform.as_str()];
        Self::read(&["--offline", platform[0], platform[1]]).or_else(|_| Self::read(&platform))
    }

    /// Ask cargo; `args` say which part of the graph.
    pub fn read(args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["metadata", "--format-version", "1"]).args(args);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        let output = command.output().context("run cargo metadata")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo metadata: {}", error.trim());
        serde_json::from_slice(&output.stdout).context("read cargo metadata")
    }
}

/// The target triple of this machine.
fn host() -> anyhow::Result<String> {
    let text = tools::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}
