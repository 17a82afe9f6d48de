//! What `cargo xtask bench shim` has built and started for the benchmark.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::setup::path;

/// Executables and a containerd.
pub struct Parts {
    pub wick_shim: PathBuf,
    pub runc_shim: PathBuf,
    /// runwasi's wasmtime shim, measured beside the others when its path is given.
    pub runwasi_shim: Option<PathBuf>,
    /// A folder with `runc`, for PATH.
    pub runc_folder: PathBuf,
    /// A static program: see `benches/native`.
    pub native: PathBuf,
    /// Talks CRI: see `benches/cri`.
    pub cri: PathBuf,
    /// Imports images.
    pub ctr: PathBuf,
    /// The socket of the cluster's containerd.
    pub containerd: PathBuf,
    /// The control group that all others are made in.
    pub cgroup: String,
}

// === impl Parts ===

impl Parts {
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self {
            wick_shim: path("WICK_SHIM")?,
            runc_shim: path("WICK_RUNC_SHIM")?,
            runwasi_shim: std::env::var_os("WICK_RUNWASI_SHIM").map(PathBuf::from),
            runc_folder: path("WICK_RUNC_FOLDER")?,
            native: path("WICK_NATIVE")?,
            cri: path("WICK_CRI")?,
            ctr: path("WICK_CTR")?,
            containerd: path("WICK_CONTAINERD")?,
            cgroup: std::env::var("WICK_CGROUP").context("WICK_CGROUP is not set")?,
        })
    }
}
