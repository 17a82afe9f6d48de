//! `wick hub` and `wick fleet`, without a broker: what a hub says of itself, and what it would do.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Sandbox, str, text};

/// Longer than anything takes that works.
const LIMIT: Duration = Duration::from_secs(30);

const ROLLOUT: &str = "\
apiVersion: wick.dev/v1alpha1
kind: Rollout
metadata:
  name: ocr-7
spec:
  models:
  - name: ocr
    image: registry.example/ocr@sha256:0101010101010101010101010101010101010101010101010101010101010101
    disk: 30Mi
    memory: 64Mi
";

/// A hub that ends with its test.
struct Hub(Child);

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn git(folder: &std::path::Path, args: &[&str]) {
    let done = Command::new("git").arg("-C").arg(folder).args(args).output().unwrap();
    assert!(done.status.success(), "git {args:?}: {}", text(&done));
}

#[test]
fn a_hub_is_made_run_and_asked() {
    let sandbox = Sandbox::new();
    let (dir, policy) = (sandbox.path("hub"), sandbox.path("policy"));
    let made = sandbox.json(&["hub", "init", "--dir", str(&dir), "--name", "localhost"]);
    let token = made["token"].as_str().unwrap().to_owned();
    let again = sandbox.run(&["hub", "init", "--dir", str(&dir), "--name", "localhost"]);
    assert_eq!(again.status.code(), Some(73), "{}", text(&again));
    let acl = sandbox.run(&["hub", "mosquitto", "--dir", str(&dir), "--acl"]);
    assert!(text(&acl).contains("pattern read wick/v1/%u/desired"), "{}", text(&acl));

    fs::create_dir_all(policy.join("rollouts")).unwrap();
    fs::write(policy.join("rollouts/a.yaml"), ROLLOUT).unwrap();
    git(&policy, &["init", "--quiet", "--initial-branch", "main"]);
    git(&policy, &["add", "--all"]);
    let name = ["-c", "user.name=test", "-c", "user.email=test@example"];
    git(&policy, &[&name[..], &["commit", "--quiet", "--message", "policy"]].concat());

    let url = format!("file://{}", policy.display());
    let mut command = sandbox.wick(&["hub", "run", "--output", "json", "--dir", str(&dir)]);
    command.args(["--broker", "mqtt://127.0.0.1:1", "--git", &url, "--plain"]);
    command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut hub = Hub(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(hub.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    let api = ready["api"].as_str().unwrap();
    let fleet = |args: &[&str]| {
        let more = ["fleet", "--hub", api, "--token", &token];
        [&more[..], args].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ask = |args: &[&str]| {
        let args = fleet(args);
        sandbox.json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let tell = |args: &[&str]| {
        let args = fleet(args);
        sandbox.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let began = Instant::now();
    while ask(&["status"])["source"]["commit"].is_null() {
        assert!(began.elapsed() < LIMIT, "{}", ask(&["status"]));
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = text(&tell(&["status"]));
    assert!(status.contains("not connected") && status.contains("0 enrolled"), "{status}");
    assert_eq!(ask(&["sites"]), json!({"sites": []}));
    assert!(ask(&["enrol-token", "plant-3"])["token"].as_str().unwrap().starts_with("wick_"));
    let viewer = ask(&["token", "bob"])["token"].as_str().unwrap().to_owned();
    let refused = sandbox.run(&["fleet", "--hub", api, "--token", &viewer, "audit"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let audit = ask(&["audit"]);
    assert_eq!(audit["audit"][0]["about"], "bob");

    // A dry run of a checkout, good and bad.
    let dry = ask(&["plan", "--files", str(&policy)]);
    assert!(dry["text"].as_str().unwrap().contains("rollout ocr-7: running"), "{dry}");
    fs::write(policy.join("rollouts/a.yaml"), ROLLOUT.replace("64Mi", "much")).unwrap();
    let bad = tell(&["plan", "--files", str(&policy)]);
    assert_eq!(bad.status.code(), Some(65));
    assert!(text(&bad).contains("rollouts/a.yaml:10"), "{}", text(&bad));
    let none = tell(&["rollout", "pause", "ocr-9"]);
    assert_eq!(none.status.code(), Some(66), "{}", text(&none));
}
