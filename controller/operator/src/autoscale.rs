//! How many pods a Model should have: a state machine over what is asked of it. Two averages, a
//! long one for the usual and a short one for the sudden; a step up is limited, a step down waits,
//! and the last pod goes when nobody has called for the idle timeout. What it remembers
//! has a fixed size, however long its windows are.
//!
//! It does not know where its numbers come from, and stops no pod: `path` says in which order.

mod window;

use std::time::Duration;

use wick_api::Scale;

use crate::time::Moment;
use window::Window;

/// A number of pods that is a hair above a whole one is that one: sums of fractions are not exact.
const EPSILON: f64 = 1e-6;

/// Without news for this long, the number of pods stays as it is. Longer than a restart of the
/// activator, shorter than any sensible idle timeout.
const SILENCE: Duration = Duration::from_secs(20);

/// How often a decision is due when nothing is new, as often as averages change visibly.
pub const TICK: Duration = Duration::from_secs(2);

/// What a Model wants, in the units of the arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    min: u32,
    max: u32,
    target: f64,
    stable: Duration,
    panic: Duration,
    threshold: f64,
    idle: Duration,
    delay: Duration,
    step: f64,
    /// From one pod on somebody else decides.
    zero_only: bool,
}

/// What is asked of a Model now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Requests in work and waiting, those that are held included.
    pub requests: f64,
    /// Those that are held because no pod is ready.
    pub held: u32,
}

/// The pods that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pods {
    /// What the Deployment asks for.
    pub asked: u32,
    pub ready: u32,
}

/// How many pods there should be, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub replicas: u32,
    pub reason: Reason,
}

/// Why that many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// What the long average asks for.
    Load,
    /// What the short average asks for, or has asked for lately.
    Burst,
    /// There is none, and requests are held.
    FromZero,
    /// The load asks for more than one step may add.
    StepLimit,
    /// Fewer would do, but not yet for long enough.
    Delayed,
    /// Nobody calls, but not yet for long enough.
    Waiting,
    /// Nobody calls.
    Idle,
    Min,
    Max,
    /// Somebody else decides.
    Left,
    /// Nobody says what is asked of it.
    NoMetrics,
}

/// Decides for one Model.
#[derive(Debug)]
pub struct Autoscaler {
    settings: Settings,
    /// The latest time that was seen; it never goes back.
    now: Moment,
    /// The last time that there was any request.
    active: Moment,
    /// The last time that anything was heard.
    heard: Moment,
    held: u32,
    stable: Window,
    panic: Window,
    /// What was wanted lately, of which the most counts.
    wanted: Window,
    burst: Option<Burst>,
}

/// A sudden load, during which no pod goes.
#[derive(Debug, Clone, Copy)]
struct Burst {
    /// The last time that there was too much.
    last: Moment,
    /// The most pods that it asked for.
    most: u32,
}

// === impl Settings ===

impl Settings {
    pub fn of(scale: &Scale) -> Self {
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        Self {
            min: count(scale.min_replicas),
            max: count(scale.max_replicas).max(1),
            target: f64::from(scale.target_concurrency.max(1)),
            stable: scale.stable_window.get(),
            panic: scale.panic_window.get(),
            threshold: scale.panic_threshold.ratio(),
            idle: scale.idle_timeout.get(),
            delay: scale.scale_down_delay.get(),
            step: f64::from(scale.max_step_up.max(2)),
            zero_only: scale.horizontal_pod_autoscaler.is_some(),
        }
    }

    fn pods_for(&self, requests: f64) -> u32 {
        // Casts of floats saturate.
        (requests / self.target - EPSILON).ceil() as u32
    }
}

// === impl Autoscaler ===

impl Autoscaler {
    /// Starts as if somebody had called just now: a restart must not stop what is in use.
    pub fn new(settings: Settings, now: Moment) -> Self {
        Self {
            now,
            active: now,
            heard: now,
            held: 0,
            stable: Window::new(settings.stable),
            panic: Window::new(settings.panic),
            wanted: Window::new(settings.delay),
            burst: None,
            settings,
        }
    }

    /// Take over what a new generation wants. Averages over another time start anew.
    pub fn set(&mut self, settings: Settings) {
        let renew = |window: &mut Window, old: Duration, new: Duration| {
            if old != new {
                *window = Window::new(new);
            }
        };
        renew(&mut self.stable, self.settings.stable, settings.stable);
        renew(&mut self.panic, self.settings.panic, settings.panic);
        renew(&mut self.wanted, self.settings.delay, settings.delay);
        self.settings = settings;
    }

