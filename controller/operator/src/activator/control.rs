//! The control port: whether the activator lives and is ready, its metrics, and the stream of
//! what is asked of Models.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

use super::demand::{EVERY, Feed, HEARTBEAT, Line};
use super::metrics;
use super::models::Models;
use super::shared::Shared;
use super::table::ModelName;

/// Connections: the kubelet, Prometheus, a few operators. More are told so by a close.
const MAX_CONNECTIONS: usize = 64;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is looked at.
#[derive(Clone)]
pub struct Control {
    pub shared: Arc<Shared>,
    pub models: Arc<Models>,
    /// Whether the table was seen.
    pub known: watch::Receiver<bool>,
}

/// A stream of lines to one operator.
struct Lines {
    control: Control,
    urgent: watch::Receiver<u64>,
    feed: Feed,
    tick: Interval,
    beat: Instant,
}

// === impl Control ===

impl Control {
    /// Answer until this is dropped.
    pub async fn run(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            while connections.try_join_next().is_some() {}
            if connections.len() < MAX_CONNECTIONS {
                connections.spawn(self.clone().serve(stream));
            }
        }
    }

    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let http = Builder::new(TokioExecutor::new());
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(error, "a connection to the control port ended early");
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if self.shared.draining.is_cancelled() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "ends\n".to_owned())
            }
            "/readyz" if !*self.known.borrow() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "knows no models yet\n".to_owned())
            }
            "/readyz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/metrics" => text(StatusCode::OK, metrics::text(&self.models.all())),
            "/v1/demand" => {
                let lines = self.clone().lines().map(|bytes| Ok(Frame::data(bytes)));
                let mut answer = Response::new(StreamBody::new(lines).boxed_unsync());
                let kind = HeaderValue::from_static("application/x-ndjson");
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            _ => text(StatusCode::NOT_FOUND, "no such path\n".to_owned()),
        }
    }

    /// Chunks of lines, for ever.
    fn lines(self) -> impl Stream<Item = Bytes> {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let urgent = self.shared.urgent.subscribe();
        let lines =
            Lines { control: self, urgent, feed: Feed::default(), tick, beat: Instant::now() };
        stream::unfold(lines, |mut lines| async {
            let chunk = lines.next().await;
            Some((chunk, lines))
        })
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

// === impl Lines ===

impl Lines {
    /// What is due next.
    async fn next(&mut self) -> Bytes {
        loop {
            let urgent = tokio::select! {
                // The value stays. Its sender lives as long as this.
                changed = self.urgent.changed() => changed.is_ok(),
                // An interval loses no turn.
                _ = self.tick.tick() => false,
            };
            let models = self.control.models.all();
            let numbers: Vec<_> =
                models.iter().map(|model| (&model.name, model.numbers())).collect();
            let due = match urgent {
                true => self.feed.urgent(numbers.into_iter()),
                false => self.feed.changed(numbers.into_iter()),
            };
            let mut chunk = self.write(&due);
            if self.beat.elapsed() >= HEARTBEAT {
                self.beat = Instant::now();
                push(&mut chunk, &Line::Heartbeat { heartbeat: models.len() });
            }
            if !chunk.is_empty() {
                return chunk.into();
            }
        }
    }

    fn write(&self, due: &[ModelName]) -> Vec<u8> {
        let mut chunk = Vec::new();
        for name in due {
            // Those that are gone meanwhile need no line.
            if let Some(model) = self.control.models.get(name) {
                push(&mut chunk, &Line::Demand(model.demand()));
            }
        }
        chunk
    }
}

fn push(chunk: &mut Vec<u8>, line: &Line) {
    // Plain data into memory.
    if serde_json::to_writer(&mut *chunk, line).is_ok() {
        chunk.push(b'\n');
    }
}
