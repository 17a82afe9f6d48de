//! Whether the cluster of the other suites is a real one: its node is ready, ordinary pods
//! run, find each other and the API server, and take their images from where images come
//! from. The tests in `own` start clusters of their own: two at once, and one that crashes.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use wick_e2e::cluster::Cluster;
use wick_e2e::http;
use wick_e2e::image::Image;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

/// The port that `httpd serve` listens on.
const PORT: u16 = 8080;

/// Longest until a pod that is ready answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An image of `httpd` that says `answer`.
fn httpd(cluster: &Cluster, reference: &str, answer: &str) -> anyhow::Result<Image> {
    let image = Image::new(reference).program("/httpd", &cluster.program("httpd")?)?;
    Ok(image.entrypoint(&["/httpd"]).env("ANSWER", answer))
}

/// The manifest of a pod that runs `httpd` with `args`.
fn pod(name: &str, image: &str, args: &[&str]) -> String {
    let serves = args.first() == Some(&"serve");
    let probe = format!("\n    readinessProbe: {{tcpSocket: {{port: {PORT}}}, periodSeconds: 1}}");
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  containers:
  - name: httpd
    image: {image}
    args: {args:?}
    imagePullPolicy: IfNotPresent{probe}
",
        probe = if serves { &probe } else { "" },
    )
}

/// Ask a pod from the host.
fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let answer = wait("the pod's answer", ANSWER_TIMEOUT, || Ok(http::get(address, "/").ok()))?;
    ensure!(answer.status == 200, "status {}", answer.status);
    Ok(answer.text())
}

/// Import `httpd` under a name, run it, and return its address.
fn serve(cluster: &Cluster, space: &Namespace, answer: &str) -> anyhow::Result<SocketAddr> {
    let reference = format!("docker.io/local/{answer}:1");
    cluster.import(&httpd(cluster, &reference, answer)?)?;
    space.apply(&pod("server", &reference, &["serve"]))?;
    Ok(SocketAddr::new(space.ready_pod("server")?, PORT))
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_node_is_ready_and_knows_the_class_of_wick() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    assert_eq!(cluster.kubectl.run(&["get", "nodes", "-o", path])?, "True");
    if cluster.ours.is_some() {
        let class = cluster.kubectl.get(&["runtimeclass/wick"])?.context("no class")?;
        assert_eq!(class["handler"], "wick");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_pod_answers_on_its_address_and_through_a_service() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("harness")?;
    let address = serve(&cluster, &space, "hello")?;
    if cluster.ours.is_some() {
        assert_eq!(ask(address)?, "hello");
    }
    space.apply(&format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: server}}
  ports: [{{port: 80, targetPort: {PORT}}}]
"
    ))?;
    let url = format!("http://web.{}.svc.cluster.local/", space.name);
    space.apply(&pod("client", "docker.io/local/hello:1", &["get", &url]))?;
    assert_eq!(space.output_of("client")?, "hello\n");
    assert!(space.logs("server")?.contains("GET /"));
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_pod_reaches_the_api_server_by_its_name_and_with_its_account() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("harness")?;
    let image = "docker.io/local/api:1";
    cluster.import(&httpd(&cluster, image, "")?)?;
    space.apply(&pod("client", image, &["api"]))?;
    let answer = space.output_of("client")?;
    assert!(answer.contains("\"gitVersion\""), "{answer}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_image_comes_from_the_registry() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("harness")?;
    // A tag that no earlier run has pulled.
    let tag = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let reference = format!("{}/tests/httpd:{tag}", cluster.registry_name()?);
    cluster.push(&httpd(&cluster, &reference, "pulled")?)?;
    space.apply(&pod("server", &reference, &["serve"]))?;
    space.ready_pod("server")?;
    let events = space.run(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
    assert!(events.contains("Successfully pulled image"), "{events}");
    space.delete()
}

/// Tests that start clusters; left out when an existing one is used.
mod own {
    use std::process::Command;

    use wick_e2e::cluster::{found, is_empty, xtask};

    use super::*;

    /// End a process of the cluster at once.
    fn kill(cluster: &Cluster, command: &str) -> anyhow::Result<()> {
        let processes = cluster.processes()?;
        let process = processes.iter().find(|process| process.command == command);
        let process = process.with_context(|| format!("no {command} runs"))?;
        let status = Command::new("kill").args(["-KILL", &process.pid.to_string()]).status()?;
        ensure!(status.success(), "kill {command}: {status}");
        Ok(())
    }

    #[test]
    #[ignore = "needs root and a cluster; cargo xtask e2e"]
    fn two_clusters_run_at_once_and_one_stops_without_the_other() -> anyhow::Result<()> {
        let first = Cluster::attach()?;
        let second = Cluster::start("e2e-second")?;
        assert_ne!(first.ours()?.node_ip, second.ours()?.node_ip);
        let space = first.kubectl.namespace("harness")?;
        let other = second.kubectl.namespace("harness")?;
        let address = serve(&first, &space, "first")?;
        assert_eq!(ask(serve(&second, &other, "second")?)?, "second");
        assert_eq!(ask(address)?, "first");
        other.abandon();
        second.stop()?;
        assert_eq!(ask(address)?, "first");
        // A Service is made of the packet filter's rules, which are the first's own.
        space.apply(&pod("api", "docker.io/local/first:1", &["api"]))?;
        assert!(space.output_of("api")?.contains("\"gitVersion\""));
        space.delete()
    }

    #[test]
    #[ignore = "needs root and a cluster; cargo xtask e2e"]
    fn whatever_crashes_nothing_is_left() -> anyhow::Result<()> {
        // containerd dies with a pod running; then the first process, with all others.
        for victims in [&["containerd", "etcd", "kubelet"][..], &["supervisor"], &["unshare"]] {
            let cluster = Cluster::start("e2e-crash")?;
            let space = cluster.kubectl.namespace("harness")?;
            serve(&cluster, &space, "victim")?;
            space.abandon();
            for victim in victims {
                kill(&cluster, victim)?;
            }
            cluster.stop().with_context(|| format!("after the end of {victims:?}"))?;
            // A second time there is nothing to do.
            xtask(&["cluster", "down", "e2e-crash"])?;
            assert!(is_empty(&found("e2e-crash")?));
        }
        Ok(())
    }
}
