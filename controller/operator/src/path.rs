//! In which order the way of requests and the pods change. While a model is cold, or its traffic
//! is split, requests go to the activator, which holds or divides them; while it is warm and
//! whole they go straight to the pods.
//!
//! ```text
//!   Cold ──held──▶ Waking ──ready──▶ Direct ◀──▶ Through (split)
//!    ▲               │ too late         │ idle
//!    │               ▼                  ▼
//!    │            Failing            Leaving: EndpointSlice first, then a grace, then the pods
//!    └──────────────────────────────────┘
//! ```
//!
//! Nodes learn of a changed EndpointSlice a moment later than the API server. So on the way down
//! no pod ends before the slice was *seen* to be changed and the grace is over; on the way up
//! the slice changes last. It decides neither how many pods there are (`autoscale`) nor who
//! gets which share (`rollout`), and writes nothing.

use std::time::Duration;

use crate::time::Moment;

/// From a changed EndpointSlice to the last node that knows of it. kube-proxy batches changes for
/// a second at most and a busy node needs a few; five times that costs nothing but a pod's idling.
const GRACE: Duration = Duration::from_secs(10);

/// How long a changed EndpointSlice may take to be seen. An API server that is away longer is
/// away, and the pods are kept meanwhile.
const SLICE_DEADLINE: Duration = Duration::from_secs(30);

/// How long requests are refused after a start that failed: they would only wait in vain, and
/// the kubelet tries again by itself.
const BACKOFF: Duration = Duration::from_secs(10);

/// How long the activator may go on with requests of a model that nobody calls any more. With
/// more to do it is not idle, and stays warm.
const FINISH_DEADLINE: Duration = Duration::from_secs(60);

/// Where the EndpointSlice sends requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Activator,
    Pods,
}

/// The way of one Model's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    stage: Stage,
    /// The latest time that was seen; it never goes back.
    now: Moment,
    /// How long a start may take.
    start: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No pod.
    Cold,
    /// Pods are starting, requests are held.
    Waking { since: Moment },
    /// They have not become ready in time: requests are refused for a while.
    Failing { until: Moment },
    /// Pods are ready, and the activator divides requests among revisions.
    Through,
    /// Pods are ready and get requests themselves.
    Direct,
    /// Nobody calls: pods will go. `seen` is since when the slice is known to be changed.
    Leaving { since: Moment, seen: Option<Moment> },
    /// The slice could not be changed: pods stay.
    Blocked { until: Moment },
}

/// What is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How many pods the autoscaler wants.
    pub wanted: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Requests that wait at the activator.
    pub held: u32,
    /// Requests that the activator has sent to pods, and that are not answered.
    pub sent: u32,
    /// Whether revisions share the traffic.
    pub split: bool,
    /// Where the EndpointSlice sends requests, as the API server has it.
    pub route: Route,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Where the EndpointSlice must send requests.
    pub route: Route,
    /// How many pods there must be.
    pub replicas: u32,
    /// Whether requests wait for a pod; they are answered 503 at once otherwise.
    pub hold: bool,
    /// Whose connections must end, so that clients open new ones, the other way.
    pub close: Option<Route>,
    pub reason: Reason,
    /// When to look again if nothing changes before.
    pub next: Option<Moment>,
}

/// Why the way is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Cold,
    Starting,
    StartTooLong,
    Split,
    Warm,
    Leaving,
    SliceNotWritten,
}

// === impl Path ===

impl Path {
    /// A Model that nothing is known of but how many pods it has. One with pods is taken for one
    /// that starts: an operator that starts anew stops nothing before it has looked.
    pub fn new(start: Duration, pods: u32, now: Moment) -> Self {
        let stage = if pods == 0 { Stage::Cold } else { Stage::Waking { since: now } };
        Self { stage, now, start }
    }

    /// What to do now.
    pub fn advance(&mut self, now: Moment, seen: Seen) -> Action {
        self.now = self.now.max(now);
        self.stage = self.after(seen);
        self.action(seen)
    }

