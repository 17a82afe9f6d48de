//! Spans of requests, for logs and for distributed tracing.
//!
//! A request's span is a child of the one that its caller names by W3C Trace Context
//! (`traceparent`, `tracestate`): an HTTP header, gRPC metadata, or an MQTT user property.
//! Which headers are read is up to the process' propagator, and without one this costs
//! nothing. The spans are `debug`, so they exist only where somebody wants them.

use std::marker::PhantomData;

use http::HeaderMap;
use opentelemetry::propagation::Extractor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::repository::Live;

/// What a protocol's headers are, to a propagator.
struct Headers<'h, F> {
    lookup: F,
    _headers: PhantomData<&'h str>,
}

/// The span of one inference. `protocol` is `http`, `grpc` or `mqtt`; `header` looks a
/// header up by its name in lower case.
pub(crate) fn inference<'h>(
    live: &Live,
    protocol: &'static str,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Span {
    let span = tracing::debug_span!(
        "infer",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        otel.status_description = tracing::field::Empty,
        rpc.system = protocol,
        model = live.name,
        version = live.version,
        id = tracing::field::Empty,
    );
    if !span.is_disabled() {
        let headers = Headers { lookup: header, _headers: PhantomData };
        let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract(&headers)
        });
        // Without a subscriber for it, nobody asks for the parent either.
        let _ = span.set_parent(parent);
    }
    span
}

/// The span of an inference that came over HTTP.
pub(crate) fn inference_over_http(live: &Live, headers: &HeaderMap) -> Span {
    inference(live, "http", |name| headers.get(name).and_then(|value| value.to_str().ok()))
}

/// Mark the current span as that of a failed request.
pub(crate) fn failed(failure: &impl ToString) {
    let span = Span::current();
    if !span.is_disabled() {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", failure.to_string());
    }
}

// === impl Headers ===

impl<'h, F: Fn(&str) -> Option<&'h str>> Extractor for Headers<'h, F> {
    fn get(&self, key: &str) -> Option<&str> {
        (self.lookup)(key)
    }

    fn keys(&self) -> Vec<&str> {
        // W3C Trace Context asks for its two by name.
        Vec::new()
    }
}
