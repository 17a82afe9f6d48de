//! An activator with a table that tests change, and clients for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::watch;
use wick_operator::activator::table::{First, ModelName, PodAddress, Route, Share, Table};
use wick_operator::activator::{Activator, Settings};

/// Longer than anything takes that works.
pub const LIMIT: Duration = Duration::from_secs(20);

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub struct Stage {
    pub activator: Activator,
    pub table: watch::Sender<Table>,
}

impl Stage {
    pub async fn new(routes: &[(&str, Route)]) -> Self {
        let (table, receiver) = watch::channel(Table::default());
        let settings = Settings {
            bind: vec![LOCAL],
            control: SocketAddr::new(LOCAL, 0),
            threads: 2,
            drain: Duration::from_secs(5),
        };
        let activator = Activator::start(settings, receiver).await.unwrap();
        let mut stage = Self { activator, table };
        stage.set(routes);
        tokio::time::timeout(LIMIT, stage.activator.ready()).await.unwrap();
        stage
    }

    pub fn set(&self, routes: &[(&str, Route)]) {
        let one = |(name, route): &(&str, Route)| (model(name), route.clone());
        self.table.send_replace(Table { models: routes.iter().map(one).collect() });
    }

    /// What the control port says.
    pub async fn control(&self, path: &str) -> (u16, String) {
        let mut client = H1::connect(self.activator.control()).await;
        let answer = client.get(path).await.unwrap();
        let status = answer.status().as_u16();
        (status, body(answer).await)
    }

    /// Wait until a line is among the metrics.
    pub async fn until(&self, line: &str) {
        let start = Instant::now();
        loop {
            let (_, metrics) = self.control("/metrics").await;
            if metrics.lines().any(|one| one == line) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "no {line} in\n{metrics}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub fn model(name: &str) -> ModelName {
    ModelName { namespace: "ns".to_owned(), name: name.to_owned() }
}

/// A free port, until somebody takes it.
pub fn port() -> u16 {
    let listener = std::net::TcpListener::bind((LOCAL, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub fn at(port: u16) -> SocketAddr {
    SocketAddr::new(LOCAL, port)
}

pub fn share(name: &str, weight: u8, pods: &[(SocketAddr, bool)]) -> Share {
    let pods = pods.iter().map(|&(address, ready)| PodAddress { address, ready });
    Share { name: name.to_owned(), weight, first: First::Placed, pods: pods.collect() }
}

pub fn route(port: u16, revisions: Vec<Share>) -> Route {
    Route { port, hold: true, max_held: 1000, hold_timeout: LIMIT, close: false, revisions }
}

/// All to one revision with these pods.
pub fn whole(port: u16, pods: &[(SocketAddr, bool)]) -> Route {
    route(port, vec![share("m-1", 100, pods)])
}

pub async fn body(answer: Response<hyper::body::Incoming>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One connection of a client that speaks HTTP/1.1.
pub struct H1(pub http1::SendRequest<Full<Bytes>>);

/// The same with HTTP/2.
pub struct H2(pub http2::SendRequest<Full<Bytes>>);

pub fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", "model");
    builder.body(Full::new(body.into())).unwrap()
}

impl H1 {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn get(&mut self, path: &str) -> hyper::Result<Response<hyper::body::Incoming>> {
        self.send(request(Method::GET, path, "")).await
    }

    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        self.0.ready().await?;
        tokio::time::timeout(LIMIT, self.0.send_request(request)).await.unwrap()
    }
}

impl H2 {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        let path = request.uri().path_and_query().unwrap().as_str();
        *request.uri_mut() = format!("http://model{path}").parse().unwrap();
        let mut sender = self.0.clone();
        sender.ready().await?;
        tokio::time::timeout(LIMIT, sender.send_request(request)).await.unwrap()
    }
}
