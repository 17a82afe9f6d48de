//! gRPC: the calls in process, and over real connections where a connection matters.

use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::ServiceExt as _;
use wick_package::Datatype;
use wick_serve::grpc::proto::client::GrpcInferenceServiceClient as Client;
use wick_serve::grpc::proto::infer_parameter::ParameterChoice;
use wick_serve::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use wick_serve::grpc::proto::*;
use wick_serve::{Drained, Priority, ServeSettings, router};

use crate::connections::{Running, until};
use crate::guests::{TENSORS, packages};
use crate::support::{Fixture, settings};

fn client(fixture: &Fixture) -> Client<Router> {
    Client::new(fixture.router())
}

/// A client with a connection of its own, without TLS.
async fn connected(
    server: &Running,
) -> Client<
    impl tonic::client::GrpcService<tonic::body::Body, ResponseBody = hyper::body::Incoming> + use<>,
> {
    let io = TokioIo::new(server.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        sender.clone().send_request(request)
    });
    let origin = format!("http://{}", server.addr).parse().unwrap();
    Client::with_origin(service, origin)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn input(shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

/// One FP32 input `x`, raw.
fn raw(numbers: &[f32]) -> ModelInferRequest {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: "m".to_owned(),
        id: "i".to_owned(),
        inputs: vec![input(&[numbers.len() as i64])],
        raw_input_contents: vec![bytes.into()],
        ..Default::default()
    }
}

fn typed(numbers: &[f32]) -> ModelInferRequest {
    let mut message = raw(numbers);
    let contents = InferTensorContents { fp32_contents: numbers.to_vec(), ..Default::default() };
    message.inputs[0].contents = Some(contents);
    message.raw_input_contents.clear();
    message
}

fn with(mut message: ModelInferRequest, name: &str, value: ParameterChoice) -> ModelInferRequest {
    let value = InferParameter { parameter_choice: Some(value) };
    message.parameters.insert(name.to_owned(), value);
    message
}

/// What a guest of the engine's tests is to do.
fn guest(mode: &str) -> ModelInferRequest {
    with(raw(&[1.0, 2.0]), "mode", ParameterChoice::StringParam(mode.to_owned()))
}

fn code_of(status: &Status) -> &str {
    status.metadata().get("wick-code").map_or("", |code| code.to_str().unwrap())
}

async fn check(fixture: &Fixture, message: ModelInferRequest, code: Code, word: &str, why: &str) {
    let status = client(fixture).model_infer(message).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (code, word), "{status}");
    assert!(status.message().contains(why), "{status}");
    let retry = matches!(code, Code::Unavailable) || word == "queue-full";
    assert_eq!(status.metadata().contains_key("retry-after"), retry, "{status}");
}

#[tokio::test]
async fn raw_and_typed_requests_are_answered_raw_unless_they_ask_otherwise() {
    let fixture = Fixture::adding(1.0, "").await;
    let numbers = [0.0, 1.0, -1.0, 2.5];
    for message in [raw(&numbers), typed(&numbers)] {
        let answer = client(&fixture).model_infer(message).await.unwrap().into_inner();
        assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("m", "1.0.0"));
        assert_eq!((answer.id.as_str(), answer.outputs[0].shape.as_slice()), ("i", &[4][..]));
        assert_eq!(answer.outputs[0].contents, None);
        assert_eq!(floats(&answer.raw_output_contents[0]), [1.0, 2.0, 0.0, 3.5]);
    }
    let asks = with(raw(&numbers), "binary_data_output", ParameterChoice::BoolParam(false));
    let answer = client(&fixture).model_infer(asks).await.unwrap().into_inner();
    assert!(answer.raw_output_contents.is_empty());
    let contents = answer.outputs[0].contents.as_ref().unwrap();
    assert_eq!(contents.fp32_contents, [1.0, 2.0, 0.0, 3.5]);
}

