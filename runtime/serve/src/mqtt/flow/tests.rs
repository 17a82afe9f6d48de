//! Scripts of events, and random ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::dedup::MemoryLimits;
use super::*;

const IN_FLIGHT: usize = 3;

fn flow() -> Flow {
    let memory = MemoryLimits { entries: 100, bytes: 1 << 20, age: Duration::from_secs(60) };
    let limits = FlowLimits { in_flight: IN_FLIGHT, bytes: 1000 };
    Flow::new(limits, Memory::new(memory), Refusals::new(memory))
}

fn broker(session: bool, receive_maximum: usize) -> Broker {
    Broker { session, receive_maximum, packet: 2000 }
}

/// A request of 100 bytes, or of 900 if its name begins with `big`.
fn request(packet: u16, name: &str) -> Request {
    let correlation = Bytes::copy_from_slice(name.as_bytes());
    let call = Call {
        model: "m".into(),
        version: None,
        header: None,
        body: Bytes::new(),
        timeout: None,
        traceparent: None,
        tracestate: None,
    };
    Request {
        packet,
        qos: if packet == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
        key: Some(Key { topic: "t".into(), correlation: correlation.clone(), content: 0 }),
        reply: Reply { topic: "t".into(), correlation: Some(correlation) },
        bytes: if name.starts_with("big") { 950 } else { 100 },
        call: Ok(call),
    }
}

fn answer(status: u16, bytes: usize) -> Answer {
    let code = (status != 200).then_some("bad");
    Answer { payload: vec![b'x'; bytes].into(), header: None, status, code }
}

fn name(publish: &Publish) -> String {
    let properties = publish.properties.as_ref().unwrap();
    String::from_utf8(properties.correlation_data.clone().unwrap().to_vec()).unwrap()
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Start(JobId(id), _) => format!("start {id}"),
        Effect::Publish(publish) => {
            let status = &publish.properties.as_ref().unwrap().user_properties[0].1;
            let again = if publish.dup { " again" } else { "" };
            format!("publish {} as {}: {status}{again}", name(publish), publish.pkid)
        }
        Effect::Ack(packet) => format!("ack {packet}"),
        Effect::Answered(_) => String::new(),
        Effect::Repeated => "repeated".to_owned(),
        Effect::Refused => "refused".to_owned(),
    }
}

/// Play events and compare what follows each: `EVENT -> EFFECT, EFFECT`.
fn check(script: &str) {
    let (mut flow, mut now) = (flow(), Instant::now());
    let (mut played, mut wanted) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let event = line.split(" ->").next().unwrap();
        let words: Vec<&str> = event.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u16>().unwrap();
        let effects = match words[0] {
            "connect" => Ok(flow.connected(broker(words[1] == "old", number(2).into()))),
            "lose" => {
                flow.disconnected();
                Ok(Vec::new())
            }
            "wait" => {
                now += Duration::from_secs(number(1).into());
                Ok(Vec::new())
            }
            "request" => flow.arrived(now, request(number(1), words[2])),
            "computed" => {
                let bytes = words.get(3).map_or(1, |_| number(3)).into();
                Ok(flow.computed(now, JobId(number(1).into()), answer(number(2), bytes)))
            }
            "puback" => Ok(flow.acknowledged(now, number(1), true)),
            "refused" => Ok(flow.acknowledged(now, number(1), false)),
            other => panic!("no event {other}"),
        };
        let effects = match effects {
            Ok(effects) => effects.iter().map(show).filter(|text| !text.is_empty()).collect(),
            Err(Overrun) => vec!["overrun".to_owned()],
        };
        let effects: Vec<String> = effects;
        let arrow = if effects.is_empty() { "" } else { " -> " };
        writeln!(played, "{event}{arrow}{}", effects.join(", ")).unwrap();
        writeln!(wanted, "{line}").unwrap();
    }
    assert_eq!(played, wanted);
}

#[test]
fn a_request_is_acknowledged_after_its_answer_is() {
    check(
        "connect new 10
         request 5 a -> start 1
         computed 1 200 -> publish a as 1: 200
         puback 1 -> ack 5",
    );
}

#[test]
fn requests_are_acknowledged_in_the_order_of_their_arrival() {
    check(
        "connect new 10
         request 5 a -> start 1
         request 6 b -> start 2
         computed 2 200 -> publish b as 1: 200
         puback 1
         computed 1 200 -> publish a as 2: 200
         puback 2 -> ack 5, ack 6",
    );
}

