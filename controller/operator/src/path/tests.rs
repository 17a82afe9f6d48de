use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(60);

fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1000)
}

/// What is seen of a model that nobody calls and that has no pods.
const NOTHING: Seen =
    Seen { wanted: 0, ready: 0, held: 0, sent: 0, split: false, route: Route::Activator };

fn shown(action: &Action) -> String {
    let mut text = format!("{:?} {} {}", action.route, action.replicas, action.reason.code());
    if !action.hold {
        text.push_str(" refuse");
    }
    if let Some(route) = action.close {
        text.push_str(&format!(" close-{route:?}"));
    }
    text.to_lowercase()
}

/// Runs a script, a turn each second: `SECOND FIELD=VALUE ...`. The API server takes a slice a
/// second later, unless `stuck`. Prints what changes.
fn check(script: &str, expected: &str) {
    let mut path = Path::new(START, 1, at(0));
    let (mut seen, mut stuck) = (NOTHING, false);
    let (mut text, mut last, mut now) = (String::new(), String::new(), 0);
    let mut turn = |now: u64, seen: &mut Seen, stuck: bool| {
        let action = path.advance(at(now), *seen);
        let said = shown(&action);
        if said != last {
            text += &format!("{now}: {said}\n");
            last = said;
        }
        if !stuck {
            seen.route = action.route;
        }
    };
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let until: u64 = words[0].parse().unwrap();
        while now < until {
            turn(now, &mut seen, stuck);
            now += 1;
        }
        for word in &words[1..] {
            let (field, value) = word.split_once('=').unwrap_or((word, "1"));
            let number: u32 = value.parse().unwrap();
            match field {
                "wanted" => seen.wanted = number,
                "ready" => seen.ready = number,
                "held" => seen.held = number,
                "sent" => seen.sent = number,
                "split" => seen.split = number > 0,
                "stuck" => stuck = number > 0,
                other => panic!("{other}"),
            }
        }
        turn(now, &mut seen, stuck);
        now += 1;
    }
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(text.trim(), expected.trim(), "\n{text}");
}

#[test]
fn a_cold_model_wakes_and_goes_to_sleep_again() {
    check(
        "0 wanted=1
         3 ready=1
         60 wanted=0
         100
         200 held=1 wanted=1 ready=0
         202 ready=1
         203 held=0
         210",
        "0: activator 1 starting
         3: pods 1 warm
         4: pods 1 warm close-activator
         60: activator 1 leaving
         61: activator 1 leaving close-pods
         71: activator 0 cold
         200: activator 1 starting
         202: pods 1 warm
         203: pods 1 warm close-activator",
    );
}

#[test]
fn a_request_during_the_grace_keeps_the_pods() {
    check(
        "0 wanted=1 ready=1
         10 wanted=0
         15 wanted=1 sent=1
         30",
        "0: pods 1 warm
         1: pods 1 warm close-activator
         10: activator 1 leaving
         11: activator 1 leaving close-pods
         15: pods 1 warm
         16: pods 1 warm close-activator",
    );
}

#[test]
fn a_slice_that_is_not_taken_keeps_the_pods() {
    check(
        "0 wanted=1 ready=1
         10 wanted=0 stuck=1
         75 stuck=0
         120",
        "0: pods 1 warm
         1: pods 1 warm close-activator
         10: activator 1 leaving
         40: pods 1 slice-not-written
         70: activator 1 leaving
         76: activator 1 leaving close-pods
         86: activator 0 cold",
    );
}

#[test]
fn a_start_that_takes_too_long_refuses_for_a_while_and_tries_again() {
    check(
        "0 wanted=0
         10 ready=0 wanted=2 held=5
         130",
        "0: activator 1 leaving
         1: activator 1 leaving close-pods
         10: activator 2 starting
         70: activator 2 start-too-long refuse
         80: activator 2 starting",
    );
}

#[test]
fn split_traffic_goes_through_the_activator() {
    check(
        "0 wanted=2 ready=2
         10 split=1
         20 split=0
         30",
        "0: pods 2 warm
         1: pods 2 warm close-activator
         10: activator 2 split
         20: pods 2 warm
         21: pods 2 warm close-activator",
    );
}

