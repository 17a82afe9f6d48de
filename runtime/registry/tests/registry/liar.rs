//! A registry in this process that serves what a test gives it and misbehaves as the test says. It
//! is no stand-in for a real one, which `real` tests: it is for what a real one does not do on
//! request, such as cutting a connection at a byte or answering with another blob.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use wick_package::oci::{self, Descriptor};
use wick_package::{Digest, Layout, Reference};
use wick_registry::Credentials;

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// The registry.
pub struct Liar {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub at: Instant,
}

/// How it misbehaves, once or several times.
pub struct Rule {
    pub method: Method,
    /// Part of the path and query.
    pub path: String,
    /// How often; then it is good again.
    pub times: usize,
    pub act: Act,
}

#[derive(Clone)]
pub enum Act {
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The right answer, cut after so many bytes of its body.
    Cut(usize),
    /// The right headers for other bytes.
    Other(Bytes),
    /// A body of this length is announced; less is sent, or more.
    Claim(u64),
    /// No byte of the body comes.
    Silence,
    /// The right answer, after which a tag means another digest.
    Move {
        tag: String,
        to: Digest,
    },
    /// The right answer, as if no range had been asked for.
    NoRange,
    /// Slow: so long before each part of the body.
    Slow(Duration),
}

#[derive(Default)]
struct State {
    documents: HashMap<Digest, (String, Bytes)>,
    tags: HashMap<String, Digest>,
    blobs: HashMap<Digest, Bytes>,
    rules: Vec<Rule>,
    seen: Vec<Seen>,
}

// === impl Liar ===

