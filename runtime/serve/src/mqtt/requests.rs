//! A message is a request, an answer is a message: MQTT's properties stand where REST has a
//! path and headers.
//!
//! | REST | MQTT |
//! |---|---|
//! | path | topic |
//! | `Content-Type` | content type: `application/json` or `application/octet-stream` |
//! | `Inference-Header-Content-Length` | user property `inference-header-content-length` |
//! | the client's deadline | message expiry interval |
//! | status and `code` of an error | user properties `status` and `code` |
//! | `traceparent`, `tracestate` | user properties of these names |

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use wick_package::Reason as _;

use super::dedup::Key;
use super::topics::{BadResponse, Prefix};
use crate::codec::{DecodeError, clip};
use crate::respond::Failure;

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

const HEADER_LENGTH: &str = "inference-header-content-length";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Longest correlation data that is kept in memory to know a repeat by. Clients send a
/// number or a UUID.
const MAX_CORRELATION: usize = 256;

/// Bytes of an answer's packet beside its payload, topic and correlation data: lengths,
/// content type and user properties.
const PACKET_OVERHEAD: usize = 256;

/// A request that can be answered.
#[derive(Debug)]
pub struct Request {
    /// Its packet identifier, 0 for QoS 0: such a request is not acknowledged.
    pub packet: u16,
    pub qos: QoS,
    /// What a repeat is known by, if the client gave it a name.
    pub key: Option<Key>,
    pub reply: Reply,
    /// Bytes that it holds.
    pub bytes: u64,
    pub call: Result<Call, Failure>,
}

/// Where an answer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub topic: String,
    pub correlation: Option<Bytes>,
}

/// What is to be computed.
#[derive(Debug)]
pub struct Call {
    pub model: String,
    pub version: Option<String>,
    /// As REST's `Inference-Header-Content-Length`.
    pub header: Option<usize>,
    pub body: Bytes,
    pub timeout: Option<Duration>,
    /// The caller's span, by W3C Trace Context.
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
}

/// An answer, wherever it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub payload: Bytes,
    /// Length of the JSON, if binary data follows it.
    pub header: Option<usize>,
    pub status: u16,
    /// An error's stable word.
    pub code: Option<&'static str>,
}

/// Why a message gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswerable {
    Response(BadResponse),
    /// The broker refused an answer to its response topic lately.
    Refused,
    /// It was kept by the broker, and nobody waits for it.
    Retained,
    /// It came on a topic that is no topic of requests.
    Topic,
}

/// Reads requests.
#[derive(Debug)]
pub struct Reader {
    prefix: Prefix,
    hash: RandomState,
}

// === impl Call ===

impl Call {
    /// One of the headers of W3C Trace Context.
    pub fn trace_context(&self, name: &str) -> Option<&str> {
        match name {
            TRACEPARENT => self.traceparent.as_deref(),
            TRACESTATE => self.tracestate.as_deref(),
            _ => None,
        }
    }
}

// === impl Reader ===

impl Reader {
    pub fn new(prefix: Prefix) -> Self {
        Self { prefix, hash: RandomState::new() }
    }

    /// What a message asks for. A request that is wrong, and says where its answer goes, is
    /// answered with its error.
    ///
    /// # Errors
    /// There is no place for an answer.
    pub fn read(&self, publish: Publish) -> Result<Request, Unanswerable> {
        if publish.retain {
            return Err(Unanswerable::Retained);
        }
        let topic = std::str::from_utf8(&publish.topic).map_err(|_| Unanswerable::Topic)?;
        let target = self.prefix.target(topic).ok_or(Unanswerable::Topic)?;
        let properties = publish.properties.unwrap_or_default();
        let reply = self.prefix.response(properties.response_topic.as_deref());
        let reply = Reply {
            topic: reply.map_err(Unanswerable::Response)?.to_owned(),
            correlation: properties.correlation_data.clone(),
        };
        let key = properties.correlation_data.as_ref().filter(|data| data.len() <= MAX_CORRELATION);
        let key = key.map(|correlation| Key {
            topic: reply.topic.clone(),
            // A slice of the message would keep all of it in memory.
            correlation: Bytes::copy_from_slice(correlation),
            content: self.content(&publish.topic, &publish.payload, &properties),
        });
        let reply = Reply {
            correlation: key.as_ref().map(|key| key.correlation.clone()).or(reply.correlation),
            ..reply
        };
        let call = header(&properties).map(|header| Call {
            model: target.model.to_owned(),
            version: target.version.map(ToOwned::to_owned),
            header,
            body: publish.payload.clone(),
            timeout: properties
                .message_expiry_interval
                .map(|secs| Duration::from_secs(secs.into())),
            traceparent: user(&properties, TRACEPARENT).next().map(ToOwned::to_owned),
            tracestate: user(&properties, TRACESTATE).next().map(ToOwned::to_owned),
        });
        Ok(Request {
            packet: publish.pkid,
            qos: publish.qos,
            key,
            reply,
            bytes: publish.payload.len() as u64,
            call: call.map_err(Failure::from),
        })
    }