#[test]
fn a_repeat_of_one_in_work_is_not_started_twice() {
    check(
        "connect new 10
         request 5 a -> start 1
         request 6 a -> repeated
         computed 1 200 -> publish a as 1: 200
         puback 1 -> ack 5, ack 6",
    );
}

#[test]
fn a_repeat_is_answered_from_memory_until_it_is_old() {
    check(
        "connect new 10
         request 5 a -> start 1
         computed 1 200 -> publish a as 1: 200
         puback 1 -> ack 5
         request 6 a -> repeated, publish a as 2: 200
         puback 2 -> ack 6
         wait 61
         request 7 a -> start 3",
    );
}

#[test]
fn errors_that_pass_are_not_remembered() {
    check(
        "connect new 10
         request 5 a -> start 1
         computed 1 503 -> publish a as 1: 503
         puback 1 -> ack 5
         request 6 a -> start 2
         computed 2 400 -> publish a as 2: 400
         puback 2 -> ack 6
         request 7 a -> repeated, publish a as 3: 400",
    );
}

#[test]
fn after_a_lost_connection_answers_are_sent_again_and_requests_come_again() {
    check(
        "connect new 10
         request 5 a -> start 1
         request 6 b -> start 2
         computed 1 200 -> publish a as 1: 200
         lose
         computed 2 200
         connect old 10 -> publish a as 1: 200 again, publish b as 2: 200
         request 5 a -> repeated
         request 6 b -> repeated
         puback 1 -> ack 5
         puback 2 -> ack 6",
    );
}

#[test]
fn a_session_that_the_broker_forgot_loses_no_answer() {
    check(
        "connect new 10
         request 5 a -> start 1
         computed 1 200 -> publish a as 1: 200
         lose
         connect new 10 -> publish a as 2: 200
         puback 1
         puback 2",
    );
}

#[test]
fn the_brokers_receive_maximum_holds_answers_back() {
    check(
        "connect new 1
         request 5 a -> start 1
         request 6 b -> start 2
         computed 1 200 -> publish a as 1: 200
         computed 2 200
         puback 1 -> ack 5, publish b as 2: 200
         puback 2 -> ack 6",
    );
}

#[test]
fn what_a_broker_hands_over_too_much_waits_for_its_turn() {
    check(
        "connect new 10
         request 5 a -> start 1
         request 6 b -> start 2
         request 7 c -> start 3
         request 8 d
         request 9 e
         request 10 d -> repeated
         computed 2 200 -> publish b as 1: 200
         puback 1 -> start 4
         computed 1 200 -> publish a as 2: 200
         puback 2 -> ack 5, ack 6, start 5",
    );
}

#[test]
fn the_clients_deadline_holds_while_its_request_waits() {
    let (mut flow, now) = (flow(), Instant::now());
    flow.connected(broker(false, 10));
    for packet in 1..=3 {
        flow.arrived(now, request(packet, &format!("r{packet}"))).unwrap();
    }
    let mut last = request(4, "last");
    last.call.as_mut().unwrap().timeout = Some(Duration::from_secs(5));
    assert!(flow.arrived(now, last).unwrap().is_empty());
    flow.computed(now, JobId(1), answer(200, 1));
    let effects = flow.acknowledged(now + Duration::from_secs(2), 1, true);
    let timeout = effects.iter().find_map(|effect| match effect {
        Effect::Start(JobId(4), call) => call.timeout,
        _ => None,
    });
    assert_eq!(timeout, Some(Duration::from_secs(3)));
}

#[test]
fn what_waits_when_the_connection_is_lost_is_done_once() {
    check(
        "connect new 10
         request 5 a -> start 1
         request 6 b -> start 2
         request 7 c -> start 3
         request 8 d
         lose
         computed 1 200
         connect old 10 -> publish a as 1: 200
         request 5 a -> repeated
         request 8 d -> repeated
         puback 1 -> ack 5, start 4
         computed 4 200 -> publish d as 2: 200
         puback 2 -> ack 8",
    );
}

