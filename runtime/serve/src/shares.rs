//! Whose request runs next when all models together want more than the processor has:
//! start-time fair queueing over the time that each has used, decided without a clock, a
//! lock or a thread.
//!
//! Each model has a virtual time, which advances by what its requests use, divided by its
//! weight. The model that is furthest behind goes first. One that comes back after a pause
//! begins where the others are: nobody saves up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Part of the difference by which the expected use of a request follows the last one. The
/// expectation is only what is charged until the use is known.
const FOLLOW: u64 = 4;

/// Who shares.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    models: BTreeMap<ModelId, Model>,
    /// Virtual time of the request that was last let in.
    now: u64,
    next_model: u64,
    next_ticket: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ModelId(u64);

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Turn {
    pub model: ModelId,
    number: u64,
}

#[derive(Debug)]
struct Model {
    weight: u64,
    time: u64,
    /// Nanoseconds that a request is expected to use.
    expected: u64,
    /// In ascending order; bounded by the model's concurrency, which let them in.
    waiting: VecDeque<Turn>,
}

// === impl Shares ===

impl Shares {
    /// A model that shares from now on.
    pub(crate) fn add(&mut self, weight: u32) -> ModelId {
        let id = ModelId(self.next_model);
        self.next_model += 1;
        let weight = u64::from(weight.max(1));
        let model = Model { weight, time: self.now, expected: 0, waiting: VecDeque::new() };
        self.models.insert(id, model);
        id
    }

    pub(crate) fn remove(&mut self, id: ModelId) {
        self.models.remove(&id);
    }

    /// A request waits.
    pub(crate) fn wait(&mut self, id: ModelId) -> Turn {
        let turn = Turn { model: id, number: self.next_ticket };
        self.next_ticket += 1;
        if let Some(model) = self.models.get_mut(&id) {
            if model.waiting.is_empty() {
                model.time = model.time.max(self.now);
            }
            model.waiting.push_back(turn);
        }
        turn
    }

    /// Let the next one in.
    pub(crate) fn next(&mut self) -> Option<Turn> {
        let waiting = self.models.values_mut().filter(|model| !model.waiting.is_empty());
        let model = waiting.min_by_key(|model| model.time)?;
        self.now = model.time;
        model.time = model.time.saturating_add(model.expected / model.weight);
        model.waiting.pop_front()
    }

    /// A request that was let in is done, after `used`.
    pub(crate) fn done(&mut self, id: ModelId, used: Duration) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let used = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let (charged, owed) = (model.expected / model.weight, used / model.weight);
        model.time = model.time.saturating_sub(charged).saturating_add(owed);
        let (expected, share) = (model.expected, model.expected.abs_diff(used) / FOLLOW);
        model.expected = if used > expected { expected + share } else { expected - share };
    }

    /// A request gives up. False if it was let in meanwhile.
    pub(crate) fn leave(&mut self, turn: Turn) -> bool {
        let Some(model) = self.models.get_mut(&turn.model) else { return true };
        let Ok(at) = model.waiting.binary_search(&turn) else { return false };
        model.waiting.remove(at).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.models.values().all(|model| model.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_lone_request_is_let_in_before_the_next_of_a_flood() {
        let mut shares = Shares::default();
        let (flood, lone) = (shares.add(1), shares.add(1));
        for _ in 0..100 {
            shares.wait(flood);
        }
        for _ in 0..10 {
            assert_eq!(shares.next().unwrap().model, flood);
            shares.done(flood, micros(500));
        }
        shares.wait(lone);
        let first = [shares.next(), shares.next()].map(|turn| turn.unwrap().model);
        assert!(first.contains(&lone), "it waits behind more than one of the flood");
    }

    #[test]
    fn nobody_saves_up_while_it_is_away() {
        let mut shares = Shares::default();
        let (busy, away) = (shares.add(1), shares.add(1));
        for _ in 0..1000 {
            shares.wait(busy);
            shares.next();
            shares.done(busy, micros(1000));
        }
        for _ in 0..20 {
            shares.wait(busy);
            shares.wait(away);
        }
        let served = (0..20).filter(|_| {
            let model = shares.next().unwrap().model;
            shares.done(model, micros(1000));
            model == away
        });
        let served = served.count();
        assert!((9..=11).contains(&served), "{served} of 20");
    }

    #[test]
    fn a_waiter_leaves_once_and_a_model_that_is_gone_is_forgotten() {
        let mut shares = Shares::default();
        let model = shares.add(1);
        let (first, second) = (shares.wait(model), shares.wait(model));
        assert!(shares.leave(first) && !shares.leave(first));
        assert_eq!(shares.next(), Some(second));
        assert!(!shares.leave(second) && shares.is_empty());
        shares.remove(model);
        shares.done(model, micros(1));
        assert_eq!(shares.next(), None);
    }

    proptest! {
        /// Of two models that always want more, neither gets further ahead than one request
        /// of each is worth.
        #[test]
        fn what_two_busy_models_get_is_as_their_weights(
            weights in (1..10_u32, 1..10_u32),
            costs in prop::collection::vec((1..1000_u64, 1..1000_u64), 1..300),
        ) {
            let mut shares = Shares::default();
            let models = [(shares.add(weights.0), weights.0), (shares.add(weights.1), weights.1)];
            let mut served = [0.0_f64; 2];
            for (model, _) in models {
                shares.wait(model);
            }
            for (one, other) in costs {
                let model = shares.next().unwrap().model;
                let at = usize::from(model != models[0].0);
                let cost = if at == 0 { one } else { other };
                shares.done(model, micros(cost));
                shares.wait(model);
                served[at] += cost as f64 / f64::from(models[at].1);
                let bound = 1000.0 / f64::from(weights.0) + 1000.0 / f64::from(weights.1);
                // Nanoseconds that are lost by dividing are far below one microsecond each.
                prop_assert!((served[0] - served[1]).abs() <= bound + 1.0, "{served:?}");
            }
        }

        #[test]
        fn everybody_who_waits_is_let_in_once_or_leaves(
            steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..50_u64), 0..200),
        ) {
            let mut shares = Shares::default();
            let models = [shares.add(1), shares.add(2), shares.add(5)];
            let mut waiting: Vec<Turn> = Vec::new();
            for (step, which, cost) in steps {
                match step {
                    0 | 1 => waiting.push(shares.wait(models[which])),
                    2 => match shares.next() {
                        Some(turn) => {
                            // First come, first served within a model.
                            let first = waiting.iter().find(|other| other.model == turn.model);
                            prop_assert_eq!(first, Some(&turn));
                            waiting.retain(|other| *other != turn);
                            shares.done(turn.model, micros(cost));
                        }
                        None => prop_assert!(waiting.is_empty()),
                    },
                    _ if !waiting.is_empty() => {
                        let turn = waiting.remove(waiting.len() / 2);
                        prop_assert!(shares.leave(turn));
                    }
                    _ => {}
                }
                prop_assert_eq!(shares.is_empty(), waiting.is_empty());
            }
        }
    }
}
