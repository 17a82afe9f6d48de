//! What activators say: how many requests they hold and have sent, and how revisions did. Each
//! is listened to all the time, so that a held request starts a pod at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::http::Asker;
use super::queue::{Key, Queue};
use crate::activator::demand::{Line, Numbers, RevisionDemand};
use crate::compare::Counters;
use crate::revision::RevisionName;

/// The port on which an activator tells.
const PORT: u16 = 9090;

/// How long an activator may be silent: it says something every two seconds.
const SILENCE: Duration = Duration::from_secs(10);

/// How long to wait before an activator that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Longest line of an activator: a Model with all of its revisions.
const MAX_LINE: usize = 256 << 10;

/// What all activators say of one Model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    pub held: u32,
    pub sent: u32,
    /// Requests that have come since somebody began to count.
    pub total: u64,
    pub revisions: BTreeMap<RevisionName, Counters>,
}

/// What each activator has said last.
type Said = Arc<Mutex<BTreeMap<IpAddr, BTreeMap<Key, Demand>>>>;

/// Listens to activators.
pub struct Demands {
    asker: Asker,
    queue: Queue,
    said: Said,
    listening: Mutex<BTreeMap<IpAddr, JoinHandle<()>>>,
}

// === impl Demands ===

impl Demands {
    pub fn new(asker: Asker, queue: Queue) -> Self {
        Self { asker, queue, said: Said::default(), listening: Mutex::default() }
    }

    /// Listen to these activators, and to no others.
    pub fn listen(&self, activators: &[IpAddr]) {
        let mut listening = self.listening.lock();
        listening.retain(|activator, task| {
            let stays = activators.contains(activator);
            if !stays {
                task.abort();
                self.said.lock().remove(activator);
            }
            stays
        });
        for activator in activators {
            listening.entry(*activator).or_insert_with(|| {
                let (asker, queue) = (self.asker.clone(), self.queue.clone());
                tokio::spawn(listen(asker, queue, Arc::clone(&self.said), *activator))
            });
        }
    }

    /// What they say of a Model together. None if none of them says anything at all.
    pub fn of(&self, key: &Key) -> Option<Demand> {
        let said = self.said.lock();
        if said.is_empty() {
            return None;
        }
        let mut all = Demand::default();
        for demand in said.values().filter_map(|models| models.get(key)) {
            all.held += demand.held;
            all.sent += demand.sent;
            all.total += demand.total;
            for (name, counters) in &demand.revisions {
                add(all.revisions.entry(name.clone()).or_default(), counters);
            }
        }
        Some(all)
    }
}

impl Drop for Demands {
    fn drop(&mut self) {
        for task in self.listening.lock().values() {
            task.abort();
        }
    }
}

fn add(to: &mut Counters, more: &Counters) {
    to.requests += more.requests;
    to.errors += more.errors;
    to.latency = to.latency.plus(&more.latency);
}

async fn listen(asker: Asker, queue: Queue, said: Said, activator: IpAddr) {
    loop {
        follow(&asker, &queue, &said, activator).await;
        // What it held is gone with its connection, if it is.
        said.lock().remove(&activator);
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads lines until the activator goes away, falls silent or says what can't be read.
async fn follow(asker: &Asker, queue: &Queue, said: &Said, activator: IpAddr) {
    let Some(response) = asker.open(activator, PORT, "/v1/demand").await else { return };
    said.lock().insert(activator, BTreeMap::new());
    let mut body = response.into_body().into_data_stream();
    let mut rest: Vec<u8> = Vec::new();
    while let Ok(Some(Ok(bytes))) = tokio::time::timeout(SILENCE, body.next()).await {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Some((key, demand)) = read(&line) else { continue };
            let held = demand.held;
            let before = said.lock().entry(activator).or_default().insert(key.clone(), demand);
            // What only goes on is seen at the next turn.
            if held > 0 && before.is_none_or(|before| before.held == 0) {
                queue.add(key).await;
            }
        }
        if rest.len() > MAX_LINE {
            tracing::warn!(%activator, "says a line of more than {MAX_LINE} bytes");
            return;
        }
    }
}

fn read(line: &[u8]) -> Option<(Key, Demand)> {
    let Line::Demand(said) = serde_json::from_slice(line).ok()? else { return None };
    let revisions = said.revisions.into_iter();
    let revisions = revisions
        .map(|revision| {
            let RevisionDemand { name, requests, errors, latency } = revision;
            (RevisionName::known(&name), Counters { requests, errors, latency })
        })
        .collect();
    let Numbers { held, sent, requests_total: total } = said.numbers;
    let key = Key { namespace: said.name.namespace, name: said.name.name };
    Some((key, Demand { held, sent, total, revisions }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activator::latency::Latency;

    #[test]
    fn lines_are_read_and_what_is_no_line_is_left_out() {
        let line = br#"{"namespace":"here","name":"m","held":2,"sent":1,"requests_total":9,
            "revisions":[{"name":"m-a","requests":9,"errors":1,"latency":{"buckets":[1,3,9]}}]}"#;
        let (key, demand) = read(line).unwrap();
        assert_eq!((key.namespace.as_str(), key.name.as_str()), ("here", "m"));
        assert_eq!((demand.held, demand.sent, demand.total), (2, 1, 9));
        assert_eq!(demand.revisions[&RevisionName::known("m-a")].latency.buckets, [1, 3, 9]);
        assert_eq!(read(b"{}\n"), None);
        assert_eq!(read(b"not json\n"), None);
    }

    #[test]
    fn what_several_say_is_added() {
        let mut sum = Counters::default();
        add(&mut sum, &Counters { requests: 1, errors: 0, latency: Latency { buckets: vec![1] } });
        add(
            &mut sum,
            &Counters { requests: 2, errors: 1, latency: Latency { buckets: vec![0, 2] } },
        );
        assert_eq!(
            sum,
            Counters { requests: 3, errors: 1, latency: Latency { buckets: vec![1, 2] } }
        );
    }
}
