//! The Open Inference Protocol over a router, in process.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use serde_json::json;
use wick_package::Datatype;
use wick_serve::Priority;
use wick_testing::onnx;

use crate::support::{Fixture, four};

const INFER: &str = "/v2/models/m/infer";

/// Post a body and compare status, code and a part of the error.
async fn check(fixture: &Fixture, body: &str, status: u16, code: &str, why: &str) {
    let reply = fixture.post(INFER, body.to_owned()).await;
    assert_eq!(reply.status.as_u16(), status, "{body}\n{}", reply.text());
    let json = reply.json();
    assert_eq!(json["code"], code, "{body}");
    let error = json["error"].as_str().unwrap();
    assert!(error.contains(why), "{error}");
}

#[tokio::test]
async fn health_and_metadata_are_json_as_clients_expect() {
    let fixture = Fixture::adding(1.0, "").await;
    for (path, want) in [
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"ready": true})),
        ("/v2/models", json!({"models": ["m"]})),
        ("/v2/models/m/ready", json!({"name": "m", "ready": true})),
        ("/v2/models/m/versions/1.0.0/ready", json!({"name": "m", "ready": true})),
    ] {
        let reply = fixture.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, want), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    for path in ["/v2", "/v2/"] {
        let server = fixture.get(path).await.json();
        assert_eq!(server["name"], "wick");
        let extensions =
            ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];
        assert_eq!(server["extensions"], json!(extensions));
    }
    let model = fixture.get("/v2/models/m").await.json();
    assert_eq!(model["platform"], "onnx_onnxv1");
    assert_eq!(model["versions"], json!(["1.0.0"]));
    let tensor = |name| json!([{"name": name, "datatype": "FP32", "shape": [4]}]);
    assert_eq!((&model["inputs"], &model["outputs"]), (&tensor("x"), &tensor("y")));
    let graph = &model["properties"]["graphs"][0];
    assert_eq!((&graph["name"], &graph["backend"]), (&json!("g"), &json!("tract")));
    assert_eq!((&graph["device"]["kind"], &graph["share"]), (&json!("cpu"), &json!(1.0)));
}

#[tokio::test]
async fn what_is_not_there_is_404_and_a_wrong_method_is_405_in_json() {
    let fixture = Fixture::adding(1.0, "").await;
    for (path, why) in [
        ("/nothing", "nothing at /"),
        ("/v2/nothing", "nothing at"),
        ("/v2/models/m/nothing", "nothing at"),
        ("/v2/models/x", "model `x` is unknown; this server has m"),
        ("/v2/models/%ff/ready", ""),
        ("/v2/models/m/versions/2.0.0", "has version 1.0.0, not `2.0.0`"),
    ] {
        let reply = fixture.get(path).await;
        assert!(matches!(reply.status.as_u16(), 404 | 400), "{path}: {}", reply.status);
        assert!(reply.json()["error"].as_str().unwrap().contains(why), "{path}");
    }
    for path in [INFER, "/v2/models/m/versions/1.0.0/infer"] {
        let reply = fixture.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("POST")));
        assert_eq!(reply.json()["code"], "method-not-allowed");
    }
    assert_eq!(fixture.post("/v2/models/m", "").await.status.as_u16(), 405);
    let unknown = fixture.post("/v2/models/x/infer", four([0.0; 4])).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["code"]), (404, &json!("not-found")));
}

#[tokio::test]
async fn json_in_gives_json_out_without_a_content_type() {
    let fixture = Fixture::adding(1.0, "").await;
    for path in [INFER, "/v2/models/m/versions/1.0.0/infer"] {
        let reply = fixture.post(path, four([0.0, 1.0, -1.0, 2.5])).await;
        let want = json!({
            "model_name": "m", "model_version": "1.0.0", "id": "i",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [4], "data": [1.0, 2.0, 0.0, 3.5]}]
        });
        assert_eq!((reply.status.as_u16(), reply.json()), (200, want));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("inference-header-content-length"), None);
    }
}

