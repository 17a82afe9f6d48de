//! [`Admission`] for tasks: waiting until it is one's turn, with a deadline, and
//! giving the place back by dropping a [`Permit`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::admission::{Admission, Decision, Refusal, Ticket};

/// One model's door.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Debug)]
struct State {
    admission: Admission,
    /// Bounded by the admission's queue.
    sleepers: HashMap<Ticket, oneshot::Sender<()>>,
}

/// The right to run one request.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
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
        let state = Mutex::new(State { admission, sleepers: HashMap::new() });
        Arc::new(Self { state, idle: Notify::new() })
    }

    /// Wait until it is this request's turn. Dropping the future gives the place up.
    ///
    /// # Errors
    /// The queue is full, the door is closed, or `deadline` passed in the queue.
    pub async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Permit, Denied> {
        let (ticket, turn) = {
            let mut state = self.state.lock();
            match state.admission.arrive() {
                Decision::Run => return Ok(Permit { gate: Arc::clone(self) }),
                Decision::Refuse(refusal) => return Err(Denied::Refused(refusal)),
                Decision::Wait(ticket) => {
                    let (wake, turn) = oneshot::channel();
                    state.sleepers.insert(ticket, wake);
                    (ticket, turn)
                }
            }
        };
        let mut waiter = Waiter { gate: self, ticket, granted: false };
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok(())) => {
                waiter.granted = true;
                Ok(Permit { gate: Arc::clone(self) })
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
        if let Some(ticket) = state.admission.finish()
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
}

// === impl Permit, Waiter ===

impl Drop for Permit {
    fn drop(&mut self) {
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
            state.admission.leave(self.ticket)
        };
        if !left {
            self.gate.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let first = gate.enter(late()).await.unwrap();
        let waiter = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(late()).await.map(drop) }
        });
        while gate.load() != (1, 1) {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.enter(late()).await.map(drop), Err(Denied::Refused(Refusal::QueueFull)));
        drop(first);
        assert_eq!(waiter.await.unwrap(), Ok(()));
        gate.idle().await;
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_frees_the_place() {
        let gate = Gate::new(1, 1);
        let first = gate.enter(late()).await.unwrap();
        assert_eq!(gate.enter(soon()).await.map(drop), Err(Denied::WaitedTooLong));
        assert_eq!(gate.load(), (1, 0));
        drop(first);
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_dropped_waiter_passes_its_place_on() {
        let gate = Gate::new(1, 2);
        let first = gate.enter(late()).await.unwrap();
        let mut gone = Box::pin(gate.enter(late()));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut next = Box::pin(gate.enter(late()));
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
        let first = gate.enter(late()).await.unwrap();
        gate.close();
        assert_eq!(gate.enter(late()).await.map(drop), Err(Denied::Refused(Refusal::Draining)));
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