#[test]
fn without_delivery_promised_overload_is_an_answer() {
    check(
        "connect new 10
         request 0 a -> start 1
         request 0 b -> start 2
         request 0 c -> start 3
         request 0 d -> publish d as 0: 429
         computed 1 200 -> publish a as 0: 200
         lose
         computed 2 200
         connect old 10
         computed 3 200 -> publish c as 0: 200",
    );
}

#[test]
fn bytes_in_work_are_bounded() {
    check(
        "connect new 10
         request 5 big -> start 1
         request 6 b -> publish b as 1: 503
         computed 1 200 -> publish big as 2: 200
         request 7 c -> start 3",
    );
}

#[test]
fn an_answer_that_the_broker_cannot_take_is_an_error_that_says_so() {
    check(
        "connect new 10
         request 5 a -> start 1
         computed 1 200 5000 -> publish a as 1: 413
         puback 1 -> ack 5",
    );
}

#[test]
fn an_answer_that_the_broker_refuses_is_not_tried_again_for_a_while() {
    check(
        "connect new 10
         request 5 a -> start 1
         computed 1 200 -> publish a as 1: 200
         refused 1 -> ack 5
         lose
         connect old 10
         request 5 a -> ack 5, refused
         wait 61
         request 6 a -> start 2",
    );
}

/// The broker's side, as far as delivery goes.
#[derive(Default)]
struct Model {
    connected: bool,
    next_packet: u16,
    /// Requests that are not acknowledged, by packet.
    owed: BTreeMap<u16, String>,
    /// Answers that wait for our acknowledgement.
    unacknowledged: Vec<(u16, String)>,
    jobs: Vec<JobId>,
    answered: BTreeSet<String>,
}

impl Model {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start(id, _) => self.jobs.push(id),
                Effect::Publish(publish) => {
                    assert!(self.connected);
                    let twice = self.unacknowledged.iter().any(|(id, _)| *id == publish.pkid);
                    assert!(!twice, "an identifier in use was used again");
                    self.unacknowledged.push((publish.pkid, name(&publish)));
                }
                Effect::Ack(packet) => {
                    let first = *self.owed.keys().next().unwrap();
                    assert_eq!(packet, first, "out of order");
                    let name = self.owed.remove(&packet).unwrap();
                    assert!(self.answered.contains(&name), "acknowledged before its answer");
                }
                Effect::Answered(_) | Effect::Repeated | Effect::Refused => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_acknowledged_before_its_answer_and_all_is_in_the_end(
        events in proptest::collection::vec((0_u8..6, 0_u8..6, any::<bool>()), 1..200),
    ) {
        let (mut flow, mut model, now) = (flow(), Model::default(), Instant::now());
        let rest = (0..160).map(|step| ([4_u8, 1, 2, 2][step % 4], 0, true));
        for (kind, which, session) in events.into_iter().chain(rest) {
            match kind {
                0 if model.connected && model.owed.len() < 2 * IN_FLIGHT => {
                    model.next_packet += 1;
                    let (packet, name) = (model.next_packet, format!("r{which}"));
                    model.owed.insert(packet, name.clone());
                    let effects = flow.arrived(now, request(packet, &name));
                    model.take(effects.unwrap());
                }
                1 if !model.jobs.is_empty() => {
                    let id = model.jobs.remove(usize::from(which) % model.jobs.len());
                    let effects = flow.computed(now, id, answer(200, 1));
                    model.take(effects);
                }
                2 if !model.unacknowledged.is_empty() => {
                    let (packet, name) = model.unacknowledged.remove(0);
                    model.answered.insert(name);
                    let effects = flow.acknowledged(now, packet, true);
                    model.take(effects);
                }
                3 if model.connected => {
                    flow.disconnected();
                    model.connected = false;
                    model.unacknowledged.clear();
                }
                4 if !model.connected => {
                    model.connected = true;
                    let effects = flow.connected(broker(session, 2));
                    model.take(effects);
                    // What is owed comes again; a forgotten session owes nothing.
                    let owed = std::mem::take(&mut model.owed);
                    for (packet, name) in owed.into_iter().filter(|_| session) {
                        model.owed.insert(packet, name.clone());
                        let effects = flow.arrived(now, request(packet, &name));
                        model.take(effects.unwrap());
                    }
                }
                _ => {}
            }
        }
        prop_assert!(flow.is_idle(), "{flow:?}");
        prop_assert!(model.owed.is_empty());
        prop_assert_eq!(flow.bytes, 0);
    }
}