#[tokio::test]
async fn binary_in_gives_binary_out_as_tritonclient_asks_for_it() {
    let fixture = Fixture::adding(1.0, "").await;
    let header = r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let input: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let reply = fixture.post_mixed(INFER, header, &input).await;
    assert_eq!(reply.status.as_u16(), 200, "{:?}", reply.body);
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, binary) = reply.body.split_at(length);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["outputs"][0]["parameters"], json!({"binary_data_size": 16}));
    let numbers: Vec<_> =
        binary.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(numbers, [2.0, 3.0, 4.0, 5.0]);

    // The raw form: the body is the only input.
    let raw = Request::post(INFER).header("inference-header-content-length", "0");
    let reply = fixture.call(raw.body(input.into()).unwrap()).await;
    assert!(reply.status.is_success() && reply.body.ends_with(binary), "{:?}", reply.body);
}

#[tokio::test]
async fn the_clients_mistakes_are_400_and_say_what_to_do() {
    let fixture = Fixture::adding(1.0, "").await;
    let input = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(
            r#"{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
        )
    };
    let table = [
        ("", 400, "bad-json", "the text ends"),
        ("{}", 400, "bad-input", "`inputs` is missing"),
        (&input("z", "[4]", "FP32", "[1,2,3,4]"), 400, "bad-input", "z"),
        (&input("x", "[3]", "FP32", "[1,2,3]"), 400, "bad-input", "shape"),
        (&input("x", "[4]", "INT32", "[1,2,3,4]"), 400, "bad-input", "INT32"),
        (&input("x", "[4]", "FP32", "[1,2,3,NaN]"), 400, "bad-json", "binary data"),
        (&input("x", "[4]", "FP32", "[1,2,3,1e99]"), 400, "bad-input", "out of range"),
        (r#"{"inputs":[]}"#, 400, "bad-input", "x"),
        (
            &four([0.0; 4]).replace("\"id\"", "\"outputs\":[{\"name\":\"q\"}],\"id\""),
            400,
            "bad-input",
            "q",
        ),
    ];
    for (body, status, code, why) in table {
        check(&fixture, body, status, code, why).await;
    }
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused() {
    let fixture = Fixture::adding(1.0, "").await;
    let call = async |name: &str, values: &[&str]| {
        let mut request = Request::post(INFER);
        for value in values {
            request = request.header(name, *value);
        }
        fixture.call(request.body(four([0.0; 4]).into()).unwrap()).await
    };
    for values in
        [&["-1"][..], &["x"], &["+5"], &["1e3"], &[""], &["99999999999999999999"], &["1", "1"]]
    {
        let reply = call("inference-header-content-length", values).await;
        let code = reply.json()["code"].clone();
        assert_eq!((reply.status.as_u16(), code), (400, json!("bad-header-length")), "{values:?}");
    }
    let past = call("inference-header-content-length", &["100000"]).await;
    assert_eq!(past.json()["code"], "bad-header-length");
    assert_eq!(call("content-encoding", &["br"]).await.status.as_u16(), 415);
    assert_eq!(call("content-encoding", &["identity"]).await.status.as_u16(), 200);
    assert_eq!(call("wick-timeout-ms", &["soon"]).await.status.as_u16(), 400);
    assert_eq!(call("wick-timeout-ms", &["5000"]).await.status.as_u16(), 200);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        assert_eq!(call("content-type", &[kind]).await.status.as_u16(), 200, "{kind}");
    }
}

#[tokio::test]
async fn half_floats_travel_only_as_binary_data() {
    let fixture = Fixture::identity(Datatype::Fp16, &[2]).await;
    let json = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP16","data":[1,2]}]}"#;
    check(&fixture, json, 400, "bad-input", "FP16 has no JSON form").await;
    let header = |binary: bool| {
        format!(
            r#"{{"parameters":{{"binary_data_output":{binary}}},"inputs":[{{"name":"x","shape":[2],"datatype":"FP16","parameters":{{"binary_data_size":4}}}}]}}"#
        )
    };
    let reply = fixture.post_mixed(INFER, &header(false), &[0, 0x3c, 0, 0x40]).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (400, &json!("no-json-form")));
    let reply = fixture.post_mixed(INFER, &header(true), &[0, 0x3c, 0, 0x40]).await;
    assert!(reply.status.is_success() && reply.body.ends_with(&[0, 0x3c, 0, 0x40]), "{reply:?}");
}

