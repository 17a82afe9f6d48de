//! A site driven by scripts, and by events in any order: what is promised holds after each.

use std::time::Duration;

use proptest::prelude::*;
use wick_fleet::converge::{Effect, Event, Fault, Kept, Settings, Site, Version};
use wick_fleet::wire::{Channel, Desired, KeyRing, State, Topic, seal};
use wick_fleet::{Generation, Model, Moment, SiteName};
use wick_package::Digest;
use wick_package::signature::PrivateKey;

const MIB: u64 = 1 << 20;

fn hub() -> PrivateKey {
    PrivateKey::from_seed(&[1; 32])
}

fn name() -> SiteName {
    "plant-3".parse().unwrap()
}

fn model(version: u8) -> Model {
    Model {
        name: "filetype".parse().unwrap(),
        image: "registry.example/filetype".to_owned(),
        digest: Digest::of(&[version]),
        bytes: 40 * MIB,
        memory: 40 * MIB,
    }
}

fn message(generation: u64, versions: &[u8], key: &PrivateKey) -> Event {
    let topic = Topic::new(name(), Channel::Desired);
    let models = versions.iter().map(|version| model(*version)).collect();
    let body = Desired { models, rollout: None };
    let bytes = seal(&topic, Generation(generation), &body, key, &[]).unwrap();
    Event::Message { topic: topic.to_string(), bytes }
}

/// A site, its time, and what it was told to do.
struct Bench {
    site: Site,
    now: Moment,
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let kept = Kept::enrolled(KeyRing::new(1, vec![hub().public()]).unwrap());
        let site = Site::new(name(), Settings::new(100 * MIB, 100 * MIB), kept);
        let mut bench = Self { site, now: Moment::from_millis(1000), effects: Vec::new() };
        bench.event(Event::Booted { running: Vec::new(), stored: Vec::new() });
        bench
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.site.handle(event, self.now);
        self.site.check().unwrap();
        self.effects.extend(effects.iter().cloned());
        effects
    }

    /// Do everything that it asks for, without a fault.
    fn settle(&mut self, first: Event) {
        let mut events = vec![first];
        while let Some(event) = events.pop() {
            events.extend(self.event(event).into_iter().filter_map(done));
        }
    }

    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        self.now = self.now + Duration::from_secs(seconds);
        self.event(Event::Tick)
    }

    fn refused(&self) -> Option<String> {
        let reports = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Report { observed, .. } => Some(observed.refused.clone()),
            _ => None,
        });
        reports.flatten().map(|refused| refused.code)
    }
}

/// The event that follows an effect, where all goes well.
fn done(effect: Effect) -> Option<Event> {
    Some(match effect {
        Effect::Fetch(model) => Event::Fetched { digest: model.digest },
        Effect::Cancel(digest) => Event::FetchFailed { digest, fault: Fault::Cancelled },
        Effect::Evict(digest) => Event::Evicted { digest },
        Effect::Start(model) => Event::Ready { version: Version::from(&model) },
        Effect::Stop(version) => Event::Stopped { version },
        Effect::Activate { generation, .. } => Event::Activated { generation },
        Effect::Drain(version) => Event::Drained { version },
        Effect::Keep(_) | Effect::Report { .. } => return None,
    })
}

#[test]
fn a_new_version_is_ready_and_kept_before_it_gets_traffic_and_the_old_one_goes() {
    let mut bench = Bench::new();
    bench.settle(message(1, &[1], &hub()));
    assert_eq!(bench.site.active(), Some(Generation(1)));
    bench.effects.clear();
    bench.settle(message(2, &[2], &hub()));
    assert_eq!(bench.site.state(), State::Converged);
    let names: Vec<_> = bench.effects.iter().filter_map(word).collect();
    assert_eq!(names, ["keep 2", "fetch", "start", "keep 2", "activate 2", "drain", "stop"]);
}

fn word(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Keep(kept) => format!("keep {}", kept.wanted.as_ref().unwrap().generation),
        Effect::Fetch(_) => "fetch".to_owned(),
        Effect::Cancel(_) => "cancel".to_owned(),
        Effect::Evict(_) => "evict".to_owned(),
        Effect::Start(_) => "start".to_owned(),
        Effect::Stop(_) => "stop".to_owned(),
        Effect::Activate { generation, .. } => format!("activate {generation}"),
        Effect::Drain(_) => "drain".to_owned(),
        Effect::Report { .. } => return None,
    })
}

