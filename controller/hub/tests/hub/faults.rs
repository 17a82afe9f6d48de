//! What goes wrong in a fleet.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Event, EventLoop};
use serde_json::json;
use wick_fleet::Generation;
use wick_fleet::wire::{Channel, MAX_MESSAGE};

use crate::bench::{Bench, Caller, DIGEST, eventually, rollout};
use crate::broker::Broker;
use crate::site::{Site, client, key};

/// Names the folder and the broker of a hub in a process of its own.
const CHILD: &str = "WICK_HUB_TEST_CHILD";

/// How often a hub is killed.
const KILLS: u64 = 12;

/// Not a test by itself: the process that [`Killable`] starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let mut parts = text.split('\n');
    let mut part = || parts.next().unwrap().to_owned();
    let (dir, broker, url) = (part(), part(), part());
    let broker: wick_hub::Broker = broker.parse().unwrap();
    let git =
        wick_hub::GitSettings { url, reference: "main".to_owned(), token: None, ssh_key: None };
    let settings = wick_hub::Settings {
        dir: dir.into(),
        link: broker.clone(),
        broker,
        source: wick_hub::Source::Git(git, Duration::from_millis(500)),
        admin_token: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: false,
        control: None,
    };
    let mut hub = wick_hub::Hub::start(settings).await.unwrap();
    println!("\napi={}", hub.api);
    hub.ended().await.unwrap();
}

/// A hub that ends as power ends.
pub struct Killable {
    child: Child,
    pub caller: Caller,
}

