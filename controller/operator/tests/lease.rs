//! Operators that come and go, before a small server that keeps a Lease as Kubernetes does: each
//! write with the version that it was read at. Everything else of the cluster is empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wick_operator::shell::{self, Settings, ShellError};

/// Longer than an operator takes over when its predecessor has said farewell, by the house's word.
const HANDOVER: Duration = Duration::from_secs(2);

/// Longest until something that must come has come.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Cluster {
    lease: Option<Value>,
    version: u64,
    /// Names of pods in the operator's namespace.
    pods: Vec<String>,
    /// Writes are refused, as when the account's rights are gone.
    closed: bool,
}

type Shared = Arc<Mutex<Cluster>>;

struct Operator {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ShellError>>,
}

fn refused(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, status.to_string()).into_response()
}

async fn answer(State(cluster): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    if path.contains("/leases") {
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        return lease(&mut cluster.lock(), &parts.method, &body);
    }
    if let Some((_, name)) = path.split_once("/pods/") {
        let there = cluster.lock().pods.iter().any(|pod| pod == name);
        let pod = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": name, "namespace": "wick-system"},
        });
        return match there {
            true => pod.to_string().into_response(),
            false => refused(StatusCode::NOT_FOUND, "NotFound"),
        };
    }
    if query.contains("watch=") {
        return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())
            .into_response();
    }
    let list = json!({
        "kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [],
    });
    list.to_string().into_response()
}

fn lease(cluster: &mut Cluster, method: &Method, body: &[u8]) -> Response {
    if method == Method::GET {
        return match &cluster.lease {
            Some(lease) => lease.to_string().into_response(),
            None => refused(StatusCode::NOT_FOUND, "NotFound"),
        };
    }
    if cluster.closed {
        return refused(StatusCode::FORBIDDEN, "Forbidden");
    }
    let mut new: Value = serde_json::from_slice(body).unwrap();
    let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
    match (method == Method::POST, &cluster.lease) {
        (true, Some(_)) => return refused(StatusCode::CONFLICT, "AlreadyExists"),
        (false, Some(old)) if version(old) != version(&new) => {
            return refused(StatusCode::CONFLICT, "Conflict");
        }
        _ => {}
    }
    cluster.version += 1;
    new["metadata"]["resourceVersion"] = cluster.version.to_string().into();
    cluster.lease = Some(new.clone());
    new.to_string().into_response()
}

async fn cluster() -> (Shared, kube::Client) {
    let shared = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    (shared, client)
}

impl Operator {
    fn start(client: &kube::Client, identity: &str) -> Self {
        let settings = Settings {
            namespace: "wick-system".to_owned(),
            identity: identity.to_owned(),
            is_pod: true,
            only: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            registry: wick_registry::Settings::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let task = tokio::spawn(shell::run(client.clone(), settings, stopped));
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn holder(cluster: &Shared) -> String {
    let cluster = cluster.lock();
    let spec = cluster.lease.as_ref().map(|lease| &lease["spec"]["holderIdentity"]);
    spec.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// How long it took until somebody held the Lease.
async fn until_held(cluster: &Shared, by: &str) -> Duration {
    let start = Instant::now();
    while holder(cluster) != by {
        assert!(start.elapsed() < LIMIT, "held by `{}`", holder(cluster));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test]
async fn who_is_stopped_gives_the_lease_to_the_next() {
    let (cluster, client) = cluster().await;
    cluster.lock().pods.extend(["one".to_owned(), "two".to_owned()]);
    let one = Operator::start(&client, "one");
    until_held(&cluster, "one").await;
    let two = Operator::start(&client, "two");
    // It has looked, and waits.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(holder(&cluster), "one");
    one.stop().await;
    let took = until_held(&cluster, "two").await;
    assert!(took < HANDOVER, "{took:?}");
    two.stop().await;
    assert_eq!(holder(&cluster), "");
}

#[tokio::test]
async fn whose_pod_is_gone_holds_nothing() {
    let (cluster, client) = cluster().await;
    cluster.lock().pods.push("one".to_owned());
    let one = Operator::start(&client, "one");
    until_held(&cluster, "one").await;
    // Its rights go before it does, as when all of it is removed at once.
    cluster.lock().closed = true;
    one.stop().await;
    cluster.lock().closed = false;
    let two = Operator::start(&client, "two");
    tokio::time::sleep(HANDOVER).await;
    assert_eq!(holder(&cluster), "one", "its pod may still act");
    cluster.lock().pods.clear();
    let took = until_held(&cluster, "two").await;
    assert!(took < HANDOVER, "{took:?}");
    two.stop().await;
}
