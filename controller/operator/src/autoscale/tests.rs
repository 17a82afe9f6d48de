use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The script's time starts here.
const START: u64 = 1_000_000;

fn settings(scale: &Value) -> Settings {
    let model = json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "m"},
        "spec": {"package": {"image": "r.example/m:1"}, "scale": scale},
    });
    Settings::of(&wick_api::parse(model).unwrap().spec.scale)
}

fn at(second: u64) -> Moment {
    Moment::from_millis(START + second * 1000)
}

/// Runs a script: `SECONDS: REQUESTS [held N]` is a load from then on, told every second; pods
/// become ready at once unless `slow`, which leaves them at none. Prints each change.
fn check(scale: &Value, script: &str, until: u64, expected: &str) {
    let mut scaler = Autoscaler::new(settings(scale), at(0));
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    let mut load = Some(Load { requests: 0.0, held: 0 });
    let mut slow = false;
    let mut pods = Pods { asked: 1, ready: 1 };
    let (mut text, mut last) = (String::new(), None);
    for second in 0..=until {
        if let Some(line) = lines.next_if(|line| line.starts_with(&format!("{second}: "))) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let held = words.iter().position(|word| *word == "held");
            let held = held.map_or(0, |index| words[index + 1].parse().unwrap());
            slow = words.contains(&"slow");
            let requests = words[1].parse().ok();
            load = requests.map(|requests| Load { requests, held });
        }
        if let Some(load) = load {
            scaler.observe(at(second), load);
        }
        let decision = scaler.decide(at(second), pods);
        if last != Some(decision) {
            text += &format!("{second}: {} {}\n", decision.replicas, decision.reason.code());
            last = Some(decision);
        }
        pods.asked = decision.replicas;
        pods.ready = if slow { 0 } else { decision.replicas };
        if slow && load.is_some_and(|load| load.held == 0) {
            slow = false;
        }
    }
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(text.trim(), expected.trim(), "\n{text}");
}

#[test]
fn nobody_calls_and_the_last_pod_goes() {
    check(
        &json!({"idleTimeout": "60s", "scaleDownDelay": "0s"}),
        "",
        100,
        "0: 1 waiting
         60: 0 idle",
    );
}

#[test]
fn a_held_request_starts_a_pod_at_once_and_it_stays_for_the_idle_timeout() {
    check(
        &json!({"idleTimeout": "30s", "scaleDownDelay": "0s"}),
        "100: 1 held 1
         102: 0",
        200,
        "0: 1 waiting
         30: 0 idle
         100: 1 from-zero
         101: 1 load
         131: 0 idle",
    );
}

#[test]
fn a_crowd_at_a_cold_model_starts_as_many_as_one_step_may() {
    check(
        &json!({"maxReplicas": 100, "maxStepUp": 10, "targetConcurrency": 4}),
        "100: 500 held 500 slow
         105: 500
         130: 0",
        400,
        "0: 1 waiting
         60: 0 idle
         100: 10 step-limit
         106: 100 step-limit
         107: 100 max
         189: 0 idle",
    );
}

#[test]
fn a_sudden_load_is_seen_in_the_short_window_and_not_given_up_in_the_long_one() {
    check(
        &json!({"targetConcurrency": 10, "minReplicas": 1, "maxReplicas": 20, "scaleDownDelay": "0s"}),
        "0: 5
         60: 100
         70: 5",
        300,
        "0: 1 load
         60: 3 burst
         61: 4 burst
         62: 6 burst
         63: 7 burst
         64: 9 burst
         65: 10 burst
         120: 2 load
         126: 1 load",
    );
}

#[test]
fn fewer_pods_wait_for_the_delay() {
    check(
        &json!({"targetConcurrency": 10, "stableWindow": "6s", "panicWindow": "1s", "scaleDownDelay": "60s"}),
        "0: 30
         30: 10",
        150,
        "0: 3 burst
         6: 3 load
         32: 3 delayed
         91: 2 delayed
         94: 1 load",
    );
}

#[test]
fn without_metrics_the_number_stays() {
    check(
        &json!({"targetConcurrency": 10, "maxReplicas": 5, "idleTimeout": "30s"}),
        "0: 30
         60: none",
        400,
        "0: 3 burst
         60: 3 load
         79: 3 no-metrics",
    );
}

