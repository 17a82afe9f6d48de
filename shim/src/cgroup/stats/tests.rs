use std::collections::BTreeMap;

use containerd_shim::util::convert_to_any;

use super::*;

/// Recorded files: a line `== controller/file`, then the file's text.
fn recorded(text: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for part in text.split("== ").skip(1) {
        let (name, body) = part.split_once('\n').unwrap();
        files.insert(name.to_owned(), body.to_owned());
    }
    files
}

const V1: &str = "\
== cpuacct/cpuacct.usage
18874539403
== cpuacct/cpuacct.stat
user 1731
system 156
== cpuacct/cpuacct.usage_percpu
9338950715 9535588688 \n\
== cpu/cpu.stat
nr_periods 8
nr_throttled 3
throttled_time 77
nr_bursts 0
== memory/memory.usage_in_bytes
7317372
== memory/memory.limit_in_bytes
9223372036854771712
== memory/memory.max_usage_in_bytes
8000000
== memory/memory.stat
cache 14532608
rss 8237056
inactive_file 118784
total_cache 5452701
total_rss 1861423
total_inactive_file 2703007
total_pgfault 350867
== memory/memory.oom_control
oom_kill_disable 0
under_oom 0
oom_kill 2
== pids/pids.current
4
== pids/pids.max
max
== blkio/blkio.throttle.io_service_bytes_recursive
254:0 Read 4096
254:0 Write 0
Total 4096
";

const V2: &str = "\
== cpu/cpu.stat
usage_usec 5000
user_usec 3000
system_usec 2000
nr_periods 1
nr_throttled 1
throttled_usec 9
== memory/memory.current
1000000
== memory/memory.max
max
== memory/memory.stat
anon 500000
inactive_file 250000
pgfault 12
== memory/memory.events
low 0
high 0
max 3
oom 1
oom_kill 1
== pids/pids.current
2
== pids/pids.max
100
== io/io.stat
254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0
";

#[test]
fn a_v1_group_is_measured() {
    let files = recorded(V1);
    let metrics = v1(&|controller, file| files.get(&format!("{controller}/{file}")).cloned());
    assert_eq!(metrics.cpu.usage.total, 18_874_539_403);
    assert_eq!(metrics.cpu.usage.user, 17_310_000_000);
    assert_eq!(metrics.cpu.usage.per_cpu, [9_338_950_715, 9_535_588_688]);
    assert_eq!(metrics.cpu.throttling.throttled_periods, 3);
    assert_eq!(metrics.memory.usage.usage, 7_317_372);
    assert_eq!(metrics.memory.total_inactive_file, 2_703_007);
    assert_eq!(metrics.memory.total_rss, 1_861_423);
    assert_eq!(metrics.memory_oom_control.oom_kill, 2);
    assert_eq!((metrics.pids.current, metrics.pids.limit), (4, 0));
    assert_eq!(metrics.blkio.io_service_bytes_recursive[0].value, 4096);
    assert_eq!(metrics.blkio.io_service_bytes_recursive.len(), 2);
    let any = convert_to_any(Box::new(metrics)).unwrap();
    assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
}

#[test]
fn a_v2_group_is_measured() {
    let files = recorded(V2);
    let metrics = v2(&|controller, file| files.get(&format!("{controller}/{file}")).cloned());
    assert_eq!(metrics.cpu.usage_usec, 5000);
    assert_eq!(metrics.memory.usage, 1_000_000);
    assert_eq!(metrics.memory.usage_limit, u64::MAX);
    assert_eq!(metrics.memory.inactive_file, 250_000);
    assert_eq!(metrics.memory_events.oom_kill, 1);
    assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 100));
    assert_eq!(metrics.io.usage[0].rbytes, 4096);
    let any = convert_to_any(Box::new(metrics)).unwrap();
    assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
}

#[test]
fn a_group_without_files_has_no_figures_and_does_not_fail() {
    assert!(v1(&|_, _| None).memory.is_none());
    assert!(v2(&|_, _| None).cpu.is_none());
    let broken = v2(&|_, _| Some("what\n8:0 rbytes\n\u{0}".to_owned()));
    assert!(broken.memory.is_none());
}
