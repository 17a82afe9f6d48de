use std::time::Duration;

use serde_json::json;
use wick_package::Digest;

use super::*;

/// A Model in a cluster that does at once what it is told: pods are ready the second after.
struct World {
    model: Model,
    memory: Memory,
    digest: char,
    stored: Vec<Stored>,
    asked: BTreeMap<RevisionName, u32>,
    route: Route,
    held: u32,
    requests: f64,
    /// Why it is not known what the spec asks for.
    unknown: Option<Unknown>,
    /// Revisions that never become ready.
    broken: BTreeSet<RevisionName>,
    /// What the scheduler says of every pod.
    unplaced: Option<String>,
    compared: Comparison,
    now: u64,
}

fn at(second: u64) -> Moment {
    Moment::from_millis(1_700_000_000_000 + second * 1000)
}

fn model(spec: serde_json::Value) -> Model {
    let mut spec = spec;
    spec["package"] = json!({"image": "registry.example/m:1"});
    let mut model = wick_api::parse(json!({
        "apiVersion": "wick.dev/v1alpha1", "kind": "Model",
        "metadata": {"name": "m", "namespace": "here", "uid": "u", "generation": 1},
        "spec": spec,
    }))
    .unwrap();
    model.metadata.generation = Some(1);
    model
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        let model = model(spec);
        Self {
            memory: Memory::new(&model, 0, at(0)),
            model,
            digest: 'a',
            stored: Vec::new(),
            asked: BTreeMap::new(),
            route: Route::Activator,
            held: 0,
            requests: 0.0,
            unknown: None,
            broken: BTreeSet::new(),
            unplaced: None,
            compared: Comparison::default(),
            now: 0,
        }
    }

    fn wanted(&self) -> Revision {
        let digest: Digest =
            format!("sha256:{}", self.digest.to_string().repeat(64)).parse().unwrap();
        Revision::new("m", &self.model.spec, digest).unwrap()
    }

    fn turn(&mut self, command: Option<Command>) -> Turn {
        self.now += 1;
        let mut pods = Vec::new();
        for (name, asked) in &self.asked {
            for number in 0..*asked {
                pods.push(Pod {
                    revision: name.clone(),
                    ready: !self.broken.contains(name),
                    unplaced: self.unplaced.clone(),
                    endpoint: PodEndpoint {
                        address: format!("10.0.0.{}", number + 1).parse().unwrap(),
                        name: format!("{name}-{number}"),
                        uid: format!("{name}-{number}"),
                        node: None,
                        zone: None,
                    },
                });
            }
        }
        let sight = Sight {
            model: &self.model,
            wanted: self.unknown.clone().map_or_else(|| Ok(self.wanted()), Err),
            stored: self.stored.clone(),
            asked: self.asked.clone(),
            pods,
            route: self.route,
            activators: vec!["10.0.1.1".parse().unwrap()],
            port: 20_000,
            load: Some(Load { requests: self.requests, held: self.held }),
            sent: 0,
            compared: self.compared,
            command: command.map(|command| Asked { text: format!("{}", self.now), command }),
            device: None,
        };
        let turn = self.memory.turn(&sight, at(self.now));
        self.route = match turn.target {
            Target::Activator { .. } => Route::Activator,
            Target::Pods(_) => Route::Pods,
        };
        for revision in &turn.revisions {
            if !self.stored.iter().any(|stored| stored.revision.name == revision.name) {
                self.stored.push(Stored { revision: revision.clone(), created: at(self.now) });
            }
            // As the API server has it for a Deployment that says nothing.
            self.asked.entry(revision.name.clone()).or_insert(1);
        }
        self.stored.retain(|stored| !turn.gone.contains(&stored.revision.name));
        self.asked.retain(|name, _| !turn.gone.contains(name));
        for (name, replicas) in &turn.replicas {
            if let Some(asked) = self.asked.get_mut(name) {
                *asked = *replicas;
            }
        }
        self.model.status = Some(turn.status.clone());
        turn
    }

    /// Goes on for so many seconds and says what it came to.
    fn after(&mut self, seconds: u64) -> String {
        let mut last = self.turn(None);
        for _ in 1..seconds {
            last = self.turn(None);
        }
        let reasons: Vec<&str> =
            last.status.conditions.iter().map(|condition| condition.reason.as_str()).collect();
        let pods: Vec<u32> = self.asked.values().copied().collect();
        format!("{:?} {pods:?} {}", self.route, reasons.join(" "))
    }
}

