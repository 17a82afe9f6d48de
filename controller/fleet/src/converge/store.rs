//! The bytes on a site's disk, and those on their way. A fetch counts with all its bytes from
//! its start until it is known to have ended.

use std::collections::BTreeMap;

use wick_package::Digest;

use crate::time::Moment;

/// A fetch that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) bytes: u64,
    pub(super) since: Moment,
    pub(super) cancelled: bool,
}

/// What is there, what comes, and what goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Store {
    pub(super) stored: BTreeMap<Digest, u64>,
    pub(super) flights: BTreeMap<Digest, Flight>,
    /// Stored ones that are to go, and since when.
    pub(super) evicting: BTreeMap<Digest, Moment>,
    /// Fetches that failed: not before when, and how often in a row.
    pub(super) retries: BTreeMap<Digest, (Moment, u32)>,
}

// === impl Store ===

impl Store {
    pub(super) fn of_boot(stored: Vec<(Digest, u64)>) -> Self {
        Self { stored: stored.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn used(&self) -> u64 {
        let stored = self.stored.values().copied();
        let coming = self.flights.values().map(|flight| flight.bytes);
        stored.chain(coming).fold(0, u64::saturating_add)
    }

    /// Whole, and not on its way out.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.stored.contains_key(&digest) && !self.evicting.contains_key(&digest)
    }

    /// Whether a fetch may begin, if there is room.
    pub(super) fn may_fetch(&self, digest: Digest, now: Moment) -> bool {
        let waits = self.retries.get(&digest).is_some_and(|(until, _)| *until > now);
        !self.stored.contains_key(&digest) && !self.flights.contains_key(&digest) && !waits
    }

    pub(super) fn fetched(&mut self, digest: Digest) {
        if let Some(flight) = self.flights.remove(&digest) {
            self.stored.insert(digest, flight.bytes);
        }
        self.retries.remove(&digest);
    }

    pub(super) fn evicted(&mut self, digest: Digest) {
        self.stored.remove(&digest);
        self.evicting.remove(&digest);
    }
}
