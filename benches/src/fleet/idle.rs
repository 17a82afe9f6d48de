//! What an agent costs that has nothing to do: `wick agent run` with the Kubernetes target, beside a real
//! cluster in which its Model serves.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::json;
use wick_e2e::http;
use wick_e2e::stage::{SETTLED, Stage};
use wick_e2e::wait::wait;
use wick_fleet::wire::{Channel, Desired, Topic, seal};
use wick_fleet::{Generation, Model, SiteName};
use wick_package::signature::PrivateKey;

use crate::bar::report;
use crate::meter::Meter;
use crate::serving::cpu;
use crate::setup::path;
use crate::stats::round;

use super::broker::{Broker, enrol};

pub const RSS: &str = "agent-rss-mib";
pub const CPU: &str = "agent-idle-cpu-percent";
pub const BYTES: &str = "agent-idle-bytes-minute";

/// How long it is watched. Its keep-alive is a minute.
const WATCHED: Duration = Duration::from_secs(300);

/// What a start still does after it is ready is not idling.
const REST: Duration = Duration::from_secs(30);

/// `wick agent run`, ended with the benchmark.
struct Agent(Child);

pub fn idle() -> anyhow::Result<()> {
    let stage = Stage::new("agent")?;
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let meter = Meter::start(broker.addr)?;
    let hub = PrivateKey::from_seed(&[7; 32]);
    let site: SiteName = "plant-3".parse()?;
    let folder = scratch.path().join("site");
    // The agent opens its folder itself.
    drop(enrol(&folder, &site, meter.addr, &hub)?);
    tell(&broker, &site, &hub, model(&stage)?)?;
    let control = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let agent = Agent::start(&stage, &folder, &control.to_string())?;
    wait("what it was told to have the traffic", SETTLED, || {
        let ready = http::get(control, "/readyz").is_ok_and(|answer| answer.status == 200);
        let model = stage.space.get("model/filetype")?;
        Ok((ready && model.is_some()).then_some(()))
    })?;
    stage.until("Ready", "Serving").or_else(|_| stage.until("Ready", "Cold"))?;
    thread::sleep(REST);
    eprintln!("fleet: the agent idles for {WATCHED:?}");
    let (begun, used, moved) = (Instant::now(), cpu::seconds(agent.0.id())?, meter.both());
    thread::sleep(WATCHED);
    let seconds = begun.elapsed().as_secs_f64();
    let percent = (cpu::seconds(agent.0.id())? - used) / seconds * 100.0;
    let bytes = (meter.both() - moved) as f64 / (seconds / 60.0);
    let rss = cpu::resident_mib(agent.0.id())?;
    let detail = json!({"watched_s": round(seconds), "target": "kubernetes", "models": 1});
    report(RSS, rss, "MiB", detail.clone());
    report(CPU, percent, "percent", detail.clone());
    report(BYTES, bytes, "bytes", detail);
    drop(agent);
    stage.end()
}

/// Magika, as the node has it.
fn model(stage: &Stage) -> anyhow::Result<Model> {
    let image = stage.image("1.0.0")?;
    let (image, digest) = image.split_once('@').context("an image by its digest")?;
    Ok(Model {
        name: "filetype".parse()?,
        image: image.to_owned(),
        digest: digest.parse()?,
        bytes: 16 << 20,
        memory: 64 << 20,
    })
}

/// Publish what the site is to have, as the hub does.
fn tell(broker: &Broker, site: &SiteName, hub: &PrivateKey, model: Model) -> anyhow::Result<()> {
    let topic = Topic::new(site.clone(), Channel::Desired);
    let desired = Desired { models: vec![model], rollout: None };
    let bytes = seal(&topic, Generation(1), &desired, hub, &[])?;
    let options = MqttOptions::new("hub", "127.0.0.1", broker.addr.port());
    let (client, mut connection) = Client::new(options, 8);
    client.publish(topic.to_string(), QoS::AtLeastOnce, true, bytes)?;
    for event in connection.iter() {
        if matches!(event?, Event::Incoming(Packet::PubAck(_))) {
            return Ok(());
        }
    }
    anyhow::bail!("mosquitto did not take what the site is to have")
}

// === impl Agent ===

impl Agent {
    fn start(stage: &Stage, folder: &Path, control: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(path("WICK_BIN")?);
        command.args(["agent", "run", "--target", "kubernetes", "--control", control]);
        command.args(["--namespace", &stage.space.name, "--state"]).arg(folder);
        command.env("KUBECONFIG", stage.cluster.kubectl.kubeconfig()).stdin(Stdio::null());
        let child = command.spawn().context("start the agent")?;
        let mut agent = Self(child);
        thread::sleep(Duration::from_secs(1));
        let ended = agent.0.try_wait()?;
        ensure!(ended.is_none(), "the agent has ended: {ended:?}");
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
