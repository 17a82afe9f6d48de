//! [`Admission`] for tasks: waiting until it is one's turn, with a deadline, and
//! giving the place back by dropping a [`Permit`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::admission::{self, Admission, Decision, Priority, Refusal, Ticket};
use crate::cores::Core;

/// How far back the pace of a queue is measured: long enough for a few requests of a slow
/// model, short enough to forget what was before.
const PACE_WINDOW: Duration = Duration::from_secs(10);

/// One model's door.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    /// No place is left. A hint that is read without the lock.
    full: AtomicBool,
    idle: Notify,
}

#[derive(Debug)]
struct State {
    admission: Admission,
    /// Bounded by the admission's queue.
    sleepers: HashMap<Ticket, oneshot::Sender<()>>,
    /// When the queue's pace was last begun to be measured, and what was finished by then.
    mark: Option<(Instant, u64)>,
}

/// The right to run one request.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    /// The process's door is behind the model's.
    core: Option<Core>,
}

/// Why a request does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Refused(Refusal),
    /// Its time ran out in the queue.
    WaitedTooLong,
}

/// A place in the queue, given up by dropping it.
struct Waiter<'g> {
    gate: &'g Arc<Gate>,
    ticket: Ticket,
    granted: bool,
}

// === impl Gate ===

impl Gate {
    pub fn new(concurrency: usize, queue: usize) -> Arc<Self> {
        let admission = Admission::new(concurrency, queue);
        let state = Mutex::new(State { admission, sleepers: HashMap::new(), mark: None });
        Arc::new(Self { state, full: AtomicBool::new(false), idle: Notify::new() })
    }

    /// Wait until it is this request's turn: the most important first. Dropping the future
    /// gives the place up.
    ///
    /// # Errors
    /// The queue is full, the door is closed, or `deadline` passed in the queue.
    pub async fn enter(
        self: &Arc<Self>,
        deadline: Instant,
        priority: Priority,
    ) -> Result<Permit, Denied> {
        let (ticket, turn) = {
            let mut state = self.state.lock();
            let decision = state.admission.arrive(priority);
            self.note_full(&state);
            match decision {
                Decision::Run => return Ok(Permit { gate: Arc::clone(self), core: None }),
                Decision::Refuse(refusal) => return Err(Denied::Refused(refusal)),
                Decision::Wait(ticket) => {
                    let (wake, turn) = oneshot::channel();
                    state.sleepers.insert(ticket, wake);
                    state.measure(Instant::now());
                    (ticket, turn)
                }
            }
        };
        let mut waiter = Waiter { gate: self, ticket, granted: false };
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok(())) => {
                waiter.granted = true;
                Ok(Permit { gate: Arc::clone(self), core: None })
            }
            // The waiter's drop leaves the queue, or passes on a place that it was
            // granted in this very moment.
            Ok(Err(_)) | Err(_) => Err(Denied::WaitedTooLong),
        }
    }

    /// Turn new requests away from now on.
    pub fn close(&self) {
        self.state.lock().admission.drain();
    }

    /// Requests in work and in the queue.
    pub fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.admission.running(), state.admission.waiting())
    }

    /// Whether the next request would be refused, as far as can be known without a lock.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Seconds after which a client that was turned away may come back, by the pace at
    /// which the queue has moved lately.
    pub fn retry_after(&self, now: Instant) -> u64 {
        let mut state = self.state.lock();
        let admission = &state.admission;
        let (since, before) = state.mark.unwrap_or_else(|| (now, admission.finished()));
        let finished = admission.finished() - before;
        let elapsed = now.saturating_duration_since(since);
        let seconds = admission::retry_after(admission.waiting(), finished, elapsed);
        state.measure(now);
        seconds
    }

    /// Do something quick if nobody runs and nobody waits. Whoever comes next sees it done.
    pub fn when_idle(&self, act: impl FnOnce()) -> bool {
        let state = self.state.lock();
        let idle = state.admission.is_idle();
        if idle {
            act();
        }
        idle
    }

    /// Wait until nobody runs and nobody waits.
    pub async fn idle(&self) {
        loop {
            let changed = self.idle.notified();
            if self.state.lock().admission.is_idle() {
                return;
            }
            changed.await;
        }
    }

    fn finish(&self) {
        let mut state = self.state.lock();
        let granted = state.admission.finish();
        self.note_full(&state);
        if let Some(ticket) = granted
            && let Some(wake) = state.sleepers.remove(&ticket)
        {
            // A receiver that is gone has a `Waiter` whose drop comes after this
            // lock, finds its ticket granted, and finishes in its turn.
            let _ = wake.send(());
        }
        if state.admission.is_idle() {
            drop(state);
            self.idle.notify_waiters();
        }
    }

    fn note_full(&self, state: &State) {
        let full = state.admission.is_full();
        // Written only when it changes: others read it all the time.
        if self.full.load(Ordering::Relaxed) != full {
            self.full.store(full, Ordering::Relaxed);
        }
    }
}

