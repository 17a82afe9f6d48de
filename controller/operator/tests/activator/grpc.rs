//! gRPC by tonic: streams both ways, trailers, and refusals as gRPC says them.

use std::time::Duration;

use futures::StreamExt as _;
use http::Method;
use http::uri::PathAndQuery;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use wick_operator::activator::table::Route;

use crate::stage::{H2, LIMIT, Stage, at, port, request, whole};
use crate::upstream::Upstream;

async fn client(port: u16) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", at(port))).unwrap();
    let mut client = Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    client
}

const PATH: &str = "/test.Echo/Stream";

async fn ask(
    client: &mut Grpc<Channel>,
    request: Request<String>,
) -> Result<String, tonic::Status> {
    client.ready().await.unwrap();
    let codec = ProstCodec::<String, String>::default();
    let answer = client.unary(request, PathAndQuery::from_static(PATH), codec).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_stream_goes_both_ways_message_by_message_and_ends_with_its_trailers() {
    let (pod, port) = (Upstream::start(), port());
    let stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    let mut client = client(port).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<String>(1);
    let codec = ProstCodec::<String, String>::default();
    let path = PathAndQuery::from_static(PATH);
    let request = Request::new(ReceiverStream::new(receiver));
    let answer = client.streaming(request, path, codec).await.unwrap();
    let mut messages = answer.into_inner();
    for n in 0..20 {
        sender.send(format!("message {n}")).await.unwrap();
        // Only a proxy that passes each on at once gets here.
        let back = tokio::time::timeout(LIMIT, messages.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(back, format!("message {n}"));
    }
    drop(sender);
    assert!(messages.next().await.is_none());
    let trailers = messages.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("x-last").unwrap(), "word");
    let labels = "namespace=\"ns\",model=\"m\",revision=\"m-1\",code=\"grpc-0\"";
    stage.until(&format!("wick_activator_answers_total{{{labels}}} 1")).await;
}

#[tokio::test]
async fn refusals_are_statuses() {
    let port = port();
    let cold = whole(port, &[]);
    let stage = Stage::new(&[("m", Route { max_held: 0, ..cold.clone() })]).await;
    let mut client = client(port).await;
    let refused = ask(&mut client, Request::new("a".to_owned())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");

    let hold_timeout = Duration::from_millis(30);
    stage.set(&[("m", Route { hold_timeout, ..cold.clone() })]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = ask(&mut client, Request::new("a".to_owned())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("in time"), "{refused}");

    stage.set(&[("m", Route { hold: false, ..cold })]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = ask(&mut client, Request::new("a".to_owned())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("failed"), "{refused}");
}

#[tokio::test]
async fn a_held_call_ends_with_its_own_deadline() {
    let port = port();
    let stage = Stage::new(&[("m", whole(port, &[]))]).await;
    // Not by tonic, whose own clock would end it.
    let mut call = request(Method::POST, PATH, "");
    let headers = call.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("grpc-timeout", "50m".parse().unwrap());
    let refused = H2::connect(at(port)).await.send(call).await.unwrap();
    assert_eq!(refused.status(), 200);
    assert_eq!(refused.headers()["grpc-status"], "4");
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 0").await;
}

#[tokio::test]
async fn a_held_call_goes_on_when_a_pod_comes() {
    let (pod, port) = (Upstream::start(), port());
    let stage = Stage::new(&[("m", whole(port, &[]))]).await;
    let mut client = client(port).await;
    let asked = tokio::spawn(async move { ask(&mut client, Request::new("a".to_owned())).await });
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 1").await;
    stage.set(&[("m", whole(port, &[(pod.addr, false)]))]);
    let answer = tokio::time::timeout(LIMIT, asked).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), "a");
}
