//! When a loaded model is left alone, when it is probed, when it rests: decided from how
//! long ago things were.

use std::time::Duration;

/// A model that has answered nothing for this long is asked whether it still can: seldom
/// enough to cost nothing, often enough that a broken device shows before a client finds it.
pub(super) const PROBE_AFTER: Duration = Duration::from_secs(60);

/// A loaded model as it is seen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests are in work or wait.
    pub busy: bool,
    /// It is not in memory.
    pub cold: bool,
    /// Since a request came for it.
    pub unused: Duration,
    /// Since it has answered something, be it a probe.
    pub unproved: Duration,
    /// After how long without a request it is to rest.
    pub rest_after: Option<Duration>,
    /// Whether its package lets it be probed.
    pub probed: bool,
}

/// What to do about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    Rest,
    Probe,
    /// Look again after this time, or whenever anything else is looked at.
    Later(Option<Duration>),
}

/// Decide about one model.
pub(super) fn care(seen: &Seen) -> Care {
    if seen.cold {
        // Asking it would bring it back.
        return Care::Later(None);
    }
    if seen.busy {
        return Care::Later(seen.rest_after);
    }
    let rest_in = seen.rest_after.map(|after| after.saturating_sub(seen.unused));
    if rest_in == Some(Duration::ZERO) {
        return Care::Rest;
    }
    if !seen.probed {
        return Care::Later(rest_in);
    }
    let probe_in = PROBE_AFTER.saturating_sub(seen.unproved);
    if probe_in.is_zero() {
        return Care::Probe;
    }
    Care::Later(Some(rest_in.map_or(probe_in, |rest| rest.min(probe_in))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        busy: false,
        cold: false,
        unused: Duration::from_secs(10),
        unproved: Duration::from_secs(10),
        rest_after: None,
        probed: true,
    };

    const fn later(seconds: u64) -> Care {
        Care::Later(Some(Duration::from_secs(seconds)))
    }

    #[test]
    fn a_model_rests_when_nobody_has_asked_for_long_enough() {
        let after = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(care(&Seen { rest_after: after(10), ..SEEN }), Care::Rest);
        assert_eq!(care(&Seen { rest_after: after(11), ..SEEN }), later(1));
        assert_eq!(care(&Seen { rest_after: None, ..SEEN }), later(50));
    }

    #[test]
    fn a_model_in_use_is_left_alone() {
        let rest_after = Some(Duration::ZERO);
        let busy = Seen { busy: true, rest_after, unproved: Duration::MAX, ..SEEN };
        assert_eq!(care(&busy), Care::Later(rest_after));
    }

    #[test]
    fn a_model_is_probed_only_in_memory_and_when_nothing_has_succeeded_lately() {
        let silent = Seen { unproved: PROBE_AFTER, ..SEEN };
        assert_eq!(care(&silent), Care::Probe);
        assert_eq!(care(&Seen { unproved: Duration::from_secs(59), ..SEEN }), later(1));
        assert_eq!(care(&Seen { cold: true, ..silent }), Care::Later(None));
        assert_eq!(care(&Seen { probed: false, ..silent }), Care::Later(None));
    }

    #[test]
    fn a_probe_never_keeps_a_model_in_memory() {
        // However often it has proved itself, its rest comes at its time.
        for unproved in [0, 30, 60, 1000].map(Duration::from_secs) {
            let seen = Seen { unproved, rest_after: Some(SEEN.unused), ..SEEN };
            assert_eq!(care(&seen), Care::Rest);
        }
    }
}
