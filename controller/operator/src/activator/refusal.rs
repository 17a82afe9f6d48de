//! Why the activator itself answers a request, and how it says so over HTTP and gRPC. The only
//! file of the activator that knows statuses.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::answer::Answer;
use super::head::Kind;

/// Seconds after which a refused request may be sent again, as the worker says it too.
const RETRY_SECONDS: u64 = 1;

/// Why a request got no answer of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("as many requests wait for the model as may: send fewer at once, or raise maxRequests")]
    ModelFull,
    #[error("as many requests wait for all models as may")]
    ActivatorFull,
    #[error("no pod of the model is ready, and starting one failed: see its conditions")]
    NoPod,
    #[error("no pod of the model became ready in time")]
    HeldTooLong,
    #[error("the client's deadline is over, and no pod of the model is ready")]
    ClientDeadline,
    #[error("the activator ends: send the request again")]
    Draining,
    #[error("the model was deleted")]
    Gone,
    #[error("no pod of the model takes connections")]
    Unreachable,
    #[error("the request ended before its body did")]
    CutOff,
    #[error("the pod ended its connection before it answered: it may have begun the request")]
    Broken,
}

// === impl Refusal ===

impl Refusal {
    /// The word in the answer and the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::ModelFull => "model-full",
            Self::ActivatorFull => "activator-full",
            Self::NoPod => "no-pod",
            Self::HeldTooLong => "held-too-long",
            Self::ClientDeadline => "client-deadline",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Unreachable => "unreachable",
            Self::CutOff => "cut-off",
            Self::Broken => "broken",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::ModelFull | Self::ActivatorFull => StatusCode::TOO_MANY_REQUESTS,
            Self::ClientDeadline => StatusCode::GATEWAY_TIMEOUT,
            Self::CutOff => StatusCode::BAD_REQUEST,
            Self::Broken => StatusCode::BAD_GATEWAY,
            Self::NoPod | Self::HeldTooLong | Self::Draining | Self::Gone | Self::Unreachable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// gRPC's number for it.
    pub fn grpc(self) -> u8 {
        match self {
            // RESOURCE_EXHAUSTED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, UNAVAILABLE.
            Self::ModelFull | Self::ActivatorFull => 8,
            Self::CutOff => 3,
            Self::ClientDeadline => 4,
            _ => 14,
        }
    }

    /// Whether the same request may succeed later, and nothing of it was sent.
    fn may_retry(self) -> bool {
        !matches!(self, Self::Broken | Self::CutOff | Self::ClientDeadline | Self::Gone)
    }

    pub fn answer(self, kind: Kind) -> Response<Answer> {
        let mut headers = HeaderMap::new();
        if self.may_retry() {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        let mut answer = match kind {
            Kind::Grpc => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from(u16::from(self.grpc())));
                // Its words need no escape: no percent sign, and nothing beyond ASCII.
                if let Ok(words) = HeaderValue::from_str(&self.to_string()) {
                    headers.insert("grpc-message", words);
                }
                Response::new(Answer::own(Bytes::new(), None))
            }
            Kind::Http => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let body = serde_json::json!({"error": self.to_string(), "code": self.code()});
                let mut answer = Response::new(Answer::own(body.to_string().into(), None));
                *answer.status_mut() = self.status();
                answer
            }
        };
        *answer.headers_mut() = headers;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_the_same_over_both_protocols() {
        let all = [
            (Refusal::ModelFull, "429 8 model-full retry"),
            (Refusal::ActivatorFull, "429 8 activator-full retry"),
            (Refusal::NoPod, "503 14 no-pod retry"),
            (Refusal::HeldTooLong, "503 14 held-too-long retry"),
            (Refusal::ClientDeadline, "504 4 client-deadline"),
            (Refusal::Draining, "503 14 draining retry"),
            (Refusal::Gone, "503 14 gone"),
            (Refusal::Unreachable, "503 14 unreachable retry"),
            (Refusal::CutOff, "400 3 cut-off"),
            (Refusal::Broken, "502 14 broken"),
        ];
        for (refusal, golden) in all {
            let [http, grpc] = [Kind::Http, Kind::Grpc].map(|kind| refusal.answer(kind));
            assert_eq!(grpc.status(), 200);
            let number = grpc.headers()["grpc-status"].to_str().unwrap();
            assert!(grpc.headers().contains_key("grpc-message"), "{refusal}");
            let retry = http.headers().contains_key(RETRY_AFTER);
            assert_eq!(grpc.headers().contains_key(RETRY_AFTER), retry);
            let retry = if retry { " retry" } else { "" };
            let said = format!("{} {number} {}{retry}", http.status().as_u16(), refusal.code());
            assert_eq!(said, golden);
        }
    }
}
