//! Topics of the MQTT front: which model a request is for, and where its answer may go.
//! Text in, text out.
//!
//! ```text
//!  PREFIX/MODEL                 wick/v1/infer/ocr
//!  PREFIX/MODEL/versions/V      wick/v1/infer/ocr/versions/1.2.0
//! ```
//!
//! The default prefix stands beside the fleet's `wick/v1/SITE/…`, so that one access list of
//! a broker covers both, and the rest is the protocol's own path below `/v2/models`.

use std::fmt;
use std::str::FromStr;

/// Longest prefix and response topic, in bytes. Brokers allow 65,535; names that people
/// choose are shorter, and an answer's key is kept in memory.
const MAX_TOPIC: usize = 1024;

/// What the fleet's own messages live under; an answer sent there by wick's rights would be a
/// device's way round the broker's access list.
const RESERVED: &str = "wick/v1/";

/// What every request's topic starts with. It has no wildcard and no empty level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// The name of a group of nodes that share requests: one level of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group(String);

/// A name that brokers would not take, or read differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: it must be {must}")]
pub struct BadName {
    text: String,
    what: &'static str,
    must: &'static str,
}

/// Whom a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    pub model: &'a str,
    pub version: Option<&'a str>,
}

/// Why a response topic is not answered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadResponse {
    Missing,
    /// It is a filter, no topic.
    Wildcard,
    /// It is a topic of requests: the answer would be a request.
    Loop,
    /// It belongs to the broker or to the fleet.
    Reserved,
    TooLong,
}

// === impl Prefix ===

impl Prefix {
    /// The filters that a group of nodes shares for one model. They name the model, so that
    /// a node gets no request for a model that only others have.
    pub fn filters(&self, group: &Group, model: &str) -> [String; 2] {
        let (Self(prefix), Group(group)) = (self, group);
        [
            format!("$share/{group}/{prefix}/{model}"),
            format!("$share/{group}/{prefix}/{model}/versions/+"),
        ]
    }

    /// Whom a request on `topic` is for. `None` if it is no topic of requests.
    pub fn target<'a>(&self, topic: &'a str) -> Option<Target<'a>> {
        let rest = topic.strip_prefix(&self.0)?.strip_prefix('/')?;
        let mut levels = rest.split('/');
        let model = levels.next().filter(|model| !model.is_empty())?;
        match (levels.next(), levels.next(), levels.next()) {
            (None, ..) => Some(Target { model, version: None }),
            (Some("versions"), Some(version), None) if !version.is_empty() => {
                Some(Target { model, version: Some(version) })
            }
            _ => None,
        }
    }

    /// Where an answer may go.
    ///
    /// # Errors
    /// See `BadResponse`.
    pub fn response<'a>(&self, topic: Option<&'a str>) -> Result<&'a str, BadResponse> {
        let topic = topic.filter(|topic| !topic.is_empty()).ok_or(BadResponse::Missing)?;
        if topic.len() > MAX_TOPIC {
            return Err(BadResponse::TooLong);
        }
        if topic.contains(['+', '#', '\0']) {
            return Err(BadResponse::Wildcard);
        }
        if topic == self.0 || topic.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
        {
            return Err(BadResponse::Loop);
        }
        if topic.starts_with('$') || topic.starts_with(RESERVED) {
            return Err(BadResponse::Reserved);
        }
        Ok(topic)
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("wick/v1/infer".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let levels = text.split('/').all(is_level);
        if levels && !text.starts_with('$') && text.len() <= MAX_TOPIC {
            return Ok(Self(text.to_owned()));
        }
        let must = "levels such as `site/models`, without `+`, `#` and a `$` at its start";
        Err(BadName { text: text.to_owned(), what: "prefix of topics", must })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Group ===

impl Default for Group {
    fn default() -> Self {
        Self("wick".to_owned())
    }
}

impl FromStr for Group {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if is_level(text) && !text.contains('/') && text.len() <= MAX_TOPIC {
            return Ok(Self(text.to_owned()));
        }
        let must = "one word without `/`, `+` and `#`";
        Err(BadName { text: text.to_owned(), what: "group", must })
    }
}

// === impl BadResponse ===

impl BadResponse {
    /// The value of a metric's `reason` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "no-response-topic",
            Self::Wildcard => "response-topic-wildcard",
            Self::Loop => "response-topic-loop",
            Self::Reserved => "response-topic-reserved",
            Self::TooLong => "response-topic-too-long",
        }
    }
}

fn is_level(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_topic_names_a_model_and_maybe_a_version() {
        let prefix = Prefix::default();
        let target = |model, version| Some(Target { model, version });
        let cases = [
            ("wick/v1/infer/ocr", target("ocr", None)),
            ("wick/v1/infer/ocr/versions/1.2.0", target("ocr", Some("1.2.0"))),
            ("wick/v1/infer", None),
            ("wick/v1/infer/", None),
            ("wick/v1/inferior/ocr", None),
            ("wick/v1/infer/ocr/", None),
            ("wick/v1/infer/ocr/versions", None),
            ("wick/v1/infer/ocr/versions/", None),
            ("wick/v1/infer/ocr/versions/1/x", None),
            ("wick/v1/infer/ocr/other/1", None),
            ("", None),
        ];
        for (topic, want) in cases {
            assert_eq!(prefix.target(topic), want, "{topic}");
        }
    }

    #[test]
    fn filters_are_shared_and_name_the_model() {
        let group = "line-4".parse().unwrap();
        let filters = "a/b".parse::<Prefix>().unwrap().filters(&group, "ocr");
        assert_eq!(filters, ["$share/line-4/a/b/ocr", "$share/line-4/a/b/ocr/versions/+"]);
    }

    #[test]
    fn names_that_a_broker_reads_differently_are_refused() {
        for text in ["", "/", "a//b", "a/+", "#", "$share/x/y", "a/", "a\0"] {
            assert!(text.parse::<Prefix>().is_err(), "{text:?}");
        }
        for text in ["", "a/b", "+", "a#"] {
            assert!(text.parse::<Group>().is_err(), "{text:?}");
        }
        assert!("x".repeat(MAX_TOPIC + 1).parse::<Prefix>().is_err());
    }

    #[test]
    fn answers_go_to_topics_that_are_no_requests() {
        let prefix: Prefix = "site/infer".parse().unwrap();
        let long = "x".repeat(MAX_TOPIC + 1);
        let cases = [
            (None, Err(BadResponse::Missing)),
            (Some(""), Err(BadResponse::Missing)),
            (Some("devices/7/answers"), Ok("devices/7/answers")),
            (Some("site/inference"), Ok("site/inference")),
            (Some("devices/+/answers"), Err(BadResponse::Wildcard)),
            (Some("#"), Err(BadResponse::Wildcard)),
            (Some("site/infer"), Err(BadResponse::Loop)),
            (Some("site/infer/ocr"), Err(BadResponse::Loop)),
            (Some("$SYS/broker"), Err(BadResponse::Reserved)),
            (Some("wick/v1/mill/desired"), Err(BadResponse::Reserved)),
            (Some(long.as_str()), Err(BadResponse::TooLong)),
        ];
        for (topic, want) in cases {
            assert_eq!(prefix.response(topic), want, "{topic:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_a_request(prefix in "[a-c/]{1,8}", topic in "[a-c/+#$]{0,12}") {
            let Ok(prefix) = prefix.parse::<Prefix>() else { return Ok(()) };
            if prefix.response(Some(&topic)).is_ok() {
                prop_assert_eq!(prefix.target(&topic), None);
            }
        }
    }
}