#[test]
fn what_is_older_or_not_signed_or_something_else_is_refused_and_reported() {
    let mut bench = Bench::new();
    bench.settle(message(5, &[1], &hub()));
    let stranger = PrivateKey::from_seed(&[9; 32]);
    let cases = [
        (message(4, &[2], &hub()), "older"),
        (message(0, &[2], &hub()), "older"),
        (message(5, &[2], &hub()), "conflict"),
        (message(6, &[2], &stranger), "key"),
        (message(6, &[2, 2], &hub()), "models"),
        (Event::Message { topic: "wick/v1/plant-4/desired".into(), bytes: vec![] }, "other-topic"),
        (Event::Message { topic: "wick/v1/plant-3/desired".into(), bytes: vec![0] }, "malformed"),
    ];
    for (event, code) in cases {
        bench.event(event);
        bench.wait(10);
        assert_eq!(bench.refused().as_deref(), Some(code));
        assert_eq!(bench.site.kept().wanted.as_ref().unwrap().generation, Generation(5));
    }
    // The same message again is none: brokers deliver twice.
    bench.effects.clear();
    bench.event(message(5, &[1], &hub()));
    assert_eq!(bench.effects, []);
}

#[test]
fn refusals_in_a_row_are_told_once_in_a_while() {
    let mut bench = Bench::new();
    bench.settle(message(5, &[1], &hub()));
    bench.effects.clear();
    for _ in 0..100 {
        bench.event(message(4, &[2], &hub()));
    }
    assert_eq!(bench.effects.len(), 1);
    assert!(bench.site.due().is_some());
    let Some(Effect::Report { observed, .. }) = bench.wait(10).pop() else { panic!("no report") };
    assert_eq!(observed.refused.unwrap().count, 100);
}

#[test]
fn a_version_that_never_gets_ready_leaves_the_old_one_serving() {
    let mut bench = Bench::new();
    bench.settle(message(1, &[1], &hub()));
    bench.effects.clear();
    bench.event(message(2, &[2], &hub()));
    bench.event(Event::Fetched { digest: model(2).digest });
    bench.wait(600);
    assert_eq!(bench.site.state(), State::Waiting);
    assert_eq!(bench.site.active(), Some(Generation(1)));
    let one = Version::from(&model(1));
    assert!(!bench.effects.contains(&Effect::Stop(one.clone())));
    assert!(!bench.effects.contains(&Effect::Drain(one)));
    let Some(Effect::Report { observed, .. }) = bench.effects.last() else { panic!("no report") };
    assert_eq!((observed.reason.as_deref(), observed.attempts), (Some("not-ready"), 1));
    // It is tried again, and what was wrong may be over.
    bench.settle(Event::Stopped { version: Version::from(&model(2)) });
    let effects = bench.wait(10);
    assert!(effects.contains(&Effect::Start(model(2))), "{effects:?}");
    bench.settle(Event::Ready { version: Version::from(&model(2)) });
    assert_eq!(bench.site.state(), State::Converged);
}

#[test]
fn a_version_that_dies_again_and_again_is_given_up_before_its_time_is_over() {
    let mut bench = Bench::new();
    bench.settle(message(1, &[1], &hub()));
    bench.event(message(2, &[2], &hub()));
    bench.event(Event::Fetched { digest: model(2).digest });
    let version = Version::from(&model(2));
    for pause in [10, 20] {
        bench.event(Event::Died { version: version.clone() });
        assert_eq!(bench.site.state(), State::Staging);
        let started = bench.wait(pause);
        assert!(started.contains(&Effect::Start(model(2))), "{started:?}");
    }
    bench.event(Event::Died { version });
    assert_eq!(bench.site.state(), State::Waiting);
    assert_eq!(bench.site.active(), Some(Generation(1)));
    // It is still wanted, and tried again.
    bench.wait(10);
    assert_eq!(bench.site.state(), State::Staging);
}