#[test]
fn with_an_autoscaler_of_kubernetes_only_zero_and_one_are_decided() {
    let scale =
        json!({"horizontalPodAutoscaler": {}, "idleTimeout": "30s", "scaleDownDelay": "0s"});
    let model = json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "m"},
        "spec": {
            "package": {"image": "r.example/m:1"},
            "resources": {"requests": {"cpu": "1"}},
            "scale": scale,
        },
    });
    let model = wick_api::parse(model).unwrap();
    let mut scaler = Autoscaler::new(Settings::of(&model.spec.scale), at(0));
    let mut told = |second, requests, held, asked| {
        scaler.observe(at(second), Load { requests, held });
        let decision = scaler.decide(at(second), Pods { asked, ready: asked });
        (decision.replicas, decision.reason)
    };
    assert_eq!(told(0, 100.0, 0, 7), (7, Reason::Left));
    assert_eq!(told(1, 0.0, 0, 7), (7, Reason::Left));
    assert_eq!(told(100, 0.0, 0, 7), (0, Reason::Idle));
    assert_eq!(told(200, 1.0, 1, 0), (1, Reason::FromZero));
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let mut scaler = Autoscaler::new(settings(&json!({"idleTimeout": "30s"})), at(1000));
    scaler.observe(at(1000), Load { requests: 1.0, held: 0 });
    scaler.observe(at(0), Load { requests: 0.0, held: 0 });
    let decision = scaler.decide(at(10), Pods { asked: 1, ready: 1 });
    assert_eq!(decision.replicas, 1);
    assert!(scaler.next() > at(1000));
}

#[test]
fn its_memory_has_a_fixed_size() {
    // 3,000 Models on one operator: 18 MiB.
    assert!(size_of::<Autoscaler>() <= 6 * 1024, "{}", size_of::<Autoscaler>());
}

/// A moment of a random history.
#[derive(Debug, Clone)]
struct Event {
    after: u64,
    load: Option<(f64, u32)>,
    ready: u32,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let load = prop_oneof![
        3 => Just(Some((0.0, 0))),
        3 => (0.0..2000.0, 0_u32..50).prop_map(Some),
        1 => Just(None),
        1 => Just(Some((f64::NAN, 0))),
    ];
    let after = prop_oneof![4 => 0_u64..3000, 1 => 0_u64..200_000];
    let event = (after, load, 0_u32..40);
    let event = event.prop_map(|(after, load, ready)| Event { after, load, ready });
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(
        events in events(),
        min in 0_u32..4,
        more in 0_u32..30,
        delay in 0_u64..60,
        idle in 1_u64..120,
        step in 2_u32..12,
    ) {
        let max = (min + more).max(1);
        let settings = settings(&json!({
            "minReplicas": min,
            "maxReplicas": max,
            "scaleDownDelay": format!("{delay}s"),
            "idleTimeout": format!("{idle}s"),
            "maxStepUp": step,
        }));
        let mut now = at(0);
        let mut scaler = Autoscaler::new(settings, now);
        let (mut asked, mut active, mut held) = (1_u32, now, 0);
        for event in events {
            now = now + Duration::from_millis(event.after);
            if let Some((requests, waiting)) = event.load {
                scaler.observe(now, Load { requests, held: waiting });
                if requests.is_finite() {
                    held = waiting;
                    if requests > 0.0 || held > 0 {
                        active = now;
                    }
                }
            }
            let ready = event.ready.min(asked);
            let decision = scaler.decide(now, Pods { asked, ready });
            let replicas = decision.replicas;
            prop_assert!((min..=max).contains(&replicas), "{decision:?}");
            prop_assert!(held == 0 || replicas > 0, "none while requests are held");
            if replicas == 0 && asked > 0 {
                let quiet = now.since(active);
                prop_assert!(quiet >= Duration::from_secs(idle), "none after {quiet:?}");
            }
            if replicas > asked.max(min) {
                // What was wanted before and is not given up yet was within its own step.
                let earlier = [Reason::Delayed, Reason::Max].contains(&decision.reason);
                let most = ready.max(1) * step;
                prop_assert!(
                    replicas <= most || earlier,
                    "{decision:?} from {ready} ready"
                );
            }
            asked = replicas;
        }
    }

    /// Whatever was before, a Model that nobody calls goes to its minimum in bounded time.
    #[test]
    fn every_model_comes_to_rest(events in events(), min in 0_u32..3) {
        let settings = settings(&json!({"minReplicas": min}));
        let mut scaler = Autoscaler::new(settings, at(0));
        let (mut now, mut asked) = (at(0), 1);
        for event in events {
            now = now + Duration::from_millis(event.after);
            if let Some((requests, held)) = event.load {
                scaler.observe(now, Load { requests, held });
            }
            asked = scaler.decide(now, Pods { asked, ready: asked }).replicas;
        }
        // Burst, stable window, delay and idle timeout, one after the other.
        for _ in 0..(60 + 60 + 30 + 60) {
            now = now + Duration::from_secs(1);
            scaler.observe(now, Load { requests: 0.0, held: 0 });
            asked = scaler.decide(now, Pods { asked, ready: asked }).replicas;
        }
        prop_assert_eq!(asked, min);
    }
}
