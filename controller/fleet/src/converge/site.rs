//! The state machine of a site.

use std::time::Duration;

use wick_package::Digest;

use crate::converge::runs::{Run, Runs};
use crate::converge::store::{Flight, Store};
use crate::converge::{Effect, Event, Fault, Kept, Reason, Settings, Spec, Version};
use crate::model::{Model, check_models, disk_of, memory_of};
use crate::names::{Generation, SiteName};
use crate::time::Moment;
use crate::wire::{self, Channel, Desired, Observed, Refusal, Refused, Topic};

/// A version that ends so often while it is staged is not going to be ready: nobody waits for the deadline.
const MAX_DEATHS: u32 = 3;

/// Most turns after one event. Each turn moves a phase on, and there are five.
const MAX_TURNS: usize = 8;

/// A site that converges. Time never goes back between two events: it is a clock of the process,
/// not of the wall.
#[derive(Debug, Clone)]
pub struct Site {
    pub(super) name: SiteName,
    pub(super) settings: Settings,
    pub(super) kept: Kept,
    pub(super) runs: Runs,
    pub(super) store: Store,
    pub(super) phase: Phase,
    /// The generation that is known to have the traffic.
    pub(super) active: Option<Generation>,
    /// The one that was asked to get it, and when.
    pub(super) activating: Option<(Generation, Moment)>,
    /// From a start until something has the traffic.
    pub(super) restoring: bool,
    pub(super) attempts: u32,
    pub(super) reason: Option<Reason>,
    pub(super) refused: Option<Refused>,
    /// When refusals were last reported.
    pub(super) told: Option<Moment>,
    pub(super) last: Option<(Generation, Observed)>,
    pub(super) reports: u64,
    /// The time of the last event.
    pub(super) now: Moment,
    effects: Vec<Effect>,
}

/// On the way to what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Fetching { until: Moment },
    Staging { until: Moment, deaths: u32 },
    Waiting { until: Moment },
}

// === impl Site ===

impl Site {
    /// A site that goes on from what was kept. It does nothing before [`Event::Booted`].
    pub fn new(name: SiteName, settings: Settings, kept: Kept) -> Self {
        Self {
            name,
            settings,
            kept,
            runs: Runs::default(),
            store: Store::default(),
            phase: Phase::Idle,
            active: None,
            activating: None,
            restoring: true,
            attempts: 0,
            reason: None,
            refused: None,
            told: None,
            last: None,
            reports: 0,
            now: Moment::default(),
            effects: Vec::new(),
        }
    }

