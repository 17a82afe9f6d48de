//! containerd's cgroup metrics from the texts of a group's files. Pure: `read` gives the text
//! of a controller's file, or nothing where it is missing.

use containerd_shim::protos::{cgroups::metrics as m1, cgroups_v2::metrics as m2};

/// Gives the text of a file of a controller.
type Read<'a> = dyn Fn(&str, &str) -> Option<String> + 'a;

/// Clock ticks a second of `cpuacct.stat`: fixed at 100 in the kernel's interface.
const TICK_NANOS: u64 = 10_000_000;

/// The metrics of a v1 group.
pub fn v1(read: &Read<'_>) -> m1::Metrics {
    let mut metrics = m1::Metrics::new();
    let cpu = v1_cpu(read);
    metrics.cpu = Some(cpu).into();
    if let Some(memory) = v1_memory(read) {
        metrics.memory = Some(memory).into();
    }
    if let Some(text) = read("memory", "memory.oom_control") {
        let mut oom = m1::MemoryOomControl::new();
        oom.oom_kill_disable = keyed(&text, "oom_kill_disable").unwrap_or(0);
        oom.under_oom = keyed(&text, "under_oom").unwrap_or(0);
        oom.oom_kill = keyed(&text, "oom_kill").unwrap_or(0);
        metrics.memory_oom_control = Some(oom).into();
    }
    if let Some(current) = number(read, "pids", "pids.current") {
        let mut pids = m1::PidsStat::new();
        pids.current = current;
        // "max" is told as 0: containerd's word for no limit.
        pids.limit = number(read, "pids", "pids.max").unwrap_or(0);
        metrics.pids = Some(pids).into();
    }
    if let Some(text) = read("blkio", "blkio.throttle.io_service_bytes_recursive") {
        let mut blkio = m1::BlkIOStat::new();
        blkio.io_service_bytes_recursive = block_entries(&text);
        let served = read("blkio", "blkio.throttle.io_serviced_recursive").unwrap_or_default();
        blkio.io_serviced_recursive = block_entries(&served);
        metrics.blkio = Some(blkio).into();
    }
    metrics
}

fn v1_cpu(read: &Read<'_>) -> m1::CPUStat {
    let mut usage = m1::CPUUsage::new();
    usage.total = number(read, "cpuacct", "cpuacct.usage").unwrap_or(0);
    let stat = read("cpuacct", "cpuacct.stat").unwrap_or_default();
    usage.user = keyed(&stat, "user").unwrap_or(0).saturating_mul(TICK_NANOS);
    usage.kernel = keyed(&stat, "system").unwrap_or(0).saturating_mul(TICK_NANOS);
    let each = read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
    usage.per_cpu = each.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let mut cpu = m1::CPUStat::new();
    cpu.usage = Some(usage).into();
    if let Some(text) = read("cpu", "cpu.stat") {
        let mut throttle = m1::Throttle::new();
        throttle.periods = keyed(&text, "nr_periods").unwrap_or(0);
        throttle.throttled_periods = keyed(&text, "nr_throttled").unwrap_or(0);
        throttle.throttled_time = keyed(&text, "throttled_time").unwrap_or(0);
        cpu.throttling = Some(throttle).into();
    }
    cpu
}

fn v1_memory(read: &Read<'_>) -> Option<m1::MemoryStat> {
    let entry = |prefix: &str| {
        let file = |name: &str| number(read, "memory", &format!("{prefix}.{name}"));
        let mut entry = m1::MemoryEntry::new();
        entry.usage = file("usage_in_bytes")?;
        entry.limit = file("limit_in_bytes").unwrap_or(0);
        entry.max = file("max_usage_in_bytes").unwrap_or(0);
        entry.failcnt = file("failcnt").unwrap_or(0);
        Some(entry)
    };
    let mut memory = m1::MemoryStat::new();
    memory.usage = Some(entry("memory")?).into();
    memory.swap = entry("memory.memsw").into();
    memory.kernel = entry("memory.kmem").into();
    let text = read("memory", "memory.stat").unwrap_or_default();
    for (key, value) in pairs(&text) {
        let field = match key {
            "cache" => &mut memory.cache,
            "rss" => &mut memory.rss,
            "mapped_file" => &mut memory.mapped_file,
            "pgfault" => &mut memory.pg_fault,
            "pgmajfault" => &mut memory.pg_maj_fault,
            "inactive_anon" => &mut memory.inactive_anon,
            "active_anon" => &mut memory.active_anon,
            "inactive_file" => &mut memory.inactive_file,
            "active_file" => &mut memory.active_file,
            "unevictable" => &mut memory.unevictable,
            "hierarchical_memory_limit" => &mut memory.hierarchical_memory_limit,
            "total_cache" => &mut memory.total_cache,
            "total_rss" => &mut memory.total_rss,
            "total_mapped_file" => &mut memory.total_mapped_file,
            "total_dirty" => &mut memory.total_dirty,
            "total_writeback" => &mut memory.total_writeback,
            "total_pgfault" => &mut memory.total_pg_fault,
            "total_pgmajfault" => &mut memory.total_pg_maj_fault,
            "total_inactive_anon" => &mut memory.total_inactive_anon,
            "total_active_anon" => &mut memory.total_active_anon,
            // What the kubelet subtracts from the usage for the working set.
            "total_inactive_file" => &mut memory.total_inactive_file,
            "total_active_file" => &mut memory.total_active_file,
            "total_unevictable" => &mut memory.total_unevictable,
            _ => continue,
        };
        *field = value;
    }
    Some(memory)
}

