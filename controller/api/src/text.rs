//! Texts with a meaning, parsed once: a duration such as `60s`, a percentage such as `0.5%`, a
//! quantity such as `256Mi`. What holds one asks no more whether it is well formed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Durations, as the schema and CEL's `duration()` read them.
const SPAN_PATTERN: &str = "^([0-9]{1,6}(ms|s|m|h)){1,4}$";

/// Longest text of a duration: four parts of six digits and a unit.
const MAX_SPAN_LEN: usize = 32;

/// Digits of one part; what a million hours hold is no duration of a service.
const MAX_SPAN_DIGITS: usize = 6;

/// Parts of one duration.
const MAX_SPAN_PARTS: usize = 4;

/// Percentages with at most two decimals.
const PERCENT_PATTERN: &str = r"^[0-9]{1,4}(\.[0-9]{1,2})?%$";

/// Longest text of a percentage, `9999.99%`.
const MAX_PERCENT_LEN: usize = 8;

/// Amounts as Kubernetes writes them, without signs and exponents.
const QUANTITY_PATTERN: &str = r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";

/// Suffixes of amounts.
const QUANTITY_SUFFIXES: [&str; 14] =
    ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What suffixes of whole bytes stand for.
const BYTES: [(&str, u64); 13] = [
    ("", 1),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
];

/// Longest text of an amount; Kubernetes' own numbers have 19 digits.
const MAX_QUANTITY_LEN: usize = 24;

/// A duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// A percentage in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

/// An amount of a resource, in the text that Kubernetes reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(String);

/// Text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write for instance `90s`, `1m30s` or `500ms`")]
pub struct SpanError(String);

/// Text that is no percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a percentage: write for instance `5%` or `0.5%`")]
pub struct PercentError(String);

/// Text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a quantity: write for instance `500m`, `2` or `256Mi`")]
pub struct QuantityError(String);

// === impl Span ===

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(short(text));
        if text.is_empty() || text.len() > MAX_SPAN_LEN {
            return Err(wrong());
        }
        let mut rest = text;
        let mut total = Duration::ZERO;
        for _ in 0..MAX_SPAN_PARTS {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let after = &rest[digits..];
            let unit = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            if digits == 0 || digits > MAX_SPAN_DIGITS {
                return Err(wrong());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            total += match &after[..unit] {
                "ms" => Duration::from_millis(number),
                "s" => Duration::from_secs(number),
                "m" => Duration::from_secs(number * 60),
                "h" => Duration::from_secs(number * 3600),
                _ => return Err(wrong()),
            };
            rest = &after[unit..];
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        Err(wrong())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        // Seconds alone would have more digits than are read.
        if seconds >= 1_000_000 {
            write!(f, "{}h", seconds / 3600)?;
            seconds %= 3600;
        }
        match milliseconds {
            0 => write!(f, "{seconds}s"),
            _ => write!(f, "{seconds}s{milliseconds}ms"),
        }
    }
}

// === impl Percent ===

impl Percent {
    pub const fn whole(percent: u32) -> Self {
        Self(percent * 100)
    }

    /// In ten thousand: 50 for `0.5%`.
    pub const fn in_ten_thousand(self) -> u32 {
        self.0
    }

    /// As a factor: 0.5 for `50%`.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        let wrong = || PercentError(short(text));
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| {
            let good = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            good.then(|| text.parse::<u32>().ok()).flatten().ok_or_else(wrong)
        };
        let hundredths = digits(part, 2)? * if part.len() == 1 { 10 } else { 1 };
        Ok(Self(digits(whole, 4)? * 100 + hundredths))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

// === impl Quantity ===

impl Quantity {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whole bytes, where it is a whole number of something that is at least one. None where no number
    /// holds it.
    pub fn bytes(&self) -> Option<u64> {
        let number = self.0.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let suffix = &self.0[number.len()..];
        let at = BYTES.iter().find(|(name, _)| *name == suffix)?;
        number.parse::<u64>().ok()?.checked_mul(at.1)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let suffix = &text[number.len()..];
        let known = QUANTITY_SUFFIXES.contains(&suffix);
        if known
            && digits(whole)
            && digits(part)
            && part.len() <= 3
            && text.len() <= MAX_QUANTITY_LEN
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(QuantityError(short(text)))
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Read a text that is often written as a bare number.
pub(crate) fn number_or_text<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map_err(D::Error::custom)
}

/// The schema of such a text.
pub(crate) fn number_or_text_schema(pattern: &str, length: usize) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": pattern,
        "maxLength": length,
    })
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(deserializer)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        number_or_text_schema(QUANTITY_PATTERN, MAX_QUANTITY_LEN)
    }
}

