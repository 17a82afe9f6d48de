//! Devices that only some machines have: the checks are the same everywhere, and say "no such device" where there
//! is none.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Checks, MODELS, QUANTISED};
use crate::tools;

/// A device and what runs graphs on it.
struct Silicon {
    provider: &'static str,
    /// What ONNX Runtime calls the provider.
    registered: &'static str,
    kind: &'static str,
    vendor: &'static str,
    /// Whether it wants quantised graphs.
    quantised: bool,
}

const SILICON: [Silicon; 5] = [
    Silicon {
        provider: "tensorrt-rtx",
        registered: "NvTensorRTRTXExecutionProvider",
        kind: "gpu",
        vendor: "nvidia",
        quantised: false,
    },
    Silicon {
        provider: "openvino",
        registered: "OpenVINOExecutionProvider",
        kind: "gpu",
        vendor: "intel",
        quantised: false,
    },
    Silicon {
        provider: "openvino",
        registered: "OpenVINOExecutionProvider",
        kind: "npu",
        vendor: "intel",
        quantised: false,
    },
    Silicon {
        provider: "openvino",
        registered: "OpenVINOExecutionProvider",
        kind: "cpu",
        vendor: "intel",
        quantised: false,
    },
    Silicon {
        provider: "qnn",
        registered: "QNNExecutionProvider",
        kind: "npu",
        vendor: "qualcomm",
        quantised: true,
    },
];

impl Checks<'_> {
    /// Compare what is here with the CPU, and say what is not. How many models were compared.
    pub(super) fn silicon(&self) -> anyhow::Result<u64> {
        let mut compared = 0;
        for silicon in &SILICON {
            let Silicon { provider, kind, vendor, .. } = silicon;
            if !self.lists(silicon, |_| true)? {
                println!("{provider}: no such device: this machine has no {kind} of {vendor}'s");
                continue;
            }
            super::install(self.house, provider)?;
            let uses = |device: &Value| {
                let mut providers = device["providers"].as_array().into_iter().flatten();
                providers.any(|provider| provider == silicon.registered)
            };
            if !self.lists(silicon, uses)? {
                println!("{provider}: no such device: the {kind} of {vendor}'s is none it can use");
                continue;
            }
            for (package, shape) in self.packages(silicon)? {
                let mut wick = self.wick();
                wick.args(["verify-device", "--output", "json", "--device", kind]).arg(&package);
                wick.args(shape.iter().flat_map(|shape| ["--shape", shape]));
                let text = tools::output(&mut wick)?;
                ensure!(text.contains(silicon.registered), "another provider has run: {text}");
                println!("{provider}: {}", text.trim());
                compared += 1;
            }
        }
        Ok(compared)
    }

    /// Whether `wick devices` lists such a device that this process may use.
    fn lists(&self, silicon: &Silicon, suits: impl Fn(&Value) -> bool) -> anyhow::Result<bool> {
        let text = tools::output(self.wick().args(["devices", "--output", "json"]))?;
        let line = text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = line.with_context(|| format!("`wick devices` has said {text}"))?;
        let mut devices = found["devices"].as_array().into_iter().flatten();
        Ok(devices.any(|device| {
            let named = device["kind"] == silicon.kind && device["vendor"] == silicon.vendor;
            named && device["granted"] == true && suits(device)
        }))
    }

    /// Packages that insist on the provider, so that no other one of the same device answers for it.
    fn packages(&self, silicon: &Silicon) -> anyhow::Result<Vec<(PathBuf, Option<&'static str>)>> {
        if silicon.quantised {
            let model = self.house.root.join(QUANTISED);
            return Ok(vec![(self.insisting(silicon, "silicon", &model, "1.0")?, None)]);
        }
        let packages = MODELS.iter().map(|model| {
            let package = self.insisting(silicon, model.name, &self.model(model), model.share)?;
            Ok((package, model.shape))
        });
        packages.collect()
    }

    fn insisting(
        &self,
        silicon: &Silicon,
        name: &str,
        model: &Path,
        share: &str,
    ) -> anyhow::Result<PathBuf> {
        let package = self.write(name, model, silicon.kind, share)?;
        self.insist(&package, silicon.provider)?;
        Ok(package)
    }
}