/// The metrics of a v2 group.
pub fn v2(read: &Read<'_>) -> m2::Metrics {
    let mut metrics = m2::Metrics::new();
    if let Some(text) = read("cpu", "cpu.stat") {
        let mut cpu = m2::CPUStat::new();
        cpu.usage_usec = keyed(&text, "usage_usec").unwrap_or(0);
        cpu.user_usec = keyed(&text, "user_usec").unwrap_or(0);
        cpu.system_usec = keyed(&text, "system_usec").unwrap_or(0);
        cpu.nr_periods = keyed(&text, "nr_periods").unwrap_or(0);
        cpu.nr_throttled = keyed(&text, "nr_throttled").unwrap_or(0);
        cpu.throttled_usec = keyed(&text, "throttled_usec").unwrap_or(0);
        metrics.cpu = Some(cpu).into();
    }
    if let Some(usage) = number(read, "memory", "memory.current") {
        metrics.memory = Some(v2_memory(usage, read)).into();
    }
    if let Some(text) = read("memory", "memory.events") {
        let mut events = m2::MemoryEvents::new();
        events.low = keyed(&text, "low").unwrap_or(0);
        events.high = keyed(&text, "high").unwrap_or(0);
        events.max = keyed(&text, "max").unwrap_or(0);
        events.oom = keyed(&text, "oom").unwrap_or(0);
        events.oom_kill = keyed(&text, "oom_kill").unwrap_or(0);
        metrics.memory_events = Some(events).into();
    }
    if let Some(current) = number(read, "pids", "pids.current") {
        let mut pids = m2::PidsStat::new();
        pids.current = current;
        pids.limit = number(read, "pids", "pids.max").unwrap_or(0);
        metrics.pids = Some(pids).into();
    }
    if let Some(text) = read("io", "io.stat") {
        let mut io = m2::IOStat::new();
        io.usage = text.lines().filter_map(io_entry).collect();
        metrics.io = Some(io).into();
    }
    metrics
}

fn v2_memory(usage: u64, read: &Read<'_>) -> m2::MemoryStat {
    let mut memory = m2::MemoryStat::new();
    memory.usage = usage;
    memory.usage_limit = number(read, "memory", "memory.max").unwrap_or(u64::MAX);
    memory.max_usage = number(read, "memory", "memory.peak").unwrap_or(0);
    memory.swap_usage = number(read, "memory", "memory.swap.current").unwrap_or(0);
    memory.swap_limit = number(read, "memory", "memory.swap.max").unwrap_or(u64::MAX);
    let text = read("memory", "memory.stat").unwrap_or_default();
    for (key, value) in pairs(&text) {
        let field = match key {
            "anon" => &mut memory.anon,
            "file" => &mut memory.file,
            "kernel_stack" => &mut memory.kernel_stack,
            "slab" => &mut memory.slab,
            "sock" => &mut memory.sock,
            "shmem" => &mut memory.shmem,
            "file_mapped" => &mut memory.file_mapped,
            "file_dirty" => &mut memory.file_dirty,
            "file_writeback" => &mut memory.file_writeback,
            "anon_thp" => &mut memory.anon_thp,
            "inactive_anon" => &mut memory.inactive_anon,
            "active_anon" => &mut memory.active_anon,
            "inactive_file" => &mut memory.inactive_file,
            "active_file" => &mut memory.active_file,
            "unevictable" => &mut memory.unevictable,
            "slab_reclaimable" => &mut memory.slab_reclaimable,
            "slab_unreclaimable" => &mut memory.slab_unreclaimable,
            "pgfault" => &mut memory.pgfault,
            "pgmajfault" => &mut memory.pgmajfault,
            _ => continue,
        };
        *field = value;
    }
    memory
}

/// The number after `key` in a text of lines `key number`.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    pairs(text).find(|(k, _)| *k == key).map(|(_, value)| value)
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// A file with one number; `max` is none.
fn number(read: &Read<'_>, controller: &str, file: &str) -> Option<u64> {
    read(controller, file)?.trim().parse().ok()
}

/// Lines `8:0 Read 4096`.
fn block_entries(text: &str) -> Vec<m1::BlkIOEntry> {
    let entry = |line: &str| {
        let mut parts = line.split_whitespace();
        let (major, minor) = parts.next()?.split_once(':')?;
        let mut entry = m1::BlkIOEntry::new();
        entry.major = major.parse().ok()?;
        entry.minor = minor.parse().ok()?;
        parts.next()?.clone_into(&mut entry.op);
        entry.value = parts.next()?.parse().ok()?;
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4`.
fn io_entry(line: &str) -> Option<m2::IOEntry> {
    let mut parts = line.split_whitespace();
    let (major, minor) = parts.next()?.split_once(':')?;
    let mut entry = m2::IOEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let field = match key {
            "rbytes" => &mut entry.rbytes,
            "wbytes" => &mut entry.wbytes,
            "rios" => &mut entry.rios,
            "wios" => &mut entry.wios,
            _ => continue,
        };
        *field = value.parse().ok()?;
    }
    Some(entry)
}

#[cfg(test)]
mod tests;
