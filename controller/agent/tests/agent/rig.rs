//! A broker, a registry, a hub and sites in a folder of a test's own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use wick_agent::target::{Local, LocalSettings};
use wick_agent::{Agent, AgentSettings, Home, SiteFile, Snapshot};
use wick_engine::{Engine, EngineSettings};
use wick_fleet::converge::Settings;
use wick_fleet::enrol::Enrolled;
use wick_fleet::wire::{Channel, Desired, KeyRing, Observed, Presence, State, Topic, open, seal};
use wick_fleet::{Generation, Model};
use wick_nn::{Nn, NnSettings};
use wick_package::Package;
use wick_package::pack::{Format, Options, write_layout};
use wick_package::signature::PrivateKey;
use wick_registry::{Backoff, Credentials, PlainHttp, Registry};
use wick_serve::{Opener, ServeSettings};
use wick_testing::onnx;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The generous memory and disk of a test's site.
pub const PLENTY: u64 = 1 << 30;

/// A process of somebody else's, ended with the test.
pub struct Process {
    child: Child,
}

pub struct Broker {
    pub port: u16,
    config: PathBuf,
    process: Option<Process>,
}

/// What a hub says, and what it hears.
pub struct Hub {
    pub key: PrivateKey,
    pub client: AsyncClient,
    heard: Arc<Mutex<Heard>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    sites: BTreeMap<String, KeyRing>,
    observed: BTreeMap<String, (Generation, Observed)>,
    presence: BTreeMap<String, Presence>,
}

pub struct Rig {
    pub dir: TempDir,
    pub broker: Broker,
    pub registry: SocketAddr,
    pub hub: Hub,
    _registry: Process,
}

