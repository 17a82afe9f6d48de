//! A thousand agents whose broker ends and comes back without anything that it knew.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wick_agent::target::{Events, Found, Target, TargetError};
use wick_agent::{Agent, AgentSettings};
use wick_fleet::converge::{Event, Kept, Version};
use wick_fleet::{Generation, Model};
use wick_package::Digest;
use wick_serve::Traffic;

use crate::rig::{PLENTY, Rig, converge};

const SITES: usize = 1000;

/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(5);

/// Longest wait for all of them: a machine may have other things to do.
const LIMIT: Duration = Duration::from_secs(180);

/// A target that has whatever it is asked for.
struct Still(Events);

impl Still {
    fn tell(&self, event: Event) {
        let events = self.0.clone();
        // The receiver is gone only when the agent ends.
        tokio::spawn(async move { drop(events.send(event).await) });
    }
}

impl Target for Still {
    async fn look(&self, _: &Kept) -> Result<Found, TargetError> {
        Ok(Found::default())
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

    async fn traffic(&self) -> Option<Traffic> {
        None
    }

    fn metrics(&self) -> Vec<u8> {
        Vec::new()
    }
}

fn model(version: u8) -> Model {
    Model {
        name: "m".parse().unwrap(),
        image: "registry.example/m".to_owned(),
        digest: Digest::of(&[version]),
        bytes: 1,
        memory: 1,
    }
}

/// Wait until every site has reported a generation; how long that took.
async fn until_all(rig: &Rig, sites: &BTreeSet<String>, generation: u64) -> Duration {
    let begun = Instant::now();
    loop {
        let there = |site: &&String| {
            rig.hub.observed(site).is_some_and(|(last, _)| last == Generation(generation))
        };
        let count = sites.iter().filter(there).count();
        if count == sites.len() {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT, "{count} of {SITES} have reported {generation}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto; cargo xtask fleet"]
async fn a_thousand_agents_that_come_back_at_once_are_all_heard_and_all_told() {
    // All of them are one burst for whoever hears them.
    let mut rig = Rig::with("allow_anonymous true\nmax_queued_messages 0");
    let stop = CancellationToken::new();
    let (mut agents, mut sites) = (JoinSet::new(), BTreeSet::new());
    for number in 0..SITES {
        let site = format!("site-{number:04}");
        let settings = AgentSettings {
            converge: Some(converge(PLENTY, PLENTY)),
            telemetry: Duration::from_secs(60),
            control: ([127, 0, 0, 1], 0).into(),
        };
        let agent = Agent::open(rig.enrol(&site), settings).unwrap();
        let (target, ending) = (Still(agent.events()), stop.clone());
        agents.spawn(async move { agent.run(target, ending, |_| {}).await });
        sites.insert(site);
    }
    for site in &sites {
        rig.hub.tell(site, 1, &[model(1)]).await;
    }
    until_all(&rig, &sites, 1).await;
    rig.broker.end();
    tokio::time::sleep(AWAY).await;
    rig.hub.forget();
    rig.broker.again();
    // Each says again who it is and what it has, whoever forgot that.
    let took = until_all(&rig, &sites, 1).await;
    println!("{SITES} agents were back {took:.1?} after their broker");
    for site in &sites {
        rig.hub.tell(site, 2, &[model(2)]).await;
    }
    until_all(&rig, &sites, 2).await;
    assert!(sites.iter().all(|site| rig.hub.presence(site).is_some_and(|is| is.online)));
    stop.cancel();
    while let Some(ended) = agents.join_next().await {
        ended.unwrap().unwrap();
    }
}
