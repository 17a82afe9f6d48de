//! What NVIDIA's driver tells beside the kernel's own files.

use std::path::Path;

use super::Hardware;
use super::kernel::{field, names, text};

/// Files that every NVIDIA GPU needs beside its own.
const SHARED: [&str; 2] = ["/dev/nvidiactl", "/dev/nvidia-uvm"];

/// Add name, driver's version and device files to the GPUs that the driver has.
pub(super) fn complete(root: &Path, devices: &mut [Hardware]) {
    let proc = root.join("proc/driver/nvidia");
    let version = version(&text(&proc.join("version")));
    for address in names(&proc.join("gpus")) {
        let is_it = |device: &&mut Hardware| device.pci.as_ref() == Some(&address);
        let Some(device) = devices.iter_mut().find(is_it) else { continue };
        let information = text(&proc.join("gpus").join(&address).join("information"));
        device.name = field(&information, "Model");
        device.driver = Some(match &version {
            Some(version) => format!("nvidia {version}"),
            None => "nvidia".to_owned(),
        });
        if let Some(minor) = field(&information, "Device Minor") {
            device.nodes = vec![format!("/dev/nvidia{minor}")];
            device.nodes.extend(SHARED.map(str::to_owned));
        }
    }
}

/// `580.159.04` of the line that describes the kernel module.
fn version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version = |word: &&str| {
        word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    line.split_whitespace().find(is_version).map(str::to_owned)
}