    /// Take an event, and say what is to be done now.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        self.note(event, now);
        self.now = now;
        for _ in 0..MAX_TURNS {
            let (phase, active) = (self.phase, self.activating);
            self.turn(now);
            if (phase, active) == (self.phase, self.activating) {
                break;
            }
        }
        let report = self.report(now);
        self.effects.extend(report);
        std::mem::take(&mut self.effects)
    }

    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    pub fn active(&self) -> Option<Generation> {
        self.active
    }

    fn note(&mut self, event: Event, now: Moment) {
        match event {
            Event::Booted { running, stored } => self.boot(running, stored, now),
            Event::Message { topic, bytes } => self.read(&topic, &bytes),
            Event::Fetched { digest } => self.store.fetched(digest),
            Event::FetchFailed { digest, fault } => self.missed(digest, fault, now),
            Event::Evicted { digest } => self.store.evicted(digest),
            Event::Ready { version } => self.runs.ready(&version, now),
            Event::Died { version } => {
                let wanted = self.kept.wanted.as_ref();
                if let Phase::Staging { deaths, .. } = &mut self.phase
                    && wanted.is_some_and(|wanted| wanted.has(&version))
                {
                    *deaths = deaths.saturating_add(1);
                }
                self.lame(&version, Reason::Died, now);
                self.runs.gone(&version);
            }
            Event::Activated { generation } => {
                if self.activating.is_some_and(|(asked, _)| asked == generation) {
                    self.activated(generation);
                }
            }
            Event::Drained { version } => {
                if self.runs.run(&version) == Some(Run::Draining) {
                    self.stop(&version, now);
                }
            }
            Event::Stopped { version } => {
                if self.runs.run(&version) == Some(Run::Stopping) {
                    self.runs.gone(&version);
                }
            }
            Event::Tick => {}
        }
    }

    fn boot(&mut self, running: Vec<Model>, stored: Vec<(Digest, u64)>, now: Moment) {
        let mut kept = self.kept.clone();
        kept.boots = kept.boots.saturating_add(1);
        *self = Self::new(self.name.clone(), self.settings.clone(), kept);
        self.runs = Runs::of_boot(running, now);
        self.store = Store::of_boot(stored);
        self.keep();
    }

    fn read(&mut self, topic: &str, bytes: &[u8]) {
        if let Err(refusal) = self.accept(topic, bytes) {
            let count = self.refused.as_ref().map_or(0, |refused| refused.count);
            let (code, text) = (refusal.code().to_owned(), refusal.to_string());
            self.refused = Some(Refused { code, text, count: count.saturating_add(1) });
        }
    }

    fn accept(&mut self, topic: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let came: Topic = topic.parse()?;
        let own = Topic::new(self.name.clone(), Channel::Desired);
        if came != own {
            return Err(Refusal::OtherTopic(came.to_string()));
        }
        let opened = wire::open::<Desired>(&own, bytes, &self.kept.ring)?;
        let Desired { models, rollout } = opened.body;
        let spec = Spec { generation: opened.generation, models, rollout };
        let have = self.kept.wanted.as_ref();
        let highest = have.map(|have| have.generation).unwrap_or_default();
        if spec.generation < highest || spec.generation == Generation::default() {
            return Err(Refusal::Older { got: spec.generation, have: highest });
        }
        if spec.generation == highest {
            if have.is_none_or(|have| have.models != spec.models) {
                return Err(Refusal::Conflict(highest));
            }
            // It may be said again for the sake of its keys.
            if opened.ring != self.kept.ring {
                self.kept.ring = opened.ring;
                self.keep();
            }
            return Ok(());
        }
        check_models(&spec.models)?;
        self.kept.ring = opened.ring;
        self.kept.wanted = Some(spec);
        self.phase = Phase::Idle;
        (self.attempts, self.reason) = (0, None);
        self.keep();
        Ok(())
    }

    fn missed(&mut self, digest: Digest, fault: Fault, now: Moment) {
        if self.store.flights.remove(&digest).is_none() {
            return;
        }
        let failures = self.store.retries.get(&digest).map_or(0, |(_, count)| *count) + 1;
        self.reason = match fault {
            Fault::Unreachable => Some(Reason::Unreachable),
            Fault::WrongBytes => Some(Reason::WrongBytes),
            Fault::DiskFull => Some(Reason::DiskFull),
            // By ourselves; it may begin again at once.
            Fault::Cancelled => return,
        };
        self.store.retries.insert(digest, (now + self.settings.backoff(failures), failures));
    }

    fn activated(&mut self, generation: Generation) {
        self.activating = None;
        self.active = Some(generation);
        self.restoring = false;
        self.runs.lame.clear();
        let Some(serving) = &self.kept.serving else { return };
        for (version, entry) in &mut self.runs.entries {
            entry.routed |= serving.generation == generation && serving.has(version);
        }
        if self.kept.wanted.as_ref().is_some_and(|wanted| wanted.generation == generation) {
            (self.attempts, self.reason) = (0, None);
        }
    }

    fn turn(&mut self, now: Moment) {
        self.late(now);
        if let Some(serving) = self.kept.serving.clone() {
            self.start_all(&serving, true, now);
            self.fetch_all(&serving, now);
            self.route(&serving, now);
        }
        self.advance(now);
        self.retire(now);
        self.cancel(now);
    }

    /// What local work is overdue: it is given up, or asked for again.
    fn late(&mut self, now: Moment) {
        let settings = &self.settings;
        let (stage, drain, fetch) = (settings.stage, settings.drain, settings.fetch);
        let is_late = |since: Moment, most: Duration| now >= since + most;
        let entries = &self.runs.entries;
        let late: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| {
                let most = wait(entry.run, stage, drain);
                most.is_some_and(|most| is_late(entry.since, most))
            })
            .map(|(version, entry)| (version.clone(), entry.run))
            .collect();
        for (version, run) in late {
            if run == Run::Starting {
                self.lame(&version, Reason::NotReady, now);
            }
            self.stop(&version, now);
        }
        for (digest, flight) in &mut self.store.flights {
            if is_late(flight.since, if flight.cancelled { drain } else { fetch }) {
                (flight.cancelled, flight.since) = (true, now);
                self.effects.push(Effect::Cancel(*digest));
            }
        }
        for (digest, since) in &mut self.store.evicting {
            if is_late(*since, drain) {
                *since = now;
                self.effects.push(Effect::Evict(*digest));
            }
        }
    }

    /// The serving generation gets the traffic as soon as all of it is ready.
    fn route(&mut self, serving: &Spec, now: Moment) {
        let asked = self.activating;
        match asked {
            Some((_, since)) if now < since + self.settings.activate => return,
            Some(_) => {
                self.reason = Some(Reason::ActivateLate);
                self.attempts = self.attempts.saturating_add(1);
            }
            None if self.active == Some(serving.generation) => return,
            None => {}
        }
        if !self.runs.are_ready(&serving.models) {
            self.activating = None;
            return;
        }
        self.activating = Some((serving.generation, now));
        let versions: Vec<_> = serving.models.iter().map(Version::from).collect();
        for version in &versions {
            if let Some(entry) = self.runs.entries.get_mut(version) {
                entry.routed = true;
            }
        }
        self.effects.push(Effect::Activate { generation: serving.generation, versions });
    }

    /// The phases on the way to what is wanted.
    fn advance(&mut self, now: Moment) {
        let Some(wanted) = self.kept.wanted.clone() else { return };
        let there = self.kept.serving.as_ref().map(|serving| serving.generation);
        if there == Some(wanted.generation) {
            self.phase = Phase::Idle;
            return;
        }
        match self.phase {
            Phase::Idle => match self.fits(&wanted) {
                Ok(()) => self.phase = Phase::Fetching { until: now + self.settings.fetch },
                Err(reason) => self.give_up(reason, now),
            },
            Phase::Fetching { until } => {
                self.fetch_all(&wanted, now);
                if wanted.models.iter().all(|model| self.store.has(model.digest)) {
                    self.reason = None;
                    self.phase = Phase::Staging { until: now + self.settings.stage, deaths: 0 };
                } else if now >= until {
                    self.give_up(self.reason.unwrap_or(Reason::FetchLate), now);
                }
            }
            Phase::Staging { until, deaths } => {
                self.start_all(&wanted, false, now);
                if self.runs.are_ready(&wanted.models) && self.activating.is_none() {
                    self.commit(wanted);
                } else if deaths >= MAX_DEATHS {
                    self.give_up(Reason::Died, now);
                } else if now >= until {
                    self.give_up(self.reason.unwrap_or(Reason::NotReady), now);
                }
            }
            Phase::Waiting { until } if now >= until => self.phase = Phase::Idle,
            Phase::Waiting { .. } => {}
        }
    }

    /// Whether old and new can be there at once.
    fn fits(&self, wanted: &Spec) -> Result<(), Reason> {
        let serving = self.kept.serving.as_ref().map_or(&[][..], |serving| &serving.models);
        let both = || serving.iter().chain(&wanted.models);
        match () {
            () if memory_of(both()) > self.settings.memory => Err(Reason::NoMemory),
            () if disk_of(both()) > self.settings.disk => Err(Reason::NoDisk),
            () => Ok(()),
        }
    }

    /// From here on the wanted generation is the site's, whatever happens: it was ready, and is
    /// written down before it gets traffic.
    fn commit(&mut self, wanted: Spec) {
        self.kept.serving = Some(wanted);
        self.phase = Phase::Idle;
        self.keep();
    }

    fn give_up(&mut self, reason: Reason, now: Moment) {
        self.attempts = self.attempts.saturating_add(1);
        self.reason = Some(reason);
        self.phase = Phase::Waiting { until: now + self.settings.backoff(self.attempts) };
    }

    /// Drain and stop what is neither serving nor staged. What may have traffic keeps it until the
    /// serving generation is known to have it.
    fn retire(&mut self, now: Moment) {
        let serving = self.kept.serving.as_ref();
        let settled = serving.is_some_and(|serving| self.active == Some(serving.generation));
        let staged = matches!(self.phase, Phase::Staging { .. }).then_some(&self.kept.wanted);
        let staged = staged.and_then(Option::as_ref);
        let is_kept = |version: &Version| {
            [serving, staged].into_iter().flatten().any(|spec| spec.has(version))
        };
        let left: Vec<_> = self
            .runs
            .entries
            .iter()
            .filter(|(version, entry)| {
                matches!(entry.run, Run::Starting | Run::Ready) && !is_kept(version)
            })
            .map(|(version, entry)| (version.clone(), entry.routed))
            .collect();
        for (version, routed) in left {
            match (routed, settled) {
                (false, _) => self.stop(&version, now),
                (true, true) => {
                    self.runs.set(&version, Run::Draining, now);
                    self.effects.push(Effect::Drain(version));
                }
                (true, false) => {}
            }
        }
    }

    /// Bytes that are no longer needed need not come.
    fn cancel(&mut self, now: Moment) {
        let specs = [&self.kept.serving, &self.kept.wanted];
        for (digest, flight) in &mut self.store.flights {
            let needed = specs.into_iter().flatten().any(|spec| spec.has_bytes(*digest));
            if !flight.cancelled && !needed {
                (flight.cancelled, flight.since) = (true, now);
                self.effects.push(Effect::Cancel(*digest));
            }
        }
    }

    /// `routed`: what is served has traffic as soon as it is ready, if it only starts again.
    fn start_all(&mut self, spec: &Spec, routed: bool, now: Moment) {
        for model in &spec.models {
            if self.store.has(model.digest) && self.runs.may_start(model, self.settings.memory, now)
            {
                self.runs.start(model, routed, now);
                self.effects.push(Effect::Start(model.clone()));
            }
        }
    }

    fn fetch_all(&mut self, spec: &Spec, now: Moment) {
        for model in &spec.models {
            if !self.store.may_fetch(model.digest, now) {
                continue;
            }
            let after = self.store.used().saturating_add(model.bytes);
            if after > self.settings.disk {
                self.make_room(after - self.settings.disk, now);
                continue;
            }
            let flight = Flight { bytes: model.bytes, since: now, cancelled: false };
            self.store.flights.insert(model.digest, flight);
            self.effects.push(Effect::Fetch(model.clone()));
        }
    }

    /// Ask for this many bytes of what nobody needs. They count until they are gone.
    fn make_room(&mut self, bytes: u64, now: Moment) {
        let going = |digest: &Digest| self.store.stored.get(digest).copied().unwrap_or(0);
        let mut freed: u64 = self.store.evicting.keys().map(going).sum();
        let specs = || [&self.kept.serving, &self.kept.wanted].into_iter().flatten();
        let stored: Vec<_> = self.store.stored.iter().map(|(d, bytes)| (*d, *bytes)).collect();
        for (digest, size) in stored {
            let runs = self.runs.entries.keys().any(|version| version.digest == digest);
            let needed = runs || specs().any(|spec| spec.has_bytes(digest));
            if freed >= bytes {
                break;
            }
            if !needed && !self.store.evicting.contains_key(&digest) {
                freed = freed.saturating_add(size);
                self.store.evicting.insert(digest, now);
                self.effects.push(Effect::Evict(digest));
            }
        }
    }

    fn stop(&mut self, version: &Version, now: Moment) {
        self.runs.set(version, Run::Stopping, now);
        self.effects.push(Effect::Stop(version.clone()));
    }

    fn lame(&mut self, version: &Version, reason: Reason, now: Moment) {
        let failures = self.runs.failed(version);
        let until = now + self.settings.backoff(failures);
        self.runs.lame.insert(version.clone(), (until, failures));
        self.reason = Some(reason);
    }

    fn keep(&mut self) {
        self.effects.push(Effect::Keep(Box::new(self.kept.clone())));
    }
}

/// How long a running version may be where it is.
pub(super) fn wait(run: Run, stage: Duration, drain: Duration) -> Option<Duration> {
    match run {
        Run::Starting => Some(stage),
        Run::Ready => None,
        Run::Draining | Run::Stopping => Some(drain),
    }
}
