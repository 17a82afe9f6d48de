//! How a download goes on. Pure: what is on disk and what a server answered go in, what to do
//! comes out.
//!
//! Bytes are only joined when it is sure that they are of one file: the server must confirm the
//! mark (ETag or date) that the first bytes came with. To ask that of a file that is complete,
//! its last byte is asked for again.

use std::time::Duration;

/// Most tries in a row that bring no byte. With the pauses between them it is a quarter of a
/// minute, in which a server restarts.
pub(crate) const MAX_TRIES: u32 = 8;

/// First and longest pause between tries; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// What is known of a file, kept beside its first bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Mark {
    /// What a server calls this content.
    pub(crate) validator: Option<String>,
    /// Length of the whole file.
    pub(crate) total: Option<u64>,
}

/// What a server sends: bytes from `start` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) start: u64,
    pub(crate) mark: Mark,
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) from: u64,
    /// The bytes must be of this content.
    pub(crate) validator: Option<String>,
}

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Write from here on; what was there behind it is dropped.
    From(u64),
    /// It is of another file, or not what was asked for: ask anew, from the beginning.
    Anew,
}

/// Ask for what is missing.
pub(crate) fn ask(mark: &Mark, have: u64) -> Ask {
    let Some(validator) = &mark.validator else {
        // Nothing would tell that the file has changed meanwhile.
        return Ask { from: 0, validator: None };
    };
    let last = mark.total.map_or(have, |total| total.saturating_sub(1));
    match have.min(last) {
        0 => Ask { from: 0, validator: None },
        from => Ask { from, validator: Some(validator.clone()) },
    }
}

/// Judge an answer.
pub(crate) fn take(ask: &Ask, known: &Mark, answer: &Answer) -> Take {
    if answer.start == 0 {
        // The whole file, asked for or because it has changed.
        return Take::From(0);
    }
    let same = answer.mark.validator.is_none() || answer.mark.validator == ask.validator;
    let same_length = match (known.total, answer.mark.total) {
        (Some(known), Some(now)) => known == now,
        _ => true,
    };
    if answer.start == ask.from && same && same_length { Take::From(ask.from) } else { Take::Anew }
}

/// The pause before try number `tries`, which counts from 1.
pub(crate) fn pause(tries: u32, asked: Option<Duration>) -> Duration {
    let own = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    asked.map_or(own, |asked| asked.min(LONGEST_ASKED).max(own))
}

/// A mark that two answers can be compared by. A weak one promises only the same meaning.
pub(crate) fn strong(etag: Option<&str>, modified: Option<&str>) -> Option<String> {
    let etag = etag.filter(|etag| !etag.is_empty() && !etag.starts_with("W/"));
    etag.or(modified).map(str::to_owned)
}

/// Read `bytes START-END/TOTAL`.
pub(crate) fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(validator: &str, total: u64) -> Mark {
        Mark { validator: Some(validator.to_owned()), total: Some(total) }
    }

    #[test]
    fn what_is_missing_is_asked_for() {
        assert_eq!(ask(&mark("a", 10), 4), Ask { from: 4, validator: Some("a".to_owned()) });
        // A complete file is confirmed by its last byte.
        assert_eq!(ask(&mark("a", 10), 10).from, 9);
        // More than the file has is no part of it that could be trusted.
        assert_eq!(ask(&mark("a", 10), 11).from, 9);
        assert_eq!(ask(&mark("a", 10), 0), Ask { from: 0, validator: None });
        assert_eq!(ask(&mark("a", 0), 0), Ask { from: 0, validator: None });
        assert_eq!(ask(&Mark { validator: None, total: Some(10) }, 4).from, 0);
    }

    #[test]
    fn only_bytes_of_the_same_file_are_joined() {
        let known = mark("a", 10);
        let asked = ask(&known, 4);
        let answer = |start, mark| Answer { start, mark };
        assert_eq!(take(&asked, &known, &answer(4, mark("a", 10))), Take::From(4));
        assert_eq!(take(&asked, &known, &answer(4, Mark::default())), Take::From(4));
        assert_eq!(take(&asked, &known, &answer(0, mark("b", 12))), Take::From(0));
        for other in [answer(4, mark("b", 10)), answer(5, mark("a", 10)), answer(4, mark("a", 11))]
        {
            assert_eq!(take(&asked, &known, &other), Take::Anew, "{other:?}");
        }
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let millis = |tries| pause(tries, None).as_millis();
        assert_eq!([millis(1), millis(2), millis(3)], [100, 200, 400]);
        assert_eq!(pause(60, None), LONGEST_PAUSE);
        assert_eq!(pause(1, Some(Duration::from_secs(3))), Duration::from_secs(3));
        assert_eq!(pause(1, Some(Duration::from_secs(9999))), LONGEST_ASKED);
    }

    #[test]
    fn weak_marks_do_not_count() {
        assert_eq!(strong(Some("\"a\""), Some("date")).as_deref(), Some("\"a\""));
        assert_eq!(strong(Some("W/\"a\""), Some("date")).as_deref(), Some("date"));
        assert_eq!(strong(Some("W/\"a\""), None), None);
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "items 1-2/3", "bytes 1-/3"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_range_or_none(text: String) {
            content_range(&text);
        }

        #[test]
        fn bytes_are_never_joined_across_a_change(
            total in 1..100_u64, have in 0..120_u64, start in 0..100_u64, changed: bool,
        ) {
            let known = mark("a", total);
            let asked = ask(&known, have);
            let now = mark(if changed { "b" } else { "a" }, total);
            if let Take::From(from) = take(&asked, &known, &Answer { start, mark: now }) {
                prop_assert!(from == 0 || (!changed && from == start && from <= have));
            }
        }
    }
}
