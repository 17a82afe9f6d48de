//! What becomes of pods, and when, as an API server tells whoever watches them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use parking_lot::Mutex;
use wick_e2e::kubectl::Kubectl;

use super::watch::Watch;

/// What is printed of a pod at each change.
const COLUMNS: &str = "jsonpath={.metadata.name}|{.spec.nodeName}|{.status.podIP}{\"\\n\"}";

/// Between two looks at what has come.
const LOOK: Duration = Duration::from_millis(2);

/// When a pod was first seen so.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    pub made: Instant,
    /// It has a node.
    pub placed: Option<Instant>,
    /// Its sandbox runs.
    pub addressed: Option<(Instant, IpAddr)>,
}

/// The pods of a namespace, watched until this is dropped.
pub struct Pods {
    seen: Arc<Mutex<BTreeMap<String, Steps>>>,
    _watch: Watch,
}

// === impl Pods ===

impl Pods {
    /// Watch the pods of a namespace that have this label.
    pub fn watch(kubectl: &Kubectl, namespace: &str, selector: &str) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&seen);
        let words = ["pods", "-l", selector, "-o", COLUMNS];
        let watch = Watch::start(kubectl, namespace, &words, move |line, now| {
            note(&mut noted.lock(), line, now);
        })?;
        Ok(Self { seen, _watch: watch })
    }

    /// The first pod that was made after `since`, if there is one yet.
    pub fn made_after(&self, since: Instant) -> Option<Steps> {
        let seen = self.seen.lock();
        seen.values().filter(|steps| steps.made >= since).min_by_key(|steps| steps.made).copied()
    }

    /// How many were made after `since`.
    pub fn count_after(&self, since: Instant) -> usize {
        self.seen.lock().values().filter(|steps| steps.made >= since).count()
    }

    /// Wait until a pod that was made after `since` has an address.
    pub fn wait_address(&self, since: Instant, limit: Duration) -> anyhow::Result<IpAddr> {
        while since.elapsed() < limit {
            if let Some((_, ip)) = self.made_after(since).and_then(|steps| steps.addressed) {
                return Ok(ip);
            }
            thread::sleep(LOOK);
        }
        bail!("no pod had an address within {limit:?}")
    }
}

fn note(seen: &mut BTreeMap<String, Steps>, line: &str, now: Instant) {
    let mut columns = line.split('|');
    let Some(name) = columns.next() else { return };
    let steps =
        seen.entry(name.to_owned()).or_insert(Steps { made: now, placed: None, addressed: None });
    if columns.next().is_some_and(|node| !node.is_empty()) {
        steps.placed.get_or_insert(now);
    }
    if let Some(ip) = columns.next().and_then(|ip| ip.parse().ok()) {
        steps.addressed.get_or_insert((now, ip));
    }
}
