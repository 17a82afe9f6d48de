use kube::api::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use wick_api::fleet::{Rollout, Site};
use wick_fleet::plan::{Mark, Progress, Stage};

use super::*;
use crate::policy::{self, File, Mistake};

const NOON: Timestamp = Timestamp::constant(1_900_000_000, 500_000_000);

fn object<K: kube::Resource<DynamicType = ()>>(name: &str, status: Value) -> DynamicObject {
    let mut object = DynamicObject::new(name, &ApiResource::erase::<K>(&()));
    object.metadata.generation = Some(3);
    object.data = json!({"spec": {}, "status": status});
    object
}

/// A policy with the rollout `seven` in two waves, and where that is.
fn state(phase: Phase, reason: Option<&str>, stages: &[Stage]) -> State {
    let text = "
        apiVersion: wick.dev/v1alpha1
        kind: Rollout
        metadata: {name: seven}
        spec:
          remove: [old]
          waves: [{take: 1, gate: {approval: true}}, {}]
    ";
    let file = File { path: "rollouts/seven".to_owned(), text: text.to_owned() };
    let mut state = State { documents: Some(policy::read(&[file]).unwrap()), ..State::default() };
    let sites = stages.iter().enumerate().map(|(at, stage)| {
        let mark = Mark { wave: 0, stage: stage.clone(), before: None };
        (format!("site-{at}").parse().unwrap(), mark)
    });
    let progress = Progress {
        turn: 1,
        phase,
        since: wick_fleet::Moment::default(),
        wave: 0,
        baking: None,
        approved: [0].into(),
        reason: reason.map(str::to_owned),
        sites: sites.collect(),
    };
    state.plan.rollouts.insert("seven".parse().unwrap(), progress);
    state
}

fn ready(conditions: &[Condition]) -> (Status, &str, &str) {
    let [only] = conditions else { panic!("{conditions:?}") };
    assert_eq!((only.type_.as_str(), only.observed_generation), ("Ready", Some(3)));
    (only.status, &only.reason, &only.message)
}

/// What is said of `seven` in a phase with its sites at these stages.
fn said(phase: Phase, why: Option<&str>, stages: &[Stage]) -> RolloutStatus {
    let seven = object::<Rollout>("seven", json!({}));
    let said = rollout(&state(phase, why, stages), &seven, &Standing::InForce, NOON);
    assert_eq!((said.wave, said.waves), (Some(1), Some(2)));
    assert_eq!(said.sites.map(|sites| sites.total), i32::try_from(stages.len()).ok());
    said
}

#[test]
fn a_rollout_says_where_it_is() {
    let running = said(Phase::Running, None, &[Stage::Done, Stage::Planned]);
    let there = "wave 1 of 2: 1 of 2 sites are there";
    assert_eq!(ready(&running.conditions), (Status::False, "Running", there));
    let failed = [Stage::Failed("not-ready".to_owned())];
    let paused = said(Phase::Paused, Some("too bad"), &failed);
    assert_eq!(ready(&paused.conditions), (Status::False, "Paused", "too bad"));
    let back = said(Phase::RolledBack, Some("a gate"), &failed);
    assert_eq!(ready(&back.conditions), (Status::False, "RolledBack", "a gate"));
    let done = said(Phase::Finished, None, &[Stage::Done]);
    assert_eq!(ready(&done.conditions), (Status::True, "Finished", "1 of 1 sites are there"));
}

#[test]
fn a_gate_that_wants_a_yes_says_how_to_give_it() {
    let mut state = state(Phase::Running, None, &[Stage::Done]);
    state.plan.rollouts.values_mut().for_each(|progress| progress.approved.clear());
    let seven = object::<Rollout>("seven", json!({}));
    let said = rollout(&state, &seven, &Standing::InForce, NOON);
    let (_, reason, message) = ready(&said.conditions);
    assert_eq!(reason, "WantsApproval");
    assert!(message.ends_with("`wick fleet rollout approve seven`"), "{message}");
}

#[test]
fn what_is_said_again_is_said_with_the_time_of_the_first() {
    let state = state(Phase::Running, None, &[Stage::Done]);
    let first = rollout(&state, &object::<Rollout>("seven", json!({})), &Standing::InForce, NOON);
    let kept = object::<Rollout>("seven", serde_json::to_value(&first).unwrap());
    let later = Timestamp::constant(1_900_000_060, 0);
    assert_eq!(rollout(&state, &kept, &Standing::InForce, later), first);
    // Another's condition is another's.
    let mut both = kept;
    let other = json!({"type": "Synced", "status": "True"});
    both.data["status"]["conditions"].as_array_mut().unwrap().push(other);
    assert_eq!(rollout(&state, &both, &Standing::InForce, later), first);
    // What can't be read does not stay.
    let strange = object::<Rollout>("seven", json!({"phase": "Flying", "conditions": 7}));
    assert_eq!(rollout(&state, &strange, &Standing::InForce, NOON), first);
}

#[test]
fn an_object_says_whether_it_is_in_force() {
    let mistake = |file: &str, field: &str| Mistake {
        file: file.to_owned(),
        line: None,
        field: field.to_owned(),
        what: "is wrong".to_owned(),
    };
    let source = SourceState {
        refused: Some("1 mistakes".to_owned()),
        mistakes: vec![mistake("rollouts/seven", "spec.waves[0]"), mistake("sites/a", "")],
        ..SourceState::default()
    };
    let of = |path: &str, adopted: bool| Standing::of(&source, path, adopted);
    assert_eq!(of("rollouts/seven", false), Standing::Wrong("spec.waves[0]: is wrong".to_owned()));
    assert_eq!(of("sites/a", false), Standing::Wrong("is wrong".to_owned()));
    assert_eq!(of("sites/b", true), Standing::InForce);
    assert_eq!(of("sites/b", false), Standing::Held("1 mistakes".to_owned()));
    let state = State::default();
    let b = object::<Site>("b", json!({}));
    let said = site(&state, &b, &of("sites/b", false), NOON);
    let (_, reason, message) = ready(&said.conditions);
    assert_eq!((reason, message), ("Held", "the policy stays as it was: 1 mistakes"));
    let said = site(&state, &b, &Standing::InForce, NOON);
    assert_eq!(ready(&said.conditions).1, "NotEnrolled");
}
