//! How fast blobs are read: who has read bytes waits until they are paid for, and the sender is
//! held back by the connection's own flow control.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What may be read at once after a pause: a link that was idle for longer saves nothing up.
const BURST: Duration = Duration::from_millis(250);

/// A limit that all downloads of a client share.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes: NonZeroU64,
    /// When everything that was read is paid for.
    paid: Mutex<Instant>,
}

// === impl Rate ===

impl Rate {
    pub(crate) fn new(bytes: NonZeroU64, now: Instant) -> Self {
        Self { bytes, paid: Mutex::new(now) }
    }

    /// How long to wait after these bytes were read.
    pub(crate) fn read(&self, count: u64, now: Instant) -> Duration {
        let mut paid = self.paid.lock();
        let cost = Duration::from_secs_f64(count as f64 / self.bytes.get() as f64);
        *paid = (*paid).max(now) + cost;
        paid.saturating_duration_since(now + BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_whoever_reads_them() {
        let mut now = Instant::now();
        let begun = now;
        let rate = Rate::new(NonZeroU64::new(1000).unwrap(), now);
        for _ in 0..100 {
            now += rate.read(100, now);
        }
        let took = now - begun;
        assert_eq!(took, Duration::from_secs(10) - BURST);
        // An hour without bytes is no credit.
        now += Duration::from_secs(3600);
        assert_eq!(rate.read(1000, now), Duration::from_secs(1) - BURST);
    }
}
