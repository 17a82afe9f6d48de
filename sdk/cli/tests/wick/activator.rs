//! `wick activator run`, before a real server and without a cluster.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Sandbox, str, text};

/// Longer than anything takes that works.
const LIMIT: Duration = Duration::from_secs(30);

/// An activator with one Model; it is killed when dropped.
struct Activator {
    child: Child,
    port: u16,
    control: String,
    table: PathBuf,
}

impl Activator {
    fn start(sandbox: &Sandbox, pods: Value) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let table = sandbox.path("table.json");
        write(&table, port, pods);
        let args = ["activator", "run", "--bind", "127.0.0.1", "--control", "127.0.0.1:0"];
        let mut command = sandbox.wick(&args);
        command.args(["--output", "json", "--table", str(&table)]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        let control = ready["control"].as_str().unwrap().trim_start_matches("http://").to_owned();
        Self { child, port, control, table }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Send a request on a thread; what comes back, until the connection ends.
    fn ask(&self, path: &str) -> JoinHandle<std::io::Result<String>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::spawn(move || {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        })
    }

    fn until_held(&self, count: usize) {
        let line = format!("wick_activator_held{{namespace=\"ns\",model=\"m\"}} {count}\n");
        let start = Instant::now();
        loop {
            let mut stream = TcpStream::connect(&self.control).unwrap();
            let head = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let mut metrics = String::new();
            stream.read_to_string(&mut metrics).unwrap();
            if metrics.contains(&line) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "no {line} in\n{metrics}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn write(table: &std::path::Path, port: u16, pods: Value) {
    let revision = json!({"name": "m-1", "weight": 100, "pods": pods});
    let model = json!({
        "namespace": "ns", "name": "m", "port": port,
        "hold": true, "maxHeld": 100, "holdTimeout": "60s", "revisions": [revision],
    });
    // Never half a table.
    let new = table.with_extension("new");
    fs::write(&new, json!({"models": [model]}).to_string()).unwrap();
    fs::rename(new, table).unwrap();
}

#[test]
fn a_request_waits_until_a_real_server_is_there() {
    let sandbox = Sandbox::new();
    let activator = Activator::start(&sandbox, json!([]));
    let held = activator.ask("/v2/models/plus-one");
    activator.until_held(1);
    let server = sandbox.serve(&[str(&sandbox.package("plus-one"))]);
    let addr = server.url().trim_start_matches("http://").trim_end_matches('/');
    write(&activator.table, activator.port, json!([{"address": addr, "ready": false}]));
    let answer = held.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("plus-one"), "{answer}");
    for more in [&[][..], &["--no-binary"]] {
        let url = activator.url();
        let args = ["infer", &url, "plus-one", "-i", "x=[1, 2, 3, 4]"];
        let answer = sandbox.json(&[&args, more].concat());
        assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    }
}

#[test]
fn whatever_ends_it_nobody_waits_for_ever() {
    let sandbox = Sandbox::new();
    let mut drained = Activator::start(&sandbox, json!([]));
    let held = drained.ask("/v2/models/m");
    drained.until_held(1);
    let start = Instant::now();
    drained.signal("TERM");
    let answer = held.join().unwrap().unwrap().to_lowercase();
    assert!(
        answer.starts_with("http/1.1 503") && answer.contains("\r\nretry-after: 1\r\n"),
        "{answer}"
    );
    assert_eq!(drained.child.wait().unwrap().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    let killed = Activator::start(&sandbox, json!([]));
    let held: Vec<_> = (0..20).map(|_| killed.ask("/v2/models/m")).collect();
    killed.until_held(20);
    killed.signal("KILL");
    for one in held {
        // Reset, or closed without a word: a client that may send again knows it at once.
        assert!(one.join().unwrap().map_or(true, |answer| answer.is_empty()));
    }
}

#[test]
fn a_table_that_is_wrong_is_refused() {
    let sandbox = Sandbox::new();
    let table = sandbox.path("table.json");
    fs::write(&table, r#"{"models": [{"name": "m"}]}"#).unwrap();
    let output = sandbox.run(&["activator", "run", "--table", str(&table)]);
    assert!(!output.status.success());
    assert!(text(&output).contains("missing field"), "{}", text(&output));
}
