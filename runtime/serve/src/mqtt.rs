//! The MQTT 5 front: requests from a broker's topics, answers to their response topics.
//!
//! ```text
//!  broker ──▶ link ──▶ requests ──▶ flow ──▶ compute ──▶ flow ──▶ link ──▶ broker
//!                                    │ ▲                  (answer, then acknowledge)
//!                                    ▼ │
//!                                   dedup
//! ```
//!
//! `flow` decides; this file acts. The front serves beside HTTP and keeps trying to reach its
//! broker: a server is ready or not whatever the broker does.

mod backoff;
mod compute;
mod dedup;
mod flow;
mod link;
mod metrics;
mod requests;
mod settings;
mod topics;

use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    DisconnectReasonCode, Packet, PubAck, PubAckReason, Publish, SubAck, SubscribeReasonCode,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wick_package::error_text;

use crate::repository::Repository;

use dedup::{Memory, MemoryLimits, Refusals};
use flow::{Effect, Flow, FlowLimits, JobId};
use link::{Link, LinkError};
use metrics::MqttMetrics;
use requests::{Answer, Reader, Unanswerable};

pub use settings::{
    BadBrokerUrl, BrokerUrl, DEFAULT_IN_FLIGHT, DEFAULT_SESSION_EXPIRY, MAX_IN_FLIGHT, MqttLogin,
    MqttPassword, MqttSettings, MqttTls,
};
pub use topics::{BadName, Group, Prefix};

/// Answers that are remembered. Repeats come within a reconnection or a device's own retry:
/// minutes, at some hundreds of requests a second.
const MEMORY: MemoryLimits =
    MemoryLimits { entries: 16_384, bytes: 32 << 20, age: Duration::from_secs(300) };

/// Topics without the right to write are few, and rights change. Each request is compared
/// with all of them.
const REFUSALS: MemoryLimits = MemoryLimits { entries: 256, bytes: 0, age: MEMORY.age };

/// How often a fault that devices or the broker can cause at any rate is logged.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The front over a repository.
pub struct Mqtt {
    repository: Repository,
    settings: MqttSettings,
    filters: Vec<String>,
    reader: Reader,
    metrics: MqttMetrics,
    flow: Flow,
    jobs: JoinSet<(JobId, Answer)>,
    unanswerable: Throttle,
    refused: Throttle,
}

/// A connection's bookkeeping.
struct Session {
    link: Link,
    /// A ping without its answer.
    pinged: bool,
    drain: Drain,
}

/// How far a shutdown has come. The ping after the last acknowledgement comes back behind
/// whatever the broker had still queued for this node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    Unsubscribing,
    Unsubscribed,
    Done,
}

/// Lets a line through now and then.
#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

/// What happened next.
enum Event {
    Packet(Box<Packet>),
    Computed(JobId, Answer),
    KeepAlive,
    Stop,
}

// === impl Mqtt ===

impl Mqtt {
    /// # Errors
    /// Another front counts in the repository's metrics already.
    pub fn new(repository: Repository, settings: MqttSettings) -> prometheus::Result<Self> {
        let metrics = MqttMetrics::register(repository.registry())?;
        let names = repository.names();
        let filters = names.iter().flat_map(|name| settings.prefix.filters(&settings.group, name));
        let in_flight = usize::from(settings.in_flight.clamp(1, MAX_IN_FLIGHT));
        let limits = FlowLimits { in_flight, bytes: settings.max_body_memory };
        Ok(Self {
            filters: filters.collect(),
            reader: Reader::new(settings.prefix.clone()),
            metrics,
            flow: Flow::new(limits, Memory::new(MEMORY), Refusals::new(REFUSALS)),
            jobs: JoinSet::new(),
            unanswerable: Throttle::default(),
            refused: Throttle::default(),
            repository,
            settings,
        })
    }

