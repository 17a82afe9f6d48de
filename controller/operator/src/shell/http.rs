//! Questions to pods: short, bounded, and never a reason to wait.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long a pod may take to answer. It is asked again two seconds later.
const ANSWER: Duration = Duration::from_secs(1);

/// Largest answer that is read: metrics of a package have some kilobytes.
const MAX_ANSWER: usize = 1 << 20;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Asks pods.
#[derive(Debug, Clone)]
pub struct Asker(Client<HttpConnector, Empty<Bytes>>);

// === impl Asker ===

impl Asker {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// The whole text that a pod answers with. Nothing if it doesn't, whatever the reason.
    pub async fn text(&self, pod: IpAddr, port: u16, path: &str) -> Option<String> {
        let asked = async {
            let response = self.open(pod, port, path).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
            String::from_utf8(body.to_bytes().into()).ok()
        };
        tokio::time::timeout(ANSWER, asked).await.ok().flatten()
    }

    /// An answer whose body comes as it comes.
    pub async fn open(&self, pod: IpAddr, port: u16, path: &str) -> Option<Response<Incoming>> {
        let host = std::net::SocketAddr::new(pod, port);
        let request = Request::get(format!("http://{host}{path}")).body(Empty::new()).ok()?;
        let response = self.0.request(request).await.ok()?;
        response.status().is_success().then_some(response)
    }
}