/// A site whose agent runs.
pub struct Running {
    pub http: SocketAddr,
    pub control: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn variable(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).expect("run these by `cargo xtask fleet`"))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn await_port(port: u16) {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Broker {
    /// Without persistence: what it is told is forgotten with its end.
    pub fn start(dir: &Path, lines: &str) -> Self {
        let port = free_port();
        let config = dir.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nlog_type none\n{lines}\n");
        fs::write(&config, text).unwrap();
        let mut broker = Self { port, config, process: None };
        broker.again();
        broker
    }

    pub fn again(&mut self) {
        let root = variable("WICK_TEST_MOSQUITTO");
        let mut command = Command::new(root.join("usr/sbin/mosquitto"));
        let libraries = fs::read_dir(root.join("usr/lib")).unwrap();
        let folders = libraries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
        self.process = Some(Process::start(command.arg("-c").arg(&self.config)));
        await_port(self.port);
    }

    pub fn end(&mut self) {
        self.process = None;
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

fn registry(dir: &Path) -> (SocketAddr, Process) {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: '{addr}', secret: tests}}\n",
        dir.join("registry").display()
    );
    let file = dir.join("registry.yml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(variable("WICK_TEST_REGISTRY"));
    let process = Process::start(command.arg("serve").arg(file));
    await_port(addr.port());
    (addr, process)
}

impl Hub {
    pub fn start(broker: u16, key: PrivateKey) -> Self {
        let mut options = MqttOptions::new("hub", "127.0.0.1", broker);
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut eventloop) = AsyncClient::new(options, 64);
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let mut tasks = JoinSet::new();
        let (asking, hearing) = (client.clone(), Arc::clone(&heard));
        tasks.spawn(async move {
            loop {
                match eventloop.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        for channel in [Channel::Observed, Channel::Presence] {
                            let asked = asking.try_subscribe(channel.filter(), QoS::AtLeastOnce);
                            asked.unwrap();
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        hearing.lock().hear(&topic.parse().unwrap(), &publish.payload);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Self { key, client, heard, _tasks: tasks }
    }

    pub fn ring(&self) -> KeyRing {
        KeyRing::new(1, vec![self.key.public()]).unwrap()
    }

    pub fn desired(&self, site: &str, generation: u64, models: &[Model]) -> Vec<u8> {
        let topic = Topic::new(site.parse().unwrap(), Channel::Desired);
        let desired = Desired { models: models.to_vec(), rollout: None };
        seal(&topic, Generation(generation), &desired, &self.key, &[]).unwrap()
    }

    pub async fn say(&self, site: &str, bytes: Vec<u8>) {
        let topic = Topic::new(site.parse().unwrap(), Channel::Desired).to_string();
        self.client.publish(topic, QoS::AtLeastOnce, true, bytes).await.unwrap();
    }

    /// Tell a site what it is to have.
    pub async fn tell(&self, site: &str, generation: u64, models: &[Model]) {
        self.say(site, self.desired(site, generation, models)).await;
    }

    pub fn observed(&self, site: &str) -> Option<(Generation, Observed)> {
        self.heard.lock().observed.get(site).cloned()
    }

    pub fn presence(&self, site: &str) -> Option<Presence> {
        self.heard.lock().presence.get(site).cloned()
    }

    /// Forget what was heard.
    pub fn forget(&self) {
        let mut heard = self.heard.lock();
        heard.observed.clear();
        heard.presence.clear();
    }

    /// Wait until the last report of a site is as wanted.
    #[track_caller]
    pub fn until(
        &self,
        site: &str,
        is_it: impl Fn(Generation, &Observed) -> bool,
    ) -> impl Future<Output = Observed> {
        let place = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                let last = self.observed(site);
                if let Some((generation, observed)) = &last
                    && is_it(*generation, observed)
                {
                    return observed.clone();
                }
                assert!(begun.elapsed() < PATIENCE, "{place}: {last:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    #[track_caller]
    pub fn until_converged(&self, site: &str, want: u64) -> impl Future<Output = Observed> {
        self.until(site, move |generation, observed| {
            generation == Generation(want) && observed.state == State::Converged
        })
    }
}

impl Heard {
    fn hear(&mut self, topic: &Topic, bytes: &[u8]) {
        let site = topic.site.as_str().to_owned();
        // A report that is not the site's own would fail the test.
        let Some(ring) = self.sites.get(&site) else { return };
        match topic.channel {
            Channel::Observed => {
                let opened = open::<Observed>(topic, bytes, ring).unwrap();
                self.observed.insert(site, (opened.generation, opened.body));
            }
            Channel::Presence => {
                let opened = open::<Presence>(topic, bytes, ring).unwrap();
                self.presence.insert(site, opened.body);
            }
            Channel::Desired | Channel::Telemetry => {}
        }
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with("allow_anonymous true")
    }

    pub fn with(lines: &str) -> Self {
        // For clients of this process.
        drop(rustls::crypto::ring::default_provider().install_default());
        let dir = TempDir::new().unwrap();
        let broker = Broker::start(dir.path(), lines);
        let (registry, process) = registry(dir.path());
        let hub = Hub::start(broker.port, PrivateKey::from_seed(&[9; 32]));
        Self { dir, broker, registry, hub, _registry: process }
    }

    pub fn end_registry(&mut self) {
        drop(self._registry.child.kill());
    }

    /// A model `m` that adds `value`, at the registry.
    pub async fn model(&self, value: f32) -> Model {
        self.package("m", &format!("{value}.0.0"), &onnx::add_scalar(value, &[4])).await
    }

    pub async fn package(&self, name: &str, version: &str, graph: &[u8]) -> Model {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        let folder = dir.path().join("package");
        fs::create_dir(&folder).unwrap();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"{version}\"\n\n\
             [[graph]]\nname = \"g\"\npath = \"model.onnx\"\n"
        );
        fs::write(folder.join("wick.toml"), manifest).unwrap();
        fs::write(folder.join("model.onnx"), graph).unwrap();
        let out = dir.path().join("layout");
        let options = Options { format: Format::Folder, reference: None };
        write_layout(&Package::open(&folder).unwrap(), &out, &options, &mut |_| {}).unwrap();
        let image = format!("{}/team/{name}:{version}", self.registry);
        let client = Registry::new(registry_settings()).unwrap();
        let reference = image.parse().unwrap();
        let pushed = client.push_layout(&out, &reference, Arc::new(())).await.unwrap();
        Model {
            name: name.parse().unwrap(),
            image,
            digest: pushed.digest,
            bytes: graph.len() as u64 + (64 << 10),
            memory: 1 << 20,
        }
    }

    /// A folder of an enrolled site.
    pub fn enrol(&self, site: &str) -> Home {
        let home = Home::open(self.dir.path().join(site)).unwrap();
        let (key, _) = home.own_key().unwrap();
        let file = SiteFile {
            site: site.parse().unwrap(),
            hub: "http://127.0.0.1:1".to_owned(),
            hub_ca: None,
            broker: self.broker.url(),
            certificate: String::new(),
            ca: String::new(),
            obtained: 0,
            not_after: u64::MAX / 2,
            memory: PLENTY,
            disk: PLENTY,
            token: String::new(),
        };
        let enrolled = Enrolled {
            certificate: String::new(),
            ca: String::new(),
            ring: self.hub.ring(),
            broker: file.broker.clone(),
            not_after: file.not_after,
        };
        home.join(&file, &enrolled).unwrap();
        self.know(site, &key);
        home
    }

    /// Believe the reports of a site with this key.
    pub fn know(&self, site: &str, key: &PrivateKey) {
        let ring = KeyRing::new(1, vec![key.public()]).unwrap();
        self.hub.heard.lock().sites.insert(site.to_owned(), ring);
    }

    pub async fn start(&self, site: &str) -> Running {
        start(self.dir.path().join(site), converge(PLENTY, PLENTY)).await
    }
}

/// Short deadlines, so that what fails is tried again within a test.
pub fn converge(memory: u64, disk: u64) -> Settings {
    Settings {
        stage: Duration::from_secs(20),
        retry: Duration::from_millis(500),
        retry_most: Duration::from_secs(2),
        ..Settings::new(memory, disk)
    }
}

fn registry_settings() -> wick_registry::Settings {
    wick_registry::Settings {
        plain_http: PlainHttp::Always,
        credentials: Credentials::Anonymous,
        backoff: Backoff { failures: 2, first: Duration::from_millis(20), ..Backoff::default() },
        ..wick_registry::Settings::default()
    }
}

pub async fn start(home: PathBuf, converge: Settings) -> Running {
    let settings = AgentSettings {
        converge: Some(converge),
        telemetry: Duration::from_secs(1),
        control: ([127, 0, 0, 1], 0).into(),
    };
    let agent = Agent::open(Home::open(home).unwrap(), settings).unwrap();
    let nn = NnSettings { backend_dirs: Vec::new(), onnxruntime: None, cache: None, cpus: 2 };
    let engine = EngineSettings { cache: None, max_instances: 8, max_memory: 64 << 20 };
    let local = LocalSettings {
        serve: ServeSettings { addr: ([127, 0, 0, 1], 0).into(), ..ServeSettings::default() },
        engine: Engine::new(engine, Nn::new(nn).unwrap()).unwrap(),
        cpus: 2,
        opener: Opener::default(),
        registry: registry_settings(),
        bandwidth: None,
        give_back: None,
    };
    let (target, bound) = Local::bind(&agent.home, local, agent.events()).await.unwrap();
    let http = bound.local_addr();
    let stop = CancellationToken::new();
    let serving = target.clone();
    let (tell, told) = tokio::sync::oneshot::channel();
    let ending = stop.clone();
    let task = tokio::spawn(async move {
        let served = tokio::spawn({
            let ending = ending.clone();
            async move { serving.serve(bound, ending).await }
        });
        agent.run(target, ending, |addr| tell.send(addr).unwrap()).await.unwrap();
        served.await.unwrap();
    });
    let control = told.await.unwrap();
    Running { http, control, stop, task }
}

impl Running {
    /// End it as a signal does.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    pub async fn value(&self) -> Result<f64, String> {
        value(self.http).await
    }

    pub async fn until_value(&self, want: f64) {
        let begun = Instant::now();
        loop {
            let value = self.value().await;
            if value == Ok(want) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{value:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn status(&self) -> Snapshot {
        let answer = reqwest::get(format!("http://{}/v1/status", self.control)).await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

/// What the model `m` adds to zero.
pub async fn value(http: SocketAddr) -> Result<f64, String> {
    let body =
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "data": [0, 0, 0, 0]}]}"#;
    let client = reqwest::Client::new();
    let asked = client.post(format!("http://{http}/v2/models/m/infer")).body(body).send().await;
    let answer = asked.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(format!("{status}: {text}"));
    }
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["outputs"][0]["data"][0].as_f64().ok_or(text)
}

/// A page of an agent's control port.
pub async fn text(control: SocketAddr, path: &str) -> String {
    let answer = reqwest::get(format!("http://{control}{path}")).await.unwrap();
    answer.text().await.unwrap()
}