#[test]
fn pods_that_are_lost_bring_the_activator_back() {
    check(
        "0 wanted=1 ready=1
         10 ready=0
         20 ready=1
         30",
        "0: pods 1 warm
         1: pods 1 warm close-activator
         10: activator 1 starting
         20: pods 1 warm
         21: pods 1 warm close-activator",
    );
}

#[test]
fn what_is_not_answered_is_waited_for() {
    check(
        "0 wanted=1 ready=1
         10 wanted=0 sent=1
         40 sent=0
         50",
        "0: pods 1 warm
         1: pods 1 warm close-activator
         10: activator 1 leaving
         11: activator 1 leaving close-pods
         40: activator 0 cold",
    );
}

#[test]
fn an_operator_that_starts_anew_wakes_nothing_that_sleeps() {
    let mut path = Path::new(START, 0, at(0));
    assert_eq!(shown(&path.advance(at(0), NOTHING)), "activator 0 cold");
    let mut path = Path::new(START, 2, at(0));
    let seen = Seen { wanted: 2, ready: 2, route: Route::Pods, ..NOTHING };
    assert_eq!(shown(&path.advance(at(0), seen)), "pods 2 warm close-activator");
}

/// A second of a random history.
#[derive(Debug, Clone)]
struct Second {
    wanted: u32,
    held: u32,
    sent: u32,
    split: bool,
    /// Whether the API server takes what is written.
    takes: bool,
    /// Whether pods that run are ready.
    ready: bool,
    /// How long it lasts.
    lasts: u64,
}

fn seconds() -> impl Strategy<Value = Vec<Second>> {
    let one =
        (0_u32..3, 0_u32..2, 0_u32..2, any::<bool>(), any::<bool>(), any::<bool>(), 1_u64..40);
    let one = one.prop_map(|(wanted, held, sent, split, takes, ready, lasts)| Second {
        wanted,
        held,
        sent,
        split,
        takes,
        ready,
        lasts,
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// A cluster in which the slice may be written late and pods may fail: no pod ends while
    /// requests could still go to it, and none goes to pods that are not there.
    #[test]
    fn whatever_happens_no_request_is_sent_into_nothing(history in seconds()) {
        let mut path = Path::new(START, 1, at(0));
        let (mut now, mut pods, mut route) = (0, 1, Route::Activator);
        let mut since = 0;
        for second in history {
            for _ in 0..second.lasts {
                let ready = if second.ready { pods } else { 0 };
                let Second { wanted, held, sent, split, .. } = second;
                let seen = Seen { wanted, ready, held, sent, split, route };
                let action = path.advance(at(now), seen);
                if action.replicas == 0 && pods > 0 {
                    prop_assert_eq!(route, Route::Activator);
                    prop_assert!(now - since >= GRACE.as_secs(), "after {} s", now - since);
                    prop_assert_eq!((held, sent, wanted), (0, 0, 0));
                }
                prop_assert!(held == 0 || action.replicas > 0, "{action:?}");
                if action.route == Route::Pods && action.reason != Reason::SliceNotWritten {
                    prop_assert!(ready > 0 && !split, "{action:?} with {ready} ready");
                }
                pods = action.replicas;
                if second.takes && route != action.route {
                    route = action.route;
                    since = now + 1;
                }
                now += 1;
            }
        }
    }

    /// Whatever was before, what changes by time alone does change when it says it will.
    #[test]
    fn every_state_that_waits_has_a_deadline(history in seconds(), last in seconds()) {
        let mut path = Path::new(START, 1, at(0));
        let mut now = at(0);
        let mut seen = NOTHING;
        for second in history.into_iter().chain(last) {
            now = now + Duration::from_secs(second.lasts);
            let Second { wanted, held, sent, split, .. } = second;
            let route = if second.takes { Route::Activator } else { Route::Pods };
            seen = Seen { wanted, ready: u32::from(second.ready), held, sent, split, route };
            path.advance(now, seen);
        }
        let mut still = 0;
        for _ in 0..10 {
            let before = path.clone();
            let Some(next) = path.advance(now, seen).next else { break };
            prop_assert!(next > now, "{next:?} is not after {now:?}");
            now = next;
            path.advance(now, seen);
            // After the grace comes one more time, for what is not answered yet.
            still = if path.stage == before.stage { still + 1 } else { 0 };
            prop_assert!(still < 2, "stuck in {:?}", path.stage);
        }
    }
}
