//! The port at the activators that stands for each Model: behind a Service's translation of
//! addresses nothing else tells an activator which Model is meant.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use parking_lot::Mutex;

use super::queue::Key;

/// Ports of Models. Below the ports that Linux gives to connections that go out (32768 and up),
/// so that no such connection can be in the way.
pub const RANGE: RangeInclusive<u16> = 20_000..=32_000;

/// Who has which port.
#[derive(Debug, Default)]
pub struct Ports(Mutex<BTreeMap<u16, Key>>);

// === impl Ports ===

impl Ports {
    /// The port of a Model: the one that it had, if nobody else has it, or the lowest free one.
    /// None if all are taken.
    pub fn of(&self, key: &Key, had: Option<u16>) -> Option<u16> {
        let mut ports = self.0.lock();
        if let Some((port, _)) = ports.iter().find(|(_, whose)| *whose == key) {
            return Some(*port);
        }
        let free = |port: &u16| !ports.contains_key(port);
        let had = had.filter(|port| RANGE.contains(port) && free(port));
        let port = had.or_else(|| RANGE.clone().find(free))?;
        ports.insert(port, key.clone());
        Some(port)
    }

    pub fn release(&self, key: &Key) {
        self.0.lock().retain(|_, whose| whose != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "here".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_port_stands_for_one_model_and_stays_with_it() {
        let ports = Ports::default();
        assert_eq!(ports.of(&key("a"), Some(20_005)), Some(20_005));
        assert_eq!(ports.of(&key("b"), Some(20_005)), Some(20_000));
        assert_eq!(ports.of(&key("c"), Some(80)), Some(20_001));
        assert_eq!(ports.of(&key("a"), None), Some(20_005));
        ports.release(&key("b"));
        assert_eq!(ports.of(&key("d"), None), Some(20_000));
    }

    #[test]
    fn when_all_are_taken_it_says_so() {
        let ports = Ports::default();
        for number in RANGE {
            assert_eq!(ports.of(&key(&number.to_string()), None), Some(number));
        }
        assert_eq!(ports.of(&key("one more"), None), None);
    }
}