    /// Answer requests until `stop` is cancelled and what was begun is done, or the drain
    /// time is over. A broker that is away is tried again, for as long as it takes.
    pub async fn run(mut self, stop: CancellationToken) {
        let random = RandomState::new();
        let mut failures = 0_u32;
        let mut logged = Throttle::default();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let Err(error) = self.connection(&stop).await else { break };
            self.metrics.connected.set(0);
            self.flow.disconnected();
            failures = match began.elapsed() >= backoff::LONGEST {
                true => 1,
                false => failures.saturating_add(1),
            };
            let pause = backoff::pause(failures, random.hash_one(began));
            if failures == 1 || logged.lets_through(Instant::now()).is_some() {
                let (broker, error) = (&self.settings.broker, error_text(&error));
                tracing::warn!(%broker, error, retry_in = ?pause, "no connection to the broker");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        self.metrics.connected.set(0);
        let left = self.flow.in_flight() + self.flow.waiting();
        if left > 0 {
            tracing::warn!(left, "requests over MQTT are left to the broker, which keeps them");
        }
    }

    /// Connect and serve. Ends well only after `stop`.
    async fn connection(&mut self, stop: &CancellationToken) -> Result<(), LinkError> {
        let link = tokio::select! {
            link = Link::connect(&self.settings) => link?,
            () = stop.cancelled() => return Ok(()),
        };
        let broker = link.broker();
        let mut session = Session { link, pinged: false, drain: Drain::No };
        session.link.subscribe(&self.filters)?;
        let effects = self.flow.connected(broker);
        self.act(&mut session, effects)?;
        self.metrics.connections.inc();
        let mut keep_alive = tokio::time::interval(session.link.keep_alive);
        keep_alive.reset();
        let drain = self.settings.drain;
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        let mut drained = pin!(drained);
        while session.drain != Drain::Done {
            session.link.flush().await?;
            let event = tokio::select! {
                // Each loses nothing when another comes first: see `Link::read`; a job stays
                // in the set, a tick in the interval.
                packet = session.link.read() => Event::Packet(Box::new(packet?)),
                Some(done) = self.jobs.join_next() => match done {
                    Ok((id, answer)) => Event::Computed(id, answer),
                    // `compute` catches panics, and nobody aborts while it runs.
                    Err(error) => return Err(LinkError::Ended(error.to_string())),
                },
                _ = keep_alive.tick() => Event::KeepAlive,
                () = stop.cancelled(), if session.drain == Drain::No => Event::Stop,
                () = &mut drained => break,
            };
            self.handle(&mut session, event)?;
        }
        session.link.disconnect().await;
        Ok(())
    }

    fn handle(&mut self, session: &mut Session, event: Event) -> Result<(), LinkError> {
        match event {
            Event::Computed(id, answer) => {
                let effects = self.flow.computed(Instant::now(), id, answer);
                self.act(session, effects)?;
            }
            Event::KeepAlive if session.pinged => return Err(LinkError::Silent),
            Event::KeepAlive => session.ping()?,
            Event::Stop => {
                session.drain = Drain::Unsubscribing;
                session.link.unsubscribe(&self.filters)?;
            }
            Event::Packet(packet) => self.packet(session, *packet)?,
        }
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.in_flight.set(gauge(self.flow.in_flight()));
        self.metrics.waiting.set(gauge(self.flow.waiting()));
        if session.drain == Drain::Unsubscribed && self.flow.is_idle() && !session.pinged {
            session.ping()?;
        }
        Ok(())
    }

    fn packet(&mut self, session: &mut Session, packet: Packet) -> Result<(), LinkError> {
        match packet {
            Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                Err(LinkError::Protocol("QoS 2, and the subscription is for QoS 1".to_owned()))
            }
            Packet::Publish(publish) => self.request(session, publish),
            Packet::PubAck(ack) => self.acknowledged(session, &ack),
            Packet::SubAck(ack) => self.subscribed(&ack, session.link.broker().session),
            Packet::UnsubAck(_) => {
                session.drain = Drain::Unsubscribed;
                Ok(())
            }
            Packet::PingResp(_) => {
                session.pinged = false;
                if session.drain == Drain::Unsubscribed && self.flow.is_idle() {
                    session.drain = Drain::Done;
                }
                Ok(())
            }
            Packet::Disconnect(reason) => Err(match reason.reason_code {
                DisconnectReasonCode::SessionTakenOver => LinkError::TakenOver,
                code => LinkError::Ended(format!("{code:?}")),
            }),
            other => Err(LinkError::Protocol(format!("unexpected {other:?}"))),
        }
    }

