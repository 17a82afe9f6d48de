//! How traffic moves from one revision to the next, and back: a state machine over what is
//! wanted, which revisions are ready, and how they compare.
//!
//! ```text
//!            wanted           ready             hold is over, gates pass
//!   Idle ───────────▶ Starting ─────▶ Stepping ─────▶ … ─────▶ Idle, with the new one
//!    ▲                   │ deadline      │ gates fail
//!    └───────────────────┴───────────────┴──▶ rejected: not tried again while it is wanted
//! ```
//!
//! A state is plain data, kept in the Model's status: an operator that starts anew goes on where
//! the last one was. It sends no traffic itself; [`State::split`] says who gets which share.

mod gates;
mod record;
mod settings;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::revision::RevisionName;
use crate::time::Moment;
pub use gates::{Comparison, Stats};
pub use settings::Settings;

/// How long pods of a revision that gets no traffic any more are kept: until the last node has
/// heard of it and answers are finished. Longer than a worker's drain of 25 s.
pub const DRAIN: Duration = Duration::from_secs(40);

/// Revisions that drain at the same time. With one more the next rollout waits, which a spec
/// that changes every few seconds notices, and nobody else.
const MAX_DRAINING: usize = 4;

/// Where the rollouts of a Model are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The revision that traffic goes to. None before the first was ready.
    pub active: Option<RevisionName>,
    /// The one before it, to go back to.
    pub previous: Option<RevisionName>,
    /// The one that was left, and why. It is not tried again while it is wanted.
    pub rejected: Option<(RevisionName, Reason)>,
    pub phase: Phase,
    /// Revisions that get no traffic any more, and until when their pods are kept.
    pub draining: Vec<(RevisionName, Moment)>,
}

/// What is going on with a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Phase {
    /// There is none.
    #[default]
    Idle,
    /// It gets no traffic before it is ready. `direct` ones then get all of it.
    Starting { candidate: RevisionName, since: Moment, direct: bool },
    /// It is late, and there is nothing to go back to: its start goes on.
    Late { candidate: RevisionName, since: Moment },
    /// It gets the share of a step. `unready` is since when it is not ready any more.
    Stepping { candidate: RevisionName, step: usize, since: Moment, unready: Option<Moment> },
    /// It failed and is kept, without traffic, until somebody promotes it or aborts.
    Held { candidate: RevisionName, since: Moment, reason: Reason },
}

/// Why a revision was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NeverReady,
    LostReadiness,
    TooManyErrors,
    TooSlow,
    TooFewRequests,
    Aborted,
    Undone,
}

/// What is seen in the cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// The revision that the spec asks for. None while its digest is not known.
    pub wanted: Option<RevisionName>,
    /// Revisions with a pod that is ready.
    pub ready: BTreeSet<RevisionName>,
    /// How candidate and active revision did within the gates' window.
    pub compared: Comparison,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The candidate gets all traffic now.
    Promote,
    /// The candidate is left.
    Abort,
    /// Back to the revision before.
    Undo,
}

/// What happened, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Started(RevisionName),
    /// The candidate gets its share of this step.
    Step(RevisionName, usize),
    Promoted(RevisionName),
    Left(RevisionName, Reason),
    Held(RevisionName, Reason),
    /// It is late, and goes on.
    Late(RevisionName),
    /// What was asked for is not possible, and why.
    Refused(Command, &'static str),
}

/// Shares of traffic, in percent; none while there is nobody to give it to.
pub type Split = Vec<(RevisionName, u8)>;

/// One decision: the state that it changes, and what happened meanwhile.
struct Turn<'a> {
    state: State,
    settings: &'a Settings,
    seen: &'a Seen,
    now: Moment,
    events: Vec<Event>,
}

/// What comes after a state, at this time.
#[must_use]
pub fn advance(
    state: &State,
    settings: &Settings,
    seen: &Seen,
    command: Option<Command>,
    now: Moment,
) -> (State, Vec<Event>) {
    let mut turn = Turn { state: state.clone(), settings, seen, now, events: Vec::new() };
    turn.state.draining.retain(|(_, until)| *until > now);
    if let Some(command) = command {
        turn.obey(command);
    }
    turn.follow();
    turn.go_on();
    (turn.state, turn.events)
}

// === impl State ===

