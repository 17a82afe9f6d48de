//! `wick bench`.

use wick_testing::onnx;

use crate::support::{Sandbox, str};

const SHORT: [&str; 4] = ["-d", "300ms", "--warmup", "0s"];

#[test]
fn a_package_and_a_server_are_measured_alike() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let server = sandbox.serve(&[str(&package)]);
    for target in [str(&package), server.url()] {
        let report = sandbox.json(&[&["bench", target, "-c", "2"], &SHORT[..]].concat());
        assert!(report["requests"].as_u64().unwrap() > 0, "{report}");
        assert!(report["per_second"].as_f64().unwrap() > 0.0, "{report}");
        assert_eq!(report["errors"], serde_json::json!({}));
        let latency = &report["latency_ms"];
        let of = |name: &str| latency[name].as_f64().unwrap();
        assert!(of("min") <= of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"));
        assert_eq!(report["cpu_ms_per_request"].is_number(), target == str(&package));
    }
}

#[test]
fn a_number_of_requests_is_kept_exactly() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let args = ["bench", str(&package), "-c", "3", "-n", "50", "--warmup", "0s", "--random"];
    assert_eq!(sandbox.json(&args)["requests"], 50);
}

#[test]
fn batching_is_compared_with_none() {
    let sandbox = Sandbox::new();
    let package = sandbox.package_of("dense", &onnx::dense(64, 2), "");
    let args = [&["bench", str(&package), "-c", "4", "--batch"], &SHORT[..]].concat();
    let report = sandbox.json(&args);
    assert!(report["gain"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["with"]["requests"].as_u64().unwrap() > 0, "{report}");
    assert!(report["without"]["requests"].as_u64().unwrap() > 0, "{report}");
}