    fn request(&mut self, session: &mut Session, publish: Publish) -> Result<(), LinkError> {
        self.metrics.received.inc();
        let packet = publish.pkid;
        match self.reader.read(publish) {
            Ok(request) => {
                let effects = self.flow.arrived(Instant::now(), request)?;
                self.act(session, effects)
            }
            Err(why) => {
                self.unanswerable(why);
                let effects = self.flow.arrived_unanswerable(packet);
                self.act(session, effects)
            }
        }
    }

    fn unanswerable(&mut self, why: Unanswerable) {
        self.metrics.unanswerable.with_label_values(&[why.as_str()]).inc();
        if let Some(more) = self.unanswerable.lets_through(Instant::now()) {
            let reason = why.as_str();
            tracing::warn!(reason, more, "a message has no place for an answer, and gets none");
        }
    }

    fn acknowledged(&mut self, session: &mut Session, ack: &PubAck) -> Result<(), LinkError> {
        let taken =
            matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        if !taken {
            self.metrics.refused_answers.inc();
            if let Some(more) = self.refused.lets_through(Instant::now()) {
                let topic = self.flow.reply_of(ack.pkid).map(|reply| reply.topic.as_str());
                let reason = ack.reason;
                tracing::warn!(topic, ?reason, more, "the broker does not take an answer");
            }
        }
        let effects = self.flow.acknowledged(Instant::now(), ack.pkid, taken);
        self.act(session, effects)
    }

    fn subscribed(&mut self, ack: &SubAck, session: bool) -> Result<(), LinkError> {
        let refused = ack.return_codes.iter();
        let refused = refused.filter(|code| !matches!(code, SubscribeReasonCode::Success(_)));
        if let Some(code) = refused.into_iter().next() {
            return Err(LinkError::Subscriptions(format!("{code:?}")));
        }
        self.metrics.connected.set(1);
        let (broker, client_id) = (&self.settings.broker, self.settings.client_id.as_str());
        tracing::info!(%broker, client_id, session, "connected to the broker");
        Ok(())
    }

    fn act(&mut self, session: &mut Session, effects: Vec<Effect>) -> Result<(), LinkError> {
        for effect in effects {
            match effect {
                Effect::Start(id, call) => {
                    let (repository, max_body) = (self.repository.clone(), self.settings.max_body);
                    self.jobs.spawn(async move {
                        (id, compute::answer(repository, call, max_body).await)
                    });
                }
                Effect::Publish(publish) => session.link.put(&Packet::Publish(publish))?,
                Effect::Ack(packet) => session.link.acknowledge(packet)?,
                Effect::Answered(None) => self.metrics.answered.inc(),
                Effect::Answered(Some(code)) => {
                    self.metrics.failed.with_label_values(&[code]).inc();
                }
                Effect::Repeated => self.metrics.duplicates.inc(),
                Effect::Refused => self.unanswerable(Unanswerable::Refused),
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mqtt").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Session ===

impl Session {
    fn ping(&mut self) -> Result<(), LinkError> {
        self.pinged = true;
        self.link.ping()
    }
}

// === impl Throttle ===

impl Throttle {
    /// If a line may be written now, how many were not since the last one.
    fn lets_through(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < LOG_PAUSE) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}
