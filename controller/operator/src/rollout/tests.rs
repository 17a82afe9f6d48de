use serde_json::{Value, json};

use super::*;

fn settings(rollout: Value) -> Settings {
    let model = json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "m"},
        "spec": {"package": {"image": "r.example/m:1"}, "rollout": rollout},
    });
    Settings::of(&wick_api::parse(model).unwrap().spec.rollout)
}

fn name(text: &str) -> RevisionName {
    RevisionName::known(text)
}

fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1000)
}

/// Good numbers for both, or what differs from them.
fn compared(words: &[&str]) -> Comparison {
    let good = Stats { requests: 1000, errors: 0, p99: Some(Duration::from_millis(10)) };
    let mut both = Comparison { active: good, candidate: good };
    for word in words {
        match *word {
            "errors" => both.candidate.errors = 100,
            "both-errors" => (both.active.errors, both.candidate.errors) = (100, 100),
            "slow" => both.candidate.p99 = Some(Duration::from_millis(100)),
            "quiet" => both = Comparison::default(),
            _ => {}
        }
    }
    both
}

/// A rollout in the making, and what was seen of it.
struct Run {
    settings: Settings,
    state: State,
    seen: Seen,
    shares: Split,
    text: String,
}

impl Run {
    fn turn(&mut self, command: Option<Command>, now: u64) {
        let (next, events) = advance(&self.state, &self.settings, &self.seen, command, at(now));
        self.state = next;
        for event in events {
            let said = match event {
                Event::Started(name) => format!("start {name}"),
                Event::Step(name, step) => format!("step {step} of {name}"),
                Event::Promoted(name) => format!("promote {name}"),
                Event::Left(name, reason) => format!("leave {name}: {reason:?}"),
                Event::Held(name, reason) => format!("hold {name}: {reason:?}"),
                Event::Late(name) => format!("late {name}"),
                Event::Refused(command, why) => format!("refuse {command:?}: {why}"),
            };
            self.text += &format!("{now}: {said}\n");
        }
        let split = self.state.split(&self.settings, &self.seen.ready);
        if split != self.shares {
            let shown = split.iter().map(|(name, share)| format!("{name}={share}"));
            self.text += &format!("{now}: {}\n", shown.collect::<Vec<_>>().join(" "));
            self.shares = split;
        }
    }

    fn read(&mut self, words: &[&str]) -> Option<Command> {
        let mut command = None;
        for word in words {
            match word.split_once('=') {
                Some(("want", wanted)) => self.seen.wanted = Some(name(wanted)),
                Some(("ready", ready)) => {
                    let ready = ready.split(',').filter(|ready| !ready.is_empty());
                    self.seen.ready = ready.map(name).collect();
                }
                _ => {}
            }
            command = match *word {
                "promote" => Some(Command::Promote),
                "abort" => Some(Command::Abort),
                "undo" => Some(Command::Undo),
                _ => command,
            };
        }
        self.seen.compared = compared(words);
        command
    }
}

/// Runs a script, a turn each second: `SECOND want=A ready=A,B WORDS`. What a line does not say
/// stays, but for how the revisions compare and for commands. Prints what happens, and the
/// shares when they change.
fn check(rollout: Value, script: &str, expected: &str) {
    let mut run = Run {
        settings: settings(rollout),
        state: State::default(),
        seen: Seen::default(),
        shares: Split::new(),
        text: String::new(),
    };
    let mut now = 0;
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let until: u64 = words[0].parse().unwrap();
        // Up to this line time alone passes.
        while now < until {
            run.turn(None, now);
            now += 1;
        }
        let command = run.read(&words[1..]);
        run.turn(command, now);
        now += 1;
    }
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(run.text.trim(), expected.trim(), "\n{}", run.text);
}

#[test]
fn a_new_revision_takes_every_step_and_then_all() {
    check(
        json!({"steps": [{"weight": 10, "hold": "30s"}, {"weight": 50, "hold": "60s"}]}),
        "0 want=a
         5 ready=a
         10 want=b
         20 ready=a,b
         200",
        "0: start a
         5: promote a
         5: a=100
         10: start b
         20: step 0 of b
         20: a=90 b=10
         50: step 1 of b
         50: a=50 b=50
         110: promote b
         110: b=100",
    );
}

#[test]
fn without_steps_it_gets_all_as_soon_as_it_is_ready() {
    check(
        json!({"steps": []}),
        "0 want=a ready=a
         10 want=b
         20 ready=a,b
         30",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         20: promote b
         20: b=100",
    );
}

#[test]
fn more_errors_roll_it_back_at_once_and_it_is_not_tried_again() {
    check(
        json!({}),
        "0 want=a ready=a
         10 want=b ready=a,b
         20 errors
         500
         510 want=c ready=a,b,c
         520",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10
         20: leave b: TooManyErrors
         20: a=100
         510: start c
         510: step 0 of c
         510: a=90 c=10",
    );
}

#[test]
fn errors_that_the_old_one_has_too_are_no_reason() {
    check(
        json!({"steps": [{"weight": 10, "hold": "5s"}]}),
        "0 want=a ready=a
         10 want=b ready=a,b
         12 both-errors
         20",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10
         15: promote b
         15: b=100",
    );
}

