//! What a spec may ask for and a worker or the pause process can't give.

use oci_spec::runtime::{Capability, LinuxCapabilities, Spec};

use super::{Facts, Kind, Refusal};

/// What containerd gives every container that asks for nothing. A worker drops all of it; to
/// ask for more is to ask for something that it will not have.
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

pub fn check(kind: Kind, spec: &Spec, facts: &Facts, refusals: &mut Vec<Refusal>) {
    let mut refuse = |field: &str, why: &str| refusals.push(Refusal::new(field, why));
    if kind == Kind::Wasm {
        if facts.terminal {
            refuse("process.terminal", "a wick container has no terminal: leave out `tty`");
        }
        for (field, uri) in [("stdout", &facts.stdout), ("stderr", &facts.stderr)] {
            if uri.contains("://") && !uri.starts_with("file://") && !uri.starts_with("fifo://") {
                refuse(field, "only a FIFO and `file://` take the output of a wick container");
            }
        }
    }
    process(kind, spec, &mut refuse);
    linux(kind, spec, &mut refuse);
    if spec.domainname().as_ref().is_some_and(|d| !d.is_empty()) {
        refuse("domainname", "is not set by wick");
    }
    let hooks = spec.hooks().as_ref();
    if hooks.and_then(|h| h.start_container().as_ref()).is_some_and(|h| !h.is_empty()) {
        refuse("hooks.startContainer", "runs inside the container, where wick starts no program");
    }
}

fn process(kind: Kind, spec: &Spec, refuse: &mut impl FnMut(&str, &str)) {
    let Some(process) = spec.process() else {
        refuse("process", "is missing");
        return;
    };
    if process.selinux_label().as_ref().is_some_and(|l| !l.is_empty()) {
        refuse("process.selinuxLabel", "SELinux labels are not set by wick");
    }
    if process.io_priority().is_some() {
        refuse("process.ioPriority", "is not set by wick");
    }
    if process.scheduler().is_some() {
        refuse("process.scheduler", "is not set by wick");
    }
    if process.exec_cpu_affinity().is_some() {
        refuse("process.execCPUAffinity", "is not set by wick");
    }
    if kind == Kind::Wasm
        && let Some(more) = process.capabilities().as_ref().and_then(beyond_default)
    {
        let why = format!(
            "a wick container has no capabilities and can't get {more}: \
             leave out `privileged` and `capabilities.add`"
        );
        refuse("process.capabilities", &why);
    }
}

fn beyond_default(capabilities: &LinuxCapabilities) -> Option<String> {
    let sets = [capabilities.bounding(), capabilities.effective(), capabilities.permitted()];
    let all = sets.into_iter().flatten().flatten();
    let mut more: Vec<String> =
        all.filter(|c| !DEFAULT_CAPABILITIES.contains(c)).map(ToString::to_string).collect();
    more.sort();
    more.dedup();
    match more.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [one, rest @ ..] => Some(format!("{one} and {} more", rest.len())),
    }
}

fn linux(kind: Kind, spec: &Spec, refuse: &mut impl FnMut(&str, &str)) {
    let Some(linux) = spec.linux() else {
        refuse("linux", "is missing");
        return;
    };
    let mapped = |m: &Option<Vec<_>>| m.as_ref().is_some_and(|m: &Vec<_>| !m.is_empty());
    if mapped(linux.uid_mappings()) || mapped(linux.gid_mappings()) {
        refuse("linux.uidMappings", "user namespaces (`hostUsers: false`) are not supported");
    }
    if linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()) {
        refuse("linux.mountLabel", "SELinux labels are not set by wick");
    }
    if linux.intel_rdt().is_some() {
        refuse("linux.intelRdt", "is not set by wick");
    }
    if linux.personality().is_some() {
        refuse("linux.personality", "is not set by wick");
    }
    if linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()) {
        refuse("linux.timeOffsets", "time namespaces are not supported");
    }
    if linux.memory_policy().is_some() {
        refuse("linux.memoryPolicy", "is not set by wick");
    }
    if linux.net_devices().as_ref().is_some_and(|n| !n.is_empty()) {
        refuse("linux.netDevices", "network devices are not moved by wick");
    }
    if kind == Kind::Wasm && linux.sysctl().as_ref().is_some_and(|s| !s.is_empty()) {
        refuse("linux.sysctl", "kernel settings are the pod's: set them in its security context");
    }
    if linux.rootfs_propagation().as_deref() == Some("shared") {
        refuse("linux.rootfsPropagation", "`shared` would show the container's mounts outside");
    }
    let Some(resources) = linux.resources() else { return };
    if resources.network().is_some() {
        refuse("linux.resources.network", "network classes and priorities are not set by wick");
    }
    if resources.rdma().as_ref().is_some_and(|r| !r.is_empty()) {
        refuse("linux.resources.rdma", "is not set by wick");
    }
    if let Some(cpu) = resources.cpu()
        && (cpu.realtime_runtime().is_some_and(|r| r != 0)
            || cpu.realtime_period().is_some_and(|p| p != 0))
    {
        refuse("linux.resources.cpu.realtimeRuntime", "realtime scheduling is not set by wick");
    }
}