    fn after(&self, seen: Seen) -> Stage {
        let idle = seen.wanted == 0 && seen.held == 0;
        let waking = Stage::Waking { since: self.now };
        let leaving = Stage::Leaving { since: self.now, seen: None };
        match self.stage {
            Stage::Cold if idle => Stage::Cold,
            Stage::Cold => waking,
            _ if idle && !self.is_going() => leaving,
            Stage::Leaving { .. } | Stage::Blocked { .. } if !idle => self.warm(seen),
            Stage::Leaving { since, seen: slice } => self.leave(seen, since, slice),
            Stage::Blocked { until } if self.now < until => self.stage,
            Stage::Blocked { .. } => leaving,
            Stage::Waking { since } if seen.ready == 0 => {
                if self.now.since(since) < self.start {
                    return self.stage;
                }
                Stage::Failing { until: self.now + BACKOFF }
            }
            Stage::Failing { until } if seen.ready == 0 && self.now < until => self.stage,
            Stage::Waking { .. } | Stage::Failing { .. } | Stage::Through | Stage::Direct => {
                self.warm(seen)
            }
        }
    }

    /// Whether pods are about to go.
    fn is_going(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. } | Stage::Blocked { .. })
    }

    /// Where a model is that somebody calls.
    fn warm(&self, seen: Seen) -> Stage {
        match (seen.ready, seen.split) {
            (0, _) => Stage::Waking { since: self.now },
            (_, true) => Stage::Through,
            (_, false) => Stage::Direct,
        }
    }

    fn leave(&self, seen: Seen, since: Moment, slice: Option<Moment>) -> Stage {
        // The slice may be changed back by whoever else writes it: then its grace starts anew.
        let slice = match seen.route {
            Route::Activator => Some(slice.unwrap_or(self.now)),
            Route::Pods => None,
        };
        let gone = slice.is_some_and(|slice| self.now.since(slice) >= GRACE);
        let lasted = self.now.since(since);
        if gone && seen.sent == 0 {
            Stage::Cold
        } else if slice.is_none() && lasted >= SLICE_DEADLINE {
            Stage::Blocked { until: self.now + SLICE_DEADLINE }
        } else if gone && lasted >= FINISH_DEADLINE {
            self.warm(seen)
        } else {
            Stage::Leaving { since, seen: slice }
        }
    }

    fn action(&self, seen: Seen) -> Action {
        let most = seen.wanted.max(1);
        let (route, replicas, reason) = match self.stage {
            Stage::Cold => (Route::Activator, 0, Reason::Cold),
            Stage::Waking { .. } => (Route::Activator, most, Reason::Starting),
            Stage::Failing { .. } => (Route::Activator, most, Reason::StartTooLong),
            Stage::Through => (Route::Activator, most, Reason::Split),
            Stage::Direct => (Route::Pods, most, Reason::Warm),
            Stage::Leaving { .. } => (Route::Activator, most, Reason::Leaving),
            // Where it is: nothing is written that is not taken.
            Stage::Blocked { .. } => (seen.route, most, Reason::SliceNotWritten),
        };
        let close = match self.stage {
            // Who was held or divided may now go straight.
            Stage::Direct if seen.route == Route::Pods => Some(Route::Activator),
            Stage::Leaving { seen: Some(_), .. } => Some(Route::Pods),
            _ => None,
        };
        let hold = !matches!(self.stage, Stage::Failing { .. });
        Action { route, replicas, hold, close, reason, next: self.next() }
    }

    fn next(&self) -> Option<Moment> {
        match self.stage {
            Stage::Cold | Stage::Through | Stage::Direct => None,
            Stage::Waking { since } => Some(since + self.start),
            Stage::Failing { until } | Stage::Blocked { until } => Some(until),
            Stage::Leaving { since, seen: None } => Some(since + SLICE_DEADLINE),
            Stage::Leaving { since, seen: Some(seen) } => match seen + GRACE {
                grace if grace > self.now => Some(grace),
                // Only for requests that are not answered yet.
                _ => Some(since + FINISH_DEADLINE),
            },
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The word in the event and the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Starting => "starting",
            Self::StartTooLong => "start-too-long",
            Self::Split => "split",
            Self::Warm => "warm",
            Self::Leaving => "leaving",
            Self::SliceNotWritten => "slice-not-written",
        }
    }
}

#[cfg(test)]
mod tests;