impl Killable {
    pub fn start(bench: &Bench, broker: &wick_hub::Broker) -> Self {
        let url = format!("file://{}", bench.repository().display());
        // A file that may grow no more is told as an error, and not by a signal's end.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ && exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["faults::child", "--exact", "--nocapture"])
            .env(CHILD, format!("{}\n{broker}\n{url}", bench.dir().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("api=").map(str::to_owned));
        let address = address.expect("the hub has started").parse().unwrap();
        Self { child, caller: Caller::new(address, &bench.token) }
    }
}

impl Killable {
    /// From now on no file of the hub's may be larger.
    fn limit_files(&self, bytes: &str) {
        let mut prlimit = Command::new("prlimit");
        prlimit.arg(format!("--fsize={bytes}:")).arg(format!("--pid={}", self.child.id()));
        assert!(prlimit.status().expect("util-linux's prlimit").success());
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_killed_at_any_instant_goes_on_where_it_was() {
    let bench = Bench::new();
    let broker = Broker::start(&bench.dir());
    let url = broker.url("mqtts");
    bench.commit("README.md", "a fleet");
    let mut hub = Killable::start(&bench, &url);
    let mut sites = Vec::new();
    for (seed, name) in [(1, "plant-1"), (2, "plant-2")] {
        let site = Site::enrol(&hub.caller, name, seed).await;
        sites.push((site.live(broker.port), site));
    }
    for round in 1..=KILLS {
        bench.commit(
            "rollouts/a.yaml",
            &rollout(&format!("ocr-{round}"), u8::try_from(round).unwrap(), ""),
        );
        let _ = hub.caller.post("/v1/pull", &json!({})).await;
        // Somewhere between the fetch, the decision, the disk and the broker.
        tokio::time::sleep(Duration::from_millis(150 * round)).await;
        drop(hub);
        hub = Killable::start(&bench, &url);
        assert_eq!(hub.caller.get("/v1/status").await["sites"]["enrolled"], 2);
    }
    let last = format!("ocr-{KILLS}");
    let digest = DIGEST.replace("01", &format!("{KILLS:02x}"));
    eventually("the last is everywhere", || async {
        let finished = hub.caller.phase(&last).await == "finished";
        finished && sites.iter().all(|(live, _)| live.last().is_some_and(|(_, is)| is == digest))
    })
    .await;
    sites.iter().for_each(|(live, _)| live.check());
    // What is kept of each generation is what the site was told by it.
    let told = hub.caller.get("/v1/sites/plant-1/generations").await;
    for kept in told["generations"].as_array().unwrap() {
        let heard = sites[0].0.told.lock().clone();
        let same = heard.iter().find(|(generation, _)| json!(generation) == kept["generation"]);
        assert!(same.is_none_or(|(_, desired)| json!(desired.models) == kept["models"]), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_the_disk_does_not_take_is_taken_when_there_is_room_again() {
    let bench = Bench::new();
    let broker = Broker::start(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let hub = Killable::start(&bench, &broker.url("mqtts"));
    let site = Site::enrol(&hub.caller, "plant-1", 1).await;
    let live = site.live(broker.port);
    eventually("the first is there", || async { hub.caller.phase("ocr-1").await == "finished" })
        .await;
    // The store has the largest file; with a policy that is larger than what is free in it, it must grow.
    let store = bench.dir().join("hub.redb");
    hub.limit_files(&std::fs::metadata(store).unwrap().len().to_string());
    for number in 0..8 {
        let padding = format!("# {}\n", "x".repeat(1_000_000));
        bench.commit(&format!("sites/{number}.yaml"), &format!("{padding}{}", known(number)));
    }
    bench.commit("rollouts/b.yaml", &rollout("ocr-2", 2, ""));
    eventually("the hub says that it can't keep it", || async {
        let status = hub.caller.get("/v1/status").await;
        status["source"]["error"].as_str().is_some_and(|text| text.contains("look at the disk"))
    })
    .await;
    assert_eq!(hub.caller.phase("ocr-1").await, "finished");
    hub.limit_files("unlimited");
    // Nobody commits anything, and nobody starts the hub again.
    eventually("the second is there", || async { hub.caller.phase("ocr-2").await == "finished" })
        .await;
    live.check();
}

/// A site that never enrols.
fn known(number: u32) -> String {
    format!(
        "apiVersion: wick.dev/v1alpha1\nkind: Site\nmetadata:\n  name: far-{number}\nspec: {{}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_forgets_everything_is_told_again() {
    let bench = Bench::new();
    let mut broker = Broker::start(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let (_hub, caller) = bench.hub(broker.url("mqtts")).await;
    let site = Site::enrol(&caller, "plant-1", 1).await;
    let live = site.live(broker.port);
    eventually("the first is there", || async { caller.phase("ocr-1").await == "finished" }).await;
    drop(live);
    broker.restart();
    // Somebody who comes later finds it.
    let late = site.live(broker.port);
    eventually("it is retained again", || async { late.last().is_some() }).await;
    assert_eq!(late.last().unwrap().0, Generation(1));
    // Away for a while: nothing has failed by that.
    broker.stop();
    bench.commit("rollouts/b.yaml", &rollout("ocr-2", 2, "  settle: 1s\n"));
    eventually("the hub knows that it is cut off", || async {
        caller.get("/v1/status").await["link"]["connected"] == false
    })
    .await;
    assert!(caller.text("/readyz").await.contains("not connected"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    broker.restart();
    eventually("the second is there", || async { caller.phase("ocr-2").await == "finished" }).await;
    late.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_hold_change_nothing_and_are_counted() {
    let bench = Bench::new();
    let broker = Broker::open(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let (_hub, caller) = bench.hub(broker.url("mqtt")).await;
    let site = Site::enrol(&caller, "plant-1", 1).await;
    let live = site.live_plain(broker.port);
    eventually("it is there", || async { caller.phase("ocr-1").await == "finished" }).await;
    Site::enrol(&caller, "plant-2", 2).await;
    let before = caller.get("/v1/sites/plant-1").await;

    let forger = Site { name: site.name.clone(), key: key(9), enrolled: site.enrolled.clone() };
    let (liar, events) = client("liar", broker.port, "", None);
    let poll = drive(events);
    let observed = site.topic(Channel::Observed).to_string();
    let other = "wick/v1/plant-2/observed".to_owned();
    let good = site.observed(Generation(7), 1000);
    let messages = [
        (observed.clone(), forger.observed(Generation(7), 1000)),
        (observed.clone(), good[..good.len() / 2].to_vec()),
        (observed.clone(), b"{}".to_vec()),
        (
            observed.clone(),
            String::from_utf8(good.clone())
                .unwrap()
                .replace("\"generation\":7", "\"generation\":8")
                .into(),
        ),
        (site.topic(Channel::Presence).to_string(), good.clone()),
        // Of this site, but an old one: said again.
        (observed.clone(), site.observed(Generation(0), 1)),
        // By somebody else's topic, and by one of no site.
        (other, good.clone()),
        ("wick/v1/plant-9/observed".to_owned(), good.clone()),
        // More than anybody reads.
        (observed.clone(), vec![b' '; MAX_MESSAGE + 1]),
        (observed.clone(), vec![b' '; MAX_MESSAGE * 3]),
    ];
    for (topic, bytes) in messages {
        liar.publish(topic, QoS::AtLeastOnce, false, bytes).await.unwrap();
    }
    eventually("they are counted", || async {
        let metrics = caller.text("/metrics").await;
        ["key", "malformed", "signature", "other-topic", "long"]
            .iter()
            .all(|code| metrics.contains(&format!("wick_hub_messages_refused{{code=\"{code}\"}}")))
    })
    .await;
    let after = caller.get("/v1/sites/plant-1").await;
    for field in ["online", "serving", "generation", "state"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["distrusted"][1].as_u64().unwrap() >= 5, "{after}");
    assert_eq!(caller.get("/v1/status").await["link"]["connected"], true);
    // What does hold still counts.
    liar.publish(observed, QoS::AtLeastOnce, false, good).await.unwrap();
    eventually("it is believed", || async {
        caller.get("/v1/sites/plant-1").await["serving"] == 7
    })
    .await;
    poll.abort();
    drop(live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_reaches_its_own_topics_alone_and_none_when_it_is_revoked() {
    let bench = Bench::new();
    let broker = Broker::start(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let (_hub, caller) = bench.hub(broker.url("mqtts")).await;
    let one = Site::enrol(&caller, "plant-1", 1).await;
    let two = Site::enrol(&caller, "plant-2", 2).await;
    let lives = [one.live(broker.port), two.live(broker.port)];
    eventually("both are there", || async { caller.phase("ocr-1").await == "finished" }).await;

    // By the certificate of one, as the other: neither heard nor believed.
    let (spy, mut events) = client("spy", broker.port, &one.enrolled.ca, Some(one.identity()));
    spy.subscribe("wick/v1/plant-2/desired", QoS::AtLeastOnce).await.unwrap();
    spy.subscribe("wick/v1/plant-1/desired", QoS::AtLeastOnce).await.unwrap();
    let forged = two.observed(Generation(9), 1_000_000);
    spy.publish(two.topic(Channel::Observed).to_string(), QoS::AtLeastOnce, true, forged)
        .await
        .unwrap();
    let mut heard = Vec::new();
    let listen = async {
        loop {
            if let Ok(Event::Incoming(Packet::Publish(publish))) = events.poll().await {
                heard.push(String::from_utf8_lossy(&publish.topic).into_owned());
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), listen).await;
    assert_eq!(heard, ["wick/v1/plant-1/desired"]);
    assert_eq!(caller.get("/v1/sites/plant-2").await["serving"], 1);

    // A certificate of another authority is nobody's.
    let stranger = rcgen::generate_simple_self_signed(vec!["plant-1".to_owned()]).unwrap();
    let identity = (stranger.cert.pem(), stranger.signing_key.serialize_pem());
    let (_, mut events) = client("stranger", broker.port, &one.enrolled.ca, Some(identity));
    assert!(connects(&mut events).await.is_err());

    // Revoked, it is told nothing more, believed no more, and let in no more.
    assert_eq!(caller.post("/v1/sites/plant-1/revoke", &json!({})).await.0, 204);
    assert!(bench.read(wick_hub::LIST_FILE).contains("X509 CRL"));
    drop(lives);
    broker.reload();
    let (_, mut events) = one.connect(broker.port);
    assert!(connects(&mut events).await.is_err(), "a revoked site is let in");
    let (_, mut events) = two.connect(broker.port);
    assert!(connects(&mut events).await.is_ok());
    let status = caller.get("/v1/status").await;
    assert_eq!((&status["sites"]["enrolled"], &status["sites"]["revoked"]), (&json!(1), &json!(1)));
}

fn drive(mut events: EventLoop) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if events.poll().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
}

/// Whether the broker lets a client in, and does not throw it out at once: with TLS 1.3 a certificate is
/// refused after the client believes that it is connected.
async fn connects(events: &mut EventLoop) -> Result<(), String> {
    let wait = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| Err("late".to_owned()))
}
