use std::fs;

use super::*;

/// A root folder with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

/// As an H100 in a virtual machine shows: no DRM at all.
const H100: [(&str, &str); 8] = [
    ("sys/bus/pci/devices/0000:00:06.0/class", "0x030200\n"),
    ("sys/bus/pci/devices/0000:00:06.0/vendor", "0x10de\n"),
    ("sys/bus/pci/devices/0000:00:06.0/uevent", "DRIVER=nvidia\nPCI_SLOT_NAME=0000:00:06.0\n"),
    ("sys/bus/pci/devices/0000:00:01.0/class", "0x020000\n"),
    (
        "proc/driver/nvidia/gpus/0000:00:06.0/information",
        "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 41\nBus Location: \t 0000:00:06.0\n\
         Device Minor: \t 0\n",
    ),
    (
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\n\
         GCC version:  gcc version 15.3.0 (GCC)\n",
    ),
    ("proc/cpuinfo", "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R)\n"),
    ("proc/meminfo", "MemTotal:       131072 kB\nMemFree: 1 kB\n"),
];

#[test]
fn an_nvidia_gpu_is_known_without_drm_and_granted_by_its_files() {
    let root = root(&H100);
    let found = Inventory::read(root.path());
    let [cpu, gpu] = &found.devices[..] else { panic!("{found:?}") };
    assert_eq!((cpu.kind, cpu.vendor.as_deref()), (DeviceKind::Cpu, Some("intel")));
    assert_eq!((cpu.memory, cpu.granted), (Some(131_072 << 10), true));
    assert_eq!((gpu.kind, gpu.vendor.as_deref()), (DeviceKind::Gpu, Some("nvidia")));
    assert_eq!(gpu.name.as_deref(), Some("NVIDIA H100 80GB HBM3"));
    assert_eq!(gpu.driver.as_deref(), Some("nvidia 580.159.04"));
    assert_eq!(gpu.nodes, ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
    // The machine has it, and this container was not given it.
    assert!(!gpu.granted);
    fs::create_dir(root.path().join("dev")).unwrap();
    for node in ["nvidia0", "nvidiactl"] {
        fs::write(root.path().join("dev").join(node), "").unwrap();
        assert!(!Inventory::read(root.path()).devices[1].granted);
    }
    fs::write(root.path().join("dev/nvidia-uvm"), "").unwrap();
    assert!(Inventory::read(root.path()).devices[1].granted);
}

#[test]
fn devices_of_a_chip_a_card_and_an_npu_are_told_apart_from_a_mere_screen() {
    let root = root(&[
        // AMD's card, with its memory and a render node.
        ("sys/bus/pci/devices/0000:03:00.0/class", "0x030000"),
        ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x1002"),
        ("sys/bus/pci/devices/0000:03:00.0/uevent", "DRIVER=amdgpu"),
        ("sys/bus/pci/devices/0000:03:00.0/mem_info_vram_total", "17163091968\n"),
        ("sys/bus/pci/devices/0000:03:00.0/drm/renderD128/dev", "226:128"),
        ("sys/bus/pci/devices/0000:03:00.0/drm/card0/dev", "226:0"),
        ("sys/class/drm/renderD128/device/uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0"),
        // Intel's NPU.
        ("sys/bus/pci/devices/0000:00:0b.0/class", "0x120000"),
        ("sys/bus/pci/devices/0000:00:0b.0/vendor", "0x8086"),
        ("sys/bus/pci/devices/0000:00:0b.0/uevent", "DRIVER=intel_vpu"),
        ("sys/bus/pci/devices/0000:00:0b.0/accel/accel0/dev", "261:0"),
        // A server's screen.
        ("sys/bus/pci/devices/0000:02:00.0/class", "0x030000"),
        ("sys/bus/pci/devices/0000:02:00.0/vendor", "0x1a03"),
        ("sys/bus/pci/devices/0000:02:00.0/uevent", "DRIVER=ast"),
        // A GPU inside an ARM chip.
        (
            "sys/class/drm/renderD129/device/uevent",
            "DRIVER=panfrost\nOF_COMPATIBLE_0=arm,mali-g52\n",
        ),
    ]);
    let found = Inventory::read(root.path());
    let shown = found.devices.iter().skip(1).map(|device| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (device.kind, text(&device.vendor), text(&device.driver), device.nodes.join(" "))
    });
    let shown: Vec<_> = shown.collect();
    let of = |kind, vendor: &str, driver: &str, node: &str| {
        (kind, vendor.to_owned(), driver.to_owned(), node.to_owned())
    };
    assert_eq!(
        shown,
        [
            of(DeviceKind::Npu, "intel", "intel_vpu", "/dev/accel/accel0"),
            of(DeviceKind::Gpu, "amd", "amdgpu", "/dev/dri/renderD128"),
            of(DeviceKind::Gpu, "arm", "panfrost", "/dev/dri/renderD129"),
        ]
    );
    assert_eq!(found.devices[2].memory, Some(17_163_091_968));
}

#[test]
fn cdi_names_come_from_the_device_file_and_a_bad_specification_is_left_out() {
    let spec = r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
        {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}]}},
        {"name": "all", "containerEdits": {"deviceNodes": [
            {"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]}}]}"#;
    // As NVIDIA's tool writes it.
    let yaml = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/pgpu\ndevices:\n    - name: \"0\"\n      \
                containerEdits:\n        deviceNodes:\n            - path: /dev/nvidia0\n";
    let more = [
        ("etc/cdi/a.json", spec),
        ("etc/cdi/nvidia.yaml", yaml),
        ("var/run/cdi/b.json", "{"),
        ("var/run/cdi/c.yaml", "kind: ["),
        ("var/run/cdi/d.txt", spec),
    ];
    let files = [H100.as_slice(), &more];
    let root = root(&files.concat());
    let found = Inventory::read(root.path());
    assert_eq!(
        found.devices[1].cdi,
        ["nvidia.com/gpu=0", "nvidia.com/gpu=all", "nvidia.com/pgpu=0"]
    );
}

#[test]
fn a_backends_device_is_found_by_its_address() {
    let root = root(&H100);
    let found = Inventory::read(root.path());
    let gpu = |pci: Option<&str>| Device {
        kind: DeviceKind::Gpu,
        pci: pci.map(str::to_owned),
        ..Device::cpu("p")
    };
    assert_eq!(found.index(&gpu(Some("0000:00:06.0"))), Some(1));
    assert_eq!(found.index(&gpu(Some("0000:00:07.0"))), None);
    assert_eq!(found.index(&gpu(None)), None);
    assert_eq!(found.index(&Device::cpu("p")), Some(0));
}

#[test]
fn an_empty_machine_has_a_cpu() {
    let root = root(&[]);
    let found = Inventory::read(root.path());
    assert_eq!(found.devices.len(), 1);
    assert_eq!(found.devices[0].name, None);
}