#[tokio::test]
async fn the_clients_mistakes_are_invalid_arguments() {
    let fixture = Fixture::adding(1.0, "").await;
    let good = || raw(&[0.0; 4]);
    let bad = Code::InvalidArgument;
    let mut short = good();
    short.raw_input_contents[0] = Bytes::from_static(&[0; 15]);
    check(&fixture, short, bad, "bad-input", "needs 16 bytes, and 15 were given").await;
    let mut both = typed(&[0.0; 4]);
    both.raw_input_contents = good().raw_input_contents;
    check(&fixture, both, bad, "bad-input", "has `fp32_contents` although").await;
    let mut overflowing = good();
    overflowing.inputs[0].shape = vec![i64::MAX, i64::MAX];
    check(&fixture, overflowing, bad, "bad-input", "is larger than").await;
    check(&fixture, raw(&[0.0; 3]), bad, "bad-input", "shape").await;
    let mut other = good();
    other.inputs[0].name = "z".to_owned();
    check(&fixture, other, bad, "bad-input", "z").await;
    let mut wanted = good();
    wanted.outputs = vec![InferRequestedOutputTensor { name: "q".into(), ..Default::default() }];
    check(&fixture, wanted, bad, "bad-input", "q").await;
    let mut unknown = good();
    unknown.model_name = "other".to_owned();
    check(&fixture, unknown, Code::NotFound, "not-found", "this server has m").await;
    let mut version = good();
    version.model_version = "9".to_owned();
    check(&fixture, version, Code::NotFound, "not-found", "has version 1.0.0").await;
    let many = ModelInferRequest { inputs: vec![input(&[1]); 600], ..good() };
    let status = client(&fixture).model_infer(many).await.unwrap_err();
    assert_eq!(status.code(), bad);
    assert!(status.message().contains("more than 512 inputs"), "{status}");
}

#[tokio::test]
async fn half_floats_have_no_typed_contents() {
    let fixture = Fixture::identity(Datatype::Fp16, &[2]).await;
    let mut message = raw(&[0.0]);
    message.inputs[0].datatype = "FP16".to_owned();
    message.inputs[0].shape = vec![2];
    let answer = client(&fixture).model_infer(message.clone()).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, message.raw_input_contents);
    let asks = with(message, "binary_data_output", ParameterChoice::BoolParam(false));
    check(&fixture, asks, Code::InvalidArgument, "no-typed-form", "typed contents").await;
}

#[tokio::test]
async fn a_message_over_a_limit_is_refused() {
    let fixture = Fixture::adding(1.0, "request = \"1KiB\"").await;
    let large = raw(&[0.0; 300]);
    let (code, word) = (Code::ResourceExhausted, "too-large");
    check(&fixture, large.clone(), code, word, "the limit of model `m`").await;
    let app = router(fixture.repository.clone(), &ServeSettings { max_body: 512, ..settings() });
    let status = Client::new(app.clone()).model_infer(large).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (code, word), "{status}");
    assert!(status.message().contains("larger than 512 bytes"), "{status}");
    // Small on the way, large when inflated.
    for encoding in
        [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd]
    {
        let mut client = Client::new(app.clone()).send_compressed(encoding);
        let status = client.model_infer(raw(&[0.0; 2000])).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    let settings = ServeSettings { max_body_memory: 100, ..settings() };
    let app = router(fixture.repository.clone(), &settings);
    let status = Client::new(app).model_infer(raw(&[0.0; 50])).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::Unavailable, "out-of-body-memory"));
}

