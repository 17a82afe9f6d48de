//! What a site says of itself, and when it has something to do without being told.

use std::time::Duration;

use crate::converge::runs::Run;
use crate::converge::site::{Phase, Site, wait};
use crate::converge::{Effect, Spec, Version};
use crate::names::Generation;
use crate::time::Moment;
use crate::wire::{Observed, Served, State};

/// Between two reports of refusals: whoever sends nonsense all day does not fill the link.
const REFUSALS: Duration = Duration::from_secs(10);

/// Longest history of one start in a number of a report.
const REPORTS: u32 = 32;

// === impl Site ===

impl Site {
    /// Where the site is.
    pub fn state(&self) -> State {
        let serving = self.kept.serving.as_ref().map(|serving| serving.generation);
        match self.phase {
            Phase::Fetching { .. } => return State::Fetching,
            Phase::Staging { .. } => return State::Staging,
            Phase::Waiting { .. } => return State::Waiting,
            Phase::Idle => {}
        }
        match serving {
            None => State::Empty,
            Some(_) if self.active != serving && self.restoring => State::Restoring,
            Some(_) if self.active != serving => State::Activating,
            Some(_) if self.others() => State::Draining,
            Some(_) => State::Converged,
        }
    }

    fn others(&self) -> bool {
        let serving = self.kept.serving.as_ref();
        self.runs.entries.keys().any(|version| !serving.is_some_and(|spec| spec.has(version)))
    }

    /// When to call again with [`Event::Tick`](super::Event::Tick), if nothing happens before.
    pub fn due(&self) -> Option<Moment> {
        let settings = &self.settings;
        let phase = match self.phase {
            Phase::Idle => None,
            Phase::Fetching { until } | Phase::Staging { until, .. } | Phase::Waiting { until } => {
                Some(until)
            }
        };
        let cancel = |cancelled| if cancelled { settings.drain } else { settings.fetch };
        let flights = self.store.flights.values();
        let flights = flights.map(|flight| flight.since + cancel(flight.cancelled));
        let evicting = self.store.evicting.values().map(|since| *since + settings.drain);
        // Pauses that are over hold nothing back any more.
        let pauses = self.store.retries.values().chain(self.runs.lame.values());
        let pauses = pauses.map(|(until, _)| *until).filter(|until| *until > self.now);
        [
            phase,
            self.activating.map(|(_, since)| since + settings.activate),
            self.runs.due(|run| wait(run, settings.stage, settings.drain)),
            flights.min(),
            evicting.min(),
            pauses.min(),
            self.refusals_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When refusals that were not told yet are.
    fn refusals_due(&self) -> Option<Moment> {
        let told = self.last.as_ref().and_then(|(_, observed)| observed.refused.as_ref());
        let untold = self.refused.is_some() && self.refused.as_ref() != told;
        if untold { self.told.map(|told| told + REFUSALS) } else { None }
    }

    pub(super) fn report(&mut self, now: Moment) -> Option<Effect> {
        let (generation, mut observed) = self.observed(now);
        let due = self.refusals_due().is_none_or(|due| now >= due);
        if let Some((last_generation, last)) = &self.last {
            if !due {
                observed.refused = last.refused.clone();
            }
            if last.state == observed.state {
                observed.since = last.since;
            }
            observed.sequence = last.sequence;
            if (*last_generation, last) == (generation, &observed) {
                return None;
            }
        }
        let told = self.last.as_ref().and_then(|(_, last)| last.refused.as_ref());
        if told != observed.refused.as_ref() {
            self.told = Some(now);
        }
        self.reports += 1;
        observed.sequence = (self.kept.boots << REPORTS) | self.reports;
        self.last = Some((generation, observed.clone()));
        Some(Effect::Report { generation, observed: Box::new(observed) })
    }

    fn observed(&self, now: Moment) -> (Generation, Observed) {
        let generation = |spec: &Option<Spec>| spec.as_ref().map(|spec| spec.generation);
        let serving = self.kept.serving.iter().flat_map(|serving| &serving.models);
        let models = serving.map(|model| {
            let ready = self.runs.run(&Version::from(model)) == Some(Run::Ready);
            Served::new(&model.name, model.digest, ready)
        });
        let state = self.state();
        let settled = state.is_settled() && self.runs.lame.is_empty();
        let observed = Observed {
            sequence: 0,
            wanted: generation(&self.kept.wanted).unwrap_or_default(),
            state,
            reason: self.reason.filter(|_| !settled).map(|reason| reason.code().to_owned()),
            attempts: self.attempts,
            since: now,
            models: models.collect(),
            refused: self.refused.clone(),
            keys: self.kept.ring.serial(),
        };
        // What has the traffic, not what is about to.
        (self.active.unwrap_or_default(), observed)
    }
}
