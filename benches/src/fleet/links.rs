//! A thousand real agents in this process, each with its own folder, key and connection to one real
//! mosquitto: from the moment at which the hub publishes what they are to have until their report
//! that they have it. No bytes move: their target has everything at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event as Incoming, EventLoop, MqttOptions};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wick_agent::target::{Events, Found, Target, TargetError};
use wick_agent::{Agent, AgentSettings};
use wick_fleet::converge::{Event, Kept, Version};
use wick_fleet::wire::{Channel, Desired, KeyRing, Observed, State, Topic, open, seal};
use wick_fleet::{Generation, Model, SiteName};
use wick_package::Digest;
use wick_package::signature::PrivateKey;

use crate::bar::report;
use crate::stats::{median, quantile, round};

use super::broker::{Broker, enrol};

pub const CONVERGE: &str = "converge-p99-s";

const SITES: usize = 1000;

/// Changes of all sites; the bar is over all of them.
const ROUNDS: u64 = 5;

/// Longest until all are connected, and until all have converged.
const LIMIT: Duration = Duration::from_secs(120);

const LOOK: Duration = Duration::from_millis(50);

/// Messages that wait for the hub's connection.
const REQUESTS: usize = 4096;

/// A target that has whatever it is asked for.
struct Still(Events);

/// What the hub has heard: who is connected, and when each had converged to which generation.
#[derive(Default)]
struct Heard {
    rings: BTreeMap<SiteName, KeyRing>,
    converged: BTreeMap<SiteName, (Generation, Instant)>,
    reports: usize,
}

pub fn converge() -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let detail = runtime.block_on(measure(scratch.path(), &broker));
    runtime.shutdown_timeout(Duration::from_secs(10));
    detail
}

async fn measure(folder: &Path, broker: &Broker) -> anyhow::Result<()> {
    let key = PrivateKey::from_seed(&[7; 32]);
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let stop = CancellationToken::new();
    let mut options = MqttOptions::new("hub", "127.0.0.1", broker.addr.port());
    options.set_max_packet_size(Some(1 << 20));
    let (client, connection) = AsyncClient::new(options, REQUESTS);
    tokio::spawn(hear(client.clone(), connection, Arc::clone(&heard)));
    let mut agents = JoinSet::new();
    let mut names = Vec::with_capacity(SITES);
    for number in 0..SITES {
        let name: SiteName = format!("site-{number:04}").parse()?;
        let agent = enrolled(folder, &name, broker, &key, &heard)?;
        let target = Still(agent.events());
        let ending = stop.clone();
        agents.spawn(async move { agent.run(target, ending, |_| {}).await });
        names.push(name);
    }
    eprintln!("fleet: {SITES} agents are starting");
    until("reports of all sites", || heard.lock().reports >= SITES).await?;
    let mut took = Vec::new();
    for round in 1..=ROUNDS {
        let generation = Generation(round);
        let mut said = BTreeMap::new();
        for name in &names {
            let topic = Topic::new(name.clone(), Channel::Desired);
            let desired = Desired { models: vec![model(round)], rollout: None };
            let bytes = seal(&topic, generation, &desired, &key, &[])?;
            said.insert(name.clone(), Instant::now());
            client.publish(topic.to_string(), QoS::AtLeastOnce, true, bytes).await?;
        }
        let there =
            |heard: &Heard| heard.converged.values().filter(|one| one.0 == generation).count();
        until("convergence of all sites", || there(&heard.lock()) == SITES).await?;
        let heard = heard.lock();
        for (name, (_, at)) in &heard.converged {
            let since = said.get(name).context("a site that nobody spoke to")?;
            took.push(at.duration_since(*since).as_secs_f64());
        }
        eprintln!("fleet: change {round} of {ROUNDS}: p99 so far {:.3} s", quantile(&took, 0.99));
    }
    stop.cancel();
    while agents.join_next().await.is_some() {}
    let detail = json!({
        "sites": SITES, "changes": ROUNDS, "p50_s": round(median(&took)),
        "most_s": round(quantile(&took, 1.0)), "link": "MQTT 5 without TLS, on loopback",
    });
    report(CONVERGE, quantile(&took, 0.99), "s", detail);
    Ok(())
}

fn model(version: u64) -> Model {
    Model { digest: Digest::of(&version.to_le_bytes()), ..super::model(1) }
}

async fn until(what: &str, is_it: impl Fn() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_it() {
        ensure!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// A site as it is after enrolment, and its agent.
fn enrolled(
    folder: &Path,
    name: &SiteName,
    broker: &Broker,
    hub: &PrivateKey,
    heard: &Mutex<Heard>,
) -> anyhow::Result<Agent> {
    let (home, key) = enrol(&folder.join(name.as_str()), name, broker.addr, hub)?;
    heard.lock().rings.insert(name.clone(), KeyRing::new(1, vec![key.public()])?);
    let control = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = AgentSettings { converge: None, telemetry: Duration::from_secs(60), control };
    Ok(Agent::open(home, settings)?)
}

/// Be the hub's ear until the connection ends.
async fn hear(client: AsyncClient, mut connection: EventLoop, heard: Arc<Mutex<Heard>>) {
    loop {
        match connection.poll().await {
            Ok(Incoming::Incoming(Packet::ConnAck(_))) => {
                let filter = Channel::Observed.filter();
                if let Err(error) = client.try_subscribe(filter, QoS::AtLeastOnce) {
                    eprintln!("fleet: {error}");
                }
            }
            Ok(Incoming::Incoming(Packet::Publish(publish))) => {
                let now = Instant::now();
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                heard.lock().hear(&topic, &publish.payload, now);
            }
            Ok(_) => {}
            Err(error) => {
                eprintln!("fleet: the hub's connection: {error}");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

// === impl Heard ===

impl Heard {
    /// Take a report for true if its seal holds.
    fn hear(&mut self, topic: &str, bytes: &[u8], now: Instant) {
        let Ok(topic) = topic.parse::<Topic>() else { return };
        let Some(ring) = self.rings.get(&topic.site) else { return };
        let Ok(opened) = open::<Observed>(&topic, bytes, ring) else { return };
        self.reports += 1;
        if opened.body.state == State::Converged {
            let known = self.converged.get(&topic.site).map(|known| known.0);
            if known != Some(opened.generation) {
                self.converged.insert(topic.site, (opened.generation, now));
            }
        }
    }
}

// === impl Still ===

impl Still {
    fn tell(&self, event: Event) {
        let events = self.0.clone();
        // The receiver is gone only when the agent ends.
        tokio::spawn(async move { drop(events.send(event).await) });
    }
}

impl Target for Still {
    fn look(&self, _: &Kept) -> impl Future<Output = Result<Found, TargetError>> + Send {
        std::future::ready(Ok(Found::default()))
    }

    fn fetch(&self, model: Model) {
        self.tell(Event::Fetched { digest: model.digest });
    }

    fn cancel(&self, _: Digest) {}

    fn evict(&self, digest: Digest) {
        self.tell(Event::Evicted { digest });
    }

    fn start(&self, model: Model) {
        self.tell(Event::Ready { version: Version::from(&model) });
    }

    fn stop(&self, version: Version) {
        self.tell(Event::Stopped { version });
    }

    fn activate(&self, generation: Generation, _: Vec<Version>) {
        self.tell(Event::Activated { generation });
    }

    fn drain(&self, version: Version) {
        self.tell(Event::Drained { version });
    }

    async fn traffic(&self) -> Option<wick_serve::Traffic> {
        None
    }

    fn metrics(&self) -> Vec<u8> {
        Vec::new()
    }
}
