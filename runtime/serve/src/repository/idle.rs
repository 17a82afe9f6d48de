//! When a loaded model is left alone, when it is probed, when it rests: decided from how
//! long ago things were.

use std::time::Duration;

/// A model that has answered nothing for this long is asked whether it still can: seldom
/// enough to cost nothing, often enough that a broken device shows before a client finds it.
pub(super) const PROBE_AFTER: Duration = Duration::from_secs(60);

/// How long after it was asked last a model whose graph has failed on its device is asked whether it works at all.
const DOUBT: Duration = Duration::from_secs(1);

/// Inferences that fail in a row on a device before it is held to be lost though no probe has shown it: some fail by
/// what they are asked.
pub(super) const MANY: u32 = 3;

/// Pauses before a model is loaded again whose device does not answer: the first, doubled up to the longest.
const RELOAD_AFTER: Duration = Duration::from_secs(1);
const RELOAD_LONGEST: Duration = Duration::from_secs(60);

/// A model that was not loaded again for this long is well, and the pauses begin anew.
pub(super) const WELL: Duration = Duration::from_secs(300);

/// A loaded model as it is seen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests are in work or wait.
    pub busy: bool,
    /// It is not in memory.
    pub cold: bool,
    /// It could not come back when somebody asked for it, and is not ready since.
    pub stuck: bool,
    /// Since a request came for it.
    pub unused: Duration,
    /// Since it has answered something, be it a probe.
    pub unproved: Duration,
    /// After how long without a request it is to rest.
    pub rest_after: Option<Duration>,
    /// Whether its package lets it be probed.
    pub probed: bool,
    /// Inferences that have failed in a row on a device beside the processor.
    pub failures: u32,
    /// Its device is lost, by what is known.
    pub lost: bool,
    /// How often it was loaded again for that.
    pub reloads: u32,
    /// Since it was loaded or probed.
    pub unasked: Duration,
}

/// What to do about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    Rest,
    Probe,
    /// Take it off its device, load it onto it again, and probe it.
    Reload,
    /// Look again after this time, or whenever anything else is looked at.
    Later(Option<Duration>),
}

/// Decide about one model.
pub(super) fn care(seen: &Seen) -> Care {
    let pause = RELOAD_AFTER.saturating_mul(1 << seen.reloads.min(16)).min(RELOAD_LONGEST);
    if seen.cold {
        // Asking it would bring it back. Where only ready models are called, nobody asks one that could not
        // come back.
        let reload = due(Care::Reload, pause.saturating_sub(seen.unasked));
        return if seen.stuck { reload } else { Care::Later(None) };
    }
    // Requests that fail, or wait, keep nobody from seeing why.
    if seen.lost || (seen.failures >= MANY && !seen.probed) {
        return due(Care::Reload, pause.saturating_sub(seen.unasked));
    }
    if seen.failures > 0 && seen.probed {
        return due(Care::Probe, DOUBT.saturating_sub(seen.unasked));
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

fn due(care: Care, left: Duration) -> Care {
    if left.is_zero() { care } else { Care::Later(Some(left)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        busy: false,
        cold: false,
        stuck: false,
        unused: Duration::from_secs(10),
        unproved: Duration::from_secs(10),
        rest_after: None,
        probed: true,
        failures: 0,
        lost: false,
        reloads: 0,
        unasked: Duration::from_secs(10),
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
        let stuck = Seen { cold: true, stuck: true, ..silent };
        assert_eq!(care(&Seen { unasked: Duration::ZERO, ..stuck }), later(1));
        assert_eq!(care(&stuck), Care::Reload);
        assert_eq!(care(&Seen { reloads: 5, ..stuck }), later(22));
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

    #[test]
    fn a_model_that_fails_on_its_device_is_asked_soon_even_while_it_is_busy() {
        let failing = Seen { failures: 1, busy: true, ..SEEN };
        assert_eq!(care(&Seen { unasked: Duration::ZERO, ..failing }), later(1));
        // Others that are answered meanwhile say nothing of the graph that fails.
        assert_eq!(care(&Seen { unproved: Duration::ZERO, ..failing }), Care::Probe);
        assert_eq!(care(&Seen { cold: true, ..failing }), Care::Later(None));
    }

    #[test]
    fn without_a_probe_several_failures_in_a_row_are_a_loss() {
        let failing = |failures| Seen { failures, probed: false, ..SEEN };
        assert_eq!(care(&failing(MANY - 1)), Care::Later(None));
        assert_eq!(care(&failing(MANY)), Care::Reload);
    }

    #[test]
    fn what_is_lost_is_loaded_again_and_ever_more_seldom() {
        let pauses = (0..40).map(|reloads| {
            let lost = Seen { lost: true, reloads, unasked: Duration::ZERO, ..SEEN };
            let Care::Later(Some(pause)) = care(&lost) else { panic!("at once") };
            assert_eq!(care(&Seen { unasked: pause, busy: true, ..lost }), Care::Reload);
            assert_eq!(care(&Seen { unasked: pause, cold: true, ..lost }), Care::Later(None));
            pause.as_secs()
        });
        let pauses: Vec<_> = pauses.collect();
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses[39], 60);
    }
}