/// What is the same for all of them but the quantity's numbers.
macro_rules! textual {
    ($($name:ident: $pattern:expr, $length:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "maxLength": $length})
            }
        }
    )*};
}

textual! {
    Span: SPAN_PATTERN, MAX_SPAN_LEN;
    Percent: PERCENT_PATTERN, MAX_PERCENT_LEN;
}

macro_rules! written {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

written!(Span Percent Quantity);

/// The beginning of a wrong text, for its error.
fn short(text: &str) -> String {
    text.chars().take(MAX_SPAN_LEN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn spans(text: &str) -> Option<u128> {
        text.parse::<Span>().ok().map(|span| span.get().as_millis())
    }

    #[test]
    fn durations_are_read_in_parts_and_written_in_one() {
        let cases = [
            ("90s", Some(90_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("24h", Some(86_400_000)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1d", None),
            ("1234567s", None),
            ("1s1s1s1s1s", None),
            ("1s ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(spans(text), expected, "{text}");
        }
        assert_eq!(Span::seconds(90).to_string(), "90s");
        assert_eq!("1s500ms".parse::<Span>().map(|span| span.to_string()), Ok("1s500ms".into()));
    }

    #[test]
    fn percentages_have_two_decimals_at_most() {
        let written = |text: &str| text.parse::<Percent>().map(|percent| percent.to_string()).ok();
        for text in ["5%", "0.5%", "0.05%", "200%", "12.34%"] {
            assert_eq!(written(text).as_deref(), Some(text));
        }
        assert_eq!(written("1.50%").as_deref(), Some("1.5%"));
        for text in ["5", "%", "-1%", ".5%", "1.%", "1.234%", "99999%", "5 %", ""] {
            assert_eq!(written(text), None, "{text}");
        }
        assert!((Percent::whole(50).ratio() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn quantities_of_bytes_are_whole() {
        let bytes = |text: &str| text.parse::<Quantity>().unwrap().bytes();
        assert_eq!(bytes("64Mi"), Some(64 << 20));
        assert_eq!(bytes("3k"), Some(3000));
        assert_eq!(bytes("7"), Some(7));
        for text in ["100m", "1.5Gi", "99999999Ei"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn quantities_may_be_numbers() {
        let read = |json: &str| serde_json::from_str::<Quantity>(json).map(|q| q.to_string()).ok();
        assert_eq!(read("2").as_deref(), Some("2"));
        assert_eq!(read("\"256Mi\"").as_deref(), Some("256Mi"));
        assert_eq!(read("\"0.5\"").as_deref(), Some("0.5"));
        for json in ["-1", "1.5", "\"\"", "\"Mi\"", "\"1 Mi\"", "\"1KB\"", "\"1.2345\"", "true"] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    proptest! {
        /// The API server looks at the pattern, this crate parses: both must say the same.
        #[test]
        fn what_is_parsed_is_what_the_pattern_permits(text in "[0-9mshMGiKE.% ]{0,12}") {
            let fits = |pattern: &str| Regex::new(pattern).unwrap().is_match(&text);
            prop_assert_eq!(text.parse::<Span>().is_ok(), fits(SPAN_PATTERN));
            prop_assert_eq!(text.parse::<Percent>().is_ok(), fits(PERCENT_PATTERN));
            prop_assert_eq!(text.parse::<Quantity>().is_ok(), fits(QUANTITY_PATTERN));
        }

        #[test]
        fn a_duration_survives_its_text(ms in 0_u64..1_000_000_000_000) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
    }
}