impl Liar {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |mut request: Request<Incoming>| {
                        let state = state.clone();
                        async move {
                            // Read what is sent before the answer, as registries do: else a
                            // refused upload ends at a byte that the machine's load decides.
                            while let Some(Ok(_)) = request.frame().await {}
                            Ok::<_, Infallible>(serve(&state, &request))
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    // A connection that the test cuts ends in an error.
                    drop(connection.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { addr, state }
    }

    /// A user who is known to it, and to nobody else.
    pub fn known(&self, user: &str, password: &str) -> Credentials {
        let registry = self.addr.to_string();
        Credentials::Given { registry, user: user.to_owned(), password: password.to_owned() }
    }

    pub fn reference(&self, tag: &str) -> Reference {
        format!("{}/team/app:{tag}", self.addr).parse().unwrap()
    }

    /// Serve all of a layout under a tag; the image's digest.
    pub fn serve(&self, layout: &std::path::Path, tag: &str) -> Digest {
        let layout = Layout::open(layout).unwrap();
        let image = layout.only_image().unwrap();
        self.add(&layout, &image);
        self.state.lock().tags.insert(tag.to_owned(), image.digest);
        image.digest
    }

    fn add(&self, layout: &Layout, at: &Descriptor) {
        let blob = layout.find(at, "blob").unwrap();
        let bytes = Bytes::from(blob.read(u64::MAX).unwrap());
        if oci::is_index(&at.media_type) {
            let index: oci::Index = serde_json::from_slice(&bytes).unwrap();
            index.manifests.iter().for_each(|child| self.add(layout, child));
        } else if oci::is_manifest(&at.media_type) {
            let image: oci::Image = serde_json::from_slice(&bytes).unwrap();
            std::iter::once(&image.config)
                .chain(&image.layers)
                .for_each(|leaf| self.add(layout, leaf));
        } else {
            self.state.lock().blobs.insert(at.digest, bytes);
            return;
        }
        self.document(&at.media_type, bytes);
    }

    /// Serve a manifest or an index.
    pub fn document(&self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.state.lock().documents.insert(descriptor.digest, (media_type.to_owned(), bytes));
        descriptor
    }

    pub fn blob(&self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.state.lock().blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    pub fn tag(&self, tag: &str, digest: Digest) {
        self.state.lock().tags.insert(tag.to_owned(), digest);
    }

    /// From now on, so often, for what has this in its path.
    pub fn rule(&self, path: impl Into<String>, times: usize, act: Act) {
        self.rule_for(Method::GET, path, times, act);
    }

    pub fn rule_for(&self, method: Method, path: impl Into<String>, times: usize, act: Act) {
        self.state.lock().rules.push(Rule { method, path: path.into(), times, act });
    }

    /// The length of a blob.
    pub fn len_of(&self, digest: &str) -> usize {
        self.state.lock().blobs[&digest.parse().unwrap()].len()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    /// Requests whose path has this in it.
    pub fn seen_of(&self, part: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.contains(part)).collect()
    }
}

fn serve(state: &Mutex<State>, request: &Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path_and_query().unwrap().to_string();
    let text = |name| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let range = text(header::RANGE);
    let authorization = text(header::AUTHORIZATION);
    let (act, mut bytes, mut headers, mut status) = {
        let mut state = state.lock();
        let (at, range) = (Instant::now(), range.clone());
        state.seen.push(Seen {
            method: method.clone(),
            path: path.clone(),
            range,
            authorization,
            at,
        });
        let fits =
            |rule: &&mut Rule| rule.times > 0 && rule.method == method && path.contains(&rule.path);
        let act = state.rules.iter_mut().find(fits).map(|rule| {
            rule.times -= 1;
            rule.act.clone()
        });
        let (bytes, headers, status) = state.good(&method, &path);
        if let Some(Act::Move { tag, to }) = &act {
            state.tags.insert(tag.clone(), *to);
        }
        (act, bytes, headers, status)
    };
    let start = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split('-').next());
    let start: Option<usize> = start.and_then(|start| start.parse().ok());
    if let Some(start) = start
        && status == StatusCode::OK
        && !matches!(act, Some(Act::NoRange))
    {
        let whole = bytes.len();
        bytes = bytes.slice(start.min(whole)..);
        let range = format!("bytes {start}-{}/{whole}", whole - 1);
        headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
        status = StatusCode::PARTIAL_CONTENT;
    }
    misbehave(act, bytes, headers, status)
}

fn misbehave(
    act: Option<Act>,
    bytes: Bytes,
    mut headers: HeaderMap,
    mut status: StatusCode,
) -> Answer {
    let len = bytes.len();
    let body = match act {
        None | Some(Act::Move { .. } | Act::NoRange) => whole(bytes),
        Some(Act::Answer(code, more, text)) => {
            status = StatusCode::from_u16(code).unwrap();
            headers.clear();
            for (name, value) in more {
                headers.insert(name, value.parse().unwrap());
            }
            whole(text.into())
        }
        Some(Act::Cut(after)) => {
            headers.insert(header::CONTENT_LENGTH, len.into());
            parts(vec![bytes.slice(..after.min(len))], Duration::from_millis(50), Some("cut"))
        }
        Some(Act::Other(other)) => whole(other),
        Some(Act::Claim(claimed)) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(claimed));
            whole(bytes)
        }
        Some(Act::Silence) => {
            headers.insert(header::CONTENT_LENGTH, len.into());
            parts(vec![], Duration::from_secs(3600), None)
        }
        Some(Act::Slow(pause)) => {
            headers.insert(header::CONTENT_LENGTH, len.into());
            let step = (len / 10).max(1);
            let chunks = (0..len).step_by(step).map(|at| bytes.slice(at..(at + step).min(len)));
            parts(chunks.collect(), pause, None)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn whole(bytes: Bytes) -> BoxBody<Bytes, std::io::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// Chunks with a pause before each, and an error or silence after the last.
fn parts(
    chunks: Vec<Bytes>,
    pause: Duration,
    end: Option<&'static str>,
) -> BoxBody<Bytes, std::io::Error> {
    let silent = chunks.is_empty();
    let chunks = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
    let end = end.map(|why| Err(std::io::Error::other(why)));
    let all: Vec<_> = chunks.chain(end).collect();
    let stream = futures::stream::unfold(all.into_iter(), move |mut all| async move {
        if all.len() > 0 || silent {
            tokio::time::sleep(pause).await;
        }
        all.next().map(|next| (next, all))
    });
    StreamBody::new(SyncStream(Mutex::new(Box::pin(stream)))).boxed()
}

/// A stream that may be shared, as a boxed body must.
struct SyncStream(Mutex<std::pin::Pin<Box<dyn futures::Stream<Item = Item> + Send>>>);

type Item = Result<Frame<Bytes>, std::io::Error>;

impl futures::Stream for SyncStream {
    type Item = Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Item>> {
        self.0.lock().as_mut().poll_next(cx)
    }
}

// === impl State ===

impl State {
    /// What a registry without faults answers.
    fn good(&self, method: &Method, path: &str) -> (Bytes, HeaderMap, StatusCode) {
        let mut headers = HeaderMap::new();
        let path = path.split('?').next().unwrap();
        let last = path.rsplit('/').next().unwrap();
        let none = |code: &str| {
            let body =
                format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"no such thing\"}}]}}");
            (Bytes::from(body), HeaderMap::new(), StatusCode::NOT_FOUND)
        };
        if method == Method::POST && path.contains("/blobs/uploads/") {
            headers.insert(header::LOCATION, "/upload/1".parse().unwrap());
            return (Bytes::new(), headers, StatusCode::ACCEPTED);
        }
        if method == Method::PUT {
            return (Bytes::new(), headers, StatusCode::CREATED);
        }
        if path.contains("/manifests/") {
            let digest = self.tags.get(last).copied().or_else(|| last.parse().ok());
            let found = digest.and_then(|digest| Some((digest, self.documents.get(&digest)?)));
            let Some((digest, (media_type, bytes))) = found else {
                return none("MANIFEST_UNKNOWN");
            };
            headers.insert(header::CONTENT_TYPE, media_type.parse().unwrap());
            headers.insert("docker-content-digest", digest.to_string().parse().unwrap());
            return (bytes.clone(), headers, StatusCode::OK);
        }
        let blob = last.parse().ok().and_then(|digest: Digest| self.blobs.get(&digest));
        match blob {
            Some(bytes) if path.contains("/blobs/") => (bytes.clone(), headers, StatusCode::OK),
            _ => none("BLOB_UNKNOWN"),
        }
    }
}