// === impl State ===

impl State {
    /// Begin to measure the pace: when the queue begins to fill, and again after a while.
    fn measure(&mut self, now: Instant) {
        let begins = self.admission.waiting() == 1;
        let old = self.mark.is_none_or(|(since, _)| now > since + PACE_WINDOW);
        if begins || old {
            self.mark = Some((now, self.admission.finished()));
        }
    }
}

// === impl Permit, Waiter ===

impl Permit {
    /// It has its place in the process, too.
    pub(crate) fn with_core(mut self, core: Core) -> Self {
        self.core = Some(core);
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // First, so that the model's next request finds the place free.
        drop(self.core.take());
        self.gate.finish();
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.granted {
            return;
        }
        let left = {
            let mut state = self.gate.state.lock();
            state.sleepers.remove(&self.ticket);
            let left = state.admission.leave(self.ticket);
            self.gate.note_full(&state);
            left
        };
        if !left {
            self.gate.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_waiter_runs_when_a_permit_is_dropped() {
        let gate = Gate::new(1, 1);
        let first = gate.enter(late(), Priority::DEFAULT).await.unwrap();
        let waiter = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(late(), Priority::DEFAULT).await.map(drop) }
        });
        while gate.load() != (1, 1) {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            gate.enter(late(), Priority::DEFAULT).await.map(drop),
            Err(Denied::Refused(Refusal::QueueFull))
        );
        drop(first);
        assert_eq!(waiter.await.unwrap(), Ok(()));
        gate.idle().await;
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_frees_the_place() {
        let gate = Gate::new(1, 1);
        let first = gate.enter(late(), Priority::DEFAULT).await.unwrap();
        assert_eq!(
            gate.enter(soon(), Priority::DEFAULT).await.map(drop),
            Err(Denied::WaitedTooLong)
        );
        assert_eq!(gate.load(), (1, 0));
        drop(first);
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_dropped_waiter_passes_its_place_on() {
        let gate = Gate::new(1, 2);
        let first = gate.enter(late(), Priority::DEFAULT).await.unwrap();
        let mut gone = Box::pin(gate.enter(late(), Priority::DEFAULT));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut next = Box::pin(gate.enter(late(), Priority::DEFAULT));
        assert!(futures::poll!(&mut next).is_pending());
        // The first waiter is granted the place, and is dropped before it notices.
        drop(first);
        drop(gone);
        let permit = next.await.unwrap();
        assert_eq!(gate.load(), (1, 0));
        drop(permit);
    }

    #[tokio::test]
    async fn a_closed_door_refuses_and_becomes_idle() {
        let gate = Gate::new(1, 1);
        let first = gate.enter(late(), Priority::DEFAULT).await.unwrap();
        gate.close();
        assert_eq!(
            gate.enter(late(), Priority::DEFAULT).await.map(drop),
            Err(Denied::Refused(Refusal::Draining))
        );
        let idle = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!idle.is_finished());
        drop(first);
        idle.await.unwrap();
    }
}
