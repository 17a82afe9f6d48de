//! The real hub with ten thousand sites that have enrolled with it, at a real mosquitto, while all of them
//! move at once: what it takes of memory. One client speaks for all sites, each with its own key.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wick_e2e::http::Request;
use wick_e2e::wait::wait;
use wick_fleet::enrol::{Claim, EnrolRequest, Enrolled};
use wick_fleet::wire::{
    Body, Channel, Desired, KeyRing, Observed, Presence, State, Topic, open, seal,
};
use wick_fleet::{Generation, Moment, SiteName};
use wick_package::signature::PrivateKey;

use crate::bar::report;
use crate::serving::{cpu, machine};
use crate::setup::path;
use crate::stats::round;

use super::broker::Broker;

pub const RSS: &str = "hub-rss-mib";

const SITES: usize = 10_000;

/// Sites that enrol at the same time.
const AT_ONCE: usize = 4;

/// Longest until the hub listens, until it has heard all sites, and until all have moved.
const LIMIT: Duration = Duration::from_secs(600);

const LOOK: Duration = Duration::from_millis(20);

/// Messages that wait for the sites' connection.
const REQUESTS: usize = 4096;

/// The rollout that moves all of them.
const ROLLOUT: &str = "
apiVersion: wick.dev/v1alpha1
kind: Rollout
metadata: {name: filetype-1}
spec:
  models:
    - name: filetype
      image: registry.example/vision/filetype@sha256:0101010101010101010101010101010101010101010101010101010101010101
      disk: 16Mi
      memory: 64Mi
";

/// `wick hub run`, ended with the benchmark.
struct Hub {
    child: Child,
    addr: SocketAddr,
    token: String,
    policy: PathBuf,
}

/// What is known of a site here.
struct Site {
    key: PrivateKey,
    ring: KeyRing,
}

type Sites = BTreeMap<SiteName, Site>;

pub fn hub() -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let hub = Hub::start(scratch.path(), broker.addr)?;
    let alone = hub.memory("VmRSS")?;
    let begun = Instant::now();
    let sites = Arc::new(enrol_all(&hub)?);
    let enrolled = begun.elapsed();
    eprintln!("fleet: {SITES} sites have enrolled after {enrolled:.0?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.spawn(speak(Arc::clone(&sites), broker.addr.port()));
    wait("presence of all sites", LIMIT, || {
        Ok((hub.status()?["sites"]["online"] == SITES).then_some(()))
    })?;
    let rest = hub.memory("VmRSS")?;
    let begun = Instant::now();
    commit(&hub.policy, "rollouts/filetype-1.yaml", ROLLOUT)?;
    hub.call("POST", "/v1/pull", None)?;
    wait("the end of the rollout", LIMIT, || {
        let status = hub.status()?;
        let phase = &status["rollouts"][0]["phase"];
        let all = status["sites"]["converged"] == SITES;
        Ok((phase == "finished" && all).then_some(()))
    })?;
    let moved = begun.elapsed();
    let peak = hub.memory("VmHWM")?;
    runtime.shutdown_background();
    let detail = json!({
        "machine": machine()?, "sites": SITES, "rss_without_sites_mib": round(alone),
        "rss_with_sites_mib": round(rest), "rss_moved_mib": round(hub.memory("VmRSS")?),
        "enrolled_after_s": round(enrolled.as_secs_f64()),
        "commit_to_all_moved_s": round(moved.as_secs_f64()),
    });
    report(RSS, peak, "MiB", detail);
    Ok(())
}

/// Give every site a key and let it enrol, as an agent does.
fn enrol_all(hub: &Hub) -> anyhow::Result<Sites> {
    let enrolled = thread::scope(|scope| {
        let part = |first: usize| {
            scope.spawn(move || (first..SITES).step_by(AT_ONCE).map(|n| enrol(hub, n)).collect())
        };
        let parts: Vec<_> = (0..AT_ONCE).map(part).collect();
        let joined = parts.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<anyhow::Result<Vec<_>>>, _>>()
    });
    let parts = enrolled.map_err(|_| anyhow::anyhow!("a site has panicked"))?;
    let mut sites = Sites::new();
    for part in parts {
        sites.extend(part?);
    }
    Ok(sites)
}

fn enrol(hub: &Hub, number: usize) -> anyhow::Result<(SiteName, Site)> {
    let name = format!("site-{number:05}");
    let made = hub.call("POST", "/v1/enrolments", Some(&json!({"site": name, "again": false})))?;
    let token = made["token"].as_str().context("no token")?.to_owned();
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let key = PrivateKey::from_seed(&seed);
    let pem = key.to_pem(None)?;
    let pair = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
    let labels = [("region".to_owned(), "north".to_owned())].into();
    let request = EnrolRequest {
        site: name.parse()?,
        token,
        csr: params.serialize_request(&pair)?.pem()?,
        place: Claim { labels, zone: None, memory: 1 << 30, disk: 1 << 30 },
    };
    let enrolled = hub.call("POST", "/v1/enrol", Some(&json!(request)))?;
    let enrolled: Enrolled = serde_json::from_value(enrolled)?;
    Ok((request.site, Site { key, ring: enrolled.ring }))
}

