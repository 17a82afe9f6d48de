//! What is to be said, one message a topic: while the broker is gone only the newest of each waits, so
//! that a site that is cut off for a month has as little to send as one that was for a minute.

use parking_lot::Mutex;
use tokio::sync::Notify;
use wick_fleet::wire::Channel;

/// Channels that a site says something on, in the order in which they are sent.
const CHANNELS: [Channel; 2] = [Channel::Observed, Channel::Telemetry];

/// Messages that wait, and the last report.
#[derive(Debug, Default)]
pub struct Outbox {
    slots: Mutex<[Slot; CHANNELS.len()]>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    /// Counts what was put here.
    number: u64,
    /// Up to which of them the broker has it.
    sent: u64,
    bytes: Vec<u8>,
}

/// A message that is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    pub channel: Channel,
    pub bytes: Vec<u8>,
    number: u64,
}

fn index(channel: Channel) -> Option<usize> {
    CHANNELS.into_iter().position(|own| own == channel)
}

// === impl Outbox ===

impl Outbox {
    /// Say this, and no longer what waits on that channel.
    pub fn put(&self, channel: Channel, bytes: Vec<u8>) {
        let Some(at) = index(channel) else { return };
        let mut slots = self.slots.lock();
        slots[at].number += 1;
        slots[at].bytes = bytes;
        drop(slots);
        self.changed.notify_one();
    }

    /// Whether something waits on a channel.
    pub fn waits(&self, channel: Channel) -> bool {
        let slots = self.slots.lock();
        index(channel).is_some_and(|at| slots[at].number > slots[at].sent)
    }

    /// There is a new connection: whatever is retained is said again, since a broker may have lost it.
    pub fn again(&self) {
        let mut slots = self.slots.lock();
        for (at, channel) in CHANNELS.into_iter().enumerate() {
            if channel.is_retained() && slots[at].number > 0 {
                slots[at].sent = slots[at].number - 1;
            }
        }
        drop(slots);
        self.changed.notify_one();
    }

    /// What is to be sent next, as soon as there is something. It stays until it is [`Self::sent`].
    pub async fn next(&self) -> Parcel {
        loop {
            if let Some(parcel) = self.peek() {
                return parcel;
            }
            self.changed.notified().await;
        }
    }

    fn peek(&self) -> Option<Parcel> {
        let slots = self.slots.lock();
        let at = slots.iter().position(|slot| slot.number > slot.sent)?;
        let slot = &slots[at];
        Some(Parcel { channel: CHANNELS[at], bytes: slot.bytes.clone(), number: slot.number })
    }

    /// The broker has it.
    pub fn sent(&self, parcel: &Parcel) {
        let Some(at) = index(parcel.channel) else { return };
        let mut slots = self.slots.lock();
        slots[at].sent = slots[at].sent.max(parcel.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_waits_and_a_new_connection_hears_the_last_report_again() {
        let outbox = Outbox::default();
        assert_eq!(outbox.peek(), None);
        for n in 0..100_u8 {
            outbox.put(Channel::Observed, vec![n]);
        }
        outbox.put(Channel::Telemetry, vec![200]);
        let first = outbox.peek().unwrap();
        assert_eq!((first.channel, &first.bytes[..]), (Channel::Observed, &[99][..]));
        // What came while it was on its way is not lost.
        outbox.put(Channel::Observed, vec![100]);
        outbox.sent(&first);
        let second = outbox.peek().unwrap();
        assert_eq!(second.bytes, [100]);
        outbox.sent(&second);
        outbox.sent(&outbox.peek().unwrap());
        assert!(outbox.peek().is_none() && !outbox.waits(Channel::Telemetry));
        outbox.again();
        assert_eq!(outbox.peek().unwrap().bytes, [100]);
        outbox.sent(&second);
        assert_eq!(outbox.peek(), None, "telemetry is said once");
    }
}
