//! One Model in the activator: its traffic, the requests that wait for it or are at its pods,
//! and what is counted of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, watch};

use super::choose::{self, Weighted};
use super::cold::Cold;
use super::demand::{Demand, Numbers, RevisionDemand};
use super::hold::{MAX_UNANSWERED, Room};
use super::latency::Counts;
use super::pod::Pod;
use super::refusal::Refusal;
use super::sent::Code;
use super::table::{First, ModelName, Route, Share};

/// What a Model's requests do now.
pub struct Traffic {
    pub route: Route,
    revisions: Vec<(u8, Arc<Revision>, Vec<Arc<Pod>>)>,
}

/// What is counted of a revision.
pub struct Revision {
    pub name: String,
    requests: AtomicU64,
    errors: AtomicU64,
    pub latency: Counts,
    codes: Mutex<BTreeMap<Code, u64>>,
}

/// Where a request goes.
#[derive(Clone)]
pub struct Target {
    pub revision: Arc<Revision>,
    pub pod: Arc<Pod>,
}

/// See the module.
pub struct Model {
    pub name: ModelName,
    traffic: ArcSwap<Traffic>,
    held: AtomicU32,
    sent: AtomicU32,
    requests: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Whoever is held waits here, first come, first served.
    pub waiting: Notify,
    /// That there is something to probe.
    pub probing: Notify,
    /// Whether clients' connections must end.
    closing: watch::Sender<bool>,
    gone: AtomicBool,
    pub cold: Cold,
    /// Those of the present traffic.
    revisions: Mutex<BTreeMap<String, Arc<Revision>>>,
}

// === impl Model ===

impl Model {
    pub fn new(name: ModelName, route: Route, threads: usize) -> Self {
        let closing = watch::Sender::new(route.close);
        let empty =
            Traffic { route: Route { revisions: Vec::new(), ..route }, revisions: Vec::new() };
        let model = Self {
            name,
            traffic: ArcSwap::from_pointee(empty),
            held: AtomicU32::new(0),
            sent: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            refused: Mutex::default(),
            waiting: Notify::new(),
            probing: Notify::new(),
            closing,
            gone: AtomicBool::new(false),
            cold: Cold::default(),
            revisions: Mutex::default(),
        };
        model.set(route, threads);
        model
    }

    /// Take over a new route. Pods and counters of before stay what they are.
    pub fn set(&self, route: Route, threads: usize) {
        let before = self.traffic.load();
        let pods = before.revisions.iter().flat_map(|(_, _, pods)| pods);
        let known: BTreeMap<SocketAddr, &Arc<Pod>> = pods.map(|pod| (pod.address, pod)).collect();
        let mut counted = self.revisions.lock();
        counted.retain(|name, _| route.revisions.iter().any(|share| share.name == *name));
        let mut revisions = Vec::with_capacity(route.revisions.len());
        let now = Instant::now();
        for Share { name, weight, first, pods } in &route.revisions {
            if *weight > 0 {
                match first {
                    First::None => {}
                    First::Made => self.cold.made(now),
                    First::Placed => self.cold.placed(now),
                }
            }
            let revision =
                counted.entry(name.clone()).or_insert_with(|| Arc::new(Revision::new(name)));
            let pods = pods.iter().map(|pod| match known.get(&pod.address) {
                Some(&known) => {
                    known.list(pod.ready);
                    Arc::clone(known)
                }
                None => Arc::new(Pod::new(pod.address, pod.ready, threads)),
            });
            revisions.push((*weight, Arc::clone(revision), pods.collect()));
        }
        drop(counted);
        self.closing.send_if_modified(|now| std::mem::replace(now, route.close) != route.close);
        let in_vain = !route.hold;
        self.traffic.store(Arc::new(Traffic { route, revisions }));
        if in_vain {
            self.waiting.notify_waiters();
        }
        self.wake();
        self.probing.notify_one();
    }

    pub fn traffic(&self) -> arc_swap::Guard<Arc<Traffic>> {
        self.traffic.load()
    }

