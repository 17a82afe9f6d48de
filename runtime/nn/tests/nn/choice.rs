//! Which backend and device a graph gets, and what the errors say.

use std::fs;

use wick_nn::{LoadError, Nn, SourceBytes};
use wick_package::{DeviceKind, GraphSpec, Reason as _, Variant};
use wick_testing::onnx;

use crate::common::{
    CPUS, Which, block_on, floats, infer, load, load_with, nn, onnxruntime, settings, spec,
};

fn memory(model: Vec<u8>) -> SourceBytes {
    SourceBytes::Memory(model.into())
}

fn error_of(which: Which, spec: &GraphSpec, model: Vec<u8>) -> LoadError {
    load_with(&nn(which), spec, memory(model)).err().expect("this must not load")
}

#[test]
fn onnxruntime_is_taken_when_it_is_there_and_tract_otherwise() {
    for (which, want) in [(Which::Tract, "tract"), (Which::OnnxRuntime, "onnxruntime")] {
        let graph = load(which, onnx::add_scalar(1.0, &[1])).unwrap();
        assert_eq!(graph.device().backend, want);
        assert_eq!(graph.device().threads, CPUS);
        assert_eq!(graph.device().device.kind, DeviceKind::Cpu);
    }
}

#[test]
fn a_package_may_insist_on_tract() {
    let spec = GraphSpec { backend: Some("tract".parse().unwrap()), ..spec() };
    let model = memory(onnx::add_scalar(1.0, &[1]));
    let graph = load_with(&nn(Which::OnnxRuntime), &spec, model).unwrap();
    assert_eq!(graph.device().backend, "tract");
    let error = error_of(Which::OnnxRuntime, &spec, onnx::with_if());
    assert!(error.to_string().contains("remove `backend`"), "{error}");
}

#[test]
fn what_only_onnxruntime_runs_says_how_to_get_it() {
    for (model, operator) in [(onnx::with_if(), "`If`"), (onnx::qdq_int8(), "Linear`")] {
        let error = error_of(Which::Tract, &spec(), model.clone());
        let text = error.to_string();
        assert_eq!(error.code(), "graph-unsupported");
        for want in ["graph `g`", operator, "wick backend install onnxruntime"] {
            assert!(text.contains(want), "{text}");
        }
        load(Which::OnnxRuntime, model).unwrap();
    }
}

#[test]
fn an_if_and_int8_run_on_onnxruntime() {
    let graph = load(Which::OnnxRuntime, onnx::with_if()).unwrap();
    for (cond, want) in [(1_u8, [2.0, 3.0]), (0, [0.0, 1.0])] {
        let cond = wick_nn::Tensor::new(
            wick_package::Datatype::Bool,
            &[],
            bytes::Bytes::copy_from_slice(&[cond]),
        );
        let inputs =
            vec![("cond".to_owned(), cond.unwrap()), ("x".to_owned(), floats(&[2], &[1.0, 2.0]))];
        assert_eq!(block_on(graph.infer(inputs)).unwrap()[0].1, floats(&[2], &want));
    }
    let graph = load(Which::OnnxRuntime, onnx::qdq_int8()).unwrap();
    assert_eq!(infer(&graph, floats(&[1, 8], &[0.5; 8])).unwrap().shape(), [1, 4]);
}