/// Be all sites: connected, and at once where they are told to be.
async fn speak(sites: Arc<Sites>, port: u16) {
    let mut options = MqttOptions::new("sites", "127.0.0.1", port);
    options.set_max_packet_size(Some(1 << 20));
    let (client, connection) = AsyncClient::new(options, REQUESTS);
    // Of its own, so that the connection never waits for itself.
    let (told, mut tell) = mpsc::unbounded_channel::<(SiteName, Generation)>();
    // The first of all that is sent.
    if let Err(error) = client.try_subscribe(Channel::Desired.filter(), QoS::AtLeastOnce) {
        eprintln!("fleet: {error}");
    }
    let hearing = tokio::spawn(hear(connection, Arc::clone(&sites), told));
    for (name, site) in sites.iter() {
        let topic = Topic::new(name.clone(), Channel::Presence);
        let presence = Presence { online: true, session: 1 };
        say(&client, &topic, Generation(0), &presence, &site.key).await;
        report_of(&client, name, site, Generation(0)).await;
    }
    while let Some((name, generation)) = tell.recv().await {
        if let Some(site) = sites.get(&name) {
            report_of(&client, &name, site, generation).await;
        }
    }
    drop(hearing.await);
}

async fn report_of(client: &AsyncClient, name: &SiteName, site: &Site, generation: Generation) {
    let observed = Observed {
        sequence: generation.0 + 1,
        wanted: generation,
        state: State::Converged,
        reason: None,
        attempts: 0,
        since: Moment::default(),
        models: Vec::new(),
        refused: None,
        keys: 1,
    };
    let topic = Topic::new(name.clone(), Channel::Observed);
    say(client, &topic, generation, &observed, &site.key).await;
}

async fn say<B: Body>(
    client: &AsyncClient,
    topic: &Topic,
    generation: Generation,
    body: &B,
    key: &PrivateKey,
) {
    let said = match seal(topic, generation, body, key, &[]) {
        Ok(bytes) => client
            .publish(topic.to_string(), QoS::AtLeastOnce, true, bytes)
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = said {
        eprintln!("fleet: {topic}: {error}");
    }
}

async fn hear(
    mut connection: EventLoop,
    sites: Arc<Sites>,
    told: mpsc::UnboundedSender<(SiteName, Generation)>,
) {
    loop {
        match connection.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let Ok(topic) = topic.parse::<Topic>() else { continue };
                let Some(site) = sites.get(&topic.site) else { continue };
                match open::<Desired>(&topic, &publish.payload, &site.ring) {
                    // The receiver is gone only at the end.
                    Ok(opened) => drop(told.send((topic.site, opened.generation))),
                    Err(refusal) => eprintln!("fleet: {topic}: {refusal}"),
                }
            }
            Ok(_) => {}
            Err(error) => {
                eprintln!("fleet: the sites' connection: {error}");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

fn commit(repository: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = repository.join(file);
    fs::create_dir_all(path.parent().context("a file in a folder")?)?;
    fs::write(path, text)?;
    git(repository, &["add", "--all"])?;
    let who = ["-c", "user.name=bench", "-c", "user.email=bench@example"];
    git(repository, &[&who[..], &["commit", "--quiet", "--message", "change"]].concat())
}

fn git(repository: &Path, words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("git").arg("-C").arg(repository).args(words).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {words:?}: {error}");
    Ok(())
}

// === impl Hub ===

impl Hub {
    fn start(folder: &Path, broker: SocketAddr) -> anyhow::Result<Self> {
        let (wick, dir, policy) = (path("WICK_BIN")?, folder.join("hub"), folder.join("policy"));
        fs::create_dir(&policy)?;
        git(&policy, &["init", "--quiet", "--initial-branch", "main"])?;
        commit(&policy, "README.md", "The fleet's policy.\n")?;
        let mut init = Command::new(&wick);
        init.args(["hub", "init", "--name", "127.0.0.1", "--output", "json", "--dir"]).arg(&dir);
        let made = init.output().context("make a hub")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout)?;
        let token = made["token"].as_str().context("no token of an admin")?.to_owned();
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut run = Command::new(wick);
        run.args(["hub", "run", "--plain", "--every", "1h", "--listen", &addr.to_string()]);
        run.args(["--broker", &format!("mqtt://{broker}")]);
        run.args(["--git", &format!("file://{}", policy.display()), "--dir"]).arg(&dir);
        run.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        let hub = Self { child: run.spawn().context("start the hub")?, addr, token, policy };
        wait("the hub", LIMIT, || Ok(TcpStream::connect(addr).ok().map(drop)))?;
        Ok(hub)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let bearer = format!("Bearer {}", self.token);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let request = Request { method, path, headers: &headers, body: body.as_bytes() };
        let answer = request.send(self.addr)?;
        ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    fn status(&self) -> anyhow::Result<Value> {
        self.call("GET", "/v1/status", None)
    }

    fn memory(&self, field: &str) -> anyhow::Result<f64> {
        cpu::status_mib(self.child.id(), field)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