    /// A pod for a request. One that was held is let through only as far as pods answer.
    pub fn choose(&self, held: bool) -> Option<Target> {
        let traffic = self.traffic.load();
        let usable = |pod: &Pod| pod.is_usable() && (!held || pod.unanswered() < MAX_UNANSWERED);
        let shares = traffic.revisions.iter().map(|(weight, _, pods)| Weighted {
            weight: *weight,
            usable: pods.iter().any(|pod| usable(pod)),
        });
        let index = choose::revision(shares, fastrand::u32(..))?;
        let (_, revision, pods) = &traffic.revisions[index];
        let pods: SmallVec<[&Arc<Pod>; 8]> = pods.iter().filter(|pod| usable(pod)).collect();
        let rolls = [fastrand::usize(..), fastrand::usize(..)];
        let pod = choose::pod(pods.len(), rolls, |index| pods[index].in_flight())?;
        Some(Target { revision: Arc::clone(revision), pod: Arc::clone(pods[pod]) })
    }

    /// Pods that might get requests if they were ready.
    pub fn unproven(&self) -> Vec<Arc<Pod>> {
        let traffic = self.traffic.load();
        let shares = traffic.revisions.iter().filter(|(weight, _, _)| *weight > 0);
        let pods = shares.flat_map(|(_, _, pods)| pods);
        pods.filter(|pod| !pod.is_usable()).map(Arc::clone).collect()
    }

    /// Let as many of those that wait look again as pods may take.
    pub fn wake(&self) {
        let traffic = self.traffic.load();
        let pods = traffic.revisions.iter().filter(|(weight, _, _)| *weight > 0);
        let usable = pods.flat_map(|(_, _, pods)| pods).filter(|pod| pod.is_usable());
        let places: u32 = usable.map(|pod| MAX_UNANSWERED.saturating_sub(pod.unanswered())).sum();
        if places > 0 {
            self.cold.ready(Instant::now());
        }
        for _ in 0..places.min(self.held()) {
            self.waiting.notify_one();
        }
    }

    pub fn room(&self, held_in_all: u32) -> Room {
        let traffic = self.traffic.load();
        Room {
            hold: traffic.route.hold,
            held: self.held(),
            max_held: traffic.route.max_held,
            held_in_all,
        }
    }

    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Acquire)
    }

    /// A request begins to wait: how many did before.
    pub fn hold(&self) -> u32 {
        self.held.fetch_add(1, Ordering::AcqRel)
    }

    pub fn release(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn arrive(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn begin(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
    }

    /// A pod has answered, and may have the next of those that wait.
    pub fn answered(&self) {
        self.cold.answered();
        if self.held() > 0 {
            self.waiting.notify_one();
        }
    }

    pub fn end(&self) {
        self.sent.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn refuse(&self, refusal: Refusal) {
        *self.refused.lock().entry(refusal.code()).or_default() += 1;
    }

    /// The Model is no more: nobody waits for it.
    pub fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.closing.send_replace(true);
        self.waiting.notify_waiters();
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    pub fn numbers(&self) -> Numbers {
        Numbers {
            held: self.held(),
            sent: self.sent.load(Ordering::Acquire),
            requests_total: self.requests.load(Ordering::Relaxed),
        }
    }

    pub fn demand(&self) -> Demand {
        let revisions = self.revisions.lock();
        let revisions = revisions.values().map(|revision| RevisionDemand {
            name: revision.name.clone(),
            requests: revision.requests.load(Ordering::Relaxed),
            errors: revision.errors.load(Ordering::Relaxed),
            latency: revision.latency.read(),
        });
        Demand { name: self.name.clone(), numbers: self.numbers(), revisions: revisions.collect() }
    }

    /// Answers by revision and code.
    pub fn codes(&self) -> Vec<(String, BTreeMap<Code, u64>)> {
        let revisions = self.revisions.lock();
        revisions.values().map(|one| (one.name.clone(), one.codes.lock().clone())).collect()
    }

    /// What the activator answered itself, by its reason.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }
}

// === impl Revision ===

impl Revision {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latency: Counts::default(),
            codes: Mutex::default(),
        }
    }

    pub fn count(&self, code: Code, error: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if error {
            self.error();
        }
        *self.codes.lock().entry(code).or_default() += 1;
    }

    pub fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
