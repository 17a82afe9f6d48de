//! What a right manifest means, and single mistakes that the whole report does not show.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use wick_package::{Datatype, DeviceKind, Dim, FileRole, HostPort, Limits, Manifest, parse};

const HEAD: &str = "[package]\nname = \"a\"\nversion = \"1.0.0\"\n";
/// Every key once.
const EVERYTHING: &str = r#"
[package]
name = "filetype"
version = "1.2.0-rc.1+build5"
description = "Says what a file is"
[handler]
component = "handler.wasm"
[[graph]]
name = "magika"
path = "weights/model.onnx"
devices = ["npu", "gpu", "cpu"]
min_device_share = 0.5
batch = { max = 16, delay = "500us" }
threads = 2
backend = "onnxruntime"
[[graph.variant]]
device = "npu"
vendor = "qualcomm"
path = "weights/model.qdq.onnx"
[[input]]
name = "bytes"
datatype = "UINT8"
shape = [-1, 3]
[[output]]
name = "label"
datatype = "BYTES"
shape = []
[limits]
memory = "128MiB"
timeout = "2m"
concurrency = 8
queue = 0
queue_timeout = "250ms"
weight = 3
request = 1_000_000
[idle]
graph = "10m"
[warmup]
requests = 3
request = "warmup.json"
[wants]
network = ["API.example.com:443", "[::1]:80"]
env = ["LOG_LEVEL"]
mounts = [{ name = "data", path = "/var/data", writable = true }]
"#;

const GRAPH: &str = "[[graph]]\nname = \"m\"\npath = \"m.onnx\"\n";

fn good(text: &str) -> Manifest {
    parse(text, Path::new("wick.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The report of a small package and more text, without the first line.
fn mistakes(more: &str) -> Vec<String> {
    let text = format!("{HEAD}{more}");
    let errors = parse(&text, Path::new("wick.toml")).expect_err(&text);
    errors.mistakes().iter().map(|m| format!("{}:{}: {}", m.line, m.column, m.message)).collect()
}

#[test]
fn everything_that_can_be_written_is_read() {
    let manifest = good(EVERYTHING);
    assert_eq!(manifest.version.to_string(), "1.2.0-rc.1+build5");
    assert_eq!(manifest.description.as_deref(), Some("Says what a file is"));
    let graph = &manifest.graphs[0];
    assert_eq!(graph.devices, [DeviceKind::Npu, DeviceKind::Gpu, DeviceKind::Cpu]);
    assert_eq!(graph.min_device_share, 0.5);
    let batch = graph.batch.unwrap();
    assert_eq!((batch.max.get(), batch.delay), (16, Duration::from_micros(500)));
    assert_eq!(graph.threads.unwrap().get(), 2);
    assert_eq!(graph.backend.as_ref().unwrap().as_str(), "onnxruntime");
    assert_eq!(graph.variants[0].vendor.as_deref(), Some("qualcomm"));
    assert_eq!(manifest.inputs[0].shape, [Dim::Any, Dim::Fixed(3)]);
    assert_eq!(manifest.outputs[0].datatype, Datatype::Bytes);
    let limits = Limits {
        memory: 128 << 20,
        timeout: Duration::from_secs(120),
        concurrency: 8.try_into().ok(),
        queue: 0,
        queue_timeout: Some(Duration::from_millis(250)),
        weight: 3,
        request: 1_000_000,
    };
    assert_eq!(manifest.limits, limits);
    assert_eq!(manifest.idle.graph, Some(Duration::from_secs(600)));
    let host = |host: &str, port| HostPort { host: host.into(), port };
    assert_eq!(manifest.wants.network, [host("api.example.com", 443), host("[::1]", 80)]);
    assert!(manifest.wants.mounts[0].writable);
    let files = manifest.files();
    let files: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.role)).collect();
    let want = [
        ("handler.wasm", FileRole::Component),
        ("warmup.json", FileRole::Warmup),
        ("weights/model.onnx", FileRole::Weights),
        ("weights/model.qdq.onnx", FileRole::Weights),
    ];
    assert_eq!(files, want);
}

#[test]
fn what_is_not_written_has_defaults() {
    let manifest = good(&format!("{HEAD}{GRAPH}"));
    assert_eq!(manifest.graphs[0].devices, [DeviceKind::Cpu]);
    assert_eq!(manifest.graphs[0].min_device_share, 1.0);
    assert_eq!(manifest.graphs[0].batch, None);
    assert_eq!(manifest.limits, Limits::default());
    assert_eq!(manifest.idle.graph, None);
    assert_eq!((manifest.warmup.requests, manifest.warmup.request), (1, None));
    let manifest = good(&format!("{HEAD}{GRAPH}batch = {{ max = 2 }}\n"));
    assert_eq!(manifest.graphs[0].batch.unwrap().delay, Duration::from_millis(2));
}

#[test]
fn a_variant_may_have_options_and_the_graphs_own_bytes() {
    let variant = |options: &str| {
        format!("{GRAPH}devices = [\"gpu\"]\n[[graph.variant]]\ndevice = \"gpu\"\n{options}\n")
    };
    let text =
        "options = { cuda = { use_tf32 = true, gpu_mem_limit = 1_000 }, webgpu = { a = \"b\" } }";
    let manifest = good(&format!("{HEAD}{}", variant(text)));
    let read = &manifest.graphs[0].variants[0];
    assert_eq!(read.path, manifest.graphs[0].path);
    let cuda = &read.options["cuda"];
    assert_eq!((cuda["use_tf32"].as_str(), cuda["gpu_mem_limit"].as_str()), ("1", "1000"));
    assert_eq!(read.options["webgpu"]["a"], "b");
    assert_eq!(
        mistakes(&variant("")),
        ["8:1: `path` is missing in [[graph.variant]]: write `path = \"model.npu.onnx\"`"]
    );
    let wrong = mistakes(&variant("options = { cuda = 1, qnn = { a = 1.5 } }"));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("`cuda` in `options` is no table"), "{wrong:?}");
    assert!(wrong[1].contains("option `a` must be true, false, a whole number"), "{wrong:?}");
}

