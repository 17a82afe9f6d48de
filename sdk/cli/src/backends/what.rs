//! What can be installed: ONNX Runtime, or a provider of its table.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context as _;
use wick_nn::providers::{self, PROVIDERS, Provider};

use super::wheel::{self, Pin};
use super::{DEFAULT_VERSION, Origin};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// How ONNX Runtime's library is called, before its version.
const LIBRARY: &str = "libonnxruntime.so.";

/// The version of what came from a folder, which has none in its name.
const LOCAL: &str = "local";

/// What can be installed.
#[derive(Debug, Clone, Copy)]
pub enum What {
    OnnxRuntime,
    Provider(&'static Provider),
}

// === impl What ===

impl What {
    /// Everything that can be installed, by name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ["onnxruntime"].into_iter().chain(PROVIDERS.map(|provider| provider.name))
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Provider(provider) => provider.name,
        }
    }

    /// The version that wick is built and tested with.
    pub const fn version(self) -> &'static str {
        match self {
            Self::OnnxRuntime => DEFAULT_VERSION,
            Self::Provider(provider) => provider.version,
        }
    }

    /// The folder of a version.
    pub(super) fn folder(self, version: &str) -> String {
        format!("{}-{version}", self.name())
    }

    /// The file that makes an installation complete.
    pub(super) fn library(self, version: &str) -> String {
        match self {
            Self::OnnxRuntime => format!("{LIBRARY}{version}"),
            Self::Provider(provider) => provider.library.to_owned(),
        }
    }

    /// Whether a file of a wheel is part of it.
    pub(super) fn keeps(self, name: &str) -> bool {
        match self {
            Self::OnnxRuntime => wheel::is_library(name),
            Self::Provider(provider) => provider.files.iter().any(|start| name.starts_with(start)),
        }
    }

    /// The wheel of a version.
    pub(super) fn pin(self, version: &str, arch: &str) -> Outcome<Pin> {
        match self {
            Self::OnnxRuntime => wheel::pin(version, arch).copied(),
            Self::Provider(provider) => wheel::of_provider(provider, version, arch),
        }
    }

    /// The version of what was unpacked.
    pub(super) fn version_in(self, folder: &Path, origin: &Origin) -> Outcome<String> {
        let missing = |library: String| {
            let text = format!("there is no {library} in it");
            let help = format!("give a wheel of {} for Linux, or a folder with it", self.name());
            Failure::new(Exit::BadData, "no-library", text).help(help)
        };
        let Self::Provider(provider) = self else {
            let names = fs::read_dir(folder).context("cannot read what was unpacked")?.flatten();
            let names = names.filter_map(|entry| entry.file_name().into_string().ok());
            let mut versions =
                names.filter_map(|name| name.strip_prefix(LIBRARY).map(str::to_owned));
            let version = versions.find(|version| version.contains('.'));
            return version.ok_or_else(|| missing(format!("{LIBRARY}VERSION")));
        };
        if !folder.join(provider.library).is_file() {
            return Err(missing(provider.library.to_owned()));
        }
        Ok(match origin {
            Origin::PyPi(version) => version.clone(),
            // NAME-VERSION-TAGS.whl
            Origin::Local(path) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let version = name.strip_suffix(".whl").and_then(|name| name.split('-').nth(1));
                version.unwrap_or(LOCAL).to_owned()
            }
        })
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "onnxruntime" {
            return Ok(Self::OnnxRuntime);
        }
        let names: Vec<_> = Self::names().collect();
        let unknown = || format!("wick knows {}", names.join(", "));
        providers::named(text).map(Self::Provider).ok_or_else(unknown)
    }
}
