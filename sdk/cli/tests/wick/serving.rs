//! `wick run`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use wick_testing::onnx;

use crate::support::{Sandbox, str, text};

/// A command that ends with code 7 if it was given an argument, and with 0 otherwise.
const COMMAND: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1))
      (then (call $exit (i32.const 7))))))"#;

#[test]
fn a_server_answers_and_ends_well_on_sigterm() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let mut server = sandbox.serve(&[str(&package)]);
    assert_eq!(server.ready["ready"], true);
    assert_eq!(server.ready["models"][0]["name"], "plus-one");
    assert_eq!(server.ready["models"][0]["graphs"][0]["device"]["kind"], "cpu");

    for more in [&[][..], &["--no-binary"]] {
        let args = ["infer", server.url(), "plus-one", "-i", "x=[1, 2, 3, 4]"];
        let answer = sandbox.json(&[&args, more].concat());
        assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    }
    // The only model need not be named, nor its only input.
    let answer = sandbox.json(&["infer", server.url(), "-i", "[[0, 0, 0, 0], [1, 1, 1, 1]]"]);
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 4]));

    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_a_slow_client() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let mut server = sandbox.serve(&[str(&package), "--drain", "50s"]);
    let addr = server.url().trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(addr).unwrap();
    let head = "POST /v2/models/plus-one/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\
                Expect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    // The server asks for the body: the request is in work.
    client.read_exact(&mut [0; 12]).unwrap();
    server.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.child.try_wait().unwrap().is_none(), "it cut a request off");
    server.signal("INT");
    assert_eq!(server.wait(), Some(130));
}

#[test]
fn a_port_in_use_has_its_own_exit_code_and_says_what_to_do() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = sandbox.run(&["run", str(&package), "--addr", &addr]);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("error: ") && stderr.contains(&addr), "{stderr}");
    assert!(stderr.contains("help: "), "{stderr}");
}

#[test]
fn a_broken_model_ends_the_server_with_its_reason() {
    let sandbox = Sandbox::new();
    let package = sandbox.package_of("broken", b"not a model", "");
    let output = sandbox.run(&["run", str(&package), "--addr", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    assert!(text(&output).contains("graph `g`"), "{}", text(&output));
}

#[test]
fn people_see_a_banner_with_models_and_an_example() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let mut child = sandbox
        .wick(&["run", str(&package), "--addr", "127.0.0.1:0", "--log-level", "error"])
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("Ctrl-C") {
        let mut chunk = [0; 256];
        let count = stderr.read(&mut chunk).unwrap();
        assert!(count > 0, "it ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen.contains("plus-one 1.2.3 (passthrough)"), "{seen}");
    assert!(seen.contains("g on cpu by tract"), "{seen}");
    assert!(seen.contains("wick infer http://127.0.0.1:"), "{seen}");
}

#[test]
fn configuration_is_checked_without_serving() {
    let sandbox = Sandbox::new();
    let (a, b) = (sandbox.package("a"), sandbox.package("b"));
    let json = sandbox.json(&["run", "--check-config", str(&a), str(&b)]);
    assert_eq!(json["models"], json!(["a", "b"]));
    let twice = sandbox.run(&["run", "--check-config", str(&a), str(&a)]);
    assert_eq!(twice.status.code(), Some(65), "{}", text(&twice));
}

#[test]
fn a_command_package_ends_wick_with_its_own_code_and_needs_no_port() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("job");
    fs::write(package.join("handler.wasm"), wat::parse_str(COMMAND).unwrap()).unwrap();
    let manifest = fs::read_to_string(package.join("wick.toml")).unwrap();
    let manifest = format!("{manifest}\n[handler]\ncomponent = \"handler.wasm\"\n");
    fs::write(package.join("wick.toml"), manifest).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (free, args) in [(false, &[][..]), (true, &[]), (false, &["--", "x"])] {
        let addr = if free { "127.0.0.1:0" } else { &addr };
        let output = sandbox.run(&[&["run", str(&package), "--addr", addr], args].concat());
        let code = if args.is_empty() { 0 } else { 7 };
        assert_eq!(output.status.code(), Some(code), "{addr} {args:?}: {}", text(&output));
    }
}

#[test]
fn a_changed_package_is_loaded_again() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus");
    let server = sandbox.serve(&[str(&package), "--watch"]);
    let answer = || sandbox.json(&["infer", server.url(), "-i", "[0, 0, 0, 0]"]);
    assert_eq!(answer()["outputs"][0]["data"][0], json!(1.0));

    let next = package.join("next.onnx");
    fs::write(&next, onnx::add_scalar(2.0, &[-1, 4])).unwrap();
    fs::rename(next, package.join("model.onnx")).unwrap();
    let start = Instant::now();
    while answer()["outputs"][0]["data"][0] != json!(2.0) {
        assert!(start.elapsed() < Duration::from_secs(30), "it was not loaded again");
        std::thread::sleep(Duration::from_millis(50));
    }
}
