//! Outgoing HTTP of guests: only to hosts and ports that were granted.

use std::sync::Arc;

use http::Request;
use http::uri::Scheme;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};
use wick_package::HostPort;

/// What `wasi:http` calls answer with.
type Sent =
    Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// The gate of one instance.
pub(crate) struct Outgoing {
    granted: Arc<[HostPort]>,
    model: Arc<str>,
}

impl Outgoing {
    pub(crate) fn new(granted: Arc<[HostPort]>, model: Arc<str>) -> Self {
        Self { granted, model }
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _trailing: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let Some((host, port)) = destination(&request) else {
            return Box::new(async { Err(Error::HttpRequestUriInvalid) });
        };
        if !permits(&self.granted, &host, port) {
            let model = &*self.model;
            tracing::warn!(model, host, port, "an outgoing request was refused: not granted");
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        Box::new(async move {
            use http_body_util::BodyExt;
            let (response, connection) = default_send_request(request, options).await?;
            let connection: Box<dyn Future<Output = _> + Send> = Box::new(connection);
            Ok((response.map(BodyExt::boxed_unsync), connection))
        })
    }
}

/// Host and port that a request would be sent to.
fn destination<B>(request: &Request<B>) -> Option<(String, u16)> {
    let authority = request.uri().authority()?;
    let default = if request.uri().scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    Some((authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(default)))
}

fn permits(granted: &[HostPort], host: &str, port: u16) -> bool {
    granted.iter().any(|grant| grant.port == port && grant.host.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, want: bool) {
        let granted = [
            HostPort { host: "api.example.com".into(), port: 443 },
            HostPort { host: "[::1]".into(), port: 8080 },
        ];
        let request = Request::builder().uri(uri).body(()).unwrap();
        let permitted =
            destination(&request).is_some_and(|(host, port)| permits(&granted, &host, port));
        assert_eq!(permitted, want, "{uri}");
    }

    #[test]
    fn only_granted_hosts_and_ports_are_reached() {
        check("https://api.example.com/x", true);
        check("https://API.example.com:443/x", true);
        check("http://[::1]:8080/", true);
        check("http://api.example.com/", false);
        check("https://api.example.com:80/", false);
        check("https://api.example.com.evil.org/", false);
        check("https://api.example.com@evil.org/", false);
        check("https://evil.org/", false);
        check("/relative", false);
    }
}