impl State {
    pub fn candidate(&self) -> Option<&RevisionName> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Starting { candidate, .. }
            | Phase::Late { candidate, .. }
            | Phase::Stepping { candidate, .. }
            | Phase::Held { candidate, .. } => Some(candidate),
        }
    }

    /// Who gets which share now. A candidate gets one only while it is ready; what goes to the
    /// active revision is held where that is cold.
    pub fn split(&self, settings: &Settings, ready: &BTreeSet<RevisionName>) -> Split {
        let Some(active) = &self.active else { return Vec::new() };
        match &self.phase {
            Phase::Stepping { candidate, step, .. } if ready.contains(candidate) => {
                let weight = settings.weight(*step);
                vec![(active.clone(), 100 - weight), (candidate.clone(), weight)]
            }
            _ => vec![(active.clone(), 100)],
        }
    }

    /// Whether traffic has two ways, so that the activator must stay in the path.
    pub fn is_split(&self) -> bool {
        matches!(self.phase, Phase::Stepping { .. })
    }

    /// Whether a revision must have a pod, whatever the autoscaler says.
    pub fn keeps(&self, name: &RevisionName) -> bool {
        let starts = !matches!(self.phase, Phase::Held { .. }) && self.candidate() == Some(name);
        starts || self.draining.iter().any(|(draining, _)| draining == name)
    }

    /// When time alone changes something. None where somebody must act first.
    pub fn due(&self, settings: &Settings) -> Option<Moment> {
        let phase = match &self.phase {
            Phase::Starting { since, .. } => Some(*since + settings.deadline),
            Phase::Stepping { unready: Some(unready), .. } => Some(*unready + settings.deadline),
            Phase::Stepping { step, since, .. } if !settings.waits_for_people(*step) => {
                Some(*since + settings.hold(*step) + settings.deadline)
            }
            _ => None,
        };
        let drained = self.draining.iter().map(|(_, until)| *until).min();
        phase.into_iter().chain(drained).min()
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn obey(&mut self, command: Command) {
        let candidate = self.state.candidate().cloned();
        match (command, candidate) {
            (Command::Promote, Some(candidate)) if self.is_ready(&candidate) => {
                self.promote(candidate);
            }
            // Its pods are gone by now, and come back for it.
            (Command::Promote, Some(candidate)) if self.is_held() => self.start(candidate, true),
            (Command::Promote, Some(_)) => self.refuse(command, "the candidate is not ready"),
            (Command::Promote, None) => self.refuse(command, "there is no candidate"),
            (Command::Abort | Command::Undo, Some(_)) if self.state.active.is_none() => {
                self.refuse(command, "there is no older revision to go back to");
            }
            (Command::Abort | Command::Undo, Some(candidate)) => {
                self.leave(candidate, Reason::Aborted);
            }
            (Command::Abort, None) => self.refuse(command, "there is no rollout"),
            (Command::Undo, None) => self.undo(),
        }
    }

    fn undo(&mut self) {
        let (Some(active), Some(previous)) = (&self.state.active, self.state.previous.clone())
        else {
            return self.refuse(Command::Undo, "there is no older revision to go back to");
        };
        self.state.rejected = Some((active.clone(), Reason::Undone));
        self.start(previous, true);
    }

    /// Turn to what the spec asks for.
    fn follow(&mut self) {
        let Some(wanted) = self.seen.wanted.clone() else { return };
        match &self.state.rejected {
            Some((rejected, _)) if *rejected == wanted => return,
            _ => self.state.rejected = None,
        }
        let is_active = self.state.active.as_ref() == Some(&wanted);
        match self.state.candidate().cloned() {
            Some(candidate) if candidate == wanted => {}
            Some(candidate) => {
                self.drain(candidate);
                self.state.phase = Phase::Idle;
            }
            None => {}
        }
        let may_start = self.state.draining.len() < MAX_DRAINING;
        if self.state.phase == Phase::Idle && !is_active && may_start {
            self.start(wanted, false);
        }
    }

    fn go_on(&mut self) {
        match self.state.phase.clone() {
            Phase::Idle | Phase::Held { .. } => {}
            Phase::Starting { candidate, since, direct } => self.starting(candidate, since, direct),
            Phase::Late { candidate, .. } => {
                if self.is_ready(&candidate) {
                    self.promote(candidate);
                }
            }
            Phase::Stepping { candidate, step, since, unready } => {
                self.stepping(candidate, step, (since, unready));
            }
        }
    }

    fn starting(&mut self, candidate: RevisionName, since: Moment, direct: bool) {
        let late = self.now.since(since) >= self.settings.deadline;
        if self.is_ready(&candidate) {
            // With nothing to compare it to, and nothing to lose, the first one gets all.
            if direct || self.state.active.is_none() || self.settings.steps() == 0 {
                self.promote(candidate);
            } else {
                self.step(candidate, 0);
            }
        } else if late && self.state.active.is_none() {
            self.events.push(Event::Late(candidate.clone()));
            self.state.phase = Phase::Late { candidate, since };
        } else if late {
            self.fail(candidate, Reason::NeverReady);
        }
    }

    fn stepping(
        &mut self,
        candidate: RevisionName,
        step: usize,
        (since, unready): (Moment, Option<Moment>),
    ) {
        if !self.is_ready(&candidate) {
            let unready = unready.unwrap_or(self.now);
            if self.now.since(unready) >= self.settings.deadline {
                return self.fail(candidate, Reason::LostReadiness);
            }
            self.state.phase = Phase::Stepping { candidate, step, since, unready: Some(unready) };
            return;
        }
        // A time without traffic is no part of the step.
        let since = unready.map_or(since, |unready| since + self.now.since(unready));
        self.state.phase =
            Phase::Stepping { candidate: candidate.clone(), step, since, unready: None };
        let verdict = self.settings.judge(&self.seen.compared);
        if let Err(reason) = verdict {
            return self.fail(candidate, reason);
        }
        let hold = self.settings.hold(step);
        let lasted = self.now.since(since);
        if lasted < hold || self.settings.waits_for_people(step) {
            return;
        }
        match verdict {
            Ok(true) => self.after(candidate, step),
            _ if lasted < hold + self.settings.deadline => {}
            _ if self.settings.advance_unseen => self.after(candidate, step),
            _ => self.fail(candidate, Reason::TooFewRequests),
        }
    }

    fn after(&mut self, candidate: RevisionName, step: usize) {
        if step + 1 < self.settings.steps() {
            self.step(candidate, step + 1);
        } else {
            self.promote(candidate);
        }
    }

    fn start(&mut self, candidate: RevisionName, direct: bool) {
        self.state.draining.retain(|(draining, _)| *draining != candidate);
        self.events.push(Event::Started(candidate.clone()));
        self.state.phase = Phase::Starting { candidate, since: self.now, direct };
    }

    fn step(&mut self, candidate: RevisionName, step: usize) {
        self.events.push(Event::Step(candidate.clone(), step));
        self.state.phase = Phase::Stepping { candidate, step, since: self.now, unready: None };
    }

    fn promote(&mut self, candidate: RevisionName) {
        if let Some(old) = self.state.active.replace(candidate.clone()) {
            self.drain(old.clone());
            self.state.previous = Some(old);
        }
        self.state.draining.retain(|(draining, _)| *draining != candidate);
        self.events.push(Event::Promoted(candidate));
        self.state.phase = Phase::Idle;
    }

    fn fail(&mut self, candidate: RevisionName, reason: Reason) {
        if self.settings.rolls_back {
            self.leave(candidate, reason);
        } else {
            self.events.push(Event::Held(candidate.clone(), reason));
            self.drain(candidate.clone());
            self.state.phase = Phase::Held { candidate, since: self.now, reason };
        }
    }

    fn leave(&mut self, candidate: RevisionName, reason: Reason) {
        self.events.push(Event::Left(candidate.clone(), reason));
        self.drain(candidate.clone());
        // An undo that fails leaves the spec's revision rejected and active: both are known.
        if self.seen.wanted.as_ref() == Some(&candidate) || self.state.rejected.is_none() {
            self.state.rejected = Some((candidate, reason));
        }
        self.state.phase = Phase::Idle;
    }

    fn drain(&mut self, name: RevisionName) {
        self.state.draining.retain(|(draining, _)| *draining != name);
        self.state.draining.push((name, self.now + DRAIN));
    }

    fn refuse(&mut self, command: Command, why: &'static str) {
        self.events.push(Event::Refused(command, why));
    }

    fn is_held(&self) -> bool {
        matches!(self.state.phase, Phase::Held { .. })
    }

    fn is_ready(&self, name: &RevisionName) -> bool {
        self.seen.ready.contains(name)
    }
}

// === impl Reason ===

impl Reason {
    const ALL: [Self; 7] = [
        Self::NeverReady,
        Self::LostReadiness,
        Self::TooManyErrors,
        Self::TooSlow,
        Self::TooFewRequests,
        Self::Aborted,
        Self::Undone,
    ];

    /// The reason of the Model's condition.
    pub fn of_model(self) -> wick_api::Reason {
        match self {
            Self::NeverReady => wick_api::Reason::NeverReady,
            Self::LostReadiness => wick_api::Reason::LostReadiness,
            Self::TooManyErrors => wick_api::Reason::TooManyErrors,
            Self::TooSlow => wick_api::Reason::TooSlow,
            Self::TooFewRequests => wick_api::Reason::TooFewRequests,
            Self::Aborted => wick_api::Reason::Aborted,
            Self::Undone => wick_api::Reason::Undone,
        }
    }
}

#[cfg(test)]
mod tests;
