use super::*;

fn limits(json: &str) -> Limits {
    Limits::for_update(serde_json::from_str(json).unwrap())
}

fn text(writes: &[Write]) -> Vec<String> {
    let mark = |w: &Write| if w.need == Need::Must { "" } else { "?" };
    writes.iter().map(|w| format!("{}{}={}", w.file, mark(w), w.value)).collect()
}

const KUBELET: &str = r#"{
    "memory": {"limit": 134217728, "swap": 134217728, "reservation": 0},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0-1"},
    "pids": {"limit": 1024},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]
}"#;

#[test]
fn a_kubelets_limits_on_v1() {
    assert_eq!(
        text(&limits(KUBELET).v1()),
        [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpuset.cpus=0-1",
            "memory.limit_in_bytes=134217728",
            "memory.memsw.limit_in_bytes?=134217728",
            "pids.max=1024",
            "hugetlb.2MB.limit_in_bytes?=0",
        ]
    );
}

#[test]
fn a_kubelets_limits_on_v2() {
    assert_eq!(
        text(&limits(KUBELET).v2()),
        [
            "cpu.weight=20",
            "cpu.max=50000 100000",
            "cpuset.cpus=0-1",
            "memory.swap.max?=0",
            "memory.max=134217728",
            "pids.max=1024",
            "hugetlb.2MB.max?=0",
        ]
    );
}

#[test]
fn no_limit_is_not_a_limit_of_zero() {
    let none =
        r#"{"memory": {"limit": 0}, "cpu": {"shares": 0, "quota": 0}, "pids": {"limit": -1}}"#;
    assert_eq!(text(&limits(none).v1()), ["pids.max?=max"]);
    assert_eq!(text(&limits(r#"{"cpu": {"quota": -1}}"#).v2()), ["cpu.max?=max"]);
    assert_eq!(text(&limits(r#"{"memory": {"limit": -1}}"#).v1()), ["memory.limit_in_bytes?=-1"]);
}

#[test]
fn words_of_v2_come_last() {
    let both =
        r#"{"memory": {"limit": 1000}, "unified": {"memory.max": "2000", "memory.high": "1"}}"#;
    assert_eq!(text(&limits(both).v2()), ["memory.max=1000", "memory.high=1", "memory.max=2000"]);
}

#[test]
fn a_new_container_has_no_device_but_the_usual_ones_and_its_own() {
    let json = r#"{"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 226, "minor": 128, "access": "rw"}
    ]}"#;
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    let writes = text(&Limits::at_creation(Some(&resources)).v1());
    assert_eq!(
        writes[..5],
        [
            "devices.deny=a",
            "devices.deny=a",
            "devices.allow?=c 226:128 rw",
            "devices.allow?=c *:* m",
            "devices.allow?=b *:* m"
        ]
    );
    assert_eq!(writes.len(), 13);
    assert!(limits("{}").v1().is_empty(), "a resize leaves the devices alone");
}

#[test]
fn shares_map_onto_weights_at_both_ends() {
    assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
}
