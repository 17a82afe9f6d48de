//! What can compute in this machine, read from the kernel's files: no driver and no provider
//! is loaded for it.
//!
//! ```text
//!   /sys/bus/pci/devices ─┐
//!   /sys/class/drm, accel ┼▶ kind, vendor, driver, device file ─▶ granted: the file opens
//!   /proc/driver/nvidia ──┘         │
//!   /etc/cdi, /var/run/cdi ─────────┘ names for containers
//! ```
//!
//! Containers see the whole machine in `/sys`; what was granted to them is in `/dev` alone.

mod cdi;
mod kernel;
mod nvidia;

use std::path::Path;

use wick_package::DeviceKind;

use crate::backend::Device;

/// What can compute, the CPU first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub devices: Vec<Hardware>,
}

/// One of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hardware {
    pub kind: DeviceKind,
    /// As `wick.toml` spells it.
    pub vendor: Option<String>,
    /// As driver or processor say; none where nothing says it.
    pub name: Option<String>,
    /// Bytes of its own memory, or of the machine's for a CPU; none where the kernel has no
    /// file that tells.
    pub memory: Option<u64>,
    /// The kernel's driver and its version, if it has one of its own.
    pub driver: Option<String>,
    /// Its place on the PCI bus.
    pub pci: Option<String>,
    /// Files by which it is used.
    pub nodes: Vec<String>,
    /// Whether this process may use all of `nodes`. A CPU is always granted.
    pub granted: bool,
    /// What CDI specifications call it.
    pub cdi: Vec<String>,
    /// Providers and backends that can use it; filled by who knows them.
    pub providers: Vec<String>,
}

// === impl Inventory ===

impl Inventory {
    /// This machine's.
    pub fn detect() -> Self {
        Self::read(Path::new("/"))
    }

    /// What the files below `root` say.
    pub fn read(root: &Path) -> Self {
        let mut devices = kernel::devices(root);
        nvidia::complete(root, &mut devices);
        // A screen without compute has a driver, and no file to compute with.
        devices.retain(|device| !device.nodes.is_empty() || device.driver.is_none());
        let specs = cdi::read(root);
        for device in &mut devices {
            device.granted = !device.nodes.is_empty()
                && device.nodes.iter().all(|node| kernel::may_use(root, node));
            device.cdi = cdi::names_of(&specs, &device.nodes);
        }
        devices.insert(0, kernel::cpu(root));
        Self { devices }
    }

    /// Note that a provider can use a device. What the kernel's files don't show becomes an
    /// entry of its own.
    pub(crate) fn add(&mut self, device: &Device) {
        let index = self.index(device).unwrap_or_else(|| {
            self.devices.push(Hardware {
                vendor: device.vendor.clone(),
                pci: device.pci.clone(),
                granted: true,
                ..Hardware::unknown(device.kind)
            });
            self.devices.len() - 1
        });
        if let Some(hardware) = self.devices.get_mut(index) {
            hardware.providers.push(device.provider.clone());
        }
    }

    /// The hardware behind what a backend lists, if it can be told.
    pub fn of(&self, device: &Device) -> Option<&Hardware> {
        let index = self.index(device)?;
        self.devices.get(index)
    }

    /// Where that is.
    pub(crate) fn index(&self, device: &Device) -> Option<usize> {
        let is_it = |hardware: &Hardware| {
            hardware.kind == device.kind
                && match (&hardware.pci, &device.pci) {
                    (Some(own), Some(its)) => own == its,
                    (None, None) => true,
                    _ => false,
                }
        };
        self.devices.iter().position(is_it)
    }
}

/// A vendor's name in `wick.toml` by its number on the PCI bus or in Vulkan.
pub(crate) fn vendor(id: u32) -> Option<&'static str> {
    Some(match id {
        0x10de => "nvidia",
        0x8086 => "intel",
        0x1002 | 0x1022 => "amd",
        0x13b5 => "arm",
        0x5143 | 0x17cb | 0x4d4f_4351 => "qualcomm",
        0x1e60 => "hailo",
        0x1ac1 => "google",
        0x1_0005 => "mesa",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
