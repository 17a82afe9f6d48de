//! Health as a server's, answered here while no pod is there: a model without pods is as ready
//! as one whose graph is not in memory, and a client that only asks must not start it.
//!
//! Whether one certain model is ready (`/v2/models/NAME/ready`) is asked of a pod like
//! everything else, since only the package knows the names of its models.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::answer::Answer;

/// Messages of one field: its number 1 is true, or a service's status.
const YES: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];
const NO: &[u8] = &[0, 0, 0, 0, 0];

/// The answer, if that is what is asked. `ready` is whether requests are held.
pub fn answer<B>(request: &Request<B>, ready: bool) -> Option<Response<Answer>> {
    let path = request.uri().path();
    if request.method() == Method::POST {
        let message = match (path, ready) {
            ("/inference.GRPCInferenceService/ServerLive", _)
            | (
                "/inference.GRPCInferenceService/ServerReady" | "/grpc.health.v1.Health/Check",
                true,
            ) => YES,
            ("/inference.GRPCInferenceService/ServerReady", false) => NO,
            ("/grpc.health.v1.Health/Check", false) => NOT_SERVING,
            _ => return None,
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let mut answer = Response::new(Answer::own(Bytes::from_static(message), Some(trailers)));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        return Some(answer);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return None;
    }
    let (body, status): (&[u8], _) = match (path, ready) {
        ("/v2/health/live", _) => (b"{\"live\":true}", StatusCode::OK),
        ("/v2/health/ready", true) => (b"{\"ready\":true}", StatusCode::OK),
        ("/v2/health/ready", false) => (b"{\"ready\":false}", StatusCode::SERVICE_UNAVAILABLE),
        _ => return None,
    };
    let mut answer = Response::new(Answer::own(Bytes::from_static(body), None));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.status_mut() = status;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, path: &str, ready: bool) -> Option<u16> {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        answer(&request, ready).map(|answer| answer.status().as_u16())
    }

    #[test]
    fn only_a_servers_health_is_answered_without_a_pod() {
        assert_eq!(ask(Method::GET, "/v2/health/live", false), Some(200));
        assert_eq!(ask(Method::GET, "/v2/health/ready", true), Some(200));
        assert_eq!(ask(Method::GET, "/v2/health/ready", false), Some(503));
        assert_eq!(ask(Method::POST, "/grpc.health.v1.Health/Check", true), Some(200));
        assert_eq!(ask(Method::GET, "/v2/models/m/ready", true), None);
        assert_eq!(ask(Method::POST, "/v2/health/ready", true), None);
        assert_eq!(ask(Method::POST, "/grpc.health.v1.Health/Watch", true), None);
    }
}
