//! Answers that were given lately, so that a repeated request is not computed again, and
//! topics that lately took none. Bounded in number, bytes and age; time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::requests::Answer;

/// What makes two requests the same: the client's own name for it, and its content. A client
/// that uses one name for different requests gets different answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub topic: String,
    pub correlation: Bytes,
    /// A hash of the request's topic, payload and properties.
    pub content: u64,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    pub entries: usize,
    pub bytes: usize,
    pub age: Duration,
}

/// The answers of the last minutes; the oldest go first.
#[derive(Debug)]
pub struct Memory {
    limits: MemoryLimits,
    answers: HashMap<Key, Answer>,
    /// Oldest first. Invariant: the keys of `answers`, each once.
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

/// Topics that the broker let no answer be written to. mosquitto 2.0 also cuts the connection
/// of who tries: without this, a request for such an answer would come again each time.
#[derive(Debug)]
pub struct Refusals {
    limits: MemoryLimits,
    /// Oldest first.
    topics: VecDeque<(Instant, String)>,
}

// === impl Key ===

impl Key {
    fn size(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.correlation.len()
    }
}

// === impl Memory ===

impl Memory {
    pub fn new(limits: MemoryLimits) -> Self {
        Self { limits, answers: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// The answer that the same request got.
    pub fn get(&mut self, now: Instant, key: &Key) -> Option<&Answer> {
        self.forget_old(now);
        self.answers.get(key)
    }

    /// Remember an answer. One that is larger than the whole memory is not.
    pub fn insert(&mut self, now: Instant, key: Key, answer: Answer) {
        self.forget_old(now);
        let size = size(&key, &answer);
        if size > self.limits.bytes || self.limits.entries == 0 || self.answers.contains_key(&key) {
            return;
        }
        while self.order.len() >= self.limits.entries || self.bytes + size > self.limits.bytes {
            self.forget_first();
        }
        self.bytes += size;
        self.order.push_back((now, key.clone()));
        self.answers.insert(key, answer);
    }

    fn forget_old(&mut self, now: Instant) {
        let age = self.limits.age;
        let old = |at: &Instant| now.saturating_duration_since(*at) > age;
        while self.order.front().is_some_and(|(at, _)| old(at)) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Some(answer) = self.answers.remove(&key) {
            self.bytes -= size(&key, &answer);
        }
    }
}

// === impl Refusals ===

impl Refusals {
    /// Its `bytes` say nothing: topics are short.
    pub fn new(limits: MemoryLimits) -> Self {
        Self { limits, topics: VecDeque::new() }
    }

    /// Whether an answer to this topic was refused lately.
    pub fn contains(&mut self, now: Instant, topic: &str) -> bool {
        let age = self.limits.age;
        self.topics.retain(|(at, _)| now.saturating_duration_since(*at) <= age);
        self.topics.iter().any(|(_, refused)| refused == topic)
    }

    pub fn insert(&mut self, now: Instant, topic: String) {
        if self.contains(now, &topic) {
            return;
        }
        if self.topics.len() >= self.limits.entries {
            self.topics.pop_front();
        }
        self.topics.push_back((now, topic));
    }
}

fn size(key: &Key, answer: &Answer) -> usize {
    // The key is held twice.
    2 * key.size() + size_of::<Answer>() + answer.payload.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: u8) -> Key {
        Key { topic: "t".into(), correlation: vec![name].into(), content: 0 }
    }

    fn answer(name: u8, bytes: usize) -> Answer {
        Answer { payload: vec![name; bytes].into(), header: None, status: 200, code: None }
    }

    #[test]
    fn a_repeat_gets_its_answer_until_it_is_old() {
        let limits = MemoryLimits { entries: 9, bytes: 9999, age: Duration::from_secs(10) };
        let mut memory = Memory::new(limits);
        let start = Instant::now();
        memory.insert(start, key(1), answer(1, 3));
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(memory.get(later(10), &key(1)), Some(&answer(1, 3)));
        assert_eq!(memory.get(later(10), &key(2)), None);
        let other = Key { content: 1, ..key(1) };
        assert_eq!(memory.get(later(10), &other), None);
        assert_eq!(memory.get(later(11), &key(1)), None);
        assert_eq!(memory.bytes, 0);
    }

    #[test]
    fn an_answer_larger_than_the_memory_evicts_nothing() {
        let limits = MemoryLimits { entries: 9, bytes: 999, age: Duration::from_secs(10) };
        let mut memory = Memory::new(limits);
        let now = Instant::now();
        memory.insert(now, key(1), answer(1, 3));
        memory.insert(now, key(2), answer(2, 1000));
        assert!(memory.get(now, &key(2)).is_none());
        assert!(memory.get(now, &key(1)).is_some());
    }

    #[test]
    fn refused_topics_are_few_and_forgotten_in_time() {
        let limits = MemoryLimits { entries: 2, bytes: 0, age: Duration::from_secs(10) };
        let (mut refusals, start) = (Refusals::new(limits), Instant::now());
        for topic in ["a", "b", "b", "c"] {
            refusals.insert(start, topic.to_owned());
        }
        let later = start + Duration::from_secs(10);
        let known = |refusals: &mut Refusals, now| {
            ["a", "b", "c"].map(|topic| refusals.contains(now, topic))
        };
        assert_eq!(known(&mut refusals, later), [false, true, true]);
        assert_eq!(known(&mut refusals, later + Duration::from_secs(1)), [false; 3]);
    }

    proptest! {
        #[test]
        fn the_memory_keeps_its_bounds_and_never_mixes_answers(
            events in proptest::collection::vec((0_u8..20, 0_usize..600, 0_u64..4), 0..200),
        ) {
            let limits = MemoryLimits { entries: 5, bytes: 2000, age: Duration::from_secs(6) };
            let mut memory = Memory::new(limits);
            let mut now = Instant::now();
            let mut last = HashMap::new();
            for (name, bytes, wait) in events {
                now += Duration::from_secs(wait);
                if let Some(found) = memory.get(now, &key(name)) {
                    let (at, given) = &last[&name];
                    prop_assert_eq!(found, given);
                    prop_assert!(now.duration_since(*at) <= limits.age);
                } else {
                    last.insert(name, (now, answer(name, bytes)));
                    memory.insert(now, key(name), answer(name, bytes));
                }
                prop_assert!(memory.answers.len() <= limits.entries);
                prop_assert_eq!(memory.answers.len(), memory.order.len());
                let held = memory.answers.iter().map(|(key, answer)| size(key, answer));
                prop_assert_eq!(memory.bytes, held.sum::<usize>());
                prop_assert!(memory.bytes <= limits.bytes);
            }
        }
    }
}
