//! The link to the broker. Each connection is made anew: nothing of an old one waits anywhere but in the
//! outbox, and what the site is to have comes again, since it is retained.
//!
//! ```text
//!  connect ─▶ subscribe, presence online ─▶ outbox, one message at a time ─▶ broken ─▶ pause ─┐
//!     ▲      (last will: presence offline)        messages ─▶ events                          │
//!     └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, LastWill, Packet};
use rumqttc::v5::{AsyncClient, ClientError, ConnectionError, EventLoop, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use wick_fleet::converge::Event;
use wick_fleet::wire::{Body, Channel, MAX_MESSAGE, Presence, Refusal, Topic, seal};
use wick_fleet::{Generation, SiteName};
use wick_package::signature::PrivateKey;

use crate::keep::SiteFile;
use crate::outbox::Outbox;
use crate::state::Shared;
use crate::tls::{self, TlsError, cause, explain, unix_now};

/// How often a silent broker is asked whether it is there. Two packets of two bytes a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Time for socket, TLS and the broker's answer together, in seconds.
const CONNECT: u64 = 15;

/// How long the broker keeps the session of a site that is away.
const SESSION: u32 = 7 * 86_400;

/// Largest packet that the broker is asked to send. Longer messages than the fleet's are taken up to
/// here, so that they are refused with a reason.
const MAX_PACKET: u32 = 4 * MAX_MESSAGE as u32;

/// Requests of ours that wait for the connection: there is one message at a time.
const REQUESTS: usize = 8;

/// Messages that the broker has not confirmed yet. The client keeps room for as many as there may be.
const UNCONFIRMED: u16 = 16;

/// Pauses between connections: up to the first after one failure, doubled up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(30);

/// Connections in a row that were soon ended by the broker. It may say that another one has taken the
/// session, in a form that the client doesn't read.
const SHORT: u32 = 3;

/// Time for goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A site's name and key, by which its messages are known.
#[derive(Debug)]
pub struct Sealer {
    pub site: SiteName,
    pub key: PrivateKey,
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    tls: bool,
}

/// The link, until it is stopped.
pub struct Link {
    pub sealer: Arc<Sealer>,
    /// The key as rustls reads it.
    pub key: zeroize::Zeroizing<String>,
    /// Changes when a certificate is renewed.
    pub site: Arc<Mutex<SiteFile>>,
    /// Told then.
    pub renewed: Arc<Notify>,
    pub outbox: Arc<Outbox>,
    pub events: mpsc::Sender<Event>,
    pub shared: Arc<Shared>,
    /// Of this start of the agent; sessions are numbered by it.
    pub boots: u64,
    sessions: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("`{0}` is no broker: it is mqtts://HOST:PORT or mqtt://HOST:PORT")]
    Broker(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Seal(#[from] Refusal),
    #[error("{0}")]
    Explained(String),
    #[error("the broker refuses this site ({0:?}): its name must be that of its certificate")]
    Refused(ConnectReturnCode),
    #[error("the broker ends each connection soon: perhaps two machines are enrolled as this site")]
    TakenOver,
    #[error(transparent)]
    Connection(#[from] Box<ConnectionError>),
    #[error(transparent)]
    Client(#[from] Box<ClientError>),
    /// The certificate is a new one.
    #[error("the certificate was renewed")]
    Renewed,
}

// === impl Sealer ===

impl Sealer {
    /// A message of this site.
    ///
    /// # Errors
    /// It is too long.
    pub fn seal<B: Body>(&self, generation: Generation, body: &B) -> Result<Vec<u8>, Refusal> {
        seal(&self.topic(B::CHANNEL), generation, body, &self.key, &[])
    }

    pub fn topic(&self, channel: Channel) -> Topic {
        Topic::new(self.site.clone(), channel)
    }
}

// === impl Place ===

impl Place {
    fn parse(text: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Broker(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtts", rest)) => (true, rest),
            Some(("mqtt", rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        // An IPv6 address is in brackets, and has colons without a port too.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, if tls { 8883 } else { 1883 }),
        };
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

/// The pause after so many connections that failed. `luck` is from 0 up to 1: a thousand sites that
/// lost one broker must not come back at once.
fn pause(failures: u32, luck: f64) -> Duration {
    let most = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MOST);
    most.mul_f64(luck.max(0.05))
}

// === impl Link ===

impl Link {
    pub fn new(
        sealer: Arc<Sealer>,
        key: zeroize::Zeroizing<String>,
        site: SiteFile,
        events: mpsc::Sender<Event>,
        boots: u64,
    ) -> Self {
        let shared = Arc::new(Shared::new(site.site.clone(), site.not_after));
        Self {
            sealer,
            key,
            site: Arc::new(Mutex::new(site)),
            renewed: Arc::default(),
            outbox: Arc::default(),
            events,
            shared,
            boots,
            sessions: 0,
        }
    }

    /// Be connected, whenever that is possible, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let ended = self.session(&stop).await;
            let was_up = self.shared.read().link.connected;
            self.shared.change(|known| known.link.connected = false);
            let Err(error) = ended else { return };
            if matches!(error, LinkError::Renewed) {
                continue;
            }
            failures = if begun.elapsed() > GOOD { 1 } else { failures + 1 };
            let text = match failures >= SHORT && was_up {
                true => LinkError::TakenOver.to_string(),
                false => self.told(error),
            };
            let pause = pause(failures, fastrand::f64());
            let known = self.shared.read().link.error;
            if known.as_ref() != Some(&text) {
                tracing::warn!(error = text, "no link to the broker; what is served goes on");
            }
            self.shared.change(|known| known.link.error = Some(text));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.renewed.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// In words that say what to do, where that is known.
    fn told(&self, error: LinkError) -> String {
        let ends = self.site.lock().not_after;
        let explained = match &error {
            LinkError::Connection(error) => {
                cause(&**error).and_then(|error| explain(error, unix_now(), ends))
            }
            _ => None,
        };
        explained.map_or(error, LinkError::Explained).to_string()
    }

    /// One connection, from its beginning to its end. None if it was told to stop.
    async fn session(&mut self, stop: &CancellationToken) -> Result<(), LinkError> {
        self.sessions += 1;
        let session = (self.boots << 32) | self.sessions;
        let presence = |online| self.sealer.seal(Generation(0), &Presence { online, session });
        let (online, offline) = (presence(true)?, presence(false)?);
        let options = self.options(offline.clone())?;
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
        let (up, acked) = (Notify::new(), Notify::new());
        let pump = self.pump(&mut eventloop, &up, &acked);
        let talk = async {
            up.notified().await;
            let desired = self.sealer.topic(Channel::Desired).to_string();
            client.subscribe(desired, QoS::AtLeastOnce).await.map_err(Box::new)?;
            self.publish(&client, Channel::Presence, online).await?;
            acked.notified().await;
            self.outbox.again();
            let end = loop {
                let parcel = tokio::select! {
                    parcel = self.outbox.next() => parcel,
                    () = self.renewed.notified() => break Err(LinkError::Renewed),
                    () = stop.cancelled() => break Ok(()),
                };
                self.publish(&client, parcel.channel, parcel.bytes.clone()).await?;
                acked.notified().await;
                self.outbox.sent(&parcel);
            };
            if end.is_ok() {
                // Said by ourselves, since a broker that is told goodbye forgets the will.
                self.publish(&client, Channel::Presence, offline).await?;
                acked.notified().await;
            }
            client.disconnect().await.map_err(Box::new)?;
            end
        };
        let over = async {
            stop.cancelled().await;
            tokio::time::sleep(GOODBYE).await;
        };
        tokio::select! {
            error = pump => if stop.is_cancelled() { Ok(()) } else { Err(error) },
            done = talk => {
                // What it has asked for last is on its way.
                let _ = tokio::time::timeout(GOODBYE, async {
                    while eventloop.poll().await.is_ok() {}
                }).await;
                done
            }
            () = over => Ok(()),
        }
    }

    /// Hear the broker. It is never dropped in the middle of a packet while the connection lasts.
    async fn pump(&self, eventloop: &mut EventLoop, up: &Notify, acked: &Notify) -> LinkError {
        loop {
            let heard = match eventloop.poll().await {
                Ok(rumqttc::v5::Event::Incoming(packet)) => packet,
                Ok(rumqttc::v5::Event::Outgoing(_)) => continue,
                Err(error) => return error.into(),
            };
            match heard {
                Packet::ConnAck(_) => {
                    tracing::info!("connected to the broker");
                    self.shared.change(|known| {
                        known.link.connected = true;
                        known.link.sessions += 1;
                        known.link.error = None;
                    });
                    up.notify_one();
                }
                Packet::PubAck(_) => acked.notify_one(),
                Packet::Publish(publish) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let event = Event::Message { topic, bytes: publish.payload.to_vec() };
                    // The loop ends only with the whole agent.
                    let _ = self.events.send(event).await;
                }
                _ => {}
            }
        }
    }

    async fn publish(
        &self,
        client: &AsyncClient,
        channel: Channel,
        bytes: Vec<u8>,
    ) -> Result<(), LinkError> {
        let topic = self.sealer.topic(channel).to_string();
        let sent = client.publish(topic, QoS::AtLeastOnce, channel.is_retained(), bytes).await;
        sent.map_err(|error| Box::new(error).into())
    }

    fn options(&self, offline: Vec<u8>) -> Result<MqttOptions, LinkError> {
        let site = self.site.lock().clone();
        let place = Place::parse(&site.broker)?;
        let name = format!("wick-{}", site.site);
        let mut options = MqttOptions::new(name, place.host, place.port);
        let will = self.sealer.topic(Channel::Presence).to_string();
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION))
            .set_max_packet_size(Some(MAX_PACKET))
            .set_outgoing_inflight_upper_limit(UNCONFIRMED)
            .set_connection_timeout(CONNECT)
            .set_last_will(LastWill::new(will, offline, QoS::AtLeastOnce, true, None));
        if place.tls {
            let config = tls::broker(&site, &self.key)?;
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))));
        }
        Ok(options)
    }
}