#[test]
fn a_model_is_proved_once_and_then_sleeps_until_somebody_calls() {
    let mut world = World::new(json!({"scale": {"idleTimeout": "30s", "scaleDownDelay": "10s"}}));
    assert_eq!(world.after(1), "Activator [1] Starting NewRevision AsWanted");
    assert_eq!(world.after(3), "Pods [1] Serving Complete AsWanted");
    // Idle for 30 s, then the slice and its grace.
    assert_eq!(world.after(32), "Activator [1] Serving Complete AsWanted");
    assert_eq!(world.after(15), "Activator [0] Cold Complete AsWanted");
    assert_eq!(world.after(600), "Activator [0] Cold Complete AsWanted");
    world.held = 1;
    assert_eq!(world.after(1), "Activator [1] Starting Complete AsWanted");
    (world.held, world.requests) = (0, 1.0);
    assert_eq!(world.after(2), "Pods [1] Serving Complete AsWanted");
}

#[test]
fn a_cold_model_asks_for_no_turn() {
    let mut world = World::new(json!({"scale": {"idleTimeout": "30s"}}));
    world.after(120);
    assert_eq!(world.turn(None).next, None);
}

#[test]
fn traffic_moves_step_by_step_and_comes_back_when_it_is_worse() {
    let rollout = json!({"rollout": {
        "steps": [{"weight": 20, "hold": "5s"}, {"weight": 50, "hold": "5s"}],
        "gates": {"minRequests": 10},
    }});
    let stats = |errors| rollout::Stats { requests: 100, errors, p99: None };
    let mut world = World::new(rollout);
    world.requests = 20.0;
    world.after(40);
    let first = world.wanted().name;
    world.digest = 'b';
    world.compared = Comparison { active: stats(0), candidate: stats(0) };
    world.after(2);
    let weights = |world: &World| {
        let status = world.model.status.clone().unwrap();
        let of = |one: Option<wick_api::RevisionStatus>| one.map(|one| one.weight);
        (of(status.active), of(status.candidate))
    };
    assert_eq!(weights(&world), (Some(80), Some(20)));
    assert_eq!(world.route, Route::Activator);
    world.after(6);
    assert_eq!(weights(&world), (Some(50), Some(50)));
    world.compared.candidate = stats(30);
    let turn = world.turn(None);
    assert_eq!(turn.notes[0].reason, "TooManyErrors");
    assert_eq!(weights(&world), (Some(100), None));
    assert_eq!(world.model.status.clone().unwrap().active.unwrap().name, first.as_str());
    // It is not tried again, and its pods go after their drain.
    let last = world.after(61);
    assert!(
        last.starts_with("Pods ") && last.ends_with(" Serving Complete TooManyErrors"),
        "{last}"
    );
    let with_pods: Vec<_> = world.asked.iter().filter(|(_, pods)| **pods > 0).collect();
    assert_eq!(with_pods, [(&first, &3)]);
}

#[test]
fn an_image_that_nobody_has_signed_gets_no_pod_and_no_request() {
    let unsigned = Some(Unknown::Unsigned("nobody has".to_owned()));
    let mut world = World::new(json!({"rollout": {"steps": []}}));
    world.requests = 4.0;
    world.unknown.clone_from(&unsigned);
    assert_eq!(world.after(60), "Activator [] Unsigned Resolving AsWanted");
    world.unknown = None;
    assert!(world.after(10).ends_with("Serving Complete AsWanted"));
    let first = world.wanted().name;
    // Another, while the first one answers.
    world.digest = 'b';
    world.unknown = unsigned;
    for _ in 0..60 {
        let status = world.turn(None).status;
        assert_eq!(status.active.map(|active| active.name), Some(first.to_string()));
        assert_eq!(status.candidate, None);
    }
    let last = world.after(1);
    assert!(last.ends_with("Serving Resolving UpdateUnsigned"), "{last}");
    assert_eq!(world.asked.len(), 1);
    // Somebody signs it after all.
    world.unknown = None;
    let last = world.after(120);
    assert!(last.ends_with("Serving Complete AsWanted"), "{last}");
    assert_ne!(world.model.status.unwrap().active.unwrap().name, first.as_str());
}