#[test]
fn a_slower_one_is_kept_without_traffic_if_the_spec_wants_that() {
    check(
        json!({"onFailure": "Pause"}),
        "0 want=a ready=a
         10 want=b ready=a,b
         20 slow
         900
         901 abort
         1000 want=c
         1001 ready=a,c",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10
         20: hold b: TooSlow
         20: a=100
         901: leave b: Aborted
         1000: start c
         1001: step 0 of c
         1001: a=90 c=10",
    );
}

#[test]
fn one_that_is_held_starts_again_when_it_is_promoted() {
    check(
        json!({"onFailure": "Pause"}),
        "0 want=a ready=a
         10 want=b ready=a,b
         20 slow
         100 ready=a
         200 promote
         210 ready=a,b
         220",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10
         20: hold b: TooSlow
         20: a=100
         200: start b
         210: promote b
         210: b=100",
    );
}

#[test]
fn one_that_is_never_ready_gets_no_traffic_and_is_left_at_the_deadline() {
    check(
        json!({"progressDeadline": "60s"}),
        "0 want=a ready=a
         10 want=b
         200",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         70: leave b: NeverReady",
    );
}

#[test]
fn the_first_one_may_be_late() {
    check(
        json!({"progressDeadline": "60s"}),
        "0 want=a
         5 abort
         100
         120 ready=a",
        "0: start a
         5: refuse Abort: there is no older revision to go back to
         60: late a
         120: promote a
         120: a=100",
    );
}

#[test]
fn one_that_is_not_ready_any_more_gets_nothing_and_its_step_waits() {
    check(
        json!({"steps": [{"weight": 10, "hold": "30s"}], "progressDeadline": "60s"}),
        "0 want=a ready=a
         10 want=b ready=a,b
         20 ready=a
         40 ready=a,b
         60
         70 ready=a
         80 want=c ready=a,c
         90 ready=a
         200",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10
         20: a=100
         40: a=90 b=10
         60: promote b
         60: b=100
         80: start c
         80: step 0 of c
         80: b=90 c=10
         90: b=100
         150: leave c: LostReadiness",
    );
}

#[test]
fn too_few_requests_wait_for_the_deadline_and_then_the_spec_decides() {
    let script = "0 want=a ready=a quiet
         10 want=b ready=a,b quiet
         300 quiet";
    let begin = "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10\n";
    let rollout = |then: &str| {
        json!({
            "steps": [{"weight": 10, "hold": "30s"}],
            "progressDeadline": "60s",
            "gates": {"onTooFewRequests": then},
        })
    };
    check(rollout("Advance"), script, &format!("{begin}100: promote b\n100: b=100"));
    check(rollout("Rollback"), script, &format!("{begin}100: leave b: TooFewRequests\n100: a=100"));
}

#[test]
fn a_manual_step_waits_for_people_and_its_gates_do_not() {
    let rollout = json!({"steps": [{"weight": 10, "hold": "5s", "promotion": "Manual"}]});
    let begin = "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10\n";
    check(
        rollout.clone(),
        "0 want=a ready=a
         10 want=b ready=a,b
         5000 promote
         5001",
        &format!("{begin}5000: promote b\n5000: b=100"),
    );
    check(
        rollout,
        "0 want=a ready=a
         10 want=b ready=a,b
         5000 errors",
        &format!("{begin}5000: leave b: TooManyErrors\n5000: a=100"),
    );
}

#[test]
fn undo_goes_back_in_one_step_and_stays_there() {
    check(
        json!({"steps": []}),
        "0 undo
         1 want=a ready=a
         10 want=b ready=a,b
         20 undo
         60
         70 want=c ready=a,b,c
         80",
        "0: refuse Undo: there is no older revision to go back to
         1: start a
         1: promote a
         1: a=100
         10: start b
         10: promote b
         10: b=100
         20: start a
         20: promote a
         20: a=100
         70: start c
         70: promote c
         70: c=100",
    );
}

#[test]
fn the_spec_may_change_its_mind() {
    check(
        json!({}),
        "0 want=a ready=a
         10 want=b ready=a,b
         20 want=c
         30 want=a
         40",
        "0: start a
         0: promote a
         0: a=100
         10: start b
         10: step 0 of b
         10: a=90 b=10
         20: start c
         20: a=100",
    );
}

#[test]
fn what_gets_no_traffic_any_more_is_kept_until_it_is_drained() {
    let settings = settings(json!({"steps": []}));
    let ready = ["a", "b"].map(name).into();
    let seen = |wanted: &str| Seen { wanted: Some(name(wanted)), ready, ..Seen::default() };
    let seen_b = seen("b");
    let state = State { active: Some(name("a")), ..State::default() };
    let (state, _) = advance(&state, &settings, &seen_b, None, at(0));
    assert_eq!(state.active, Some(name("b")));
    assert!(state.keeps(&name("a")));
    assert_eq!(state.due(&settings), Some(at(0) + DRAIN));
    let (state, _) = advance(&state, &settings, &seen_b, None, at(0) + DRAIN);
    assert!(!state.keeps(&name("a")));
    assert_eq!(state.due(&settings), None);
}

mod properties;
