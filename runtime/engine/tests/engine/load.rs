//! Components that can't be loaded, and what the error says.

use std::fmt::Write as _;

use wick_engine::{Grants, LoadError};
use wick_package::Package;
use wick_package::pack::{Format, Options, write_layout};
use wick_testing::onnx;

use crate::support::{BARE, Folder, HANDLER, ask, engine, good, guest, request};

#[track_caller]
fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// Loading fails with these words, and a good package still loads.
async fn refused(component: &[u8], words: &[&str]) -> LoadError {
    let engine = engine();
    let error = Folder::handler(component).load(&engine).await.err().unwrap();
    let text = error.to_string();
    for word in ["`m`", "handler.wasm"].iter().chain(words) {
        assert!(text.contains(word), "{text}");
    }
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    good(ask(&model, request("good")).await);
    error
}

#[tokio::test]
async fn garbage_and_truncated_components_are_refused() {
    let hostile = guest("hostile");
    for bytes in [&b"garbage"[..], b"\0asm", &[0; 64], &hostile[..hostile.len() / 2], &hostile[..9]]
    {
        let error = refused(bytes, &["not valid WebAssembly"]).await;
        assert!(matches!(error, LoadError::Component { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn missing_and_empty_components_are_refused() {
    let engine = engine();
    let folder = Folder::handler(&guest("hostile"));
    let package = folder.open();
    // A folder is checked when it is opened; what happens after is found out here.
    folder.write("handler.wasm", b"");
    let empty = engine.load(package.clone(), Grants::default()).await.err().unwrap();
    assert!(empty.to_string().contains("empty"), "{empty}");
    std::fs::remove_file(folder.path().join("handler.wasm")).unwrap();
    let missing = engine.load(package, Grants::default()).await.err().unwrap();
    assert!(matches!(missing, LoadError::Io { .. }), "{missing:?}");
}

#[tokio::test]
async fn a_component_that_imports_what_the_host_lacks_is_refused_by_name() {
    let component = wat(&format!(
        r#"(component
            (import "acme:db/store@1.0.0" (instance (export "get" (func))))
            (import "frob" (func))
            (import "wasi:cli/environment@0.2.0" (instance))
            {RUN}
        )"#
    ));
    let error = refused(&component, &["acme:db/store@1.0.0", "frob", "wasi:nn/graph"]).await;
    assert!(matches!(error, LoadError::World { .. }), "{error:?}");
    assert!(!error.to_string().contains("environment"), "{error}");
}

/// A function exported as the command's world.
const RUN: &str = r#"
    (core module $m (func (export "run") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $cli (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $cli))
"#;

#[tokio::test]
async fn components_of_no_known_world_are_refused() {
    let error = refused(&wat("(component)"), &["wick:model/handler", "wasi:cli/run"]).await;
    assert!(matches!(error, LoadError::World { .. }), "{error:?}");
    let module = wat(r#"(module (func (export "main")))"#);
    let error = refused(&module, &["_start"]).await;
    assert!(matches!(error, LoadError::World { .. }), "{error:?}");
    // The right name, and another type.
    let wrong = wat(r#"(component
        (instance $none)
        (export "wick:model/handler@0.1.0" (instance $none))
    )"#);
    let error = refused(&wrong, &["infer"]).await;
    assert!(matches!(error, LoadError::World { .. }), "{error:?}");
}

#[tokio::test]
async fn a_component_larger_than_the_pool_is_an_error_of_its_requests() {
    // Five memories are more than an instance may have.
    let mut text = "(component (core module $memory (memory 1)) ".to_owned();
    for index in 0..5 {
        write!(text, "(core instance $m{index} (instantiate $memory)) ").unwrap();
    }
    let component = wat(&format!("{text} {RUN})"));
    let engine = engine();
    let loaded = Folder::new(BARE, &[("handler.wasm", &component)]).load(&engine).await;
    match loaded {
        Err(error) => assert!(error.to_string().contains("memories"), "{error}"),
        Ok(model) => {
            let deadline = std::time::Instant::now() + crate::support::PATIENCE;
            let error = model.run(&[], deadline).await.unwrap_err();
            assert!(error.to_string().contains("memories"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_broken_graph_is_named() {
    let engine = engine();
    let folder =
        Folder::new(HANDLER, &[("handler.wasm", &guest("hostile")), ("g.onnx", b"garbage")]);
    let error = folder.load(&engine).await.err().unwrap();
    assert!(matches!(error, LoadError::Graph(_)), "{error:?}");
    assert!(error.to_string().contains("`g`"), "{error}");
}

#[tokio::test]
async fn a_granted_mount_must_be_a_folder() {
    let engine = engine();
    let manifest = format!(
        "{HANDLER}\n[wants]\nmounts = [{{ name = \"data\", path = \"/data\", writable = true }}]\n"
    );
    let graph = onnx::add_scalar(1.0, &[2]);
    let files: &[(&str, &[u8])] = &[("handler.wasm", &guest("hostile")), ("g.onnx", &graph)];
    let folder = Folder::new(&manifest, files);
    let mut grants = Grants::default();
    grants.mounts.insert("data".into(), "/nonexistent/place".into());
    let error = engine.load(folder.open(), grants).await.err().unwrap();
    assert!(error.to_string().contains("/nonexistent/place"), "{error}");
}

#[tokio::test]
async fn warming_fails_with_the_reason_of_its_request() {
    let engine = engine();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    model.warm(Some(request("good"))).await.unwrap();
    let error = model.warm(Some(request("panic"))).await.unwrap_err();
    assert!(matches!(error, LoadError::Warmup { .. }), "{error:?}");
    assert!(error.to_string().contains("no luck today"), "{error}");
}

/// A packed package that was hashed, and where it lies.
fn sealed(folder: &Folder) -> (Package, std::path::PathBuf) {
    let tar = folder.path().join("image.tar");
    let options = Options { format: Format::Tar, reference: None };
    write_layout(&folder.open(), &tar, &options, &mut |_| {}).unwrap();
    (Package::open(&tar).unwrap().sealed().unwrap(), tar)
}

#[tokio::test]
async fn what_was_exchanged_after_it_was_hashed_is_not_loaded() {
    let engine = engine();
    let component = guest("hostile");
    let folder = Folder::handler(&component);
    let graph = std::fs::read(folder.path().join("g.onnx")).unwrap();
    let (package, tar) = sealed(&folder);
    let bytes = std::fs::read(&tar).unwrap();
    for part in [&component, &graph] {
        let at = bytes.windows(part.len()).position(|window| window == &part[..]).unwrap();
        let mut other = bytes.clone();
        other[at + part.len() / 2] ^= 1;
        std::fs::write(&tar, other).unwrap();
        let error = engine.load(package.clone(), Grants::default()).await.err().unwrap();
        let mut causes = vec![error.to_string()];
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let text = causes.join(": ");
        assert!(text.contains("has changed since it was checked"), "{text}");
    }
    std::fs::write(&tar, bytes).unwrap();
    let model = engine.load(package, Grants::default()).await.unwrap();
    good(ask(&model, request("good")).await);
}