    /// What is asked of the Model at this time.
    pub fn observe(&mut self, now: Moment, load: Load) {
        self.advance(now);
        // What is no number of requests is no news.
        if !load.requests.is_finite() || load.requests < 0.0 {
            return;
        }
        self.heard = self.now;
        self.held = load.held;
        let requests = load.requests.max(f64::from(load.held));
        if requests > 0.0 {
            self.active = self.now;
        }
        self.stable.add(self.now, requests);
        self.panic.add(self.now, requests);
    }

    /// How many pods there should be now.
    pub fn decide(&mut self, now: Moment, pods: Pods) -> Decision {
        self.advance(now);
        let silent = self.now.since(self.heard) >= SILENCE;
        let (wish, reason) = if silent && self.held == 0 {
            (pods.asked, Reason::NoMetrics)
        } else {
            self.by_load(pods)
        };
        let decision = self.within_bounds(wish, reason);
        if self.settings.zero_only && pods.asked > 0 && decision.replicas > 0 {
            return Decision { replicas: pods.asked, reason: Reason::Left };
        }
        decision
    }

    /// When a decision is due if nothing new comes before.
    pub fn next(&self) -> Moment {
        self.now + TICK
    }

    fn by_load(&mut self, pods: Pods) -> (u32, Reason) {
        let (wish, reason) = self.by_averages(pods);
        let (wish, reason) = self.delayed(wish, reason);
        // The averages still remember what was answered before; for the last pod only the time
        // since counts. One that is gone does not come back for them.
        let quiet = self.now.since(self.active);
        let idle = quiet >= self.settings.idle.max(self.settings.delay);
        if self.held == 0 && (idle || (pods.asked == 0 && quiet > TICK)) {
            if pods.asked > 0 {
                self.forget();
            }
            (0, Reason::Idle)
        } else if wish == 0 {
            (1, Reason::Waiting)
        } else {
            (wish, reason)
        }
    }

    /// What comes after the last pod has gone is seen for itself.
    fn forget(&mut self) {
        self.stable = Window::new(self.settings.stable);
        self.panic = Window::new(self.settings.panic);
        self.wanted = Window::new(self.settings.delay);
        self.burst = None;
    }

    fn by_averages(&mut self, pods: Pods) -> (u32, Reason) {
        let settings = &self.settings;
        let ready = f64::from(pods.ready.max(1));
        let most = (ready * settings.step).ceil() as u32;
        let stable = self.stable.average(self.now).unwrap_or(0.0);
        let sudden = self.panic.average(self.now).unwrap_or(stable);
        let (usual, sudden) = (settings.pods_for(stable), settings.pods_for(sudden));
        if f64::from(sudden) / ready >= settings.threshold {
            self.burst.get_or_insert(Burst { last: self.now, most: 0 }).last = self.now;
        } else if self.burst.is_some_and(|burst| self.now.since(burst.last) >= settings.stable) {
            self.burst = None;
        }
        if let Some(burst) = &mut self.burst {
            burst.most = burst.most.max(sudden.min(most));
        }
        let held = settings.pods_for(f64::from(self.held)).max(u32::from(self.held > 0));
        let wish = usual.max(self.burst.map_or(0, |burst| burst.most.max(sudden))).max(held);
        let reason = match self.burst {
            _ if pods.asked == 0 && self.held > 0 => Reason::FromZero,
            Some(_) => Reason::Burst,
            None => Reason::Load,
        };
        if wish > most { (most, Reason::StepLimit) } else { (wish, reason) }
    }

    /// The most that was wanted within the delay.
    fn delayed(&mut self, wish: u32, reason: Reason) -> (u32, Reason) {
        if self.settings.delay.is_zero() {
            return (wish, reason);
        }
        self.wanted.add(self.now, f64::from(wish));
        let most = self.wanted.max(self.now).unwrap_or(0.0) as u32;
        if most > wish { (most, Reason::Delayed) } else { (wish, reason) }
    }

    fn within_bounds(&self, wish: u32, reason: Reason) -> Decision {
        let Settings { min, max, .. } = self.settings;
        let least = min.max(u32::from(self.held > 0));
        if wish < least {
            Decision { replicas: least, reason: if least == min { Reason::Min } else { reason } }
        } else if wish > max.max(min) {
            Decision { replicas: max.max(min), reason: Reason::Max }
        } else {
            Decision { replicas: wish, reason }
        }
    }

    fn advance(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }
}

// === impl Reason ===

impl Reason {
    /// The word in the event and the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Burst => "burst",
            Self::FromZero => "from-zero",
            Self::StepLimit => "step-limit",
            Self::Delayed => "delayed",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Min => "min",
            Self::Max => "max",
            Self::Left => "left",
            Self::NoMetrics => "no-metrics",
        }
    }
}

#[cfg(test)]
mod tests;
