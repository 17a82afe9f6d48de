//! The limits of a spec as writes to the files of a control group, for v1 and for v2. Pure:
//! nothing is written here.

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::device::Rule;

/// What every container may use, as in the OCI specification: making device nodes, the devices
/// of the default `/dev`, and pseudo terminals.
const ALWAYS: [(char, Option<u32>, Option<u32>, &str); 10] = [
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"),
    ('c', Some(1), Some(8), "rwm"),
    ('c', Some(1), Some(7), "rwm"),
    ('c', Some(5), Some(0), "rwm"),
    ('c', Some(1), Some(5), "rwm"),
    ('c', Some(1), Some(9), "rwm"),
    ('c', Some(136), None, "rwm"),
    ('c', Some(5), Some(2), "rwm"),
];

/// Limits of one container.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    resources: LinuxResources,
    /// Set once, at creation.
    devices: Option<Vec<Rule>>,
}

/// One write to a file of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    pub need: Need,
}

/// What happens when a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The container does not start: it would run without a limit that somebody set.
    Must,
    /// A warning: the value is what the node does anyway, or only a hint.
    Wish,
}

// === impl Limits ===

impl Limits {
    /// The limits of a new container. Devices are denied unless the spec permits them.
    pub fn at_creation(resources: Option<&LinuxResources>) -> Self {
        let resources = resources.cloned().unwrap_or_default();
        let mut rules = vec![Rule {
            allow: false,
            kind: 'a',
            major: None,
            minor: None,
            access: "rwm".to_owned(),
        }];
        rules.extend(resources.devices().iter().flatten().map(rule));
        rules.extend(ALWAYS.map(|(kind, major, minor, access)| Rule {
            allow: true,
            kind,
            major,
            minor,
            access: access.to_owned(),
        }));
        Self { resources, devices: Some(rules) }
    }

    /// New limits of a running container, which keeps its devices.
    pub fn for_update(resources: LinuxResources) -> Self {
        Self { resources, devices: None }
    }

    pub fn devices(&self) -> Option<&[Rule]> {
        self.devices.as_deref()
    }

    pub fn v1(&self) -> Vec<Write> {
        let mut out = Writes::default();
        let r = &self.resources;
        if let Some(cpu) = r.cpu() {
            v1_cpu(cpu, &mut out);
        }
        if let Some(memory) = r.memory() {
            v1_memory(memory, &mut out);
        }
        self.common("limit_in_bytes", &mut out);
        if let Some(io) = r.block_io() {
            if let Some(weight) = io.weight().filter(|&w| w != 0) {
                out.wish("blkio", "blkio.bfq.weight", weight);
            }
            let throttles = [
                ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
                ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
                ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
                ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
            ];
            for (file, devices) in throttles {
                for d in devices.iter().flatten() {
                    out.must("blkio", file, format!("{}:{} {}", d.major(), d.minor(), d.rate()));
                }
            }
        }
        for rule in self.devices.iter().flatten() {
            let (file, line) = rule.v1();
            // A node may permit less than the default to all of its groups.
            let need = if rule.allow { Need::Wish } else { Need::Must };
            out.push("devices", file, line, need);
        }
        out.0
    }

    pub fn v2(&self) -> Vec<Write> {
        let mut out = Writes::default();
        let r = &self.resources;
        if let Some(cpu) = r.cpu() {
            v2_cpu(cpu, &mut out);
        }
        if let Some(memory) = r.memory() {
            v2_memory(memory, &mut out);
        }
        self.common("max", &mut out);
        if let Some(io) = r.block_io() {
            if let Some(weight) = io.weight().filter(|&w| w != 0) {
                out.wish("io", "io.bfq.weight", weight);
            }
            let throttles = [
                ("rbps", io.throttle_read_bps_device()),
                ("wbps", io.throttle_write_bps_device()),
                ("riops", io.throttle_read_iops_device()),
                ("wiops", io.throttle_write_iops_device()),
            ];
            for (key, devices) in throttles {
                for d in devices.iter().flatten() {
                    let line = format!("{}:{} {key}={}", d.major(), d.minor(), d.rate());
                    out.must("io", "io.max", line);
                }
            }
        }
        // What the spec says in v2's own words comes last, so that it wins.
        let mut unified: Vec<_> = r.unified().iter().flatten().collect();
        unified.sort();
        for (file, value) in unified {
            out.must("unified", file, value);
        }
        out.0
    }

    /// What both versions call the same.
    fn common(&self, hugepage_file: &str, out: &mut Writes) {
        if let Some(pids) = self.resources.pids() {
            let limit = pids.limit();
            let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
            out.push("pids", "pids.max", value, must_if(limit > 0));
        }
        for limit in self.resources.hugepage_limits().iter().flatten() {
            let name = format!("hugetlb.{}.{hugepage_file}", limit.page_size());
            // The kubelet sets every size of the node to 0, used or not.
            out.push("hugetlb", &name, limit.limit(), must_if(limit.limit() != 0));
        }
    }
}

