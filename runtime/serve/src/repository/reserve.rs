//! Room that a load has found and keeps. Nobody else looks for any meanwhile, so that what a
//! model takes can be told; but a load that takes long has its room reserved, and others look:
//! a device that hangs keeps no other model from coming.

use std::pin::Pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{MutexGuard, Notify};

/// What `Rooms::long` is for a server.
const LONG: Duration = Duration::from_secs(5);

/// Longest wait for the end of a load that has the room which is needed: a provider may compile
/// for minutes.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that a load takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub memory: u64,
    /// On the device that it is for, beside the processor. While it is loaded nobody knows which
    /// that will be, so it counts for each.
    pub device: u64,
}

/// What a repository's loads share.
#[derive(Debug)]
pub(super) struct Rooms {
    /// Longest that a load keeps others from finding room.
    long: Duration,
    /// Held while room is found and taken.
    finding: tokio::sync::Mutex<()>,
    /// Of the loads that take long.
    reserved: Mutex<Vec<Claim>>,
    /// One of those is over.
    ended: Notify,
}

/// Room for one load.
pub(super) struct Room<'r> {
    rooms: &'r Rooms,
    claim: Claim,
    /// None without a limit.
    finding: Option<MutexGuard<'r, ()>>,
}

/// Dropped when the load is over.
struct Reserved<'r>(&'r Rooms, Claim);

// === impl Rooms ===

impl Default for Rooms {
    fn default() -> Self {
        Self::with(LONG)
    }
}

impl Rooms {
    fn with(long: Duration) -> Self {
        Self {
            long,
            finding: tokio::sync::Mutex::default(),
            reserved: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// Wait until nobody else finds room.
    pub async fn turn(&self, claim: Claim) -> Room<'_> {
        Room { rooms: self, claim, finding: Some(self.finding.lock().await) }
    }

    /// What is there where nothing is limited.
    pub fn unlimited(&self) -> Room<'_> {
        Room { rooms: self, claim: Claim::default(), finding: None }
    }

    /// What loads have reserved that take long.
    pub fn reserved(&self) -> Claim {
        self.reserved.lock().iter().fold(Claim::default(), |sum, claim| Claim {
            memory: sum.memory.saturating_add(claim.memory),
            device: sum.device.saturating_add(claim.device),
        })
    }

    /// The end of such a load, if there is one; of each that ends from now on.
    pub fn an_end(&self) -> Option<Notified<'_>> {
        let ended = self.ended.notified();
        (!self.reserved.lock().is_empty()).then_some(ended)
    }

    fn reserve(&self, claim: Claim) -> Reserved<'_> {
        self.reserved.lock().push(claim);
        Reserved(self, claim)
    }
}

// === impl Room ===

impl Room<'_> {
    /// Wait for the load that the room is for.
    pub async fn during<T>(&mut self, mut load: Pin<Box<impl Future<Output = T>>>) -> T {
        if self.finding.is_none() {
            return load.await;
        }
        if let Ok(loaded) = tokio::time::timeout(self.rooms.long, &mut load).await {
            return loaded;
        }
        let Claim { memory, device } = self.claim;
        tracing::info!(memory, device, "a load takes long: others look for room beside it");
        let reserved = self.rooms.reserve(self.claim);
        self.finding = None;
        let loaded = load.await;
        // What it has taken is noted while nobody looks.
        self.finding = Some(self.rooms.finding.lock().await);
        drop(reserved);
        loaded
    }
}

// === impl Reserved ===

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut all = self.0.reserved.lock();
        if let Some(at) = all.iter().position(|claim| *claim == self.1) {
            all.swap_remove(at);
        }
        drop(all);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim { memory: 3, device: 2 };

    #[tokio::test]
    async fn who_loads_for_long_lets_others_look_and_keeps_its_room() {
        let rooms = Rooms::with(Duration::from_millis(20));
        let mut first = rooms.turn(CLAIM).await;
        let may_end = Notify::new();
        let second = async {
            let turn = rooms.turn(Claim::default()).await;
            assert_eq!(rooms.reserved(), CLAIM);
            let end = rooms.an_end();
            may_end.notify_one();
            drop(turn);
            end.expect("a load is reserved").await;
            assert_eq!(rooms.reserved(), Claim::default());
        };
        tokio::join!(first.during(Box::pin(may_end.notified())), second);
        assert!(first.finding.is_some(), "others look while it notes what it took");
        assert!(rooms.an_end().is_none());
    }

    #[tokio::test]
    async fn a_short_load_keeps_others_waiting_and_one_that_is_given_up_keeps_nothing() {
        let rooms = Rooms::default();
        let mut first = rooms.turn(CLAIM).await;
        tokio::select! {
            () = first.during(Box::pin(tokio::time::sleep(Duration::from_millis(20)))) => {}
            _ = rooms.turn(CLAIM) => panic!("it found room beside a load"),
        }
        drop(first);

        let rooms = Rooms::with(Duration::from_millis(1));
        let mut first = rooms.turn(CLAIM).await;
        let given_up = first.during(Box::pin(std::future::pending::<()>()));
        let other = async {
            let _turn = rooms.turn(CLAIM).await;
            assert_eq!(rooms.reserved(), CLAIM);
        };
        // The first to be over drops the other.
        tokio::select! {
            () = given_up => {}
            () = other => {}
        }
        assert_eq!(rooms.reserved(), Claim::default());
    }
}
