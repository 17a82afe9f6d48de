//! What is in work, and what is still owed to the broker: the state of at-least-once
//! delivery. Pure: messages, answers and time in, effects out.
//!
//! ```text
//!  request ──▶ Start ──▶ computed ──▶ Publish ──▶ its PUBACK ──▶ Ack of the request
//!     │ repeat of one in work: waits for the same answer             (in order of arrival)
//!     └ repeat of one answered: Publish from memory
//! ```
//!
//! A lost connection forgets which requests are unacknowledged, since the broker sends them
//! again; answers that were not acknowledged are kept and sent again. So nothing is lost
//! while one of the two sides remembers it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;

use super::dedup::{Key, Memory, Refusals};
use super::requests::{Answer, Call, Reply, Request};
use crate::respond::{Failure, RETRY_AFTER};

/// Packet identifiers of answers are below; the link's own packets have those above.
pub const MAX_ANSWER_PACKET: u16 = 60_000;

/// Most answers that are sent before the first is acknowledged, whatever the broker takes:
/// each is kept until then. It leaves most identifiers free.
const MAX_SENT: usize = 1024;

/// Most requests that are owed an answer: MQTT has no more identifiers for a connection's, so
/// that only lost sessions can bring more.
const MAX_JOBS: usize = 65_535;

/// A request in work, by any number that is not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// The job of a request that needs none. Numbers of jobs begin at 1.
const NO_JOB: JobId = JobId(0);

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    Start(JobId, Call),
    Publish(Publish),
    /// Acknowledge a request.
    Ack(u16),
    /// A request was answered, with this error's word or well.
    Answered(Option<&'static str>),
    /// A request was a repeat.
    Repeated,
    /// A request gets no answer, since the broker would not take it.
    Refused,
}

/// Bounds of what is in work.
#[derive(Debug, Clone, Copy)]
pub struct FlowLimits {
    /// Requests that are computed, or whose answer is not acknowledged. A broker is told to
    /// hand over no more; mosquitto 2.0 does nevertheless, and those wait for their turn.
    pub in_flight: usize,
    /// Bytes of requests that are computed or wait for it.
    pub bytes: u64,
}

/// What the broker takes.
#[derive(Debug, Clone, Copy)]
pub struct Broker {
    /// Whether it remembers the session, so that it knows packets of the last connection.
    pub session: bool,
    /// Answers that it takes before it acknowledges the first.
    pub receive_maximum: usize,
    /// Most bytes of a packet.
    pub packet: usize,
}

/// The broker hands over more than a connection can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker hands over requests and acknowledges no answers")]
pub struct Overrun;

/// The state of delivery.
#[derive(Debug)]
pub struct Flow {
    limits: FlowLimits,
    memory: Memory,
    refusals: Refusals,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs that can be repeated. Invariant: each is in `jobs`.
    keys: HashMap<Key, JobId>,
    /// Jobs that are not started yet.
    waiting: VecDeque<JobId>,
    /// Started jobs whose answer is not delivered.
    active: usize,
    /// Requests of this connection that are not acknowledged, in the order of their arrival.
    arrived: VecDeque<(u16, JobId)>,
    /// Jobs whose answers wait to be sent.
    ready: VecDeque<JobId>,
    /// Answers without their acknowledgement, oldest first.
    sent: VecDeque<(u16, JobId)>,
    /// Identifiers that answers have.
    packets: HashSet<u16>,
    /// None without a connection.
    broker: Option<Broker>,
    bytes: u64,
    last_job: u64,
    last_packet: u16,
}

#[derive(Debug)]
struct Job {
    key: Option<Key>,
    reply: Reply,
    qos: QoS,
    at: Instant,
    /// Bytes of its request, until it is computed.
    bytes: u64,
    /// None once it is started.
    call: Option<Call>,
    started: bool,
    answer: Option<Answer>,
    /// Set once its answer was sent.
    packet: Option<u16>,
}

// === impl Flow ===

impl Flow {
    pub fn new(limits: FlowLimits, memory: Memory, refusals: Refusals) -> Self {
        Self {
            limits,
            memory,
            refusals,
            jobs: BTreeMap::new(),
            keys: HashMap::new(),
            waiting: VecDeque::new(),
            active: 0,
            arrived: VecDeque::new(),
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            packets: HashSet::new(),
            broker: None,
            bytes: 0,
            last_job: 0,
            last_packet: 0,
        }
    }