#[test]
fn numbers_may_be_whole_and_in_any_base() {
    let text = format!("{HEAD}{GRAPH}min_device_share = 1\nthreads = 0x10\n");
    assert_eq!(good(&text).graphs[0].threads.unwrap().get(), 16);
}

#[test]
fn a_handler_may_have_any_number_of_graphs_and_a_bare_package_exactly_one() {
    good(&format!("{HEAD}[handler]\ncomponent = \"h.wasm\"\n"));
    good(&format!(
        "{HEAD}[handler]\ncomponent = \"h.wasm\"\n{GRAPH}{}",
        GRAPH.replace('m', "n").replace("nane", "name")
    ));
    assert_eq!(
        mistakes(""),
        ["1:1: there is neither a graph nor a handler: add [[graph]] with a model, \
             or [handler] with a component"]
    );
    let two = format!("{GRAPH}[[graph]]\nname = \"n\"\npath = \"n.onnx\"\n");
    assert_eq!(
        mistakes(&two),
        ["7:1: without [handler] there must be exactly one graph: remove this one, \
             or add a handler that calls both"]
    );
}

#[test]
fn tables_of_the_wrong_form_are_explained() {
    assert_eq!(
        mistakes("graph = { name = \"a\" }\n")[1],
        "4:1: unknown key `graph` in [package]: use `name`, `version`, `description`"
    );
    assert_eq!(
        mistakes("[graph]\nname = \"m\"\n"),
        ["4:1: `graph` in wick.toml has a table: write [[graph]], once for each"]
    );
    assert_eq!(
        parse("", Path::new("wick.toml")).unwrap_err().mistakes()[0].message,
        "`package` is missing in wick.toml: write `[package]`"
    );
}