/// The writes so far.
#[derive(Default)]
struct Writes(Vec<Write>);

impl Writes {
    fn push(&mut self, controller: &'static str, file: &str, value: impl ToString, need: Need) {
        let (file, value) = (file.to_owned(), value.to_string());
        self.0.push(Write { controller, file, value, need });
    }

    fn must(&mut self, controller: &'static str, file: &str, value: impl ToString) {
        self.push(controller, file, value, Need::Must);
    }

    fn wish(&mut self, controller: &'static str, file: &str, value: impl ToString) {
        self.push(controller, file, value, Need::Wish);
    }
}

fn v1_cpu(cpu: &LinuxCpu, out: &mut Writes) {
    if let Some(shares) = cpu.shares().filter(|&s| s != 0) {
        out.must("cpu", "cpu.shares", shares);
    }
    if let Some(period) = cpu.period().filter(|&p| p != 0) {
        out.must("cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota().filter(|&q| q != 0) {
        out.push("cpu", "cpu.cfs_quota_us", quota, must_if(quota > 0));
    }
    if let Some(burst) = cpu.burst() {
        out.must("cpu", "cpu.cfs_burst_us", burst);
    }
    if let Some(idle) = cpu.idle().filter(|&i| i != 0) {
        out.must("cpu", "cpu.idle", idle);
    }
    cpuset(cpu, out);
}

fn v2_cpu(cpu: &LinuxCpu, out: &mut Writes) {
    if let Some(shares) = cpu.shares().filter(|&s| s != 0) {
        out.must("cpu", "cpu.weight", weight_of_shares(shares));
    }
    let quota = cpu.quota().filter(|&q| q != 0);
    let period = cpu.period().filter(|&p| p != 0);
    if quota.is_some() || period.is_some() {
        let limited = quota.filter(|&q| q > 0);
        let quota = limited.map_or_else(|| "max".to_owned(), |q| q.to_string());
        let value = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
        out.push("cpu", "cpu.max", value, must_if(limited.is_some()));
    }
    if let Some(burst) = cpu.burst() {
        out.must("cpu", "cpu.max.burst", burst);
    }
    if let Some(idle) = cpu.idle().filter(|&i| i != 0) {
        out.must("cpu", "cpu.idle", idle);
    }
    cpuset(cpu, out);
}

fn cpuset(cpu: &LinuxCpu, out: &mut Writes) {
    if let Some(cpus) = cpu.cpus().as_ref().filter(|c| !c.is_empty()) {
        out.must("cpuset", "cpuset.cpus", cpus);
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|m| !m.is_empty()) {
        out.must("cpuset", "cpuset.mems", mems);
    }
}

fn v1_memory(memory: &LinuxMemory, out: &mut Writes) {
    if let Some(limit) = set(memory.limit()) {
        out.push("memory", "memory.limit_in_bytes", limit, must_if(limit > 0));
    }
    if let Some(reservation) = set(memory.reservation()) {
        out.wish("memory", "memory.soft_limit_in_bytes", reservation);
    }
    if let Some(swap) = set(memory.swap()) {
        // The file is missing on a node without swap accounting, where nothing swaps.
        out.wish("memory", "memory.memsw.limit_in_bytes", swap);
    }
    if let Some(swappiness) = memory.swappiness() {
        out.wish("memory", "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        out.must("memory", "memory.oom_control", 1);
    }
}

fn v2_memory(memory: &LinuxMemory, out: &mut Writes) {
    let bytes = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    let limit = set(memory.limit());
    match (set(memory.swap()), limit) {
        // v1 counts memory and swap together, v2 swap alone.
        (Some(swap), Some(limit)) if swap > 0 && limit > 0 => {
            out.wish("memory", "memory.swap.max", (swap - limit).max(0));
        }
        (Some(swap), _) if swap < 0 => out.wish("memory", "memory.swap.max", "max"),
        _ => {}
    }
    if let Some(limit) = limit {
        out.push("memory", "memory.max", bytes(limit), must_if(limit > 0));
    }
    if let Some(reservation) = set(memory.reservation()) {
        out.wish("memory", "memory.low", bytes(reservation));
    }
}

fn must_if(limited: bool) -> Need {
    if limited { Need::Must } else { Need::Wish }
}

/// Zero is "not set" in the kubelet's specs.
fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|&v| v != 0)
}

/// Shares of 2 to 262144 onto weights of 1 to 10000, as the kubelet and systemd map them.
fn weight_of_shares(shares: u64) -> u64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9_999) / 262_142
}

fn rule(device: &LinuxDeviceCgroup) -> Rule {
    let kind = match device.typ() {
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => 'a',
    };
    // -1 is the wildcard in older specs.
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let access = device.access().clone().filter(|a| !a.is_empty());
    Rule {
        allow: device.allow(),
        kind,
        major: number(device.major()),
        minor: number(device.minor()),
        access: access.unwrap_or_else(|| "rwm".to_owned()),
    }
}

#[cfg(test)]
mod tests;