#[test]
fn a_backend_that_is_not_installed_is_missing() {
    let wants = |name: &str| GraphSpec { backend: Some(name.parse().unwrap()), ..spec() };
    let model = || onnx::add_scalar(1.0, &[1]);
    let error = error_of(Which::Tract, &wants("onnxruntime"), model());
    assert_eq!(error.code(), "backend-missing");
    assert!(error.to_string().contains("wick backend install onnxruntime"), "{error}");
    let error = error_of(Which::Tract, &wants("openvino"), model());
    let text = error.to_string();
    assert!(text.contains("it needs onnxruntime, which is not installed"), "{text}");
    for which in [Which::Tract, Which::OnnxRuntime] {
        let error = error_of(which, &wants("openvin"), model());
        assert_eq!(error.code(), "backend-missing");
        let want = "wick knows onnxruntime and tract, and the providers cuda, ";
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn who_insists_on_a_provider_is_not_given_the_cpu_by_another() {
    let spec =
        |devices| GraphSpec { devices, backend: Some("openvino".parse().unwrap()), ..spec() };
    for devices in [vec![DeviceKind::Cpu], vec![DeviceKind::Gpu, DeviceKind::Cpu]] {
        let model = onnx::add_scalar(1.0, &[1]);
        let error = error_of(Which::OnnxRuntime, &spec(devices), model);
        assert_eq!(error.code(), "device-unavailable");
        let text = error.to_string();
        let want = " by openvino, and this machine has cpu (onnxruntime); \
                    openvino: not installed (`wick backend install openvino`";
        assert!(text.contains(want) && !text.contains("webgpu"), "{text}");
    }
}

#[test]
fn a_device_that_is_not_listed_is_never_used() {
    let spec = GraphSpec { devices: vec![DeviceKind::Npu, DeviceKind::Gpu], ..spec() };
    let error = error_of(Which::OnnxRuntime, &spec, onnx::add_scalar(1.0, &[1]));
    assert_eq!(error.code(), "device-unavailable");
    let want = "graph `g` may run on npu or gpu, and this machine has cpu (onnxruntime, tract)";
    let text = error.to_string();
    assert!(text.starts_with(want), "{text}");
    // And why none of the providers has one.
    for provider in wick_nn::providers::PROVIDERS {
        let name = provider.name;
        let why = format!("; {name}: not installed (`wick backend install {name}`");
        assert!(text.contains(&why), "{text}");
    }
}

#[test]
fn a_device_gets_the_bytes_that_are_meant_for_it() {
    let variant = Variant {
        device: DeviceKind::Cpu,
        vendor: None,
        path: "cpu.onnx".parse().unwrap(),
        options: std::collections::BTreeMap::new(),
    };
    let spec = GraphSpec { variants: vec![variant], ..spec() };
    let asked = parking_lot::Mutex::new(Vec::new());
    let graph = block_on(nn(Which::Tract).load(&spec, &|path| {
        asked.lock().push(path.to_string());
        Ok(memory(onnx::add_scalar(1.0, &[1])))
    }));
    graph.unwrap();
    assert_eq!(*asked.lock(), ["cpu.onnx"]);
}

#[test]
fn a_file_that_is_gone_is_named() {
    let error =
        block_on(nn(Which::Tract).load(&spec(), &|_| Err(std::io::ErrorKind::NotFound.into())));
    let error = error.err().unwrap();
    assert_eq!(error.code(), "graph-unreadable");
    assert!(error.to_string().contains("model.onnx"), "{error}");
}

#[test]
fn threads_are_bounded_by_the_cpus() {
    for (wanted, want) in [(1, 1), (2, 2), (64, CPUS)] {
        let spec = GraphSpec { threads: std::num::NonZeroU32::new(wanted), ..spec() };
        let model = memory(onnx::add_scalar(1.0, &[1]));
        let graph = load_with(&nn(Which::OnnxRuntime), &spec, model).unwrap();
        assert_eq!(graph.device().threads, want);
    }
}

#[test]
fn backends_are_listed_with_their_versions_and_devices() {
    let list = nn(Which::OnnxRuntime).backends();
    let short: Vec<_> = list.iter().map(|b| (b.name.as_str(), b.version.as_str())).collect();
    assert_eq!(short, [("onnxruntime", "1.32.0"), ("tract", "0.23.9")]);
    assert!(list.iter().all(|backend| backend.error.is_none() && backend.devices.len() == 1));
    assert_eq!(list[0].path, Some(onnxruntime()));
    assert_eq!(nn(Which::Tract).backends().len(), 1);
}

#[test]
fn a_library_that_is_named_but_missing_is_an_error_at_once() {
    let mut settings = settings(Which::Tract);
    settings.onnxruntime = Some("/nowhere/libonnxruntime.so".into());
    let error = Nn::new(settings).err().unwrap();
    assert_eq!(error.code(), "backend-broken");
    assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
}

#[test]
fn a_library_that_is_broken_is_named_when_a_graph_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("onnxruntime-9.9.9/libonnxruntime.so.9.9.9");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "not a library").unwrap();
    let mut settings = settings(Which::Tract);
    settings.backend_dirs = vec![folder.path().to_owned()];
    let nn = Nn::new(settings).unwrap();
    let model = || memory(onnx::add_scalar(1.0, &[1]));
    let error = load_with(&nn, &spec(), model()).err().unwrap();
    assert_eq!(error.code(), "backend-broken");
    assert!(error.to_string().contains("9.9.9"), "{error}");
    // A package that insists on tract is not touched by it.
    let tract = GraphSpec { backend: Some("tract".parse().unwrap()), ..spec() };
    load_with(&nn, &tract, model()).unwrap();
    let list = nn.backends();
    assert!(list[0].error.is_some() && list[0].devices.is_empty());
}
