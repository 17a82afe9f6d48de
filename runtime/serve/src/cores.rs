//! The process's door behind the models' own: how many requests of all models are in work.
//!
//! While there is room, entering and leaving are one atomic operation each. When there is
//! none, [`Shares`] decides who is next, so that one model's flood does not starve another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::shares::{ModelId, Shares, Turn};

/// Set in the count while requests wait: then everybody asks the shares.
const WAITERS: usize = 1 << (usize::BITS - 1);

/// Room for the requests of all models.
#[derive(Debug)]
pub(crate) struct Cores {
    /// Requests in work, and [`WAITERS`].
    count: AtomicUsize,
    /// Only grows: what joins batches must be in work to be joined.
    room: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shares: Shares,
    /// Bounded by what the models' own doors let in.
    sleepers: HashMap<Turn, oneshot::Sender<()>>,
}

/// A model's part in it.
#[derive(Debug)]
pub(crate) struct Part {
    cores: Arc<Cores>,
    model: ModelId,
}

/// The right to compute.
#[derive(Debug)]
pub(crate) struct Core {
    cores: Arc<Cores>,
    model: ModelId,
    /// When it was let in, if it is charged: while there is room, nobody counts.
    since: Option<Instant>,
}

/// A place among those that wait, given up by dropping it.
struct Waiter<'c> {
    cores: &'c Arc<Cores>,
    turn: Turn,
    granted: bool,
}

// === impl Cores ===

impl Cores {
    /// Room for `room` requests at once, at least.
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            room: AtomicUsize::new(room.max(1)),
            state: Mutex::default(),
        })
    }

    /// A model whose batches need up to `batched` requests in work.
    pub(crate) fn part(self: &Arc<Self>, weight: u32, batched: usize) -> Part {
        self.room.fetch_max(batched, Ordering::Relaxed);
        let model = self.state.lock().shares.add(weight);
        Part { cores: Arc::clone(self), model }
    }

    /// Take a place if there is one and nobody waits for it.
    fn try_enter(&self) -> bool {
        let room = self.room.load(Ordering::Relaxed);
        let more = |count: usize| (count & WAITERS == 0 && count < room).then_some(count + 1);
        self.count.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).is_ok()
    }

    fn leave(&self, model: ModelId, since: Option<Instant>) {
        let less = |count: usize| (count & WAITERS == 0).then(|| count - 1);
        let quick = since.is_none()
            && self.count.fetch_update(Ordering::Release, Ordering::Relaxed, less).is_ok();
        if quick {
            return;
        }
        let mut state = self.state.lock();
        if let Some(since) = since {
            state.shares.done(model, since.elapsed());
        }
        let Some(turn) = state.shares.next() else {
            self.count.fetch_sub(1, Ordering::Release);
            self.note_waiters(&state);
            return;
        };
        if let Some(wake) = state.sleepers.remove(&turn) {
            // A receiver that is gone has a `Waiter` whose drop comes after this lock,
            // finds its turn taken, and leaves in its place.
            let _ = wake.send(());
        }
        self.note_waiters(&state);
    }

    /// Keep the flag as the state is. Only under the lock.
    fn note_waiters(&self, state: &State) {
        if state.shares.is_empty() {
            self.count.fetch_and(!WAITERS, Ordering::Release);
        } else {
            self.count.fetch_or(WAITERS, Ordering::Release);
        }
    }
}

// === impl Part ===

impl Part {
    /// Wait until the model may compute one more request. None if `deadline` comes first.
    pub(crate) async fn enter(&self, deadline: Instant) -> Option<Core> {
        let core = |since| Core { cores: Arc::clone(&self.cores), model: self.model, since };
        if self.cores.try_enter() {
            return Some(core(None));
        }
        let (turn, granted) = {
            let mut state = self.cores.state.lock();
            let turn = state.shares.wait(self.model);
            self.cores.note_waiters(&state);
            // From here on whoever leaves sees the flag and looks for this turn. If all had
            // left before, nobody would.
            let count = self.cores.count.load(Ordering::Acquire) & !WAITERS;
            if count < self.cores.room.load(Ordering::Relaxed)
                && let Some(next) = state.shares.next()
            {
                self.cores.count.fetch_add(1, Ordering::Acquire);
                self.cores.note_waiters(&state);
                if next == turn {
                    return Some(core(Some(Instant::now())));
                }
                if let Some(wake) = state.sleepers.remove(&next) {
                    let _ = wake.send(());
                }
            }
            let (wake, granted) = oneshot::channel();
            state.sleepers.insert(turn, wake);
            (turn, granted)
        };
        let mut waiter = Waiter { cores: &self.cores, turn, granted: false };
        match tokio::time::timeout_at(deadline.into(), granted).await {
            Ok(Ok(())) => {
                waiter.granted = true;
                Some(core(Some(Instant::now())))
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.cores.state.lock().shares.remove(self.model);
    }
}

// === impl Core, Waiter ===

impl Drop for Core {
    fn drop(&mut self) {
        self.cores.leave(self.model, self.since);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.granted {
            return;
        }
        let left = {
            let mut state = self.cores.state.lock();
            state.sleepers.remove(&self.turn);
            let left = state.shares.leave(self.turn);
            self.cores.note_waiters(&state);
            left
        };
        if !left {
            self.cores.leave(self.turn.model, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_lone_request_is_next_though_a_flood_waits() {
        let cores = Cores::new(1);
        let (flood, lone) = (cores.part(1, 1), cores.part(1, 1));
        let first = flood.enter(late()).await.unwrap();
        let mut second = Box::pin(flood.enter(late()));
        assert!(futures::poll!(&mut second).is_pending());
        let mut third = Box::pin(flood.enter(late()));
        assert!(futures::poll!(&mut third).is_pending());
        let mut other = Box::pin(lone.enter(late()));
        assert!(futures::poll!(&mut other).is_pending());
        drop(first);
        // One of the flood was there before it, and no more than one goes first.
        let second = second.await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(second);
        let other = other.await.unwrap();
        assert!(futures::poll!(&mut third).is_pending());
        drop(other);
        drop(third.await.unwrap());
        assert_eq!(cores.count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_or_is_too_late_takes_nothing_with_it() {
        let cores = Cores::new(1);
        let part = cores.part(1, 1);
        let first = part.enter(late()).await.unwrap();
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(part.enter(soon).await.is_none());
        let mut gone = Box::pin(part.enter(late()));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut next = Box::pin(part.enter(late()));
        assert!(futures::poll!(&mut next).is_pending());
        // It is granted the place, and dropped before it notices.
        drop(first);
        drop(gone);
        drop(next.await.unwrap());
        assert_eq!(cores.count.load(Ordering::Relaxed), 0);
        assert!(part.enter(late()).await.is_some(), "the quick way is open again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_are_in_work_than_there_is_room_and_nobody_is_forgotten() {
        let cores = Cores::new(3);
        let most = Arc::new(AtomicUsize::new(0));
        let inside = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let part = Arc::new(cores.part(1, 3));
            for _ in 0..50 {
                let (part, most, inside) =
                    (Arc::clone(&part), Arc::clone(&most), Arc::clone(&inside));
                tasks.spawn(async move {
                    for _ in 0..20 {
                        let core = part.enter(late()).await.unwrap();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(core);
                    }
                });
            }
        }
        tasks.join_all().await;
        assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
        assert_eq!(cores.count.load(Ordering::SeqCst), 0);
    }
}
