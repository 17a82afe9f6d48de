//! Images that want more than they were given: the host's files, another pod's, credentials,
//! secrets in the environment, addresses that nobody granted, a life after their pod. And what
//! holds them: the state of every task of a worker.

mod support;

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::machine::{self, Node};
use support::{END_TIMEOUT, PORT, Pod, images};
use wick_e2e::cluster::Cluster;
use wick_e2e::http;
use wick_e2e::image::Image;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

/// The address where clouds keep the credentials of a node.
const METADATA: &str = "169.254.169.254";

/// Where a pod's credentials are mounted.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What no attempt may ever print: the text of a file of the node.
const SECRET: &str = "the node's own secret";

/// Links of the hostile image, and where they lead.
const LINKS: [(&str, &str); 4] = [
    ("/up", "../../../../../../etc/shadow"),
    ("/absolute", "/etc/shadow"),
    ("/process", "/proc/1/root/etc/shadow"),
    ("/self", "/proc/self/root/etc/shadow"),
];

/// One attempt in a container of its own: what it is called, and the tool's arguments.
type Attempt<'a> = (String, Vec<&'a str>);

/// Run attempts side by side in one pod, each a container with the same image. Returns how
/// each ended and what it printed.
fn attempts(
    space: &Namespace,
    pod: Pod,
    image: &str,
    all: &[Attempt<'_>],
) -> anyhow::Result<Vec<(String, i64, String)>> {
    let (first, rest) = all.split_first().context("no attempts")?;
    // The pod's own container is the first; its name says so.
    let mut pod = pod.args(&first.1).once();
    for (name, args) in rest {
        let container = json!({
            "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "args": args,
        });
        pod = pod.beside("containers", container);
    }
    space.apply(&pod.yaml())?;
    let codes = space.wait("pod/tries", "ended", END_TIMEOUT, |pod| {
        let all = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let code = |status: &Value| {
            let name = status["name"].as_str()?.to_owned();
            Some((name, status["state"]["terminated"]["exitCode"].as_i64()?))
        };
        let codes: Option<Vec<_>> = all.iter().map(code).collect();
        Ok(codes.filter(|codes| codes.len() == rest.len() + 1))
    })?;
    let logs = |(name, code): (String, i64)| {
        let logs = space.run(&["logs", "tries", "-c", &name])?;
        Ok((name, code, logs))
    };
    codes.into_iter().map(logs).collect()
}

/// Number the attempts; the first has the name of the pod's own container.
fn numbered<'a>(all: &[&[&'a str]]) -> Vec<Attempt<'a>> {
    let name = |at| if at == 0 { "main".to_owned() } else { format!("try-{at}") };
    all.iter().enumerate().map(|(at, args)| (name(at), args.to_vec())).collect()
}

/// All must have been refused, with a reason and without the secret. A folder that is there for
/// something to be mounted on is listed, and is empty.
fn all_refused(ended: &[(String, i64, String)]) -> anyhow::Result<()> {
    for (name, code, logs) in ended {
        let refused = *code == 1 && logs.contains("refused: ");
        // Its own two lines and nothing more.
        let empty = *code == 0 && logs.contains(" ls /") && logs.trim().lines().count() == 2;
        ensure!(refused || empty, "{name}: {code}: {logs}");
        ensure!(!logs.contains(SECRET) && !logs.contains("root:"), "{name}: {logs}");
    }
    Ok(())
}

/// The tool with links that lead out.
fn hostile_tool(cluster: &Cluster) -> anyhow::Result<&'static str> {
    let reference = "docker.io/local/hostile-tool:1";
    let tool = fs::read(wick_e2e::package::guest("tool")?)?;
    let mut image = Image::new(reference).file("/app.wasm", tool).file("/own", "its own");
    for (path, target) in LINKS {
        image = image.link(path, target);
    }
    cluster.import(&image.entrypoint(&["/app.wasm"]))?;
    Ok(reference)
}