    fn content(&self, topic: &[u8], payload: &[u8], properties: &PublishProperties) -> u64 {
        let mut hasher = self.hash.build_hasher();
        topic.hash(&mut hasher);
        payload.hash(&mut hasher);
        properties.content_type.hash(&mut hasher);
        user(properties, HEADER_LENGTH).for_each(|value| value.hash(&mut hasher));
        hasher.finish()
    }
}

// === impl Answer ===

impl Answer {
    /// The answer to a request that failed: the same body that REST gives.
    pub fn failed(failure: &Failure) -> Self {
        Self {
            payload: failure.to_json().into(),
            header: None,
            status: failure.status().as_u16(),
            code: Some(failure.code()),
        }
    }

    /// Most bytes that the message takes.
    pub fn packet_size(&self, reply: &Reply) -> usize {
        let correlation = reply.correlation.as_ref().map_or(0, Bytes::len);
        PACKET_OVERHEAD + reply.topic.len() + correlation + self.payload.len()
    }

    /// The message that carries it. `again` marks one that was sent before.
    pub fn publish(&self, reply: &Reply, qos: QoS, packet: u16, again: bool) -> Publish {
        let mut user_properties = vec![("status".to_owned(), self.status.to_string())];
        user_properties.extend(self.code.map(|code| ("code".to_owned(), code.to_owned())));
        let length = self.header.map(|length| (HEADER_LENGTH.to_owned(), length.to_string()));
        user_properties.extend(length);
        let content_type = if self.header.is_some() { BINARY } else { JSON };
        let properties = PublishProperties {
            correlation_data: reply.correlation.clone(),
            content_type: Some(content_type.to_owned()),
            user_properties,
            ..PublishProperties::default()
        };
        let payload = self.payload.clone();
        let mut publish = Publish::new(reply.topic.as_str(), qos, payload, Some(properties));
        publish.pkid = packet;
        publish.dup = again;
        publish
    }
}

// === impl Unanswerable ===

impl Unanswerable {
    pub const ALL: [Self; 8] = [
        Self::Response(BadResponse::Missing),
        Self::Response(BadResponse::Wildcard),
        Self::Response(BadResponse::Loop),
        Self::Response(BadResponse::Reserved),
        Self::Response(BadResponse::TooLong),
        Self::Refused,
        Self::Retained,
        Self::Topic,
    ];

    /// The value of a metric's `reason` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Response(bad) => bad.as_str(),
            Self::Refused => "response-topic-refused",
            Self::Retained => "retained",
            Self::Topic => "no-model-in-topic",
        }
    }
}

/// The length of the JSON before binary data, by the content type. Bytes without a length are
/// the only input, as REST's length 0 says it.
fn header(properties: &PublishProperties) -> Result<Option<usize>, DecodeError> {
    let mut lengths = user(properties, HEADER_LENGTH);
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(text), None) => Some(number(text)?),
        (Some(_), Some(_)) => return Err(DecodeError::HeaderLength("given twice".to_owned())),
    };
    let content_type = properties.content_type.as_deref().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match (essence, length) {
        (BINARY, length) => Ok(Some(length.unwrap_or(0))),
        ("", length) => Ok(length),
        (JSON, None) => Ok(None),
        (JSON, Some(_)) => {
            let text = format!("a message with {HEADER_LENGTH} has the content type {BINARY}");
            Err(DecodeError::Request(text))
        }
        (other, _) => {
            let text = format!("the content type is `{}`: send {JSON} or {BINARY}", clip(other));
            Err(DecodeError::Request(text))
        }
    }
}

