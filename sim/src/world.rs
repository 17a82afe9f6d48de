//! The run: one queue of events, in the order of their times.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fastrand::Rng;
use wick_fleet::converge::{Effect, Event};
use wick_fleet::plan::Order;
use wick_fleet::wire::{self, Channel, State, Topic};
use wick_fleet::{Generation, Moment};
use wick_package::Digest;
use wick_package::signature::PrivateKey;

use crate::Outcome;
use crate::broker::Broker;
use crate::hub::Hub;
use crate::machine::Machine;
use crate::perform::{Luck, shown};

/// Until then there are faults, and from then on an hour without any.
const FAULTS: u64 = 40 * 60_000;
const END: u64 = FAULTS + 60 * 60_000;

/// How often the hub plans, and how often something is thrown at each site.
const TICK: u64 = 10_000;
const STRIKE: u64 = 60_000;

/// When the hub's clock started.
const EPOCH: u64 = 1_700_000_000_000;

/// Most events of a run. A run has some thousands; more means that something turns in a circle.
const MAX_EVENTS: u64 = 200_000;

enum What {
    /// At a site, if it was not restarted since.
    Site {
        at: usize,
        epoch: u64,
        event: Event,
    },
    /// A message of the broker's to a site.
    Deliver {
        at: usize,
        topic: Topic,
        bytes: Vec<u8>,
    },
    Wake {
        at: usize,
        epoch: u64,
    },
    Boot(usize),
    Connect(usize),
    Strike(usize),
    ToHub {
        topic: Topic,
        bytes: Vec<u8>,
    },
    /// Whether it is connected, as the broker tells it.
    Presence(usize),
    HubTick,
    HubStart,
    BrokerForgets,
}

struct World {
    rng: Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), What>,
    next: u64,
    hub: Hub,
    broker: Broker,
    machines: Vec<Machine>,
    log: String,
    traced: bool,
    outcome: Outcome,
}

/// Run one seed. `traced` keeps what happened as text.
pub fn run(seed: u64, traced: bool) -> Outcome {
    let mut world = World::new(seed, traced);
    let end = world.go().and_then(|()| world.rest());
    if let Err(what) = end {
        world.outcome.broken = Some(format!("at {} ms: {what}", world.now));
        world.note(&format!("BROKEN {what}"));
    }
    world.seal_log();
    world.outcome
}

// === impl World ===