/// A file of the node that only the node may read, and a pod with one in a volume.
fn victims(cluster: &Cluster, space: &Namespace) -> anyhow::Result<(String, String)> {
    let node = Node::new(cluster)?;
    let own = node.folder()?.join("hostile-secret");
    fs::write(&own, SECRET)?;
    let pod = Pod::new("victim", images::tool(cluster)?).args(&["tick"]).volume(
        "data",
        "/data",
        false,
        json!({"emptyDir": {}}),
    );
    space.apply(&pod.yaml())?;
    let uid = node.running(space, "victim")?.uid;
    let volume = format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/data");
    let other = node.folder()?.join(volume).join("secret");
    fs::write(&other, SECRET)?;
    Ok((own.display().to_string(), other.display().to_string()))
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_bare_command_reads_and_writes_nothing_but_what_it_was_given() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let image = hostile_tool(&cluster)?;
    let (own, other) = victims(&cluster, &space)?;
    let up = format!("/../../../../../../../..{own}");
    let through = format!("/proc/1/root{own}");
    let tries: [&[&str]; 22] = [
        &["cat", "/etc/shadow"],
        &["cat", &own],
        &["cat", &up],
        &["cat", &through],
        &["cat", &other],
        &["cat", "/proc/self/environ"],
        &["cat", "/proc/self/root/../etc/shadow"],
        &["cat", "/up"],
        &["cat", "/absolute"],
        &["cat", "/process"],
        &["cat", "/self"],
        &["cat", TOKEN],
        &["ls", "/proc"],
        &["ls", "/sys"],
        &["ls", "/dev"],
        &["ls", "/run/wick"],
        &["write", "/new", "x"],
        &["write", "/own", "x"],
        &["write", "/app.wasm", "x"],
        &["write", "/proc/sys/kernel/hostname", "x"],
        &["write", "/sys/kernel/mm/ksm/run", "1"],
        &["write", "/tmp/x", "x"],
    ];
    let ended = attempts(&space, Pod::new("tries", image), image, &numbered(&tries))?;
    all_refused(&ended)?;
    // What it was given is there, so the others were refused for what they asked.
    space.apply(&Pod::new("own", image).args(&["cat", "/own"]).once().yaml())?;
    assert!(space.output_of("own")?.contains("its own"));
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_reads_and_writes_nothing_but_what_it_was_given() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let image = images::hostile(&cluster, "")?;
    let (own, other) = victims(&cluster, &space)?;
    let secret = json!([{"name": "TOKEN", "value": SECRET}]);
    space.apply(&Pod::new("bad", image).container("env", secret).probed().yaml())?;
    let addr = SocketAddr::from((space.ready_pod("bad")?, PORT));
    let up = format!("/../../../..{own}");
    let through = format!("/proc/self/root{own}");
    let paths = [
        "/etc/shadow",
        &own,
        &up,
        &through,
        &other,
        "/proc/1/environ",
        "/proc/sys/kernel/hostname",
        TOKEN,
        "/run/wick/cache",
        "/new",
    ];
    for path in paths {
        let text = support::hostile(addr, "file", path)?.text();
        let refused = text.contains("error: ") && text.contains("written: false");
        ensure!(refused && !text.contains(SECRET), "{path}: {text}");
    }
    // A file of its own is read; it is not written either.
    let text = support::hostile(addr, "file", "/wick.toml")?.text();
    ensure!(text.contains("hostile") && text.contains("written: false"), "{text}");
    // The container has a variable that the package does not want.
    let text = support::hostile(addr, "env", "")?.text();
    ensure!(text.contains("none") && !text.contains(SECRET), "{text}");
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_container_without_the_volume_of_its_neighbour_does_not_see_it() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let image = images::tool(&cluster)?;
    let pod = Pod::new("tries", image).volume("data", "/data", false, json!({"emptyDir": {}}));
    let tries: [&[&str]; 2] = [&["write", "/data/mine", SECRET], &["ls", "/data"]];
    let ended = attempts(&space, pod, image, &numbered(&tries))?;
    let of = |wanted: &str| ended.iter().find(|(name, ..)| name == wanted).context("no such try");
    assert_eq!(of("main")?.1, 0, "{ended:?}");
    ensure!(of("try-1")?.1 == 1 && of("try-1")?.2.contains("refused: "), "{ended:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn credentials_are_for_a_package_that_asks_by_name() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let wants = "mounts = [{ name = \"serviceaccount\", path = \"/account\" }]";
    for (reference, wants, given) in
        [("docker.io/local/asks:1", wants, true), ("docker.io/local/asks-not:1", "", false)]
    {
        images::wanting(&cluster, reference, wants)?;
        let name = if given { "asks" } else { "asks-not" };
        let path = if given { "/account/token" } else { TOKEN };
        space.apply(&Pod::new(name, reference).args(&["cat", path]).once().yaml())?;
        let printed = support::output(&space, name)?;
        // Every token starts with these letters, which are `{"` in base 64.
        assert_eq!(printed.lines().any(|line| line.starts_with("eyJ")), given, "{printed}");
        assert_eq!(printed.contains("refused: "), !given, "{printed}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_environment_is_what_the_pod_says_and_nothing_of_the_node() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let variables = json!([{"name": "GIVEN", "value": "yes"}, {"name": "OTHER", "value": "no"}]);
    let package = "docker.io/local/wants-one:1";
    images::wanting(&cluster, package, "env = [\"GIVEN\"]")?;
    for (name, image) in [("bare", images::tool(&cluster)?), ("package", package)] {
        let pod = Pod::new(name, image).args(&["env"]).container("env", variables.clone());
        space.apply(&pod.once().yaml())?;
        let printed = space.output_of(name)?;
        let names: Vec<&str> =
            printed.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"GIVEN"), "{name}: {printed}");
        assert_eq!(names.contains(&"OTHER"), name == "bare", "{name}: {printed}");
        // Kubernetes' own and what containerd gives every container; nothing of the shim's.
        let known = |name: &str| {
            ["GIVEN", "OTHER", "PATH", "HOSTNAME"].contains(&name)
                || name.starts_with("KUBERNETES_")
        };
        let more: Vec<_> = names.iter().filter(|name| !known(name)).collect();
        ensure!(more.is_empty(), "{name} sees {more:?}");
        ensure!(name == "bare" || names == ["GIVEN"], "{name} sees {names:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_node_and_its_metadata_are_reached_only_with_a_grant() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("hostile")?;
    let (image, web) = (images::tool(&cluster)?, images::web(&cluster)?);
    let ip = cluster.ours()?.node_ip.clone();
    let all = [format!("{ip}:10250"), format!("{ip}:6443"), format!("{METADATA}:6443")];
    // The API server listens on all addresses, so it can play the metadata server as well.
    node.inside(&["ip", "address", "add", &format!("{METADATA}/32"), "dev", "lo"])?;
    let tried = (|| {
        for granted in [1, 0, 3] {
            let name = format!("web-{granted}");
            let mut pod = Pod::new(&name, web).probed();
            if granted > 0 {
                pod = pod.annotation("wick.dev/network", &all[..granted].join(", "));
            }
            space.apply(&pod.yaml())?;
            let addr = SocketAddr::from((space.ready_pod(&name)?, PORT));
            for (at, target) in all.iter().enumerate() {
                let answer = http::get(addr, &format!("/fetch?{target}"))?.text();
                // These speak TLS, and say so to a request that does not.
                let wanted = if at < granted { "status 400" } else { "refused: " };
                ensure!(answer.starts_with(wanted), "{granted} granted: {target}: {answer}");
            }
        }
        // A socket of its own is no request that could be granted.
        let tries: Vec<Vec<&str>> = all.iter().map(|addr| vec!["connect", addr]).collect();
        let tries: Vec<&[&str]> = tries.iter().map(Vec::as_slice).collect();
        let pod = Pod::new("tries", image).annotation("wick.dev/network", &all.join(", "));
        all_refused(&attempts(&space, pod, image, &numbered(&tries))?)?;
        Ok(())
    })();
    node.inside(&["ip", "address", "delete", &format!("{METADATA}/32"), "dev", "lo"])?;
    let tried: anyhow::Result<()> = tried;
    tried?;
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_guest_at_work_does_not_outlive_its_pod() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("hostile")?;
    let image = images::hostile(&cluster, "[limits]\ntimeout = \"60s\"\n")?;
    space.apply(&Pod::new("bad", image).probed().yaml())?;
    let addr = SocketAddr::from((space.ready_pod("bad")?, PORT));
    let running = node.running(&space, "bad")?;
    let asking: Vec<_> = (0..3)
        .map(|_| std::thread::spawn(move || support::hostile(addr, "loop", "").map(drop)))
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    space.run(&["delete", "pod", "bad"])?;
    node.wait_gone(&[vec![running.uid.clone()], running.ids.clone()].concat())?;
    for pid in running.workers.iter().chain([&running.pause, &running.shim]) {
        ensure!(!machine::alive(*pid), "{pid} lives");
    }
    for asked in asking {
        let answered = asked.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        // It is cut off, or told that there is no time left.
        drop(answered);
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn every_task_of_a_serving_worker_is_locked_down() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("hostile")?;
    let context = json!({"runAsUser": 1234, "runAsGroup": 2345, "supplementalGroups": [77]});
    let image = images::filetype(&cluster)?;
    space.apply(&Pod::new("model", image).probed().spec("securityContext", context).yaml())?;
    let ip = space.ready_pod("model")?;
    // At work, with all the threads that it will have.
    assert_eq!(support::classify((ip, PORT).into(), "import os\n\nprint(os.name)\n")?, "python");
    let running = node.running(&space, "model")?;
    let worker = *running.workers.first().context("no worker")?;
    let mut tasks = 0;
    for entry in fs::read_dir(format!("/proc/{worker}/task"))? {
        // One that ends while it is looked at has done no harm.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
        let none = "0000000000000000";
        for (field, wanted) in [
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("CapInh", none),
            ("CapPrm", none),
            ("CapEff", none),
            ("CapBnd", none),
            ("CapAmb", none),
            ("Uid", "1234\t1234\t1234\t1234"),
            ("Gid", "2345\t2345\t2345\t2345"),
            ("Groups", "77 2345"),
        ] {
            assert_eq!(machine::field(&status, field), wanted, "{field} in\n{status}");
        }
        tasks += 1;
    }
    ensure!(tasks > 1, "{tasks} tasks");
    for kind in ["mnt", "pid", "cgroup", "net", "ipc", "uts"] {
        let own = machine::namespace(worker, kind)?;
        ensure!(own != machine::namespace(running.shim, kind)?, "{kind} is the node's");
        let shared = own == machine::namespace(running.pause, kind)?;
        assert_eq!(shared, ["net", "ipc", "uts"].contains(&kind), "{kind}");
    }
    // What the kubelet sets for a pod that asks for nothing.
    let score = fs::read_to_string(format!("/proc/{worker}/oom_score_adj"))?;
    assert_eq!(score.trim(), "1000");
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn what_would_open_the_sandbox_is_refused_by_name() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let image = images::tool(&cluster)?;
    let pod = |name: &str| Pod::new(name, image).args(&["tick"]);
    let capability = json!({"capabilities": {"add": ["SYS_ADMIN"]}});
    let source = json!({"hostPath": {"path": "/tmp"}});
    let both = json!([{"name": "host", "mountPath": "/host", "mountPropagation": "Bidirectional"}]);
    let privileged = json!({"privileged": true});
    let cases = [
        (
            pod("privileged").container("securityContext", privileged.clone()),
            "process.capabilities",
        ),
        (pod("capability").container("securityContext", capability), "can't get SYS_ADMIN:"),
        (pod("terminal").container("tty", json!(true)), "process.terminal"),
        (pod("unknown").annotation("wick.dev/nonsense", "1"), "wick.dev/nonsense"),
        (
            pod("propagation")
                .volume("host", "/host", false, source)
                .container("volumeMounts", both)
                .container("securityContext", privileged),
            "process.capabilities",
        ),
    ];
    for (pod, _) in &cases {
        space.apply(&pod.yaml())?;
    }
    let path = "jsonpath={range .items[*]}{.involvedObject.name}: {.message}{\"\\n\"}{end}";
    let names = ["privileged", "capability", "terminal", "unknown", "propagation"];
    for (name, (_, wanted)) in names.iter().zip(&cases) {
        let said = wait("an event", END_TIMEOUT, || {
            let events = space.run(&["get", "events", "-o", path])?;
            let mut lines = events.lines();
            Ok(lines
                .any(|l| l.starts_with(&format!("{name}: ")) && l.contains(wanted))
                .then_some(()))
        });
        said.with_context(|| format!("{name}: no {wanted}\n{}", space.dump()))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_command_in_the_nodes_namespaces_still_sees_nothing_of_the_node() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("hostile")?;
    let image = images::tool(&cluster)?;
    let tries: [&[&str]; 4] =
        [&["ls", "/proc"], &["cat", "/etc/shadow"], &["ls", "/proc/1/root"], &["ls", "/dev/shm"]];
    let pod = Pod::new("tries", image).spec("hostPID", json!(true)).spec("hostIPC", json!(true));
    let ended = attempts(&space, pod, image, &numbered(&tries))?;
    all_refused(&ended)?;
    Ok(())
}
