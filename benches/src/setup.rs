//! Where the parts are that `cargo xtask setup` fetched and built.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Files that the benchmarks use.
pub struct Setup {
    /// The `wick` executable under test.
    pub wick: PathBuf,
    /// libonnxruntime, for wick and for the floor that it is compared with.
    pub onnxruntime: PathBuf,
    pub models: PathBuf,
    /// Compiled components.
    pub guests: PathBuf,
    /// The `filetype` example as a package folder.
    pub filetype: PathBuf,
    /// Generated packages and caches; removed at the end.
    pub scratch: tempfile::TempDir,
}

impl Setup {
    /// Read the variables that `cargo xtask bench` sets.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self {
            wick: path("WICK_BIN")?,
            onnxruntime: path("WICK_ORT_DYLIB")?,
            models: path("WICK_MODELS")?,
            guests: path("WICK_GUESTS")?,
            filetype: path("WICK_EXAMPLES")?.join("filetype"),
            scratch: tempfile::tempdir()?,
        })
    }

    /// A folder of its own for what a bar generates.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.scratch.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A small real file for the filetype model.
    pub fn sample(&self) -> &'static [u8] {
        SAMPLE.as_bytes()
    }
}

/// Python source: long enough that head, middle and tail of the file differ.
const SAMPLE: &str = include_str!("sample.py");

pub fn path(variable: &str) -> anyhow::Result<PathBuf> {
    let value = std::env::var_os(variable)
        .with_context(|| format!("{variable} is not set: run it by `cargo xtask bench`"))?;
    let path = Path::new(&value).to_owned();
    anyhow::ensure!(path.exists(), "{variable} is {}, which does not exist", path.display());
    Ok(path)
}
