//! A site that speaks as an agent does: it enrols, is at the broker, and is at once where it was told to be.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use serde_json::json;
use wick_fleet::enrol::{Claim, EnrolRequest, Enrolled};
use wick_fleet::wire::{Channel, Desired, Observed, Presence, State, Topic, open, seal};
use wick_fleet::{Generation, Moment, SiteName};
use wick_package::signature::PrivateKey;

use crate::bench::Caller;

/// A site that has its certificate.
pub struct Site {
    pub name: SiteName,
    pub key: PrivateKey,
    pub enrolled: Enrolled,
}

/// What a site was told, in the order of arrival.
pub type Told = Arc<Mutex<Vec<(Generation, Desired)>>>;

/// A site at the broker, until it is dropped.
pub struct Live {
    pub told: Told,
    task: tokio::task::JoinHandle<()>,
}

pub fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

/// The signing request of a key.
pub fn csr(name: &str, key: &PrivateKey) -> String {
    let pem = key.to_pem(None).unwrap();
    let pair = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &rcgen::PKCS_ED25519).unwrap();
    request(name, &pair)
}

pub fn request(name: &str, pair: &rcgen::KeyPair) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.serialize_request(pair).unwrap().pem().unwrap()
}

pub fn claim() -> Claim {
    let labels = [("region".to_owned(), "north".to_owned())].into();
    Claim { labels, zone: None, memory: 1 << 30, disk: 1 << 30 }
}

/// Make a client that knows the hub's authority.
pub fn client(
    id: &str,
    port: u16,
    ca: &str,
    identity: Option<(String, String)>,
) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(5)).set_clean_start(true);
    if let Some((certificate, key)) = identity {
        let identity = (certificate.into_bytes(), key.into_bytes());
        let tls =
            TlsConfiguration::Simple { ca: ca.into(), alpn: None, client_auth: Some(identity) };
        options.set_transport(Transport::Tls(tls));
    }
    AsyncClient::new(options, 100)
}

// === impl Site ===

impl Site {
    pub async fn enrol(caller: &Caller, name: &str, seed: u8) -> Self {
        let token = caller.enrolment(name, false).await;
        let key = key(seed);
        let request = EnrolRequest {
            site: name.parse().unwrap(),
            token,
            csr: csr(name, &key),
            place: claim(),
        };
        let (code, answer) = caller.post("/v1/enrol", &json!(request)).await;
        assert_eq!(code, 200, "{answer}");
        let enrolled = serde_json::from_value(answer).unwrap();
        Self { name: name.parse().unwrap(), key, enrolled }
    }

    pub fn identity(&self) -> (String, String) {
        (self.enrolled.certificate.clone(), self.key.to_pem(None).unwrap().to_string())
    }

    pub fn connect(&self, port: u16) -> (AsyncClient, EventLoop) {
        client(&format!("wick-{}", self.name), port, &self.enrolled.ca, Some(self.identity()))
    }

    pub fn topic(&self, channel: Channel) -> Topic {
        Topic::new(self.name.clone(), channel)
    }

    pub fn presence(&self, online: bool, session: u64) -> Vec<u8> {
        let topic = self.topic(Channel::Presence);
        seal(&topic, Generation(0), &Presence { online, session }, &self.key, &[]).unwrap()
    }

    pub fn observed(&self, generation: Generation, sequence: u64) -> Vec<u8> {
        let body = Observed {
            sequence,
            wanted: generation,
            state: State::Converged,
            reason: None,
            attempts: 0,
            since: Moment::default(),
            models: Vec::new(),
            refused: None,
            keys: 1,
        };
        seal(&self.topic(Channel::Observed), generation, &body, &self.key, &[]).unwrap()
    }

    /// Be at the broker, and report at once what it is told.
    pub fn live(&self, port: u16) -> Live {
        let (client, events) = self.connect(port);
        self.attend(client, events)
    }

    /// The same at a broker that asks nobody who he is.
    pub fn live_plain(&self, port: u16) -> Live {
        let (client, events) = client(&format!("wick-{}", self.name), port, "", None);
        self.attend(client, events)
    }

    fn attend(&self, client: AsyncClient, mut events: EventLoop) -> Live {
        let told = Told::default();
        let site = Self {
            name: self.name.clone(),
            key: PrivateKey::from_pem(&self.key.to_pem(None).unwrap(), None).unwrap(),
            enrolled: self.enrolled.clone(),
        };
        let heard = told.clone();
        let task = tokio::spawn(async move {
            let (mut session, mut sequence) = (0, 0);
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        session += 1;
                        let topic = site.topic(Channel::Presence).to_string();
                        let presence = site.presence(true, session);
                        client.try_publish(topic, QoS::AtLeastOnce, true, presence).unwrap();
                        let desired = site.topic(Channel::Desired).to_string();
                        client.try_subscribe(desired, QoS::AtLeastOnce).unwrap();
                        let last = heard
                            .lock()
                            .last()
                            .map_or(Generation(0), |(last, _): &(_, Desired)| *last);
                        sequence += 1;
                        let observed = site.observed(last, sequence);
                        let topic = site.topic(Channel::Observed).to_string();
                        client.try_publish(topic, QoS::AtLeastOnce, true, observed).unwrap();
                    }
                    Ok(Event::Incoming(Packet::Publish(publish)))
                        if !publish.payload.is_empty() =>
                    {
                        let topic = site.topic(Channel::Desired);
                        let opened = open::<Desired>(&topic, &publish.payload, &site.enrolled.ring);
                        let opened = opened.expect("the hub's message holds");
                        heard.lock().push((opened.generation, opened.body));
                        sequence += 1;
                        let observed = site.observed(opened.generation, sequence);
                        let topic = site.topic(Channel::Observed).to_string();
                        client.try_publish(topic, QoS::AtLeastOnce, true, observed).unwrap();
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Live { told, task }
    }
}

// === impl Live ===

impl Live {
    /// The newest generation that it was told, and the digest of its one model.
    pub fn last(&self) -> Option<(Generation, String)> {
        let told = self.told.lock();
        told.last().map(|(generation, desired)| (*generation, desired.models[0].digest.to_string()))
    }

    /// Never back, and never something else by the same number.
    pub fn check(&self) {
        let told = self.told.lock();
        for pair in told.windows(2) {
            let [(before, was), (after, is)] = pair else { unreachable!() };
            assert!(after >= before, "from generation {before} to {after}");
            assert!(after != before || was.models == is.models, "generation {after} has changed");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}