    /// A connection is there: send again what was not acknowledged, then what waits.
    pub fn connected(&mut self, broker: Broker) -> Vec<Effect> {
        if !broker.session {
            // Identifiers of a session that the broker has forgotten mean nothing to it.
            self.jobs.values_mut().for_each(|job| job.packet = None);
            self.packets.clear();
        }
        self.broker = Some(broker);
        let mut effects = Vec::new();
        self.send(&mut effects);
        effects
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.broker = None;
        self.arrived.clear();
        while let Some((_, job)) = self.sent.pop_back() {
            self.ready.push_front(job);
        }
    }

    /// A request has come.
    ///
    /// # Errors
    /// More is owed than can be: the connection must be given up.
    pub fn arrived(&mut self, now: Instant, request: Request) -> Result<Vec<Effect>, Overrun> {
        let acknowledged = request.qos != QoS::AtMostOnce;
        if self.jobs.len() >= MAX_JOBS {
            return Err(Overrun);
        }
        let packet = request.packet;
        if self.refusals.contains(now, &request.reply.topic) {
            let mut effects = self.arrived_unanswerable(packet);
            effects.push(Effect::Refused);
            return Ok(effects);
        }
        let mut effects = Vec::new();
        let in_work = request.key.as_ref().and_then(|key| self.keys.get(key)).copied();
        let job = match in_work {
            Some(id) => {
                effects.push(Effect::Repeated);
                if acknowledged && let Some(job) = self.jobs.get_mut(&id) {
                    // The better delivery of the two.
                    job.qos = QoS::AtLeastOnce;
                }
                id
            }
            None => self.begin(now, request, &mut effects),
        };
        if acknowledged {
            self.arrived.push_back((packet, job));
        }
        self.start(now, &mut effects);
        self.send(&mut effects);
        Ok(effects)
    }

    /// A message that gets no answer has come: it is acknowledged, in its turn.
    pub fn arrived_unanswerable(&mut self, packet: u16) -> Vec<Effect> {
        let mut effects = Vec::new();
        if packet > 0 {
            self.arrived.push_back((packet, NO_JOB));
            self.settle(&mut effects);
        }
        effects
    }

