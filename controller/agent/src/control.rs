//! How an agent is: liveness, readiness, metrics, and all that it knows of itself as JSON. It takes no
//! orders.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wick_fleet::wire::State;

use crate::state::{Shared, Snapshot};

/// A control port that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {addr} for the control port: choose another with --control (port 0 takes a free one)"
)]
pub struct ControlError {
    addr: SocketAddr,
    source: io::Error,
}

/// The port, before it answers.
#[derive(Debug)]
pub struct Control {
    listener: TcpListener,
    addr: SocketAddr,
}

pub async fn bind(addr: SocketAddr) -> Result<Control, ControlError> {
    let failed = |source| ControlError { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok(Control { listener, addr })
}

// === impl Control ===

impl Control {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answer until `stop`.
    pub async fn serve(
        self,
        shared: Arc<Shared>,
        own: impl Fn() -> Vec<u8> + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let own = Arc::new(own);
        let ready = {
            let shared = Arc::clone(&shared);
            move || async move {
                match shared.read().ready {
                    true => (StatusCode::OK, "ready\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "what is to be served is not yet\n"),
                }
            }
        };
        let metrics = {
            let shared = Arc::clone(&shared);
            move || async move {
                let mut text = text(&shared.read()).into_bytes();
                text.extend(own());
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
            }
        };
        let status = move || async move {
            let json = serde_json::to_vec(&shared.read()).unwrap_or_default();
            ([(header::CONTENT_TYPE, "application/json")], json).into_response()
        };
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/v1/status", get(status));
        let served = axum::serve(self.listener, router);
        let served = served.with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(error) = served.await {
            tracing::warn!(%error, "the control port has ended");
        }
    }
}

/// Metrics in Prometheus' text format.
fn text(known: &Snapshot) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    };
    let wanted = known.observed.as_ref().map_or(0, |observed| observed.wanted.0);
    let settled = known.observed.as_ref().is_some_and(|observed| observed.state.is_settled());
    let attempts = known.observed.as_ref().map_or(0, |observed| observed.attempts.into());
    let refused = known.observed.as_ref().and_then(|observed| observed.refused.as_ref());
    let failed = known.observed.as_ref().is_some_and(|o| o.state == State::Waiting);
    gauge("wick_agent_connected", "Whether the broker is connected", known.link.connected.into());
    gauge("wick_agent_sessions", "Connections to the broker so far", known.link.sessions);
    gauge("wick_agent_generation", "The generation that has the traffic", known.generation.0);
    gauge("wick_agent_wanted_generation", "The newest generation that was accepted", wanted);
    gauge("wick_agent_settled", "Whether what is wanted is served", settled.into());
    gauge("wick_agent_waiting", "Whether it has failed and waits to try again", failed.into());
    gauge("wick_agent_attempts", "Tries for the wanted generation that failed", attempts);
    gauge(
        "wick_agent_refused_messages",
        "Messages that were not believed or not understood",
        refused.map_or(0, |refused| refused.count),
    );
    gauge(
        "wick_agent_certificate_end_seconds",
        "When the site's certificate ends, in seconds since 1970",
        known.certificate_ends,
    );
    gauge("wick_agent_disk_full", "Whether state can't be written", known.disk.is_some().into());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_a_line_each() {
        let shared = Shared::new("plant-3".parse().unwrap(), 1_735_689_599);
        shared.change(|known| known.link.connected = true);
        let text = text(&shared.read());
        assert!(text.contains("\nwick_agent_connected 1\n"), "{text}");
        assert!(text.contains("\nwick_agent_certificate_end_seconds 1735689599\n"), "{text}");
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 10);
    }
}