#[test]
fn a_model_whose_device_no_node_has_says_so_until_one_has() {
    let mut world = World::new(json!({"rollout": {"steps": [], "progressDeadline": "60s"}}));
    let name = world.wanted().name;
    world.broken.insert(name.clone());
    let why = "0/1 nodes are available: 1 Insufficient example.com/npu.";
    world.unplaced = Some(why.to_owned());
    world.held = 1;
    assert_eq!(world.after(5), "Activator [1] Starting NewRevision Unschedulable");
    let degraded =
        |world: &World| world.model.status.clone().unwrap().conditions[2].message.clone();
    assert_eq!(degraded(&world), format!("{name}: {why}"));
    assert!(world.after(90).ends_with("NeverReady"));
    assert!(
        degraded(&world).ends_with(&format!("no node takes it: {why}")),
        "{}",
        degraded(&world)
    );
    world.unplaced = None;
    world.broken.clear();
    assert!(world.after(20).ends_with("Serving Complete AsWanted"));
}

#[test]
fn images_of_both_versions_are_current_while_they_are_compared() {
    let mut world = World::new(json!({"rollout": {"steps": [{"weight": 20, "hold": "60s"}]}}));
    world.after(10);
    let first = world.wanted().name;
    assert_eq!(world.turn(None).current, std::slice::from_ref(&first));
    world.digest = 'b';
    let second = world.wanted().name;
    world.after(5);
    assert_eq!(world.turn(None).current, [first.clone(), second]);
    world.turn(Some(Command::Abort));
    assert_eq!(world.turn(None).current, [first]);
}

#[test]
fn a_package_that_is_never_ready_gets_no_request() {
    let mut world = World::new(json!({"rollout": {"progressDeadline": "30s"}}));
    world.requests = 4.0;
    world.after(10);
    world.digest = 'b';
    let bad = world.wanted().name;
    world.broken.insert(bad.clone());
    for _ in 0..120 {
        let turn = world.turn(None);
        let status = turn.status;
        assert_ne!(status.active.map(|active| active.name), Some(bad.to_string()));
        assert!(status.candidate.is_none_or(|candidate| candidate.weight == 0));
    }
    assert_eq!(world.asked.get(&bad).copied().unwrap_or(0), 0);
}

#[test]
fn a_command_is_recorded_with_what_came_of_it() {
    let mut world = World::new(json!({"rollout": {"steps": []}}));
    world.after(5);
    world.digest = 'b';
    world.after(5);
    let turn = world.turn(Some(Command::Undo));
    assert_eq!(turn.notes[0].reason, "Started");
    let obeyed = turn.status.rollout.unwrap().obeyed;
    assert_eq!(obeyed, Some(world.now.to_string()));
    world.after(5);
    let status = world.model.status.clone().unwrap();
    assert!(status.conditions.iter().any(|condition| condition.reason == "Undone"));
    assert_eq!(status.rollout.unwrap().obeyed, obeyed);
}

#[test]
fn revisions_beyond_the_history_go() {
    let mut world = World::new(json!({"rollout": {"steps": [], "revisionHistoryLimit": 1}}));
    for digest in ['a', 'b', 'c', 'd', 'e'] {
        world.digest = digest;
        world.after(60);
    }
    // The active one, the one before it, and one more.
    assert_eq!(world.stored.len(), 3);
}

#[test]
fn hold_is_refused_after_a_start_that_takes_too_long() {
    let mut world = World::new(
        json!({"rollout": {"progressDeadline": "20s"}, "scale": {"idleTimeout": "30s"}}),
    );
    world.after(120);
    world.broken.insert(world.wanted().name);
    world.held = 3;
    world.after(25);
    let activator = world.model.status.clone().unwrap().activator.unwrap();
    assert!(!activator.hold);
    assert_eq!(Duration::from_secs(20), world.model.spec.rollout.progress_deadline.get());
}
