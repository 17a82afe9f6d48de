//! The report of a manifest with many mistakes, whole, as its author reads it.

use std::path::Path;

use wick_package::{Reason as _, parse};

const TEXT: &str = r#"[package]
name = "FileType"
version = "1.2"
descripton = "typo in the key"

[handler]
component = "../handler.wasm"

[[graph]]
name = "magika"
path = "model.onnx"
deviecs = ["npu"]
devices = ["npu", "gpu", "npu"]
min_device_share = 1.5
batch = { max = 1, delay = "2 ms" }
threads = "four"
backend = "no backend"

[[graph.variant]]
device = "cpu"
vendor = "Intel"
path = "model.int8.onnx"

[[graph]]
name = "magika"
path = "wick.toml"
devices = []

[[graph]]
path = 7
devices = ["gup"]

[[input]]
name = "bytes"
datatype = "float32"
shape = [-2, 0, "n"]

[[input]]
name = "bytes"
datatype = "UINT9"
shape = [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]

[[output]]
datatype = "FP32"
shape = 3

[limits]
memory = "256 megabytes"
timeout = 30
concurrency = 0
queue = -1
request = "64 MB"

[warmup]
requests = 1.5
request = "/etc/passwd"

[wants]
network = ["example.com", "example.com:443", "EXAMPLE.com:443", 80]
env = ["1A", "HOME", "HOME"]
mounts = [{ name = "data", path = "data" }, "x"]

[extra]
"#;

const REPORT: &str = r#"wick.toml has 43 mistakes:
  wick.toml:2:8: `FileType` is not a package name: use 1 to 63 of a-z, 0-9 and `-`, starting and ending with a letter or digit
  wick.toml:3:11: `1.2` is not a version (unexpected end of input while parsing minor version number): write three numbers, for instance "1.2.0"
  wick.toml:4:1: unknown key `descripton` in [package]: did you mean `description`?
  wick.toml:7:13: `../handler.wasm` is not a path inside the package: write a relative path with `/` between its parts and without `..`
  wick.toml:12:1: unknown key `deviecs` in [[graph]]: did you mean `devices`?
  wick.toml:13:26: device `npu` is listed twice: list it once, best first
  wick.toml:14:20: `min_device_share` in [[graph]] is 1.5: write a number from 0.0 to 1.0
  wick.toml:15:17: `max` in `batch` is 1: write a whole number from 2 to 4096
  wick.toml:15:28: `delay` in `batch` is "2 ms": write "2ms", without the space
  wick.toml:16:11: `threads` in [[graph]] has a string: write a whole number from 1 to 1024
  wick.toml:17:11: `no backend` is not a backend name: use 1 to 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit
  wick.toml:20:10: the variant is for `cpu`, which `devices` of its graph does not permit: add "cpu" there, or remove the variant
  wick.toml:21:10: `Intel` is not a vendor: use a-z, 0-9 and `-`, for instance "qualcomm"
  wick.toml:25:8: graph `magika` is there twice: give one another name
  wick.toml:26:8: `wick.toml` is the manifest itself: name another file
  wick.toml:27:11: `devices` in [[graph]] is empty, so the graph could run nowhere: write for instance ["cpu"]
  wick.toml:29:1: `name` is missing in [[graph]]: write `name = "model"`
  wick.toml:30:8: `path` in [[graph]] has an integer: write a string
  wick.toml:31:12: unknown device `gup`: did you mean `gpu`?
  wick.toml:35:12: unknown datatype `float32`: did you mean `FP32`?
  wick.toml:36:10: a dimension can't be -2: write its size, or -1 for any size
  wick.toml:36:14: a dimension can't be 0: write its size, or -1 for any size
  wick.toml:36:17: a dimension can't be a string: write its size, or -1 for any size
  wick.toml:39:8: input `bytes` is there twice: give one another name
  wick.toml:40:12: unknown datatype `UINT9`: did you mean `UINT8`?
  wick.toml:41:9: `shape` has 17 dimensions: a tensor has at most 16
  wick.toml:43:1: `name` is missing in [[output]]: write `name = "x"`
  wick.toml:45:9: `shape` in [[output]] has an integer: write an array of sizes, for instance [-1, 3, 224, 224]
  wick.toml:48:10: `memory` in [limits] is "256 megabytes": write a size in bytes or with its unit, for instance "256MiB" or "64MB"
  wick.toml:49:11: `timeout` in [limits] has an integer: write a duration with its unit, for instance "500us", "2ms", "30s" or "5m"
  wick.toml:50:15: `concurrency` in [limits] is 0: write a whole number from 1 to 65536
  wick.toml:51:9: `queue` in [limits] is -1: write a whole number from 0 to 1000000
  wick.toml:52:11: `request` in [limits] is "64 MB": write "64MB", without the space
  wick.toml:55:12: `requests` in [warmup] has a float: write a whole number from 0 to 10000
  wick.toml:56:11: `/etc/passwd` is not a path inside the package: write a relative path with `/` between its parts and without `..`
  wick.toml:59:12: `example.com` is not a destination: write host and port, for instance "api.example.com:443"
  wick.toml:59:46: `EXAMPLE.com:443` is listed twice: list it once
  wick.toml:59:65: `network` in [wants] has an integer: write a string
  wick.toml:60:8: `1A` is not the name of an environment variable: use A-Z, a-z, 0-9 and `_`, not starting with a digit
  wick.toml:60:22: `HOME` is listed twice: list it once
  wick.toml:61:35: `data` is not a path in the guest: write an absolute path without `..`, for instance "/data"
  wick.toml:61:45: `mounts` in [wants] has a string: write a table
  wick.toml:63:2: unknown key `extra` in wick.toml: use `package`, `handler`, `graph`, `input`, `output`, `limits`, `idle`, `warmup`, `wants`"#;

#[test]
fn every_mistake_of_a_file_is_in_one_report() {
    let errors = parse(TEXT, Path::new("wick.toml")).unwrap_err();
    assert_eq!(errors.code(), "bad-manifest");
    assert_eq!(errors.to_string(), REPORT, "\n{errors}\n");
}
