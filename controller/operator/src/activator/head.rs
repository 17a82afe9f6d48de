//! What the activator reads and changes of requests' and answers' heads: fields of one
//! connection stay on it, everything else passes as it is.

use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Request, Response, Uri, Version, uri};

/// Fields of one connection, besides those that `Connection` names.
const OF_A_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// How a request wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    Grpc,
}

// === impl Kind ===

impl Kind {
    pub fn of(headers: &HeaderMap) -> Self {
        let content = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        match content {
            Some(content) if content.starts_with(b"application/grpc") => Self::Grpc,
            _ => Self::Http,
        }
    }
}

/// Make a client's request one of the activator's connection to a pod.
pub fn forward<B>(request: &mut Request<B>, pod: &str) {
    let version = match request.version() {
        Version::HTTP_2 => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    *request.version_mut() = version;
    let headers = request.headers_mut();
    let trailers = headers.get(TE).is_some_and(|te| te.as_bytes() == b"trailers");
    strip(headers);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // Answered here, when the pod begins to read the body.
    headers.remove(EXPECT);
    // HTTP/2 wants both parts, and a client may say the second by `host` alone.
    if version == Version::HTTP_2 && request.uri().authority().is_none() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = pod.parse().ok();
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Make a pod's answer one of the client's connection.
pub fn back<B>(answer: &mut Response<B>) {
    strip(answer.headers_mut());
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|names| names.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &OF_A_CONNECTION {
        headers.remove(name);
    }
}

/// The client's own deadline, as gRPC writes it.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The specification's limit, and no more than a number takes.
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(pair).collect()
    }

    #[test]
    fn fields_of_a_connection_stay_on_it() {
        let mut request = Request::new(());
        *request.headers_mut() = with(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("x-other", "2"),
        ]);
        forward(&mut request, "10.0.0.1:8080");
        assert_eq!(*request.headers(), with(&[("x-other", "2"), ("te", "trailers")]));
    }

    #[test]
    fn http2_gets_an_authority_if_the_client_gave_none() {
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = "/a?b".parse().unwrap();
        forward(&mut request, "10.0.0.1:8080");
        assert_eq!(request.uri().to_string(), "http://10.0.0.1:8080/a?b");
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        forward(&mut old, "10.0.0.1:8080");
        assert_eq!((old.version(), old.uri().to_string().as_str()), (Version::HTTP_11, "/"));
    }

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let read = |text| timeout(&with(&[("grpc-timeout", text)]));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "1", "S", "+1S", "123456789S", "1x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_deadline_is_too_strange(text in "[ -~]{0,12}") {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers);
        }
    }
}
