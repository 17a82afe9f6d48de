//! What a version of a model is doing: the states, and which follows which.
//!
//! ```text
//!  Loading ──▶ Warming ──▶ Ready ◀──▶ Cold        Ready, Cold ──▶ Draining ──▶ Unloaded
//!     │           │                                                               │
//!     └───────────┴──▶ Failed ◀── a probe, or a load of a cold one      Loading ◀─┘
//! ```
//!
//! While something answers requests, that is what is reported, whatever is attempted
//! beside it: a reload that goes wrong takes nothing away. Where nothing does, the
//! [`Attempt`] is.

use std::fmt;

use serde::Serialize;

/// What a version of a model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is loaded for the first time.
    Loading,
    /// It is loaded, and its warm-up requests run.
    Warming,
    Ready,
    /// Ready, but not in memory: the next request loads it.
    Cold,
    /// It can't be loaded, or does not answer its probe.
    Failed,
    /// It finishes its requests and takes no new ones.
    Draining,
    Unloaded,
}

/// How far the last load or unload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Loading,
    Warming,
    Done,
    Failed,
    Draining,
    Unloaded,
}

/// What happens to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A load begins.
    Load,
    /// It is in memory, and not proved yet.
    Loaded,
    /// It answers requests.
    Live,
    Failed,
    /// The policy does not want it.
    Skipped,
    /// It takes no new requests.
    Unload,
    /// Its last request has ended.
    Drained,
}

/// How the thing that answers requests is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub cold: bool,
    /// It did not answer its probe, or could not be loaded again.
    pub broken: bool,
}

// === impl Attempt ===

impl Attempt {
    /// What comes after `event`. None if that can't happen now.
    pub(super) fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            // One thing is done at a time, so that no load begins before a drain is over.
            (Self::Draining, Event::Drained) => Some(Self::Unloaded),
            (Self::Draining, _) | (_, Event::Drained) => None,
            (_, Event::Load) => Some(Self::Loading),
            (Self::Loading, Event::Loaded) => Some(Self::Warming),
            (_, Event::Loaded) => None,
            (Self::Warming, Event::Live) => Some(Self::Done),
            (_, Event::Live) => None,
            (_, Event::Failed) => Some(Self::Failed),
            (_, Event::Skipped) => Some(Self::Unloaded),
            (_, Event::Unload) => Some(Self::Draining),
        }
    }

    /// What is reported while `live` answers requests, or nothing does.
    pub(super) fn state(self, live: Option<Condition>) -> State {
        match live {
            Some(Condition { broken: true, .. }) => return State::Failed,
            Some(Condition { cold: true, .. }) => return State::Cold,
            Some(_) => return State::Ready,
            None => {}
        }
        match self {
            Self::Loading => State::Loading,
            // Between the end of warming and the first request that it can get.
            Self::Warming | Self::Done => State::Warming,
            Self::Failed => State::Failed,
            Self::Draining => State::Draining,
            Self::Unloaded => State::Unloaded,
        }
    }
}

// === impl State ===

impl State {
    /// Requests are answered.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Cold)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "still loading",
            Self::Warming => "warming up",
            Self::Ready => "ready",
            Self::Cold => "not in memory: the next request loads it",
            Self::Failed => "not usable: see its last error in the server's log",
            Self::Draining => "finishing its last requests",
            Self::Unloaded => "unloaded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARM: Condition = Condition { cold: false, broken: false };

    /// Play a script of events, and of what becomes of the live model (`rest`, `wake`,
    /// `break`, `mend`), and write down the states that are reported.
    fn check(script: &str, want: &str) {
        let (mut attempt, mut live) = (Attempt::Loading, None);
        let got: Vec<String> = script
            .split(' ')
            .map(|word| {
                let event = match word {
                    "load" => Some(Event::Load),
                    "loaded" => Some(Event::Loaded),
                    "live" => Some(Event::Live),
                    "fail" => Some(Event::Failed),
                    "skip" => Some(Event::Skipped),
                    "unload" => Some(Event::Unload),
                    "drained" => Some(Event::Drained),
                    "rest" => (live = Some(Condition { cold: true, ..WARM }), None).1,
                    "wake" | "mend" => (live = Some(WARM), None).1,
                    "break" => (live = Some(Condition { broken: true, ..WARM }), None).1,
                    _ => unreachable!("unknown word {word}"),
                };
                if let Some(event) = event {
                    match attempt.on(event) {
                        None => return format!("{word}-is-impossible"),
                        Some(next) => attempt = next,
                    }
                    match event {
                        Event::Live => live = Some(WARM),
                        Event::Unload => live = None,
                        _ => {}
                    }
                }
                format!("{:?}", attempt.state(live)).to_lowercase()
            })
            .collect();
        assert_eq!(got.join(" "), want, "{script}");
    }

    #[test]
    fn a_version_is_loaded_warmed_served_drained_and_unloaded() {
        check(
            "load loaded live unload drained load loaded live",
            "loading warming ready draining unloaded loading warming ready",
        );
        check("skip load loaded fail load", "unloaded loading warming failed loading");
    }

    #[test]
    fn a_reload_is_not_seen_while_the_old_version_answers() {
        check(
            "load loaded live load loaded fail load loaded live",
            "loading warming ready ready ready ready ready ready ready",
        );
    }

    #[test]
    fn what_rests_is_cold_and_what_does_not_answer_is_failed() {
        check(
            "load loaded live rest wake break mend rest load fail",
            "loading warming ready cold ready failed ready cold cold cold",
        );
    }

    #[test]
    fn nothing_is_ready_that_was_not_warmed_and_nothing_is_loaded_while_it_drains() {
        check("load live", "loading live-is-impossible");
        check("fail loaded", "failed loaded-is-impossible");
        check("load drained", "loading drained-is-impossible");
        check(
            "load loaded live unload load drained",
            "loading warming ready draining load-is-impossible unloaded",
        );
    }
}
