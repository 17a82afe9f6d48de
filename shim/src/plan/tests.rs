use serde_json::{Value, json};

use super::*;

const KUBELET: &str = include_str!("fixtures/kubelet.json");

fn facts() -> Facts {
    Facts {
        id: "abc".to_owned(),
        namespace: "k8s.io".to_owned(),
        rootfs: "/run/bundle/rootfs".into(),
        ..Facts::default()
    }
}

/// The kubelet's spec with some of it replaced: a path of keys, and the value there.
fn changed(changes: &[(&str, Value)]) -> Spec {
    let mut spec: Value = serde_json::from_str(KUBELET).unwrap();
    for (path, value) in changes {
        let (parent, key) = path.rsplit_once('/').unwrap();
        // `~1` is a slash within a key, as in a JSON pointer.
        spec.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

#[test]
fn a_kubelets_container_is_understood() {
    let spec = changed(&[]);
    assert_eq!(Kind::of(&spec), Kind::Wasm);
    let plan = plan(Kind::Wasm, &spec, &facts()).unwrap();
    let order = &plan.order;
    assert_eq!(order.name, "model");
    assert_eq!(order.rootfs, Path::new("/run/bundle/rootfs"));
    assert_eq!(order.user.uid, 65_532);
    assert_eq!(order.user.additional_gids, [65_532, 2000]);
    assert_eq!(order.rlimits[0].name, "RLIMIT_NOFILE");
    assert_eq!(order.apparmor.as_deref(), Some("cri-containerd.apparmor.d"));
    assert_eq!(order.settings.addr.as_deref(), Some("0.0.0.0:9000"));
    assert_eq!(order.settings.network, ["db.local:5432", "10.0.0.1:80"]);
    assert_eq!(order.settings.drain_ms, Some(20_000));
    assert_eq!(order.settings.device_memory, Some(512 << 20));
    assert_eq!(order.devices[0].mode, 0o660);
    assert_eq!(order.masked_paths.len(), 2);
    assert_eq!(plan.oom_score_adj, Some(968));
    assert_eq!(plan.hooks.create.len(), 1);
    assert_eq!(plan.namespaces.pid, Namespace::New);
    assert_eq!(plan.namespaces.network, Namespace::Path("/var/run/netns/cni-1".into()));
    assert!(plan.cgroup.relative().ends_with("cri-containerd-abc.scope"));
    assert!(!plan.names_its_host());
    assert_eq!(plan.asked.image.as_deref(), Some("registry.local/filetype:1.2.0"));
    assert_eq!(plan.asked.envelope, None);
}

#[test]
fn mount_options_are_sorted() {
    let plan = plan(Kind::Wasm, &changed(&[]), &facts()).unwrap();
    let find = |destination: &str| {
        let mut mounts = plan.order.mounts.iter();
        mounts.find(|m| m.destination == Path::new(destination)).unwrap()
    };
    let dev = find("/dev");
    assert_eq!((dev.kind.as_str(), dev.data.as_str()), ("tmpfs", "mode=755,size=65536k"));
    assert_eq!(dev.flags, libc::MS_NOSUID | libc::MS_STRICTATIME);
    let models = find("/models");
    assert_eq!(models.kind, "bind");
    assert_eq!(models.flags, libc::MS_BIND | libc::MS_REC | libc::MS_RDONLY);
    assert_eq!(models.propagation, libc::MS_SLAVE | libc::MS_REC);
}

#[test]
fn the_first_argument_and_the_annotation_say_what_it_is() {
    let of = |args: Value| Kind::of(&changed(&[("/process/args", args)]));
    assert_eq!(of(json!(["/app/hello.wasm", "x"])), Kind::Wasm);
    assert_eq!(of(json!(["wick.toml"])), Kind::Wasm);
    assert_eq!(of(json!(["/bin/sh", "-c", "x.wasm"])), Kind::Ordinary);
    assert_eq!(of(json!([])), Kind::Ordinary);
    let sandbox = ("/annotations/io.kubernetes.cri.container-type", json!("sandbox"));
    assert_eq!(Kind::of(&changed(&[sandbox])), Kind::Sandbox);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let privileged = json!({"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]});
    let cases = [
        ("/process/capabilities", privileged, "process.capabilities"),
        ("/process/selinuxLabel", json!("system_u"), "process.selinuxLabel"),
        ("/linux/mountLabel", json!("system_u"), "linux.mountLabel"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 1000, "size": 1}]),
            "linux.uidMappings",
        ),
        ("/linux/namespaces", json!([{"type": "user"}]), "linux.namespaces.user"),
        ("/linux/namespaces", json!([{"type": "mount", "path": "/x"}]), "linux.namespaces.mnt"),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}), "linux.sysctl"),
        ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation"),
        ("/linux/cgroupsPath", json!("/../x"), "linux.cgroupsPath"),
        ("/hooks/startContainer", json!([{"path": "/x"}]), "hooks.startContainer"),
        ("/annotations/wick.dev~1addr", json!("nowhere"), "annotation wick.dev/addr"),
        ("/annotations/wick.dev~1drain", json!("20"), "annotation wick.dev/drain"),
        (
            "/annotations/wick.dev~1device-memory",
            json!("1GiB"),
            "annotation wick.dev/device-memory",
        ),
        ("/annotations/wick.dev~1network", json!("http://a"), "annotation wick.dev/network"),
        ("/annotations/wick.dev~1adr", json!("x"), "annotation wick.dev/adr"),
        ("/annotations/wick.dev~1adr.web", json!("x"), "annotation wick.dev/adr.web"),
        // Checked for a container that is not this one, too.
        ("/annotations/wick.dev~1addr.web", json!("nowhere"), "annotation wick.dev/addr.web"),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "/b", "options": ["idmap"]}]),
            "mounts /a",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "b", "options": ["rbind"]}]),
            "mounts /a",
        ),
    ];
    for (path, value, field) in cases {
        let spec = changed(&[(path, value)]);
        let refusals = plan(Kind::Wasm, &spec, &facts()).map(drop).unwrap_err();
        let fields: Vec<_> = refusals.0.iter().map(|r| r.field.as_str()).collect();
        assert_eq!(fields, [field]);
    }
}