#[tokio::test]
async fn an_answer_is_compressed_as_its_request_was() {
    let fixture = Fixture::adding(1.0, "").await;
    for encoding in
        [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd]
    {
        let mut all = client(&fixture).send_compressed(encoding);
        for accepted in
            [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd]
        {
            all = all.accept_compressed(accepted);
        }
        let answer = all.model_infer(raw(&[0.0; 4])).await.unwrap();
        let told = answer.metadata().get("grpc-encoding").cloned();
        assert_eq!(told.unwrap().to_str().unwrap(), format!("{encoding}"));
        assert_eq!(floats(&answer.into_inner().raw_output_contents[0]), [1.0; 4]);
    }
    let mut reads = client(&fixture).accept_compressed(CompressionEncoding::Gzip);
    let answer = reads.model_infer(raw(&[0.0; 4])).await.unwrap();
    assert!(answer.metadata().get("grpc-encoding").is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_does_becomes_a_status() {
    let fixture = packages(&[("m", "hostile", TENSORS)]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    for (mode, code, word) in [
        ("bad-input", Code::InvalidArgument, "bad-input"),
        ("not-found", Code::NotFound, "not-found"),
        ("too-large", Code::ResourceExhausted, "too-large"),
        ("unavailable", Code::Unavailable, "unavailable"),
        ("deadline", Code::DeadlineExceeded, "deadline"),
        ("internal", Code::Internal, "internal"),
        ("panic", Code::Internal, "guest-failed"),
    ] {
        check(&fixture, guest(mode), code, word, "").await;
    }
    assert!(client(&fixture).model_infer(guest("good")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_deadline_reaches_the_guest() {
    let fixture = packages(&[("m", "hostile", TENSORS)]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    let mut request = Request::new(guest("loop"));
    request.set_timeout(Duration::from_millis(100));
    let start = Instant::now();
    let status = client(&fixture).model_infer(request).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::DeadlineExceeded, "deadline"));
    assert!(start.elapsed() < Duration::from_millis(1800), "{:?}", start.elapsed());
    let micros = ParameterChoice::Int64Param(50_000);
    let status = client(&fixture).model_infer(with(guest("loop"), "timeout", micros)).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(fixture.repository.peek("m", None).unwrap().gate.load(), (0, 0));
}

/// Requests that were counted as cancelled.
async fn cancelled(fixture: &Fixture) -> u8 {
    let series = r#"nv_inference_request_failure{model="m",reason="CANCELED",version="1.0.0"} "#;
    let metrics = fixture.get("/metrics").await;
    let count = metrics.text().lines().find_map(|line| line.strip_prefix(series));
    count.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_stops_its_guest() {
    // Its own limit is far away, so that only the cancellation can end it.
    let slow = TENSORS.replace("timeout = \"2s\"", "timeout = \"100s\"");
    let fixture = packages(&[("m", "hostile", &slow)]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    let server = Running::start(&fixture, settings()).await;
    let mut client = connected(&server).await;
    let live = fixture.repository.peek("m", None).unwrap();
    for stream in [false, true] {
        if stream {
            let (sender, requests) = mpsc::channel(1);
            sender.send(guest("loop")).await.unwrap();
            let answers = client.model_stream_infer(ReceiverStream::new(requests)).await.unwrap();
            until("the guest works", || live.gate.load() == (1, 0)).await;
            // The client library resets a stream when it holds neither half of it.
            drop((answers, sender));
        } else {
            let call = client.model_infer(guest("loop"));
            let waited = tokio::time::timeout(Duration::from_millis(200), call).await;
            assert!(waited.is_err(), "the guest ends by itself");
        }
        until("the guest is stopped", || live.gate.load() == (0, 0)).await;
        assert_eq!(cancelled(&fixture).await, 1 + u8::from(stream));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_answers_each_request_with_its_id() {
    let fixture = Fixture::adding(1.0, "").await;
    let mut requests: Vec<_> = (0..200)
        .map(|number| ModelInferRequest { id: number.to_string(), ..raw(&[number as f32; 4]) })
        .collect();
    requests[7].model_name = "other".to_owned();
    let asks = ParameterChoice::BoolParam(true);
    requests[8] = with(requests[8].clone(), "triton_enable_empty_final_response", asks.clone());
    let answers = client(&fixture).model_stream_infer(futures::stream::iter(requests)).await;
    let answers: Vec<_> = answers.unwrap().into_inner().collect().await;
    let mut ids = Vec::new();
    for answer in answers {
        let ModelStreamInferResponse { error_message, infer_response } = answer.unwrap();
        let response = infer_response.unwrap();
        let id: usize = response.id.parse().unwrap();
        if id == 7 {
            assert!(error_message.contains("model `other` is unknown"), "{error_message}");
        } else {
            assert_eq!(error_message, "");
            assert_eq!(floats(&response.raw_output_contents[0]), [id as f32 + 1.0; 4]);
        }
        let is_final = response.parameters.get("triton_final_response");
        let is_final = is_final.and_then(|value| value.parameter_choice.clone());
        assert_eq!(is_final, (id == 8).then_some(asks.clone()));
        ids.push(id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_takes_a_bounded_number_of_requests() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 1000").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let far = Instant::now() + Duration::from_secs(60);
    let permit = live.gate.enter(far, Priority::DEFAULT).await.unwrap();
    let requests = futures::stream::iter((0..300).map(|_| raw(&[0.0; 4])));
    let answers = client(&fixture).model_stream_infer(requests).await.unwrap().into_inner();
    until("as many wait as may", || live.gate.load() == (1, 64)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(live.gate.load(), (1, 64));
    drop(permit);
    assert_eq!(answers.filter(|answer| std::future::ready(answer.is_ok())).count().await, 300);
}

#[tokio::test]
async fn a_shutdown_finishes_calls_and_ends_streams() {
    let fixture = Fixture::adding(1.0, "concurrency = 1").await;
    let server = Running::start(&fixture, settings()).await;
    let live = fixture.repository.peek("m", None).unwrap();
    let far = Instant::now() + Duration::from_secs(60);
    let permit = live.gate.enter(far, Priority::DEFAULT).await.unwrap();
    let mut client = connected(&server).await;
    let (sender, requests) = mpsc::channel(4);
    sender.send(raw(&[0.0; 4])).await.unwrap();
    let answers = client.model_stream_infer(ReceiverStream::new(requests)).await.unwrap();
    let mut answers = answers.into_inner();
    until("the request waits", || live.gate.load() == (1, 1)).await;
    server.stop.cancel();
    until("the server drains", || fixture.repository.is_draining()).await;
    drop(permit);
    let answer = answers.next().await.unwrap().unwrap();
    assert_eq!(answer.error_message, "");
    let end = answers.next().await.unwrap().unwrap_err();
    assert_eq!((end.code(), code_of(&end)), (Code::Unavailable, "draining"));
    assert_eq!(server.done.await.unwrap(), Drained { cut_off: 0 });
    let (code, word) = (Code::Unavailable, "draining");
    check(&fixture, raw(&[0.0; 4]), code, word, "shutting down").await;
    drop(sender);
}

#[tokio::test]
async fn a_full_queue_is_resource_exhausted() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 0").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let _permit =
        live.gate.enter(Instant::now() + Duration::from_secs(60), Priority::DEFAULT).await.unwrap();
    let (code, word) = (Code::ResourceExhausted, "queue-full");
    check(&fixture, raw(&[0.0; 4]), code, word, "as many requests waiting as it may").await;
}

#[tokio::test]
async fn a_message_that_stalls_is_too_slow() {
    let fixture = Fixture::adding(1.0, "").await;
    let stalled = futures::stream::pending::<Result<Bytes, std::convert::Infallible>>();
    let request = http::Request::post("/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc")
        .body(axum::body::Body::from_stream(stalled));
    let answer = fixture.router().oneshot(request.unwrap()).await.unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!((status.code(), code_of(&status)), (Code::DeadlineExceeded, "slow-body"));
}

#[tokio::test]
async fn the_server_and_its_models_say_what_they_are() {
    let fixture = Fixture::adding(1.0, "").await;
    let mut client = client(&fixture);
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server.name, "wick");
    assert!(server.extensions.contains(&"statistics".to_owned()), "{server:?}");
    let (name, version) = ("m".to_owned(), String::new());
    let ready = ModelReadyRequest { name: name.clone(), version: version.clone() };
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    let ready = ModelReadyRequest { name: "other".into(), version: version.clone() };
    assert_eq!(client.model_ready(ready).await.unwrap_err().code(), Code::NotFound);
    let asked = ModelMetadataRequest { name: name.clone(), version: version.clone() };
    let model = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!((model.versions[0].as_str(), model.platform.as_str()), ("1.0.0", "onnx_onnxv1"));
    assert_eq!((model.inputs[0].datatype.as_str(), model.inputs[0].shape[0]), ("FP32", 4));
    let asked = ModelConfigRequest { name: name.clone(), version: version.clone() };
    let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.input[0].data_type(), config.input[0].dims[0]), (DataType::TypeFp32, 4));
    client.model_infer(raw(&[0.0; 4])).await.unwrap();
    for name in [name, String::new()] {
        let asked = ModelStatisticsRequest { name, version: version.clone() };
        let stats = client.model_statistics(asked).await.unwrap().into_inner().model_stats;
        assert_eq!((stats.len(), stats[0].inference_count), (1, 1));
        let success = stats[0].inference_stats.as_ref().unwrap().success.unwrap();
        assert!(success.count == 1 && success.ns > 0, "{success:?}");
    }
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_only_if_the_host_lets_them() {
    let fixture = Fixture::adding(1.0, "").await;
    let settings = ServeSettings { model_control: true, ..settings() };
    let mut control = Client::new(router(fixture.repository.clone(), &settings));
    let unload = |model: &str| RepositoryModelUnloadRequest {
        model_name: model.to_owned(),
        ..Default::default()
    };
    let status = client(&fixture).repository_model_unload(unload("m")).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::PermissionDenied, "no-model-control"));
    control.repository_model_unload(unload("m")).await.unwrap();
    let status = control.repository_model_unload(unload("other")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let index = control.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    assert_eq!(index.into_inner().models[0].state, "UNAVAILABLE");
    check(&fixture, raw(&[0.0; 4]), Code::Unavailable, "not-ready", "unloaded").await;
    // As KServe's client writes it.
    let load = RepositoryModelLoadRequest { repository_name: "m".into(), ..Default::default() };
    let loaded = control.repository_model_load(load.clone()).await.unwrap().into_inner();
    assert!(loaded.is_loaded && loaded.model_name == "m");
    let parameters = [("config".to_owned(), ModelRepositoryParameter::default())].into();
    let config = RepositoryModelLoadRequest { parameters, ..load };
    let status = control.repository_model_load(config).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    client(&fixture).model_infer(raw(&[0.0; 4])).await.unwrap();
}

#[tokio::test]
async fn health_follows_the_models() {
    let fixture = Fixture::adding(1.0, "").await;
    let client = || HealthClient::new(fixture.router());
    let health = async |service: &str| {
        let asked = HealthCheckRequest { service: service.to_owned() };
        client().check(asked).await.map(|answer| answer.into_inner().status())
    };
    let services = ["", "inference.GRPCInferenceService", "m"];
    for service in services {
        assert_eq!(health(service).await.unwrap(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(health("other").await.unwrap_err().code(), Code::NotFound);
    let watch = async |service: &str| {
        let asked = HealthCheckRequest { service: service.to_owned() };
        client().watch(asked).await.unwrap().into_inner()
    };
    let next = |answer: Option<Result<HealthCheckResponse, Status>>| {
        answer.map(|answer| answer.unwrap().status())
    };
    let (mut all, mut other) = (watch("").await, watch("other").await);
    assert_eq!(next(all.next().await), Some(ServingStatus::Serving));
    assert_eq!(next(other.next().await), Some(ServingStatus::ServiceUnknown));
    fixture.repository.unload("m").await.unwrap();
    for service in services {
        assert_eq!(health(service).await.unwrap(), ServingStatus::NotServing, "{service}");
    }
    assert_eq!(next(all.next().await), Some(ServingStatus::NotServing));
    fixture.repository.load("m").await.unwrap();
    assert_eq!(next(all.next().await), Some(ServingStatus::Serving));
    fixture.repository.drain();
    assert_eq!(health("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(health("wick.live").await.unwrap(), ServingStatus::Serving);
    assert_eq!(next(all.next().await), Some(ServingStatus::NotServing));
    assert_eq!((next(all.next().await), next(other.next().await)), (None, None));
}

#[tokio::test]
async fn calls_that_are_not_served_say_so() {
    let fixture = Fixture::adding(1.0, "").await;
    for (path, why) in [
        ("/inference.GRPCInferenceService/SystemSharedMemoryStatus", "raw contents"),
        ("/inference.GRPCInferenceService/TraceSetting", "where the server is started"),
        ("/inference.GRPCInferenceService/Nonsense", ""),
        ("/other.Service/Call", "there is nothing at /other.Service/Call"),
    ] {
        let request = http::Request::post(path).header("content-type", "application/grpc");
        let answer = fixture.call(request.body(axum::body::Body::empty()).unwrap()).await;
        let status = Status::from_header_map(&answer.headers).unwrap();
        assert_eq!((answer.status.as_u16(), status.code()), (200, Code::Unimplemented), "{path}");
        assert!(status.message().contains(why), "{status}");
    }
}