    /// A job is computed.
    pub fn computed(&mut self, now: Instant, id: JobId, answer: Answer) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(job) = self.jobs.get_mut(&id) {
            self.bytes -= std::mem::take(&mut job.bytes);
            effects.push(Effect::Answered(answer.code));
            job.answer = Some(answer);
            if job.qos == QoS::AtMostOnce && self.broker.is_none() {
                // Nobody promised to deliver it.
                self.finish(now, id, true);
            } else {
                self.ready.push_back(id);
            }
        }
        self.send(&mut effects);
        self.start(now, &mut effects);
        effects
    }

    /// The broker has acknowledged an answer, or refused it for good.
    pub fn acknowledged(&mut self, now: Instant, packet: u16, taken: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        // One of an earlier connection, which was sent again under another identifier, is not
        // there any more.
        if let Some(at) = self.sent.iter().position(|(sent, _)| *sent == packet)
            && let Some((_, id)) = self.sent.remove(at)
        {
            if let Some(job) = self.jobs.get(&id).filter(|_| !taken) {
                self.refusals.insert(now, job.reply.topic.clone());
            }
            self.finish(now, id, taken);
        }
        self.settle(&mut effects);
        self.send(&mut effects);
        self.start(now, &mut effects);
        effects
    }

    /// Requests in work, answers that are not delivered included.
    pub fn in_flight(&self) -> usize {
        self.jobs.len() - self.waiting.len()
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is owed to anybody.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.arrived.is_empty()
    }

    /// Where the answer of a job goes, for the log.
    pub fn reply_of(&self, packet: u16) -> Option<&Reply> {
        let (_, id) = self.sent.iter().find(|(sent, _)| *sent == packet)?;
        self.jobs.get(id).map(|job| &job.reply)
    }

    fn begin(&mut self, now: Instant, request: Request, effects: &mut Vec<Effect>) -> JobId {
        self.last_job += 1;
        let id = JobId(self.last_job);
        let known = request.key.as_ref().and_then(|key| self.memory.get(now, key)).cloned();
        let mut job = Job {
            key: request.key,
            reply: request.reply,
            qos: request.qos,
            at: now,
            bytes: 0,
            call: None,
            started: false,
            answer: None,
            packet: None,
        };
        // Without a promise of delivery, nobody needs to hold it.
        let full = job.qos == QoS::AtMostOnce && self.active >= self.limits.in_flight;
        let (answer, call) = match (known, request.call) {
            (Some(answer), _) => {
                effects.push(Effect::Repeated);
                (Some(answer), None)
            }
            (None, Err(failure)) => (Some(Answer::failed(&failure)), None),
            (None, Ok(call)) if full => {
                let full = Failure::QueueFull { model: call.model, retry_after: RETRY_AFTER };
                (Some(Answer::failed(&full)), None)
            }
            (None, Ok(_)) if self.bytes + request.bytes > self.limits.bytes => {
                (Some(Answer::failed(&Failure::OutOfBodyMemory)), None)
            }
            (None, Ok(call)) => (None, Some(call)),
        };
        if call.is_some() {
            job.bytes = request.bytes;
            self.bytes += request.bytes;
            job.call = call;
            self.waiting.push_back(id);
        }
        if let Some(answer) = answer {
            effects.push(Effect::Answered(answer.code));
            job.answer = Some(answer);
            self.ready.push_back(id);
        }
        if let Some(key) = &job.key {
            self.keys.insert(key.clone(), id);
        }
        self.jobs.insert(id, job);
        id
    }

    /// Start what waits, as far as there is a place.
    fn start(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.active < self.limits.in_flight {
            let Some(id) = self.waiting.pop_front() else { break };
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let Some(mut call) = job.call.take() else { continue };
            // The deadline is the client's; waiting is part of it.
            let waited = now.saturating_duration_since(job.at);
            call.timeout = call.timeout.map(|timeout| timeout.saturating_sub(waited));
            job.started = true;
            self.active += 1;
            effects.push(Effect::Start(id, call));
        }
    }

    /// Send what is ready, as far as the broker takes it.
    fn send(&mut self, effects: &mut Vec<Effect>) {
        let Some(broker) = self.broker else { return };
        while self.sent.len() < broker.receive_maximum.min(MAX_SENT) {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(job) = self.jobs.get(&id) else { continue };
            // One that was sent before keeps its identifier.
            let packet = match (job.qos, job.packet) {
                (QoS::AtMostOnce, _) => 0,
                (_, Some(packet)) => packet,
                (_, None) => self.free_packet(),
            };
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let Some(answer) = &mut job.answer else { continue };
            if answer.packet_size(&job.reply) > broker.packet {
                let (limit, whose) = (broker.packet as u64, "the broker".into());
                *answer = Answer::failed(&Failure::TooLarge { limit, whose });
            }
            if job.qos == QoS::AtMostOnce {
                effects.push(Effect::Publish(answer.publish(&job.reply, job.qos, packet, false)));
                self.forget(id);
                continue;
            }
            let again = job.packet.replace(packet).is_some();
            effects.push(Effect::Publish(answer.publish(&job.reply, job.qos, packet, again)));
            self.sent.push_back((packet, id));
        }
        // An answer of QoS 0 settles a request that arrived with QoS 1 and the same key.
        self.settle(effects);
    }

    /// Acknowledge the requests whose answers are delivered, in the order of their arrival:
    /// MQTT demands the order.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        while let Some(&(packet, id)) = self.arrived.front() {
            if self.jobs.contains_key(&id) {
                break;
            }
            self.arrived.pop_front();
            effects.push(Effect::Ack(packet));
        }
    }

    fn finish(&mut self, now: Instant, id: JobId, remember: bool) {
        if let Some((Some(key), Some(answer))) = self.forget(id)
            && remember
            // An error that passes is not what a second try should get.
            && !(answer.status == 429 || answer.status >= 500)
        {
            self.memory.insert(now, key, answer);
        }
    }

    fn forget(&mut self, id: JobId) -> Option<(Option<Key>, Option<Answer>)> {
        let job = self.jobs.remove(&id)?;
        if let Some(key) = &job.key {
            self.keys.remove(key);
        }
        if let Some(packet) = job.packet {
            self.packets.remove(&packet);
        }
        self.active -= usize::from(job.started);
        Some((job.key, job.answer))
    }

    /// An identifier that no answer has: see [`MAX_SENT`].
    fn free_packet(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet % MAX_ANSWER_PACKET + 1;
            if self.packets.insert(self.last_packet) {
                return self.last_packet;
            }
        }
    }
}

#[cfg(test)]
mod tests;
