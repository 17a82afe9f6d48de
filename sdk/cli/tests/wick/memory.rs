//! What a server's memory is before, with and after a model.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wick_testing::onnx;

use crate::support::{Sandbox, Server, str};

/// Side of a layer: four of them have 105 MB of weights.
const WIDTH: u64 = 2560;
const WEIGHTS: u64 = 4 * WIDTH * WIDTH * 4;

/// Longest wait for what happens by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Send a request and read its status and its body.
fn request(server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
    let addr = server.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(addr).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text[9..12].parse().unwrap();
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status, body.unwrap_or_default())
}

fn infer(server: &Server, model: &str) -> u16 {
    let data = vec!["0"; usize::try_from(WIDTH).unwrap()].join(",");
    let body = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1,{WIDTH}],"datatype":"FP32","data":[{data}]}}]}}"#
    );
    request(server, "POST", &format!("/v2/models/{model}/infer"), &body).0
}

/// Bytes of the server in memory.
fn resident(server: &Server) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Models by their state in the repository's index.
fn states(server: &Server) -> Vec<(String, String)> {
    let (status, body) = request(server, "POST", "/v2/repository/index", "");
    assert_eq!(status, 200, "{body}");
    let index: Vec<Value> = serde_json::from_str(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    index.iter().map(|model| (text(&model["name"]), text(&model["reason"]))).collect()
}

/// Load a model and unload it, three times; at the end most of its memory is free again.
#[test]
fn unloading_gives_the_memory_back_with_tract() {
    let sandbox = Sandbox::new();
    let small = sandbox.package("small");
    let large = sandbox.package_of("large", &onnx::dense(WIDTH, 4), "");
    let server = sandbox.serve(&[str(&small), str(&large), "--model-control"]);
    assert_eq!(infer(&server, "large"), 200);
    let control = |what: &str| {
        let path = format!("/v2/repository/models/large/{what}");
        let (status, body) = request(&server, "POST", &path, "");
        assert_eq!(status, 200, "{body}");
    };
    control("unload");
    let before = resident(&server);
    for _ in 0..3 {
        control("load");
        assert_eq!(infer(&server, "large"), 200);
        let with = resident(&server);
        assert!(with > before + WEIGHTS / 2, "the model is not in memory: {before} {with}");
        control("unload");
        // Threads that had a part in it end by themselves, after the answer.
        let (took, start) = (with - before, Instant::now());
        let kept = || resident(&server).saturating_sub(before);
        while kept() * 5 > took {
            assert!(start.elapsed() < PATIENCE, "of {took} bytes {} are kept", kept());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // The first load is not among them: what it took is judged by the weights alone.
    let bare = resident(&server);
    assert!(bare < WEIGHTS + (60 << 20), "{bare} bytes with a small model alone");
}

#[test]
fn an_idle_model_leaves_memory_and_the_next_request_brings_it_back() {
    let sandbox = Sandbox::new();
    let large = sandbox.package_of("large", &onnx::dense(WIDTH, 4), "");
    let server = sandbox.serve(&[str(&large), "--idle-graph", "1s"]);
    assert_eq!(infer(&server, "large"), 200);
    let with = resident(&server);
    let start = Instant::now();
    while resident(&server) + WEIGHTS / 2 > with {
        assert!(start.elapsed() < PATIENCE, "it stays: {with} {}", resident(&server));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(states(&server)[0].1, "cold: the next request loads it");
    assert_eq!(request(&server, "GET", "/v2/health/ready", "").0, 200);
    assert_eq!(infer(&server, "large"), 200);
}

#[test]
fn the_least_recently_used_leaves_when_another_needs_its_room() {
    let sandbox = Sandbox::new();
    let model = onnx::dense(WIDTH, 4);
    let packages = ["a", "b", "c"].map(|name| sandbox.package_of(name, &model, ""));
    // Room for two at most, and for one with all that loading it takes.
    let limit = format!("{}B", WEIGHTS * 29 / 10);
    let mut args: Vec<_> = packages.iter().map(|path| str(path)).collect();
    args.extend(["--max-loaded-memory", &limit]);
    let server = sandbox.serve(&args);
    assert_eq!(request(&server, "GET", "/v2/health/ready", "").0, 200, "cold ones are ready");
    for model in ["a", "b", "c", "a", "c"] {
        assert_eq!(infer(&server, model), 200, "{model}");
        let states = states(&server);
        let warm: Vec<_> = states.iter().filter(|(_, reason)| reason.is_empty()).collect();
        assert!(warm.len() < 3, "{states:?}");
        assert!(warm.iter().any(|(name, _)| name == model), "{model} was used last: {states:?}");
    }
}

#[test]
fn a_model_that_can_never_have_room_is_refused_with_what_to_do() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("small");
    let output = sandbox.run(&[
        "run",
        str(&package),
        "--addr",
        "127.0.0.1:0",
        "--max-loaded-memory",
        "1B",
        "--output",
        "json",
    ]);
    assert_ne!(output.status.code(), Some(0));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], json!("no-room"), "{error}");
    assert!(error["error"].as_str().unwrap().contains("--max-loaded-memory"), "{error}");
}

#[test]
fn versions_are_served_side_by_side() {
    let sandbox = Sandbox::new();
    let (old, new) = (sandbox.package("digits"), sandbox.path("digits-2"));
    fs::create_dir(&new).unwrap();
    let manifest = fs::read_to_string(old.join("wick.toml")).unwrap();
    fs::write(new.join("wick.toml"), manifest.replace("1.2.3", "2.0.0")).unwrap();
    fs::write(new.join("model.onnx"), onnx::add_scalar(2.0, &[-1, 4])).unwrap();
    let server = sandbox.serve(&[str(&old), str(&new), "--versions", "all"]);
    let versions = server.ready["models"].as_array().unwrap().iter();
    let versions: Vec<_> = versions.map(|model| model["version"].clone()).collect();
    assert_eq!(versions, [json!("2.0.0"), json!("1.2.3")]);
    let body = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[0,0,0,0]}]}"#;
    for (version, want) in [("1.2.3", 1.0), ("2.0.0", 2.0)] {
        let path = format!("/v2/models/digits/versions/{version}/infer");
        let (status, answer) = request(&server, "POST", &path, body);
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["outputs"][0]["data"][0], json!(want));
    }
}