// === impl LinkError ===

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode::SessionTakenOver;
        match error {
            ConnectionError::ConnectionRefused(code) => Self::Refused(code),
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: SessionTakenOver,
                ..
            }) => Self::TakenOver,
            other => Self::Connection(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn place(text: &str) -> Option<(String, u16, bool)> {
        let place = Place::parse(text).ok()?;
        Some((place.host, place.port, place.tls))
    }

    #[test]
    fn brokers_are_named_by_url() {
        assert_eq!(place("mqtts://b.example:8884"), Some(("b.example".into(), 8884, true)));
        assert_eq!(place("mqtt://10.0.0.1/"), Some(("10.0.0.1".into(), 1883, false)));
        assert_eq!(place("mqtts://[::1]:9"), Some(("[::1]".into(), 9, true)));
        assert_eq!(place("mqtts://[::1]"), Some(("[::1]".into(), 8883, true)));
        for bad in ["", "b.example", "http://b", "mqtt://", "mqtt://b:port", "mqtt://b/path"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn pauses_grow_to_a_minute_and_are_spread() {
        assert!(pause(1, 0.0) > Duration::ZERO && pause(1, 1.0) == FIRST);
        assert_eq!(pause(4, 1.0), FIRST * 8);
        assert_eq!((pause(60, 1.0), pause(60, 0.5)), (MOST, MOST / 2));
    }
}
