//! A site's machine: what really runs and lies there, whatever the site believes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use wick_fleet::converge::{Effect, Event, Kept, Settings, Site, Version};
use wick_fleet::wire::KeyRing;
use wick_fleet::{Generation, Model, Moment, SiteName};
use wick_package::Digest;
use wick_package::signature::{PrivateKey, PublicKey};

const MIB: u64 = 1 << 20;

/// Two models and the next version of one fit, and little more.
pub(crate) const MEMORY: u64 = 450 * MIB;
pub(crate) const DISK: u64 = 420 * MIB;

/// The version that never gets ready.
const BAD: u8 = 3;

pub(crate) struct Machine {
    pub(crate) name: SiteName,
    pub(crate) key: PrivateKey,
    pub(crate) site: Site,
    pub(crate) up: bool,
    pub(crate) connected: bool,
    /// Counts starts: what was under way before one never comes.
    pub(crate) epoch: u64,
    /// What is on its disk.
    pub(crate) kept: Vec<u8>,
    pub(crate) stored: BTreeMap<Digest, u64>,
    pub(crate) flights: BTreeMap<Digest, u64>,
    pub(crate) running: BTreeMap<Version, Runs>,
    /// What has the traffic.
    pub(crate) routed: BTreeSet<Version>,
    pub(crate) routed_generation: Generation,
    /// Pods that outlive the agent, as in a cluster; else they end with it.
    pub(crate) survives: bool,
    /// The last report, until the broker has it.
    pub(crate) report: Option<(Generation, Box<wick_fleet::wire::Observed>)>,
    /// By which its clock is off, and how many thousandths of a second its seconds have.
    offset: u64,
    rate: u64,
}

pub(crate) struct Runs {
    pub(crate) model: Model,
    pub(crate) ready: bool,
}

/// A version of a model that machines can have.
pub(crate) fn model(name: &str, version: u8) -> Model {
    Model {
        name: name.parse().expect("it is a label"),
        image: format!("registry.example/{name}"),
        digest: Digest::of(format!("{name} {version}").as_bytes()),
        bytes: (80 + u64::from(version) * 10) * MIB,
        memory: (100 + u64::from(version) * 5) * MIB,
    }
}

pub(crate) fn is_bad(model: &Model) -> bool {
    model.digest == self::model(model.name.as_str(), BAD).digest
}

fn settings() -> Settings {
    Settings {
        fetch: Duration::from_secs(300),
        stage: Duration::from_secs(60),
        activate: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        retry: Duration::from_secs(5),
        retry_most: Duration::from_secs(60),
        ..Settings::new(MEMORY, DISK)
    }
}

// === impl Machine ===

impl Machine {
    pub(crate) fn new(at: usize, hub: PublicKey, rng: &mut Rng) -> Self {
        let name: SiteName = format!("site-{at}").parse().expect("it is a label");
        let kept = Kept::enrolled(KeyRing::new(1, vec![hub]).expect("one key is a ring"));
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        Self {
            site: Site::new(name.clone(), settings(), kept.clone()),
            name,
            key: PrivateKey::from_seed(&seed),
            up: false,
            connected: false,
            epoch: 0,
            kept: serde_json::to_vec(&kept).expect("what is kept has text keys"),
            stored: BTreeMap::new(),
            flights: BTreeMap::new(),
            running: BTreeMap::new(),
            routed: BTreeSet::new(),
            routed_generation: Generation::default(),
            survives: rng.bool(),
            report: None,
            // Up to a year off.
            offset: rng.u64(0..2 * 365 * 86_400_000),
            rate: rng.u64(990..=1010),
        }
    }

    /// What its clock shows.
    pub(crate) fn local(&self, now: u64) -> Moment {
        Moment::from_millis(self.offset + now * self.rate / 1000)
    }

    /// When its clock shows this, or just after.
    pub(crate) fn global(&self, local: Moment) -> u64 {
        (local.millis().saturating_sub(self.offset) * 1000).div_ceil(self.rate)
    }

    pub(crate) fn crash(&mut self) {
        (self.up, self.connected) = (false, false);
        self.epoch += 1;
        self.flights.clear();
        self.report = None;
        if !self.survives {
            self.running.clear();
            self.routed.clear();
        }
    }

    /// Start from what was kept.
    pub(crate) fn boot(&mut self, now: u64) -> Result<Vec<Effect>, String> {
        let kept = serde_json::from_slice(&self.kept).map_err(|error| error.to_string())?;
        self.up = true;
        self.site = Site::new(self.name.clone(), settings(), kept);
        // What did not get ready before is no use now.
        self.running.retain(|_, runs| runs.ready);
        let running = self.running.values().map(|runs| runs.model.clone()).collect();
        let stored = self.stored.iter().map(|(digest, bytes)| (*digest, *bytes)).collect();
        self.handle(Event::Booted { running, stored }, now)
    }

    pub(crate) fn handle(&mut self, event: Event, now: u64) -> Result<Vec<Effect>, String> {
        let local = self.local(now);
        let effects = self.site.handle(event, local);
        self.site.check().map_err(|broken| broken.to_string())?;
        if let Some(due) = self.site.due()
            && due <= local
        {
            return Err("it is due in the past".to_owned());
        }
        Ok(effects)
    }

    /// Whether everything that is served runs, and no more is there than there is room for.
    pub(crate) fn check(&self) -> Result<(), String> {
        let memory: u64 = self.running.values().map(|runs| runs.model.memory).sum();
        let disk: u64 = self.stored.values().chain(self.flights.values()).sum();
        if memory > MEMORY {
            return Err(format!("{memory} bytes of memory are used"));
        }
        if disk > DISK {
            return Err(format!("{disk} bytes of disk are used"));
        }
        Ok(())
    }
}
