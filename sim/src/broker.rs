//! The broker: what it keeps, and who is connected. A lost message is a lost connection, as with
//! MQTT's at least once; what was kept is sent again with the next.

use std::collections::BTreeMap;

use wick_fleet::wire::{Channel, Topic};

/// Most old messages that somebody keeps to send them again.
const MAX_OLD: usize = 64;

#[derive(Default)]
pub(crate) struct Broker {
    pub(crate) retained: BTreeMap<Topic, Vec<u8>>,
    /// What a thief has written down.
    pub(crate) old: Vec<(Topic, Vec<u8>)>,
}

// === impl Broker ===

impl Broker {
    pub(crate) fn publish(&mut self, topic: &Topic, bytes: &[u8]) {
        if topic.channel == Channel::Desired && self.old.len() < MAX_OLD {
            self.old.push((topic.clone(), bytes.to_vec()));
        }
        self.retained.insert(topic.clone(), bytes.to_vec());
    }

    /// It restarts, and has kept nothing.
    pub(crate) fn forget(&mut self) {
        self.retained.clear();
    }
}