impl World {
    fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let hub_key = PrivateKey::from_seed(&[1; 32]).public();
        let count = rng.usize(2..7);
        let machines: Vec<_> =
            (0..count).map(|at| Machine::new(at, hub_key.clone(), &mut rng)).collect();
        let sites: Vec<_> = machines.iter().map(|m| (m.name.clone(), m.key.public())).collect();
        let hub = Hub::new(&sites, &mut rng);
        let outcome = Outcome {
            broken: None,
            digest: Digest::of(b""),
            trace: String::new(),
            events: 0,
            activations: 0,
            refusals: 0,
            crashes: 0,
        };
        let mut world = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            next: 0,
            hub,
            broker: Broker::default(),
            machines,
            log: String::new(),
            traced,
            outcome,
        };
        for at in 0..count {
            world.at(0, What::Boot(at));
            world.at(STRIKE, What::Strike(at));
        }
        world.at(TICK, What::HubTick);
        let forgets = world.rng.u64(0..FAULTS * 2);
        if forgets < FAULTS {
            world.at(forgets, What::BrokerForgets);
        }
        world
    }

    fn at(&mut self, delay: u64, what: What) {
        self.queue.insert((self.now + delay, self.next), what);
        self.next += 1;
    }

    fn luck(&self) -> Luck {
        Luck { bad: self.now < FAULTS }
    }

    fn note(&mut self, what: &str) {
        let _ = writeln!(self.log, "{:>9} {what}", self.now);
        // Text grows; what it comes to does not.
        if !self.traced && self.log.len() > 1 << 16 {
            self.seal_log();
        }
    }

    fn seal_log(&mut self) {
        let before = self.outcome.digest.to_string();
        self.outcome.digest = Digest::of((before + &self.log).as_bytes());
        if self.traced {
            self.outcome.trace.push_str(&self.log);
        }
        self.log.clear();
    }

    fn go(&mut self) -> Result<(), String> {
        while let Some(((time, _), what)) = self.queue.pop_first() {
            if time > END {
                return Ok(());
            }
            self.now = time;
            self.outcome.events += 1;
            if self.outcome.events > MAX_EVENTS {
                return Err("there is no end of events".to_owned());
            }
            self.step(what)?;
        }
        Ok(())
    }

    fn step(&mut self, what: What) -> Result<(), String> {
        let hub_now = Moment::from_millis(EPOCH + self.now);
        match what {
            What::Site { at, epoch, event } => {
                let machine = &mut self.machines[at];
                if machine.epoch == epoch && machine.up && machine.happens(&event) {
                    self.event(at, event)?;
                }
            }
            What::Deliver { at, topic, bytes } => {
                if self.machines[at].up && self.machines[at].connected {
                    self.event(at, Event::Message { topic: topic.to_string(), bytes })?;
                }
            }
            What::Wake { at, epoch } => {
                if self.machines[at].epoch == epoch && self.machines[at].up {
                    self.event(at, Event::Tick)?;
                }
            }
            What::Boot(at) => self.boot(at)?,
            What::Connect(at) => self.connect(at),
            What::Strike(at) => self.strike(at)?,
            What::ToHub { topic, bytes } if self.hub.up => self.hub.observed(&topic, &bytes)?,
            What::Presence(at) if self.hub.up => {
                // What the broker keeps: the last that is true.
                let (name, online) = (self.machines[at].name.clone(), self.machines[at].connected);
                self.hub.presence(&name, online, hub_now);
            }
            What::ToHub { .. } | What::Presence(_) => {}
            What::HubTick => self.plan(hub_now)?,
            What::HubStart => self.start_hub(),
            What::BrokerForgets => self.forget(),
        }
        Ok(())
    }

    fn event(&mut self, at: usize, event: Event) -> Result<(), String> {
        let name = self.machines[at].name.clone();
        let shown = match &event {
            Event::Message { bytes, .. } => format!("message of {} bytes", bytes.len()),
            other => format!("{other:?}"),
        };
        self.note(&format!("{name} <- {shown}"));
        let effects = self.machines[at].handle(event, self.now);
        let effects = effects.map_err(|what| format!("{name}: {what}"))?;
        self.perform(at, effects)
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) -> Result<(), String> {
        let (luck, name) = (self.luck(), self.machines[at].name.clone());
        for effect in effects {
            // Power is lost between any two things that it does.
            if luck.once_in(&mut self.rng, 400) {
                self.crash(at);
                return Ok(());
            }
            self.note(&format!("{name} -> {}", shown(&effect)));
            let machine = &mut self.machines[at];
            let was = machine.routed_generation;
            let reply = machine.perform(effect, luck, &mut self.rng);
            let reply = reply.map_err(|what| format!("{name}: {what}"))?;
            machine.check().map_err(|what| format!("{name}: {what}"))?;
            self.outcome.activations += u64::from(machine.routed_generation != was);
            let epoch = machine.epoch;
            if let Some((delay, event)) = reply {
                if luck.once_in(&mut self.rng, 10) {
                    let again = What::Site { at, epoch, event: event.clone() };
                    self.at(delay + 500, again);
                }
                self.at(delay, What::Site { at, epoch, event });
            }
        }
        self.report(at)?;
        let machine = &self.machines[at];
        if let Some(due) = machine.site.due() {
            let (epoch, delay) = (machine.epoch, machine.global(due).saturating_sub(self.now));
            self.at(delay.max(1), What::Wake { at, epoch });
        }
        Ok(())
    }

    /// The last report goes out as soon as there is a connection.
    fn report(&mut self, at: usize) -> Result<(), String> {
        let machine = &mut self.machines[at];
        if !machine.connected {
            return Ok(());
        }
        let Some((generation, observed)) = &machine.report else { return Ok(()) };
        let topic = Topic::new(machine.name.clone(), Channel::Observed);
        let bytes = wire::seal(&topic, *generation, &**observed, &machine.key, &[]);
        let bytes = bytes.map_err(|refusal| refusal.to_string())?;
        if let Some(refused) = &observed.refused {
            self.outcome.refusals = self.outcome.refusals.max(refused.count);
        }
        if self.broker.retained.get(&topic) == Some(&bytes) {
            return Ok(());
        }
        self.broker.publish(&topic, &bytes);
        let delay = self.rng.u64(5..5000);
        self.at(delay, What::ToHub { topic, bytes });
        Ok(())
    }

    fn boot(&mut self, at: usize) -> Result<(), String> {
        if self.machines[at].up {
            return Ok(());
        }
        let name = self.machines[at].name.clone();
        self.note(&format!("{name} boots"));
        let effects = self.machines[at].boot(self.now);
        let effects = effects.map_err(|what| format!("{name}: {what}"))?;
        self.perform(at, effects)?;
        let delay = self.rng.u64(100..60_000);
        self.at(delay, What::Connect(at));
        Ok(())
    }

    fn crash(&mut self, at: usize) {
        let name = self.machines[at].name.clone();
        self.note(&format!("{name} crashes"));
        self.outcome.crashes += 1;
        self.machines[at].crash();
        let delay = self.rng.u64(1000..300_000);
        self.at(delay, What::Boot(at));
        self.at(2000, What::Presence(at));
    }

    fn connect(&mut self, at: usize) {
        if !self.machines[at].up || self.machines[at].connected {
            return;
        }
        self.machines[at].connected = true;
        self.note(&format!("{} connects", self.machines[at].name));
        self.at(100, What::Presence(at));
        let topic = Topic::new(self.machines[at].name.clone(), Channel::Desired);
        if let Some(bytes) = self.broker.retained.get(&topic).cloned() {
            self.send(at, topic, bytes);
        }
        // The report that the broker may not have.
        let epoch = self.machines[at].epoch;
        self.at(200, What::Wake { at, epoch });
    }

    fn disconnect(&mut self, at: usize) {
        self.machines[at].connected = false;
        self.note(&format!("{} is cut off", self.machines[at].name));
        self.at(2000, What::Presence(at));
        let delay = self.rng.u64(1000..600_000);
        self.at(delay, What::Connect(at));
    }

    /// To a site: late, twice, or not at all.
    fn send(&mut self, at: usize, topic: Topic, bytes: Vec<u8>) {
        let luck = self.luck();
        if luck.once_in(&mut self.rng, 6) {
            if self.machines[at].connected {
                self.disconnect(at);
            }
            return;
        }
        let slow = if luck.once_in(&mut self.rng, 5) { 120_000 } else { 2000 };
        let delay = self.rng.u64(5..slow);
        if luck.once_in(&mut self.rng, 5) {
            let (topic, bytes) = (topic.clone(), bytes.clone());
            self.at(delay + 40_000, What::Deliver { at, topic, bytes });
        }
        self.at(delay, What::Deliver { at, topic, bytes });
    }

    /// What happens to a site for no reason of its own.
    fn strike(&mut self, at: usize) -> Result<(), String> {
        if self.now >= FAULTS {
            return Ok(());
        }
        self.at(STRIKE, What::Strike(at));
        match self.rng.u32(0..12) {
            0 if self.machines[at].up => self.crash(at),
            1 if self.machines[at].connected => self.disconnect(at),
            2 | 3 => self.forge(at),
            4 => {
                let machine = &self.machines[at];
                let some: Vec<_> = machine.running.keys().cloned().collect();
                let epoch = machine.epoch;
                if let Some(version) = self.rng.choice(some) {
                    self.at(1, What::Site { at, epoch, event: Event::Died { version } });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Somebody sends what the hub did not: old, of another site, cut, changed, or of another key.
    fn forge(&mut self, at: usize) {
        let own = Topic::new(self.machines[at].name.clone(), Channel::Desired);
        let Some((topic, mut bytes)) = self.rng.choice(self.broker.old.clone()) else { return };
        match self.rng.u32(0..4) {
            0 => bytes.truncate(self.rng.usize(0..bytes.len())),
            1 => {
                let place = self.rng.usize(0..bytes.len());
                bytes[place] ^= 1 << self.rng.u32(0..8);
            }
            2 => {
                let models = Vec::new();
                let body = wire::Desired { models, rollout: None };
                let key = PrivateKey::from_seed(&[9; 32]);
                bytes = wire::seal(&own, Generation(1000), &body, &key, &[]).unwrap_or_default();
            }
            _ => {}
        }
        let topic = if self.rng.bool() { own } else { topic };
        self.at(1, What::Deliver { at, topic, bytes });
    }

    fn plan(&mut self, now: Moment) -> Result<(), String> {
        self.at(TICK, What::HubTick);
        let luck = self.luck();
        if !self.hub.up {
            return Ok(());
        }
        if luck.once_in(&mut self.rng, 60) {
            self.stop_hub();
            return Ok(());
        }
        let mut orders = Vec::new();
        if luck.once_in(&mut self.rng, 20) {
            if let Some(name) = self.rng.choice(self.hub.names()) {
                let make = [Order::Pause, Order::Resume, Order::Abort, Order::Retry];
                orders.push(make[self.rng.usize(0..make.len())](name));
            }
        } else if !luck.bad {
            orders.extend(self.hub.names().into_iter().map(Order::Resume));
        }
        let said = self.hub.tick(&orders, now, self.now)?;
        // Between what it wrote down and what it publishes.
        if luck.once_in(&mut self.rng, 60) {
            self.stop_hub();
            return Ok(());
        }
        for (topic, bytes) in said {
            self.note(&format!("hub -> {topic} {} bytes", bytes.len()));
            self.broker.publish(&topic, &bytes);
            let at = self.machines.iter().position(|machine| machine.name == topic.site);
            if let Some(at) = at.filter(|at| self.machines[*at].connected) {
                self.send(at, topic, bytes);
            }
        }
        Ok(())
    }

    fn stop_hub(&mut self) {
        self.note("hub crashes");
        self.hub.crash();
        let delay = self.rng.u64(1000..120_000);
        self.at(delay, What::HubStart);
    }

    fn start_hub(&mut self) {
        self.note("hub starts");
        self.hub.start();
        self.catch_up();
    }

    /// What the broker has kept for the hub.
    fn catch_up(&mut self) {
        for at in 0..self.machines.len() {
            self.at(50, What::Presence(at));
            let topic = Topic::new(self.machines[at].name.clone(), Channel::Observed);
            if let Some(bytes) = self.broker.retained.get(&topic).cloned() {
                self.at(60, What::ToHub { topic, bytes });
            }
        }
    }

    fn forget(&mut self) {
        self.note("the broker restarts, and has kept nothing");
        self.broker.forget();
        for at in 0..self.machines.len() {
            if self.machines[at].connected {
                self.disconnect(at);
            }
        }
        // Its connection is a new one, too.
        self.hub.fresh = true;
    }

    /// Whether everything has come to rest, with every site where the plan wants it.
    fn rest(&self) -> Result<(), String> {
        if !self.hub.is_done() {
            return Err(format!("rollouts have no end:\n{}", self.hub.plan));
        }
        for machine in &self.machines {
            let name = &machine.name;
            let target = self.hub.plan.sites.get(name).map(|target| target.generation);
            let target = target.unwrap_or_default();
            let state = machine.site.state();
            let there = machine.routed_generation == target
                && machine.site.active().unwrap_or_default() == target
                && (state == State::Converged || target == Generation::default());
            if !there {
                let has = machine.routed_generation;
                return Err(format!("{name} is {state:?} with {has}, and is to have {target}"));
            }
            let seen = self.hub.seen.get(name).map(|seen| seen.generation);
            if seen != Some(target) {
                return Err(format!("the hub believes that {name} has {seen:?}, not {target}"));
            }
            for version in &machine.routed {
                if !machine.running.get(version).is_some_and(|runs| runs.ready) {
                    return Err(format!("{name}: {version} has traffic, and is not ready"));
                }
            }
        }
        Ok(())
    }
}