#[test]
fn a_served_version_that_died_and_came_back_is_drained_before_it_is_stopped() {
    let mut bench = Bench::new();
    bench.settle(message(1, &[1], &hub()));
    bench.event(Event::Died { version: Version::from(&model(1)) });
    let effects = bench.wait(10);
    assert!(effects.contains(&Effect::Start(model(1))), "{effects:?}");
    bench.settle(Event::Ready { version: Version::from(&model(1)) });
    bench.effects.clear();
    bench.settle(message(2, &[], &hub()));
    let names: Vec<_> = bench.effects.iter().filter_map(word).collect();
    assert_eq!(names, ["keep 2", "keep 2", "activate 2", "drain", "stop"]);
}

#[test]
fn a_site_restarts_without_hub_broker_and_registry() {
    let mut bench = Bench::new();
    bench.settle(message(1, &[1], &hub()));
    bench.event(message(2, &[2], &hub()));
    // Power is lost while bytes come; they never will.
    let stored = vec![(model(1).digest, model(1).bytes)];
    let effects = bench.event(Event::Booted { running: Vec::new(), stored });
    assert!(effects.contains(&Effect::Start(model(1))), "{effects:?}");
    assert_eq!(bench.site.state(), State::Fetching);
    let effects = bench.event(Event::Ready { version: Version::from(&model(1)) });
    assert!(matches!(&effects[..], [Effect::Activate { generation: Generation(1), .. }, ..]));
}

#[test]
fn what_does_not_fit_beside_what_is_served_is_refused_by_name() {
    let mut bench = Bench::new();
    bench.settle(message(1, &[1], &hub()));
    let topic = Topic::new(name(), Channel::Desired);
    let vast = Model { memory: 61 * MIB, ..model(2) };
    let body = Desired { models: vec![vast], rollout: None };
    let bytes = seal(&topic, Generation(2), &body, &hub(), &[]).unwrap();
    bench.event(Event::Message { topic: topic.to_string(), bytes });
    let Some(Effect::Report { observed, .. }) = bench.effects.last() else { panic!("no report") };
    assert_eq!(observed.reason.as_deref(), Some("no-memory"));
}

fn any_event() -> impl Strategy<Value = Event> {
    let version = (1u8..5).prop_map(|version| Version::from(&model(version)));
    let digest = (1u8..5).prop_map(|version| model(version).digest);
    let fault = prop_oneof![
        Just(Fault::Unreachable),
        Just(Fault::WrongBytes),
        Just(Fault::DiskFull),
        Just(Fault::Cancelled),
    ];
    let boot = (prop::bool::ANY, 0u8..3).prop_map(|(runs, stored)| Event::Booted {
        running: if runs { vec![model(1)] } else { Vec::new() },
        stored: (1..=stored).map(|version| (model(version).digest, model(version).bytes)).collect(),
    });
    prop_oneof![
        4 => (0u64..8, 1u8..5).prop_map(|(generation, v)| message(generation, &[v], &hub())),
        1 => boot,
        4 => digest.clone().prop_map(|digest| Event::Fetched { digest }),
        1 => (digest.clone(), fault).prop_map(|(digest, fault)| Event::FetchFailed { digest, fault }),
        2 => digest.prop_map(|digest| Event::Evicted { digest }),
        4 => version.clone().prop_map(|version| Event::Ready { version }),
        1 => version.clone().prop_map(|version| Event::Died { version }),
        4 => (0u64..8).prop_map(|generation| Event::Activated { generation: Generation(generation) }),
        2 => version.clone().prop_map(|version| Event::Drained { version }),
        2 => version.prop_map(|version| Event::Stopped { version }),
        4 => Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn promises_hold_for_events_in_any_order(
        events in prop::collection::vec((any_event(), 0u64..400), 1..80)
    ) {
        let mut bench = Bench::new();
        let mut serving = Generation::default();
        for (event, seconds) in events {
            bench.now = bench.now + Duration::from_secs(seconds);
            bench.site.handle(event, bench.now);
            prop_assert_eq!(bench.site.check(), Ok(()));
            let now = bench.site.kept().serving.as_ref().map_or(serving, |spec| spec.generation);
            prop_assert!(now >= serving, "{} after {}", now, serving);
            serving = now;
            if let Some(due) = bench.site.due() {
                prop_assert!(due > bench.now, "due in the past: it would be called for ever");
            }
        }
    }
}