#[tokio::test]
async fn an_output_that_json_cannot_hold_is_an_error_that_names_the_way_out() {
    let fixture = Fixture::adding(3e38, "").await;
    let reply = fixture.post(INFER, four([3e38, 0.0, 0.0, 0.0])).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (500, &json!("output-not-json")));
    assert!(reply.text().contains("ask for binary data"), "{}", reply.text());
    let binary = four([3e38, 0.0, 0.0, 0.0])
        .replace("\"id\"", "\"parameters\":{\"binary_data_output\":true},\"id\"");
    let reply = fixture.post(INFER, binary).await;
    assert!(reply.status.is_success(), "{reply:?}");
    assert_eq!(reply.body[reply.body.len() - 16..][..4], f32::INFINITY.to_le_bytes());
}

#[tokio::test]
async fn a_body_over_the_packages_limit_is_413() {
    let fixture = Fixture::adding(1.0, "request = \"1KiB\"").await;
    let reply = fixture.post(INFER, vec![b' '; 1025]).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (413, &json!("too-large")));
    assert!(reply.text().contains("larger than 1024 bytes, which is the limit of model `m`"));
    assert_eq!(fixture.post(INFER, four([0.0; 4])).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_full_queue_is_429_and_a_long_wait_is_503_or_the_clients_504() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 1\ntimeout = \"200ms\"").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let soon = || Instant::now() + Duration::from_secs(60);
    let permit = live.gate.enter(soon(), Priority::DEFAULT).await.unwrap();

    // The only place is taken: one request waits, and its time runs out there.
    let started = Instant::now();
    check(&fixture, &four([0.0; 4]), 503, "waited-too-long", "did not get its turn").await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    let hurried = four([0.0; 4]).replace("\"id\"", "\"parameters\":{\"timeout\":20000},\"id\"");
    check(&fixture, &hurried, 504, "deadline", "20ms").await;

    // The queue is full, too.
    let mut waiter = Box::pin(live.gate.enter(soon(), Priority::DEFAULT));
    assert!(futures::poll!(&mut waiter).is_pending());
    let reply = fixture.post(INFER, four([0.0; 4])).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, Some("1")));
    assert_eq!(reply.json()["code"], "queue-full");

    drop(permit);
    drop(waiter.await.unwrap());
    assert_eq!(fixture.post(INFER, four([0.0; 4])).await.status.as_u16(), 200);
}

#[tokio::test]
async fn readiness_follows_the_models_and_the_shutdown() {
    let fixture = Fixture::adding(1.0, "").await;
    fixture.repository.unload("m").await.unwrap();
    let ready = async |path: &str| {
        let reply = fixture.get(path).await;
        (reply.status.as_u16(), reply.json()["ready"].clone())
    };
    assert_eq!(ready("/v2/health/ready").await, (503, json!(false)));
    assert_eq!(ready("/v2/models/m/ready").await, (503, json!(false)));
    let reply = fixture.post(INFER, four([0.0; 4])).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (503, &json!("not-ready")));
    assert!(reply.text().contains("model `m` is unloaded"), "{}", reply.text());

    fixture.repository.load("m").await.unwrap();
    assert_eq!(ready("/v2/health/ready").await, (200, json!(true)));
    fixture.repository.drain();
    assert_eq!(ready("/v2/health/ready").await, (503, json!(false)));
    assert_eq!(fixture.get("/v2/health/live").await.status.as_u16(), 200);
    check(&fixture, &four([0.0; 4]), 503, "draining", "shutting down").await;
}