#[test]
fn broken_toml_is_reported_with_its_place_once_a_line() {
    for (more, place) in [
        ("[[graph]\n", "4:"),
        ("[limits]\nmemory = \n", "5:"),
        ("[limits]\nmemory = 1\nmemory = 2\n", "6:1:"),
        ("\u{0}", "4:"),
        ("x = \"unclosed", "4:"),
    ] {
        let mistakes = mistakes(more);
        assert_eq!(mistakes.len(), 1, "{more}: {mistakes:?}");
        assert!(mistakes[0].starts_with(place), "{more}: {mistakes:?}");
        assert!(mistakes[0].contains("this is not TOML: "), "{mistakes:?}");
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for text in
        ["x = ".to_owned() + &"[".repeat(100_000), "x = ".to_owned() + &"{a=".repeat(100_000)]
    {
        assert!(parse(&text, Path::new("wick.toml")).is_err());
    }
}

#[test]
fn a_report_is_bounded_however_wrong_the_file_is() {
    let text: String = (0..10_000).map(|n| format!("k{n} = 1\n")).collect();
    let errors = parse(&text, Path::new("wick.toml")).unwrap_err();
    assert_eq!(errors.mistakes().len(), 100);
    let text = format!("{HEAD}description = \"{}\"\n{GRAPH}", "a".repeat(1 << 20));
    let errors = parse(&text, Path::new("wick.toml")).unwrap_err();
    assert!(errors.to_string().len() < 1000);
}

#[test]
fn limits_have_bounds() {
    let cases = [
        ("memory = 1", "`memory` in [limits] must be from 64KiB to 4GiB"),
        ("memory = -5", "`memory` in [limits] must be from 64KiB to 4GiB"),
        ("memory = \"1TiB\"", "`memory` in [limits] must be from 64KiB to 4GiB"),
        ("timeout = \"0s\"", "`timeout` in [limits] must be from 1ms to 24h"),
        ("timeout = \"999999999999999h\"", "write a smaller number"),
        ("concurrency = 65537", "write a whole number from 1 to 65536"),
        ("queue = 99999999999999999999999", "write a whole number from 0 to 1000000"),
    ];
    for (line, want) in cases {
        let mistakes = mistakes(&format!("{GRAPH}[limits]\n{line}\n"));
        assert!(mistakes.len() == 1 && mistakes[0].contains(want), "{line}: {mistakes:?}");
    }
}

#[test]
fn a_share_is_a_number_from_0_to_1() {
    for bad in ["nan", "inf", "-0.1", "1.01", "2", "-1", "1e400"] {
        let mistakes = mistakes(&format!("{GRAPH}min_device_share = {bad}\n"));
        assert!(mistakes[0].contains("write a number from 0.0 to 1.0"), "{bad}: {mistakes:?}");
    }
}

#[test]
fn destinations_name_a_host_and_a_port() {
    let bad = ["", ":80", "a", "a:", "a:0", "a:65536", "a:+1", "*:80", "a b:80", "-a:1", "[::x]:1"];
    for text in bad.into_iter().chain(["http://a:80", "a..b:80", "::1:80", "a:80/x"]) {
        let mistakes = mistakes(&format!("{GRAPH}[wants]\nnetwork = [\"{text}\"]\n"));
        assert!(mistakes[0].contains("is not a destination"), "{text}: {mistakes:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse(&text, Path::new("wick.toml"));
    }

    #[test]
    fn no_tokens_of_a_manifest_make_the_parser_panic(
        tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..60)
    ) {
        let text: String = tokens.concat();
        if let Err(errors) = parse(&text, Path::new("wick.toml")) {
            prop_assert!(!errors.mistakes().is_empty());
            for mistake in errors.mistakes() {
                prop_assert!(mistake.line > 0 && mistake.column > 0);
            }
        }
    }

    #[test]
    fn no_change_of_a_byte_makes_the_parser_panic(at in 0usize..400, byte in any::<u8>()) {
        let mut text = format!("{HEAD}{GRAPH}batch = {{ max = 2, delay = \"1ms\" }}\n\
            [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 3]\n\
            [wants]\nnetwork = [\"a:1\"]\nenv = [\"A\"]\n").into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let _ = parse(&String::from_utf8_lossy(&text), Path::new("wick.toml"));
    }
}

const TOKENS: [&str; 41] = [
    "[package]\n",
    "name = ",
    "version = ",
    "\"a\"\n",
    "\"1.0.0\"\n",
    "[[graph]]\n",
    "path = ",
    "\"m.onnx\"\n",
    "devices = ",
    "[\"cpu\"]\n",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "\n",
    "1",
    "-1\n",
    "1.5\n",
    "true\n",
    "[[graph.variant]]\n",
    "device = ",
    "\"npu\"\n",
    "options = { qnn = { vtcm_mb = 8 } }\n",
    "[[input]]\n",
    "shape = ",
    "[-1]\n",
    "datatype = ",
    "\"FP32\"\n",
    "[handler]\n",
    "component = ",
    "\"h.wasm\"\n",
    "[limits]\n",
    "memory = ",
    "\"1MiB\"\n",
    "[wants]\n",
    "network = ",
    "mounts = ",
    "graph.x = ",
    "[graph]\n",
    "1979-05-27\n",
];
