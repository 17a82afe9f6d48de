//! Dynamic batching: which requests join, and when a batch starts.
//!
//! [`Batches`] decides; it has no clock and no threads. [`Batcher`] is the shell
//! round it: worker threads that wait, run the joined batch and split the results.
//! While all workers compute, the next batches collect; a batch starts when a
//! worker is free and the batch is full, or has waited for its delay.

mod join;
mod shell;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(crate) use self::shell::Batcher;

use smallvec::SmallVec;

use crate::tensor::Shape;

/// Longest delay, whatever the package says: a time that far ahead can always be
/// computed, and nobody waits so long for an answer.
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// What must be equal for requests to join: the shapes of all inputs without their
/// first dimensions.
pub(crate) type Signature = SmallVec<[Shape; 2]>;

/// Requests that wait to be joined, in the order of their batches.
#[derive(Debug)]
pub(crate) struct Batches<T> {
    max_rows: u64,
    delay: Duration,
    max_waiting: usize,
    groups: VecDeque<Group<T>>,
    waiting: usize,
    next_id: u64,
}

/// Names a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(u64);

/// What became of a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Pushed {
    /// A worker should look: a batch is ready, or its time has begun.
    Wake(RequestId),
    /// It joined a batch whose time runs already.
    Joined(RequestId),
    Full,
}

// Invariant: rows is the sum of the members' rows, and at most `max_rows` unless
// there is one member only; closed groups take no more members.
#[derive(Debug)]
struct Group<T> {
    signature: Signature,
    rows: u64,
    since: Instant,
    closed: bool,
    members: Vec<(RequestId, T)>,
}

// === impl Batches ===

impl<T> Batches<T> {
    /// Batches of up to `max_rows` rows. A request waits for others up to `delay`,
    /// and at most `max_waiting` requests wait.
    pub(crate) fn new(max_rows: u64, delay: Duration, max_waiting: usize) -> Self {
        let delay = delay.min(MAX_DELAY);
        Self { max_rows, delay, max_waiting, groups: VecDeque::new(), waiting: 0, next_id: 0 }
    }

    /// Add a request of `rows` rows. One that has none, or more than a batch may
    /// have, runs alone and at once.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        signature: Signature,
        rows: u64,
        item: T,
    ) -> Pushed {
        if self.waiting >= self.max_waiting {
            return Pushed::Full;
        }
        self.waiting += 1;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let alone = rows == 0 || rows >= self.max_rows;
        let max_rows = self.max_rows;
        let open = self.groups.iter_mut().find(|g| !g.closed && g.signature == signature);
        match open {
            Some(group) if !alone && group.rows + rows <= max_rows => {
                group.rows += rows;
                group.closed = group.rows == max_rows;
                group.members.push((id, item));
                if group.closed { Pushed::Wake(id) } else { Pushed::Joined(id) }
            }
            open => {
                // The next request would not fit either, and waiting on for a
                // smaller one would make this one wait behind it.
                if let Some(group) = open.filter(|_| !alone) {
                    group.closed = true;
                }
                let members = vec![(id, item)];
                let group = Group { signature, rows, since: now, closed: alone, members };
                self.groups.push_back(group);
                Pushed::Wake(id)
            }
        }
    }

    /// The next batch to run now, if one is ready: the oldest that is closed or has
    /// waited long enough.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Vec<T>> {
        let delay = self.delay;
        let ready = |group: &Group<T>| group.closed || now >= group.since + delay;
        let index = self.groups.iter().position(ready)?;
        let group = self.groups.remove(index)?;
        self.waiting -= group.members.len();
        Some(group.members.into_iter().map(|(_, item)| item).collect())
    }

    /// When [`Batches::take`] has something, if nothing else comes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let due =
            |group: &Group<T>| group.since + if group.closed { Duration::ZERO } else { self.delay };
        self.groups.iter().map(due).min()
    }

    /// Give up a request that still waits, whose rows are `rows`.
    pub(crate) fn remove(&mut self, id: RequestId, rows: u64) -> Option<T> {
        for (index, group) in self.groups.iter_mut().enumerate() {
            let Some(place) = group.members.iter().position(|(member, _)| *member == id) else {
                continue;
            };
            let (_, item) = group.members.remove(place);
            group.rows -= rows;
            self.waiting -= 1;
            if group.members.is_empty() {
                self.groups.remove(index);
            }
            return Some(item);
        }
        None
    }
}

#[cfg(test)]
mod tests;
