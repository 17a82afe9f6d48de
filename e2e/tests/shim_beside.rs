//! Several containers in one pod: ordinary ones beside a package, before it and for debugging,
//! and several packages.

mod support;

use anyhow::Context as _;
use serde_json::json;
use support::{END_TIMEOUT, PORT, Pod, container, images, outputs, status};
use wick_e2e::cluster::Cluster;
use wick_e2e::http::{self, Request};
use wick_e2e::package;
use wick_e2e::wait::wait;

/// Where side-cars listen.
const BESIDE: u16 = 9090;

const PYTHON: &str = "import os\n\nprint(os.name)\n";

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_side_car_reaches_the_model_on_localhost() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("beside")?;
    let httpd = images::httpd(&cluster)?;
    let model = format!("http://127.0.0.1:{PORT}");
    let relay = container("relay", httpd, &["relay", &format!(":{BESIDE}"), &model]);
    let pod = Pod::new("model", images::filetype(&cluster)?).probed().beside("containers", relay);
    space.apply(&pod.yaml())?;
    let ip = space.ready_pod("model")?;
    // A real inference, through the pod's address and the side-car.
    let address = (ip, BESIDE).into();
    let answer = wait("the side-car", END_TIMEOUT, || Ok(support::classify(address, PYTHON).ok()))?;
    assert_eq!(answer, "python");
    // Into an ordinary container, exec works.
    let live = format!("{model}/v2/health/live");
    let text = space.run(&["exec", "model", "-c", "relay", "--", "/httpd", "get", &live])?;
    assert!(!text.is_empty(), "exec into a side-car works");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_native_side_car_starts_before_and_ends_after_a_job() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("beside")?;
    let httpd = images::httpd(&cluster)?;
    let mut side_car = container("proxy", httpd, &["serve", &format!(":{BESIDE}")]);
    side_car["restartPolicy"] = "Always".into();
    // What comes after it may only start when it answers.
    side_car["startupProbe"] = json!({"httpGet": {"path": "/", "port": BESIDE},
        "periodSeconds": 1});
    let job = Pod::new("job", images::tool(&cluster)?).once().args(&["0"]);
    space.apply(&job.beside("initContainers", side_car.clone()).yaml())?;
    let web = "docker.io/local/bare-web:1";
    package::import_bare(&cluster, &package::guest("web")?, web)?;
    let web = Pod::new("web", web)
        .probed()
        .annotation("wick.dev/network", &format!("127.0.0.1:{BESIDE}"))
        .beside("initContainers", side_car);
    space.apply(&web.yaml())?;
    let [main] = outputs(&space, "job", ["main"])?;
    let pod = space.get("pod/job")?.context("no pod")?;
    assert_eq!(pod["status"]["phase"], "Succeeded", "{main}");
    let time = |name: &str, field: &str| {
        let time = status(&pod, name)["state"]["terminated"][field].as_str();
        time.map(str::to_owned).with_context(|| format!("{name} has no {field}: {pod}"))
    };
    assert!(time("proxy", "startedAt")? <= time("main", "startedAt")?, "{pod}");
    assert!(time("proxy", "finishedAt")? >= time("main", "finishedAt")?, "{pod}");
    // A guest asks the side-car, as far as the pod grants it.
    let ip = space.ready_pod("web")?;
    let answer = http::get((ip, PORT).into(), &format!("/fetch?127.0.0.1:{BESIDE}"))?.text();
    assert_eq!(answer, "status 200");
    let answer = http::get((ip, PORT).into(), "/fetch?127.0.0.1:9091")?.text();
    assert!(answer.to_lowercase().contains("denied"), "{answer}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_native_side_car_may_be_a_package_too() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("beside")?;
    let mut model = container("model", images::filetype(&cluster)?, &[]);
    model["restartPolicy"] = "Always".into();
    model["startupProbe"] =
        json!({"httpGet": {"path": "/v2/health/ready", "port": PORT}, "periodSeconds": 1});
    let ready = format!("http://127.0.0.1:{PORT}/v2/health/ready");
    let pod = Pod::new("client", images::httpd(&cluster)?)
        .once()
        .args(&["get", &ready])
        .beside("initContainers", model);
    space.apply(&pod.yaml())?;
    outputs(&space, "client", ["main"])?;
    let pod = space.get("pod/client")?.context("no pod")?;
    assert_eq!(pod["status"]["phase"], "Succeeded");
    // Told to end, it has drained and said that all is well.
    assert_eq!(status(&pod, "model")["state"]["terminated"]["exitCode"], 0);
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn init_containers_of_both_kinds_prepare_what_a_guest_reads() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("beside")?;
    let (tool, httpd) = (images::tool(&cluster)?, images::httpd(&cluster)?);
    let mounts = json!([{"name": "work", "mountPath": "/job"}]);
    let mut ordinary = container("ordinary", httpd, &["write", "/job/first", "by runc"]);
    ordinary["volumeMounts"] = mounts.clone();
    let mut guest = container("guest", tool, &["write", "/job/second", "by wick"]);
    guest["volumeMounts"] = mounts;
    let runs: [(&str, &[&str]); 2] =
        [("first", &["cat", "/job/first"]), ("second", &["cat", "/job/second"])];
    let pod = Pod::of_runs("work", tool, &runs)
        .shared("work", "/job", json!({"emptyDir": {}}))
        .beside("initContainers", ordinary)
        .beside("initContainers", guest);
    space.apply(&pod.yaml())?;
    let [first, second] = outputs(&space, "work", ["first", "second"])?;
    assert!(first.contains("by runc"), "{first}");
    assert!(second.contains("by wick"), "{second}");
    // One that fails keeps the pod's containers from starting.
    let pod = Pod::new("never", tool).once().args(&["0"]);
    let pod = pod.beside("initContainers", container("fails", tool, &["1"]));
    space.apply(&pod.yaml())?;
    outputs(&space, "never", [])?;
    let pod = space.get("pod/never")?.context("no pod")?;
    assert_eq!(status(&pod, "fails")["state"]["terminated"]["exitCode"], 1);
    assert!(status(&pod, "main")["state"]["terminated"].is_null(), "{pod}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn two_packages_in_a_pod_listen_on_ports_of_their_own() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("beside")?;
    let web = "docker.io/local/bare-web:1";
    package::import_bare(&cluster, &package::guest("web")?, web)?;
    let mut second = container("web", web, &[]);
    second["readinessProbe"] =
        json!({"httpGet": {"path": "/v2/health/ready", "port": BESIDE}, "periodSeconds": 1});
    let both = Pod::new("both", images::filetype(&cluster)?)
        .probed()
        .beside("containers", second.clone())
        .annotation("wick.dev/addr.web", &format!("0.0.0.0:{BESIDE}"));
    space.apply(&both.yaml())?;
    let ip = space.ready_pod("both")?;
    assert_eq!(support::classify((ip, PORT).into(), PYTHON)?, "python");
    let request = Request { method: "POST", path: "/echo", headers: &[], body: b"to and fro" };
    assert_eq!(request.send((ip, BESIDE).into())?.text(), "to and fro");
    // Without ports of their own, the second says what is wrong and what to do.
    let clash = Pod::new("clash", web).beside("containers", second);
    space.apply(&clash.yaml())?;
    let message = space.wait("pod/clash", "a container that failed", END_TIMEOUT, |pod| {
        let failed = ["main", "web"].iter().find_map(|name| {
            let status = status(pod, name);
            let ended = [&status["state"], &status["lastState"]];
            ended.iter().find_map(|state| state["terminated"]["message"].as_str())
        });
        Ok(failed.map(str::to_owned))
    })?;
    assert!(message.contains("in use") && message.contains("wick.dev/addr"), "{message}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn kubectl_debug_puts_an_ordinary_container_beside_a_package() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("beside")?;
    let httpd = images::httpd(&cluster)?;
    space.apply(&Pod::new("model", images::filetype(&cluster)?).probed().yaml())?;
    let ip = space.ready_pod("model")?;
    let image = format!("--image={httpd}");
    let ready = format!("http://127.0.0.1:{PORT}/v2/health/live");
    let debug = |name: &str, more: &[&str], words: &[&str]| {
        let container = format!("--container={name}");
        let mut args = vec!["debug", "model", &image, "--image-pull-policy=IfNotPresent"];
        args.extend([container.as_str(), "--profile=general"]);
        args.extend(more);
        args.extend(["--", "/httpd"]);
        args.extend(words);
        space.run(&args)?;
        space.wait("pod/model", "an ephemeral container that ended", END_TIMEOUT, |pod| {
            Ok(status(pod, name)["state"]["terminated"]["exitCode"].as_u64())
        })
    };
    // In the pod's network.
    assert_eq!(debug("look", &[], &["get", &ready])?, 0, "{}", space.dump());
    // In the process namespace of the package's container: the worker is number one there.
    let target = debug("target", &["--target=main"], &["cat", "/proc/1/comm"])?;
    assert_eq!(target, 0, "{}", space.dump());
    assert_eq!(space.run(&["logs", "model", "-c", "target"])?.trim(), "wick");
    // The pod goes on as it was.
    assert_eq!(http::get((ip, PORT).into(), "/v2/health/ready")?.status, 200);
    let pod = space.get("pod/model")?.context("no pod")?;
    assert_eq!(status(&pod, "main")["restartCount"], 0);
    space.delete()
}
