//! `wick import` of artifacts in a real registry: run by `cargo xtask registry`. The artifacts are
//! put there by plain requests, as their specifications say.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use wick_package::Digest;
use wick_testing::onnx;

use crate::real::Real;
use crate::support::Sandbox;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Send a request; status and `Location`.
fn send(real: &Real, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(real.addr).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n",
        real.addr,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
    (answer[9..12].parse().unwrap(), location.unwrap_or_default().to_owned())
}

/// Put a blob; its descriptor.
fn blob(real: &Real, name: &str, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    let (status, location) = send(real, "POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
    assert_eq!(status, 202);
    let path = location.trim_start_matches(&format!("http://{}", real.addr)).to_owned();
    let path = format!("{path}&digest={digest}");
    assert_eq!(send(real, "PUT", &path, "application/octet-stream", bytes).0, 201);
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn an_artifact_of_a_registry_becomes_a_package() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let family = "application/vnd.cncf.model";
    let config = json!({"descriptor": {"name": "Plus One", "version": "3.1"}}).to_string();
    let config = blob(&real, "team/net", &format!("{family}.config.v1+json"), config.as_bytes());
    let model = onnx::add_scalar(1.0, &[-1, 4]);
    let mut weight = blob(&real, "team/net", &format!("{family}.weight.v1.raw"), &model);
    weight["annotations"] = json!({"org.cncf.model.filepath": "net.onnx"});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "artifactType": format!("{family}.manifest.v1+json"),
        "config": config, "layers": [weight],
    });
    let manifest = manifest.to_string();
    let path = "/v2/team/net/manifests/1";
    assert_eq!(send(&real, "PUT", path, MANIFEST, manifest.as_bytes()).0, 201);

    let source = format!("oci://{}", real.image("team/net:1"));
    let made = sandbox.json(&["import", &source, "-o", "ours", "--plain-http"]);
    assert_eq!(
        (made["name"].as_str(), made["version"].as_str()),
        (Some("plus-one"), Some("3.1.0"))
    );
    let answer = sandbox.json(&["infer", "ours", "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));

    let missing = format!("oci://{}", real.image("team/other:1"));
    let output = sandbox.run(&["import", &missing, "-o", "other", "--plain-http"]);
    assert_eq!(output.status.code(), Some(66));
    // Without being told so, nothing is asked for without encryption.
    let output = sandbox.run(&["import", &source, "-o", "other"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(!sandbox.path("other").exists());
}