fn user<'a>(properties: &'a PublishProperties, name: &str) -> impl Iterator<Item = &'a str> {
    let found = properties.user_properties.iter().filter(move |(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Digits and nothing else, as in REST's header.
fn number(text: &str) -> Result<usize, DecodeError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.ok_or_else(|| DecodeError::HeaderLength(clip(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(topic: &str, properties: PublishProperties) -> Publish {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, "{}", Some(properties));
        publish.pkid = 7;
        publish
    }

    fn asking() -> PublishProperties {
        PublishProperties {
            response_topic: Some("answers".into()),
            correlation_data: Some(Bytes::from_static(b"17")),
            ..PublishProperties::default()
        }
    }

    fn typed(content_type: &str, lengths: &[&str]) -> PublishProperties {
        let lengths = lengths.iter().map(|text| (HEADER_LENGTH.to_owned(), (*text).to_owned()));
        PublishProperties {
            content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
            user_properties: lengths.collect(),
            ..asking()
        }
    }

    fn read(publish: Publish) -> Result<Request, Unanswerable> {
        Reader::new(Prefix::default()).read(publish)
    }

    #[test]
    fn a_request_says_what_and_where() {
        let properties = PublishProperties {
            message_expiry_interval: Some(5),
            user_properties: vec![
                (TRACEPARENT.into(), "00-ab-cd-01".into()),
                (TRACESTATE.into(), "v=1".into()),
            ],
            ..asking()
        };
        let request = read(message("wick/v1/infer/ocr/versions/2", properties)).unwrap();
        let correlation = Some(Bytes::from_static(b"17"));
        assert_eq!(request.reply, Reply { topic: "answers".into(), correlation });
        assert_eq!((request.packet, request.bytes), (7, 2));
        let call = request.call.unwrap();
        assert_eq!((call.model.as_str(), call.version.as_deref()), ("ocr", Some("2")));
        assert_eq!(call.timeout, Some(Duration::from_secs(5)));
        assert_eq!(call.traceparent.as_deref(), Some("00-ab-cd-01"));
        let context = [TRACEPARENT, TRACESTATE, "baggage"].map(|name| call.trace_context(name));
        assert_eq!(context, [Some("00-ab-cd-01"), Some("v=1"), None]);
    }

    #[test]
    fn the_content_type_tells_json_from_binary() {
        type Case = (&'static str, &'static [&'static str], Result<Option<usize>, &'static str>);
        let cases: [Case; 11] = [
            ("", &[], Ok(None)),
            ("application/json", &[], Ok(None)),
            ("application/json; charset=utf-8", &[], Ok(None)),
            ("", &["12"], Ok(Some(12))),
            ("application/octet-stream", &["12"], Ok(Some(12))),
            ("application/octet-stream", &[], Ok(Some(0))),
            ("application/json", &["12"], Err("bad-input")),
            ("text/plain", &[], Err("bad-input")),
            ("", &["-1"], Err("bad-header-length")),
            ("", &[""], Err("bad-header-length")),
            ("", &["1", "1"], Err("bad-header-length")),
        ];
        for (content_type, lengths, want) in cases {
            let request = read(message("wick/v1/infer/m", typed(content_type, lengths))).unwrap();
            let got = request.call.map(|call| call.header);
            let got = got.as_ref().map_err(wick_package::Reason::code);
            assert_eq!(got.copied(), want, "{content_type} {lengths:?}");
        }
    }

    #[test]
    fn a_repeat_has_the_same_key_and_another_request_has_not() {
        let reader = Reader::new(Prefix::default());
        let key = |publish| reader.read(publish).unwrap().key;
        let first = || message("wick/v1/infer/m", asking());
        assert_eq!(key(first()), key(Publish { dup: true, pkid: 9, ..first() }));
        assert_ne!(key(first()), key(Publish { payload: "[]".into(), ..first() }));
        assert_ne!(key(first()), key(message("wick/v1/infer/n", asking())));
        let unnamed = PublishProperties { correlation_data: None, ..asking() };
        assert_eq!(key(message("wick/v1/infer/m", unnamed)), None);
    }

    #[test]
    fn what_has_no_place_for_an_answer_is_told_apart() {
        let of = |publish| read(publish).map(drop).unwrap_err().as_str();
        let retained = Publish { retain: true, ..message("wick/v1/infer/m", asking()) };
        assert_eq!(of(retained), "retained");
        assert_eq!(of(message("elsewhere", asking())), "no-model-in-topic");
        let silent = PublishProperties::default();
        assert_eq!(of(message("wick/v1/infer/m", silent)), "no-response-topic");
    }

    #[test]
    fn an_answer_carries_status_code_and_correlation() {
        let failure = Failure::QueueFull { model: "m".into(), retry_after: 1 };
        let reply = Reply { topic: "a".into(), correlation: Some(Bytes::from_static(b"17")) };
        let answer = Answer::failed(&failure);
        let publish = answer.publish(&reply, QoS::AtLeastOnce, 3, false);
        assert!(publish.size() <= answer.packet_size(&reply));
        let properties = publish.properties.unwrap();
        assert_eq!(properties.content_type.as_deref(), Some(JSON));
        assert_eq!(properties.correlation_data, reply.correlation);
        let pairs = [("status".into(), "429".into()), ("code".into(), "queue-full".into())];
        assert_eq!(properties.user_properties, pairs);
        assert!(publish.payload.starts_with(b"{\"error\":"));
    }

    proptest! {
        #[test]
        fn no_message_panics(
            topic in "(wick/v1/infer/)?[a-z/]{0,9}",
            response in proptest::option::of(".{0,9}"),
            content_type in proptest::option::of(".{0,9}"),
            length in proptest::option::of(".{0,9}"),
            payload in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let user_properties = length.map(|text| (HEADER_LENGTH.to_owned(), text));
            let properties = PublishProperties {
                response_topic: response,
                content_type,
                user_properties: user_properties.into_iter().collect(),
                ..PublishProperties::default()
            };
            let mut publish = message(&topic, properties);
            publish.payload = payload.into();
            if let Ok(request) = read(publish) {
                prop_assert!(request.key.is_none());
            }
        }
    }
}
