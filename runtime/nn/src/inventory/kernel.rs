//! GPUs and NPUs of the PCI bus, those that are part of the chip, and the CPU.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};
use wick_package::DeviceKind;

use super::{Hardware, vendor};

/// Entries of a folder in /sys that are looked at.
const MAX_ENTRIES: usize = 4096;

/// All devices but the CPU, in the order of their addresses.
pub(super) fn devices(root: &Path) -> Vec<Hardware> {
    let pci = names(&root.join("sys/bus/pci/devices"));
    let pci = pci.iter().filter_map(|address| on_pci(root, address));
    pci.chain(on_chip(root, "drm", DeviceKind::Gpu))
        .chain(on_chip(root, "accel", DeviceKind::Npu))
        .collect()
}

/// The processor.
pub(super) fn cpu(root: &Path) -> Hardware {
    let info = text(&root.join("proc/cpuinfo"));
    let field = |name: &str| field(&info, name);
    let vendor = match field("vendor_id").as_deref() {
        Some("AuthenticAMD") => Some("amd"),
        Some("GenuineIntel") => Some("intel"),
        _ => None,
    };
    let memory = self::field(&text(&root.join("proc/meminfo")), "MemTotal");
    let kib = memory.and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
    Hardware {
        vendor: vendor.map(str::to_owned),
        name: field("model name"),
        memory: kib.map(|kib| kib * 1024),
        granted: true,
        ..Hardware::unknown(DeviceKind::Cpu)
    }
}

/// Whether this process may open a device file for reading and writing.
pub(super) fn may_use(root: &Path, node: &str) -> bool {
    access(root.join(node.trim_start_matches('/')), Access::READ_OK | Access::WRITE_OK).is_ok()
}

fn on_pci(root: &Path, address: &str) -> Option<Hardware> {
    let folder = root.join("sys/bus/pci/devices").join(address);
    let class = hex(&folder.join("class"))?;
    // Display controllers, and processing accelerators.
    let kind = match class >> 16 {
        0x03 => DeviceKind::Gpu,
        0x12 => DeviceKind::Npu,
        _ => return None,
    };
    let id = hex(&folder.join("vendor"))?;
    let own = |folder: &Path, start: &str, below: &str| -> Vec<String> {
        let own = names(folder).into_iter().filter(|name| name.starts_with(start));
        own.map(|name| format!("{below}/{name}")).collect()
    };
    let mut nodes = own(&folder.join("drm"), "renderD", "/dev/dri");
    nodes.extend(own(&folder.join("accel"), "accel", "/dev/accel"));
    let name = Some(text(&folder.join("product_name")).trim().to_owned());
    Some(Hardware {
        vendor: Some(vendor(id).map_or_else(|| format!("pci-{id:04x}"), str::to_owned)),
        name: name.filter(|name| !name.is_empty()),
        memory: text(&folder.join("mem_info_vram_total")).trim().parse().ok(),
        driver: field(&text(&folder.join("uevent")), "DRIVER"),
        pci: Some(address.to_owned()),
        nodes,
        ..Hardware::unknown(kind)
    })
}

/// Devices of a class that are not on the PCI bus.
fn on_chip(root: &Path, class: &str, kind: DeviceKind) -> Vec<Hardware> {
    let folder = root.join("sys/class").join(class);
    let (start, nodes) =
        if class == "drm" { ("renderD", "/dev/dri") } else { ("accel", "/dev/accel") };
    let own = names(&folder).into_iter().filter(|name| name.starts_with(start));
    let device = |name: String| {
        let uevent = text(&folder.join(&name).join("device/uevent"));
        if field(&uevent, "PCI_SLOT_NAME").is_some() {
            return None;
        }
        let compatible = field(&uevent, "OF_COMPATIBLE_0");
        let vendor = compatible.as_deref().and_then(|text| text.split_once(','));
        let vendor = vendor.map(|(vendor, _)| match vendor {
            "qcom" => "qualcomm".to_owned(),
            other => other.to_owned(),
        });
        Some(Hardware {
            vendor,
            name: compatible,
            driver: field(&uevent, "DRIVER"),
            nodes: vec![format!("{nodes}/{name}")],
            ..Hardware::unknown(kind)
        })
    };
    own.filter_map(device).collect()
}

/// The value of `name` in lines of `name: value` or `name=value`.
pub(super) fn field(lines: &str, name: &str) -> Option<String> {
    let mut values = lines.lines().filter_map(|line| {
        let (key, value) = line.split_once([':', '='])?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    values.next().filter(|value| !value.is_empty())
}

/// What is in a folder, in order.
pub(super) fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A file's text; of one that can't be read, none.
pub(super) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn hex(path: &Path) -> Option<u32> {
    u32::from_str_radix(text(path).trim().trim_start_matches("0x"), 16).ok()
}

// === impl Hardware ===

impl Hardware {
    pub(super) fn unknown(kind: DeviceKind) -> Self {
        Self {
            kind,
            vendor: None,
            name: None,
            memory: None,
            driver: None,
            pci: None,
            nodes: Vec::new(),
            granted: false,
            cdi: Vec::new(),
            providers: Vec::new(),
        }
    }
}
