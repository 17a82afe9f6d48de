//! A server that stands for a pod's worker.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

type Body = BoxBody<Bytes, hyper::Error>;

/// What was seen, and what is to be done.
#[derive(Default)]
pub struct State {
    pub ready: AtomicBool,
    /// Requests, those after health aside.
    pub hits: AtomicUsize,
    pub now: AtomicUsize,
    pub most: AtomicUsize,
    drop_connections: Notify,
}

/// See the module. Dropped, it is killed.
pub struct Upstream {
    pub addr: SocketAddr,
    pub state: Arc<State>,
    _task: JoinSet<()>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    pub fn at(addr: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let listener = socket.listen(1024).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        state.ready.store(true, Ordering::SeqCst);
        let mut task = JoinSet::new();
        task.spawn(run(listener, Arc::clone(&state)));
        Self { addr, state, _task: task }
    }

    pub fn hits(&self) -> usize {
        self.state.hits.load(Ordering::SeqCst)
    }

    /// End connections, as a server does with those that are idle.
    pub fn drop_connections(&self) {
        self.state.drop_connections.notify_waiters();
    }
}

async fn run(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let dropped = Arc::clone(&state);
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let http = Builder::new(TokioExecutor::new());
            tokio::select! {
                done = http.serve_connection(TokioIo::new(stream), service) => drop(done),
                () = dropped.drop_connections.notified() => {}
            }
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Dead> {
    let path = request.uri().path().to_owned();
    if path == "/v2/health/ready" {
        let ready = state.ready.load(Ordering::SeqCst);
        let mut answer = text("");
        if !ready {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        return Ok(answer);
    }
    state.hits.fetch_add(1, Ordering::SeqCst);
    let now = state.now.fetch_add(1, Ordering::SeqCst) + 1;
    state.most.fetch_max(now, Ordering::SeqCst);
    let answer = match path.as_str() {
        "/die" => Err(Dead),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(text("slow"))
        }
        "/short" => {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(text("short"))
        }
        "/fault" => {
            let mut answer = text("fault");
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(answer)
        }
        "/host" => {
            let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
            Ok(text(&host.unwrap_or_default()))
        }
        path if path.starts_with("/test.Echo/") => Ok(grpc_echo(request)),
        _ => Ok(Response::new(request.into_body().boxed())),
    };
    state.now.fetch_sub(1, Ordering::SeqCst);
    answer
}

/// Each message back as it comes, and trailers in the end.
fn grpc_echo(request: Request<Incoming>) -> Response<Body> {
    let body = request.into_body().into_data_stream();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-last", HeaderValue::from_static("word"));
    let last = futures::stream::once(async move { Ok(Frame::trailers(trailers)) });
    let frames = futures::StreamExt::chain(
        futures::StreamExt::map(body, |data| data.map(Frame::data)),
        last,
    );
    let body = BodyExt::boxed(StreamBody::new(sync(frames)));
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}

/// A boxed body is shared between threads by type, though not in fact.
fn sync<S: futures::Stream + Send + 'static>(
    stream: S,
) -> impl futures::Stream<Item = S::Item> + Send + Sync
where
    S::Item: Send,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(item) = futures::StreamExt::next(&mut stream).await {
            if sender.send(item).await.is_err() {
                break;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

fn text(text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned()));
    Response::new(body.map_err(|never: Infallible| match never {}).boxed())
}

/// Ends the connection without an answer.
#[derive(Debug)]
struct Dead;

impl std::fmt::Display for Dead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dead")
    }
}

impl std::error::Error for Dead {}
