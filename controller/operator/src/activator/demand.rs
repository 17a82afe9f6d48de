//! What is asked of Models, as an activator tells the operator: a stream of JSON lines.
//!
//! The first request that waits for a Model is told at once, since a pod must start; everything
//! else as often as an average needs it. [`Feed`] decides what is due, and [`Line`] is what
//! both sides know.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::table::ModelName;

/// How often changed numbers are told.
pub const EVERY: Duration = Duration::from_millis(500);

/// How often a word comes if nothing changes, so that silence is a fault.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Demand(Demand),
    /// Nothing more to say; how many Models are known.
    Heartbeat {
        heartbeat: usize,
    },
}

/// What is asked of one Model. Counts begin with the activator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    #[serde(flatten)]
    pub name: ModelName,
    #[serde(flatten)]
    pub numbers: Numbers,
    #[serde(default)]
    pub revisions: Vec<RevisionDemand>,
}

/// What the stream looks at to see whether something changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Requests that wait for a pod.
    pub held: u32,
    /// Requests at pods.
    pub sent: u32,
    /// All that came.
    pub requests_total: u64,
}

/// How a revision's requests ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionDemand {
    pub name: String,
    pub requests: u64,
    pub errors: u64,
    /// From sending a request to the head of its answer.
    pub latency: Latency,
}

/// Decides what is due on one stream.
#[derive(Debug, Default)]
pub struct Feed {
    told: BTreeMap<ModelName, Numbers>,
}

// === impl Feed ===

impl Feed {
    /// Models for which somebody waits and that the other side knows nobody to wait for.
    pub fn urgent<'a>(
        &mut self,
        now: impl Iterator<Item = (&'a ModelName, Numbers)>,
    ) -> Vec<ModelName> {
        self.due(now, |told, now| now.held > 0 && told.is_none_or(|told| told.held == 0))
    }

    /// Models whose numbers are others than those that were told. Those that are gone are
    /// forgotten.
    pub fn changed<'a>(
        &mut self,
        now: impl Iterator<Item = (&'a ModelName, Numbers)>,
    ) -> Vec<ModelName> {
        let now: BTreeMap<_, _> = now.collect();
        self.told.retain(|name, _| now.contains_key(name));
        self.due(now.into_iter(), |told, now| told != Some(now))
    }

    fn due<'a>(
        &mut self,
        now: impl Iterator<Item = (&'a ModelName, Numbers)>,
        is_due: impl Fn(Option<Numbers>, Numbers) -> bool,
    ) -> Vec<ModelName> {
        let mut due = Vec::new();
        for (name, numbers) in now {
            if is_due(self.told.get(name).copied(), numbers) {
                self.told.insert(name.clone(), numbers);
                due.push(name.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ModelName {
        ModelName { namespace: "ns".to_owned(), name: name.to_owned() }
    }

    fn numbers(held: u32, sent: u32, requests_total: u64) -> Numbers {
        Numbers { held, sent, requests_total }
    }

    /// Lines such as `tick a:1/0/1 b:0/0/0 -> a b`.
    fn check(script: &str) {
        let mut feed = Feed::default();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (given, golden) = line.split_once("->").unwrap();
            let mut words = given.split_whitespace();
            let what = words.next().unwrap();
            let models: Vec<(ModelName, Numbers)> = words
                .map(|word| {
                    let (model, rest) = word.split_once(':').unwrap();
                    let n: Vec<u32> = rest.split('/').map(|n| n.parse().unwrap()).collect();
                    (name(model), numbers(n[0], n[1], u64::from(n[2])))
                })
                .collect();
            let now = models.iter().map(|(name, numbers)| (name, *numbers));
            let due = if what == "tick" { feed.changed(now) } else { feed.urgent(now) };
            let due: Vec<String> = due.into_iter().map(|name| name.name).collect();
            assert_eq!(due.join(" "), golden.trim(), "{line}");
        }
    }

    #[test]
    fn the_first_that_waits_is_told_at_once_and_the_rest_by_and_by() {
        check(
            "tick   a:0/0/0 b:0/0/0 -> a b
             tick   a:0/0/0 b:0/0/0 ->
             urgent a:1/0/1 b:0/0/0 -> a
             urgent a:2/0/2 b:0/0/0 ->
             tick   a:2/0/2 b:0/1/1 -> a b
             tick   a:0/2/2 b:0/0/1 -> a b
             urgent a:0/2/2 b:5/0/6 -> b
             tick   b:5/0/6         ->
             tick   a:0/2/2 b:5/0/6 -> a
             urgent a:0/2/2 b:5/0/6 c:1/0/1 -> c",
        );
    }

    #[test]
    fn lines_are_what_the_operator_reads() {
        let demand = Demand {
            name: name("m"),
            numbers: numbers(1, 2, 3),
            revisions: vec![RevisionDemand {
                name: "m-1".to_owned(),
                requests: 2,
                errors: 1,
                latency: Latency { buckets: vec![0, 2] },
            }],
        };
        let golden = r#"{"namespace":"ns","name":"m","held":1,"sent":2,"requests_total":3,"revisions":[{"name":"m-1","requests":2,"errors":1,"latency":{"buckets":[0,2]}}]}"#;
        let lines = [
            (Line::Demand(demand), golden),
            (Line::Heartbeat { heartbeat: 7 }, r#"{"heartbeat":7}"#),
        ];
        for (line, golden) in lines {
            assert_eq!(serde_json::to_string(&line).unwrap(), golden);
            assert_eq!(serde_json::from_str::<Line>(golden).unwrap(), line);
        }
    }
}
