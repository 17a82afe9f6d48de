//! When a failed request is tried again. Pure: the number of failures, what the server asked for
//! and the luck come in, a time comes out.

use std::time::{Duration, SystemTime};

/// Failures in a row, without a byte of progress between them, before it is given up: at the
/// default pace some half a minute, which a restart of a registry takes.
const FAILURES: u32 = 6;

/// The first pause; most failures are gone at once.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause of our own choice.
const MOST: Duration = Duration::from_secs(20);

/// The longest pause that a server may ask for. Who asks for more is told to the user instead.
const PATIENCE: Duration = Duration::from_secs(120);

/// How failures are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Failures in a row that end it.
    pub failures: u32,
    /// Pause after the first failure; it doubles with each.
    pub first: Duration,
    /// The longest pause of our own choice.
    pub most: Duration,
    /// The longest pause that a server may ask for.
    pub patience: Duration,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: FAILURES, first: FIRST, most: MOST, patience: PATIENCE }
    }
}

impl Backoff {
    /// The pause after the `failure`th failure in a row, counted from 1, or none to give up.
    /// `luck` is from 0 up to 1 and keeps those who failed together from coming back together;
    /// who is told when to come comes then, and never sooner.
    pub fn pause(&self, failure: u32, asked: Option<Duration>, luck: f64) -> Option<Duration> {
        if failure >= self.failures {
            return None;
        }
        let doublings = failure.saturating_sub(1).min(16);
        let longest = self.first.saturating_mul(1 << doublings).min(self.most);
        let own = longest.mul_f64(0.5 + 0.5 * luck.clamp(0.0, 1.0));
        match asked {
            Some(asked) if asked > self.patience => None,
            Some(asked) => Some(asked + own.min(self.first)),
            None => Some(own),
        }
    }
}

/// What a `Retry-After` says: seconds, or a date.
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_end() {
        let backoff = Backoff { failures: 5, most: Duration::from_secs(1), ..Backoff::default() };
        let pauses: Vec<_> = (1..6).map(|n| backoff.pause(n, None, 1.0)).collect();
        let millis = |n| Some(Duration::from_millis(n));
        assert_eq!(pauses, [millis(500), millis(1000), millis(1000), millis(1000), None]);
    }

    #[test]
    fn dates_and_seconds_are_read() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let later = retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now);
        assert_eq!(later, Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("soon", now), None);
    }

    proptest! {
        #[test]
        fn a_server_is_never_called_before_the_time_it_asked_for(
            failure in 0u32..40, asked in proptest::option::of(0u64..1000), luck in 0.0f64..1.0
        ) {
            let backoff = Backoff::default();
            let asked = asked.map(Duration::from_secs);
            match backoff.pause(failure, asked, luck) {
                Some(pause) => {
                    prop_assert!(failure < backoff.failures);
                    prop_assert!(asked.is_none_or(|asked| pause >= asked));
                    prop_assert!(pause <= backoff.patience + backoff.most);
                }
                None => prop_assert!(
                    failure >= backoff.failures || asked.is_some_and(|time| time > backoff.patience)
                ),
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = retry_after(&text, SystemTime::UNIX_EPOCH);
        }
    }
}