#[test]
fn an_annotation_for_one_container_beats_the_one_for_all() {
    let of = |container: &str| {
        let spec = changed(&[
            ("/annotations/io.kubernetes.cri.container-name", json!(container)),
            ("/annotations/wick.dev~1addr", json!("0.0.0.0:1")),
            ("/annotations/wick.dev~1addr.web", json!("0.0.0.0:2")),
        ]);
        plan(Kind::Wasm, &spec, &facts()).unwrap().order.settings.addr
    };
    assert_eq!(of("web").as_deref(), Some("0.0.0.0:2"));
    assert_eq!(of("model").as_deref(), Some("0.0.0.0:1"));
}

#[test]
fn a_package_that_is_only_to_be_there_is_checked_and_not_run() {
    let of = |value: &str| {
        plan(Kind::Wasm, &changed(&[("/annotations/wick.dev~1prefetch", json!(value))]), &facts())
    };
    let kept = of("true").unwrap();
    assert!(kept.pauses);
    // What it would be run with is what is compiled for.
    assert_eq!(kept.order.args, ["/wick.toml"]);
    assert_eq!(kept.asked.image.as_deref(), Some("registry.local/filetype:1.2.0"));
    assert!(!of("false").unwrap().pauses);
    assert!(!plan(Kind::Wasm, &changed(&[]), &facts()).unwrap().pauses);
    assert!(plan(Kind::Sandbox, &changed(&[]), &facts()).unwrap().pauses);
    assert_eq!(of("yes").map(drop).unwrap_err().0[0].field, "annotation wick.dev/prefetch");
}

#[test]
fn an_envelope_may_be_longer_than_other_annotations() {
    let of = |annotation: &str, length: usize| {
        let path = format!("/annotations/wick.dev~1{annotation}");
        let spec = changed(&[(&path, json!("a".repeat(length)))]);
        plan(Kind::Wasm, &spec, &facts()).map(|plan| plan.asked.envelope)
    };
    assert_eq!(of("signature", 100_000).unwrap().unwrap().len(), 100_000);
    assert_eq!(of("signature.web", 100_000).unwrap(), None);
    assert!(of("signature", 200_000).is_err());
    assert!(of("log", 5_000).is_err());
}

#[test]
fn all_refusals_come_together() {
    let mut facts = facts();
    facts.terminal = true;
    facts.stdout = "binary:///usr/bin/logger".to_owned();
    let spec = changed(&[("/process/selinuxLabel", json!("x"))]);
    let text = plan(Kind::Wasm, &spec, &facts).map(drop).unwrap_err().to_string();
    assert_eq!(
        text,
        "wick can't run this container: process.terminal: a wick container has no terminal: leave \
         out `tty`; stdout: only a FIFO and `file://` take the output of a wick container; \
         process.selinuxLabel: SELinux labels are not set by wick"
    );
}

#[test]
fn a_sandbox_may_have_sysctls_and_sees_nothing() {
    let spec = changed(&[("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "0"}))]);
    let plan = plan(Kind::Sandbox, &spec, &facts()).unwrap();
    assert_eq!(plan.sysctl.len(), 1);
    assert!(plan.order.mounts.is_empty() && plan.order.devices.is_empty());
}

#[test]
fn what_containerd_leaves_out_is_no_error() {
    let spec = changed(&[
        ("/mounts", Value::Null),
        ("/hooks", Value::Null),
        ("/annotations", Value::Null),
        ("/linux/devices", Value::Null),
        ("/linux/cgroupsPath", Value::Null),
        ("/linux/namespaces", Value::Null),
    ]);
    let plan = plan(Kind::Wasm, &spec, &facts()).unwrap();
    assert_eq!(plan.cgroup.relative(), Path::new("wick/k8s.io/abc"));
    assert_eq!(plan.namespaces, Namespaces::default());
    assert_eq!(plan.order.name, "abc");
}