#[tokio::test]
async fn metrics_have_tritons_names_and_count_what_happened() {
    let fixture = Fixture::adding(1.0, "").await;
    fixture.post(INFER, four([0.0; 4])).await;
    fixture.post(INFER, four([1.0; 4])).await;
    fixture.post(INFER, "{}").await;
    let reply = fixture.get("/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4"));
    let labels = r#"{model="m",version="1.0.0"}"#;
    for want in [
        format!("nv_inference_request_success{labels} 2"),
        format!("nv_inference_count{labels} 2"),
        format!("nv_inference_pending_request_count{labels} 0"),
        r#"nv_inference_request_failure{model="m",reason="OTHER",version="1.0.0"} 1"#.to_owned(),
        r#"nv_inference_request_failure{model="m",reason="BACKEND",version="1.0.0"} 0"#.to_owned(),
        r#"wick_device_in_use{backend="tract",device="cpu",graph="g",model="m",provider="tract"} 1"#
            .to_owned(),
        r#"wick_device_share{graph="g",model="m"} 1"#.to_owned(),
        r#"wick_cold_start_seconds{model="m",phase="total"}"#.to_owned(),
        format!("wick_instance_starts{labels} 0"),
    ] {
        assert!(reply.text().contains(&want), "{want}\n{}", reply.text());
    }
    let value = |name: &str| -> u64 {
        let line = reply.text().lines().find(|line| line.starts_with(&format!("{name}{labels} ")));
        line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
    };
    // Two requests and the warm-up.
    assert_eq!(value("nv_inference_exec_count"), 3);
    let compute = value("nv_inference_compute_infer_duration_us");
    assert!(compute > 0 && value("nv_inference_request_duration_us") >= compute);
    assert!(value("nv_inference_queue_duration_us") < 1_000_000);
}

#[tokio::test]
async fn every_datatype_goes_through_a_model_and_back() {
    for datatype in [Datatype::Int64, Datatype::Uint8, Datatype::Bool, Datatype::Fp64] {
        let model = onnx::identity(datatype, &[2]);
        let fixture = Fixture::new(&[("m", &model, "")]).await;
        let data = if datatype == Datatype::Bool { json!([true, false]) } else { json!([1, 2]) };
        let body = json!({"inputs": [
            {"name": "x", "shape": [2], "datatype": datatype.as_str(), "data": data}]});
        let reply = fixture.post(INFER, body.to_string()).await;
        assert_eq!(reply.status.as_u16(), 200, "{datatype}: {}", reply.text());
        let output = reply.json()["outputs"][0].clone();
        assert_eq!(output["datatype"], datatype.as_str());
        if datatype == Datatype::Fp64 {
            assert_eq!(output["data"], json!([1.0, 2.0]));
        } else {
            assert_eq!(output["data"], data);
        }
    }
}

#[test]
fn no_mutation_of_a_request_is_a_fault_of_the_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::adding(1.0, ""));
    let router = fixture.router();
    let header = r#"{"id":"a","parameters":{"timeout":9000000,"binary_data_output":true},"inputs":[{"name":"x","shape":[4],"datatype":"FP32","parameters":{"binary_data_size":16}}],"outputs":[{"name":"y"}]}"#;
    let body = [header.as_bytes(), &[0; 16]].concat();
    let len = body.len();
    let edits = prop::collection::vec((0..len, any::<u8>(), 0..4_u8), 0..4);
    let lengths = prop_oneof![Just(None), Just(Some(header.len())), (0..len + 9).prop_map(Some)];
    proptest!(ProptestConfig::with_cases(1500), |(edits in edits, length in lengths)| {
        let mut body = body.clone();
        for (at, byte, how) in edits {
            let at = at.min(body.len() - 1);
            match how {
                0 => body[at] = byte,
                1 => body[at] = b"[]{}\",:0129-.eEnN"[usize::from(byte) % 17],
                2 => drop(body.remove(at)),
                _ => body.insert(at, body[at]),
            }
        }
        let mut request = Request::post(INFER);
        if let Some(length) = length {
            request = request.header("inference-header-content-length", length);
        }
        let request = request.body(Body::from(body)).unwrap();
        let reply = runtime.block_on(crate::support::call(router.clone(), request));
        // A mutated `timeout` may be a very short one, which is kept.
        let kept = reply.status.as_u16() == 504;
        prop_assert!(!reply.status.is_server_error() || kept, "{:?}", reply);
        if !reply.status.is_success() {
            prop_assert!(reply.json()["error"].is_string());
        }
    });
}
