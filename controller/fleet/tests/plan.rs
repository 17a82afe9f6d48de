//! Rollouts by script, and planners that see anything.

use std::time::Duration;

use proptest::prelude::*;
use wick_fleet::plan::{
    Gate, Inventory, Observations, OnFailure, Order, Phase, Place, Plan, Policy, Rollout, Seen,
    Share, Size, Stage, Traffic, Wait, Wave, Window, Zone, lint, plan,
};
use wick_fleet::{Generation, Model, Moment, RolloutName, SiteName};
use wick_package::Digest;

const MIB: u64 = 1 << 20;

/// A Monday at noon, UTC.
const NOON: u64 = 1_700_481_600_000;

fn model(name: &str, version: u8) -> Model {
    Model {
        name: name.parse().unwrap(),
        image: format!("registry.example/{name}"),
        digest: Digest::of(&[version]),
        bytes: MIB,
        memory: MIB,
    }
}

fn site(at: usize) -> SiteName {
    format!("site-{at:03}").parse().unwrap()
}

fn rollout(name: &str, version: u8) -> Rollout {
    Rollout::new(name.parse().unwrap(), vec![model("filetype", version)])
}

fn waves(sizes: &[usize], gate: &Gate) -> Vec<Wave> {
    sizes.iter().map(|size| Wave { size: Size::Count(*size), gate: gate.clone() }).collect()
}

/// A fleet that does what it is told.
struct Fleet {
    policy: Policy,
    inventory: Inventory,
    seen: Observations,
    plan: Plan,
    now: Moment,
    /// Digests that never get ready.
    bad: Vec<Digest>,
}

impl Fleet {
    fn new(sites: usize, rollouts: Vec<Rollout>) -> Self {
        let place = |at: usize| Place {
            labels: [("ring".to_owned(), (at % 2).to_string())].into(),
            zone: Zone::utc(),
            memory: 100 * MIB,
            disk: 100 * MIB,
        };
        let now = Moment::from_millis(NOON);
        let seen = Seen { online: true, since: now, ..Seen::default() };
        Self {
            policy: Policy { rollouts },
            inventory: (0..sites).map(|at| (site(at), place(at))).collect(),
            seen: (0..sites).map(|at| (site(at), seen.clone())).collect(),
            plan: Plan::default(),
            now,
            bad: Vec::new(),
        }
    }

    fn step(&mut self, orders: &[Order]) {
        let before = self.plan.clone();
        let next =
            || plan(&self.policy, &self.inventory, &self.seen, before.clone(), orders, self.now);
        let (after, again) = (next(), next());
        assert_eq!(after, again, "the same arguments give the same plan");
        assert_eq!(lint(&self.policy, &self.inventory, &before, &after), []);
        self.plan = after;
    }

    /// Online sites come to what they were told, or fail.
    fn obey(&mut self) {
        for (name, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.online) {
            let Some(target) = self.plan.sites.get(name) else { continue };
            seen.wanted = target.generation;
            if target.models.iter().any(|model| self.bad.contains(&model.digest)) {
                (seen.settled, seen.failed) = (false, Some("not-ready".to_owned()));
            } else {
                (seen.generation, seen.settled, seen.failed) = (target.generation, true, None);
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn turn(&mut self) {
        self.pass(60);
        self.step(&[]);
        self.obey();
    }

    fn phase(&self, name: &str) -> Phase {
        self.plan.rollouts[&name.parse::<RolloutName>().unwrap()].phase
    }

    fn stage(&self, name: &str, at: usize) -> &Stage {
        &self.plan.rollouts[&name.parse::<RolloutName>().unwrap()].sites[&site(at)].stage
    }

    fn moved(&self) -> usize {
        self.plan.sites.values().filter(|target| target.generation > Generation(0)).count()
    }

    fn set_online(&mut self, at: usize, online: bool) {
        let since = self.now;
        let seen = self.seen.get_mut(&site(at)).unwrap();
        (seen.online, seen.since) = (online, since);
    }
}

fn order(make: fn(RolloutName) -> Order, name: &str) -> [Order; 1] {
    [make(name.parse().unwrap())]
}

#[test]
fn waves_follow_each_other_behind_their_gates() {
    let gate = Gate { bake: Duration::from_secs(300), ..Gate::default() };
    let mut fleet =
        Fleet::new(10, vec![Rollout { waves: waves(&[1, 4], &gate), ..rollout("a", 1) }]);
    fleet.turn();
    assert_eq!(fleet.moved(), 1);
    for _ in 0..5 {
        fleet.turn();
        assert_eq!(fleet.moved(), 1, "it bakes");
    }
    fleet.turn();
    assert_eq!(fleet.moved(), 5);
    for _ in 0..10 {
        fleet.turn();
    }
    assert_eq!((fleet.moved(), fleet.phase("a")), (10, Phase::Finished));
    assert!(fleet.plan.sites.values().all(|target| target.generation == Generation(1)));
}

#[test]
fn a_wave_that_fails_goes_back_and_nobody_else_moves() {
    let first = rollout("a", 1);
    let second = Rollout { waves: waves(&[2], &Gate::default()), ..rollout("b", 2) };
    let mut fleet = Fleet::new(6, vec![first, second]);
    for _ in 0..4 {
        fleet.bad = vec![Digest::of(&[2])];
        fleet.turn();
    }
    assert_eq!(fleet.phase("b"), Phase::RolledBack);
    for at in 0..6 {
        let target = &fleet.plan.sites[&site(at)];
        assert_eq!(target.models, [model("filetype", 1)]);
        // There and back are two generations; who never moved has none of them.
        assert_eq!(target.generation, Generation(if at < 2 { 3 } else { 1 }));
    }
    let text = fleet.plan.to_string();
    assert!(text.contains("rollout b: rolled back (wave 1: 2 of 2 sites failed"), "{text}");
    // What was wrong is mended; somebody says again.
    fleet.bad.clear();
    fleet.step(&order(Order::Retry, "b"));
    for _ in 0..4 {
        fleet.turn();
    }
    assert_eq!(fleet.phase("b"), Phase::Finished);
}

#[test]
fn errors_and_slow_requests_close_a_gate() {
    for traffic in [
        Traffic { requests: 1000, errors: 11, p99_us: 10 },
        Traffic { requests: 1000, errors: 0, p99_us: 50_001 },
    ] {
        let bake = Duration::from_secs(3600);
        let gate = Gate { errors: Some(100), p99_us: Some(50_000), bake, ..Gate::default() };
        let one = Rollout { waves: waves(&[1], &gate), ..rollout("a", 1) };
        let mut fleet = Fleet::new(3, vec![Rollout { on_failure: OnFailure::Pause, ..one }]);
        fleet.turn();
        fleet.turn();
        fleet.seen.get_mut(&site(0)).unwrap().traffic = traffic;
        fleet.turn();
        assert_eq!(fleet.phase("a"), Phase::Paused);
        assert_eq!(fleet.moved(), 1);
    }
}

#[test]
fn who_is_offline_is_skipped_and_catches_up() {
    let mut fleet = Fleet::new(3, vec![rollout("a", 1)]);
    fleet.set_online(2, false);
    fleet.turn();
    assert!(matches!(fleet.stage("a", 2), Stage::Waits(Wait::Offline(_))));
    fleet.turn();
    assert_eq!(fleet.phase("a"), Phase::Running);
    fleet.pass(3600);
    fleet.turn();
    assert_eq!((fleet.phase("a"), fleet.stage("a", 2)), (Phase::Finished, &Stage::Skipped));
    fleet.set_online(2, true);
    fleet.turn();
    fleet.turn();
    assert_eq!(fleet.stage("a", 2), &Stage::Done);
}

#[test]
fn two_rollouts_of_one_site_follow_each_other_and_the_later_says_why() {
    let gate = Gate { approval: true, ..Gate::default() };
    let first = Rollout { waves: waves(&[9], &gate), ..rollout("a", 1) };
    let other = Rollout::new("b".parse().unwrap(), vec![model("ocr", 1)]);
    let mut fleet = Fleet::new(2, vec![first, other]);
    fleet.turn();
    fleet.turn();
    let waits = Stage::Waits(Wait::Rollout("a".parse().unwrap()));
    assert_eq!(fleet.stage("b", 0), &waits);
    assert!(fleet.plan.to_string().contains("waits: the rollout a has it"));
    fleet.step(&[Order::Approve("a".parse().unwrap(), 0)]);
    for _ in 0..3 {
        fleet.turn();
    }
    assert_eq!(fleet.phase("b"), Phase::Finished);
    assert_eq!(fleet.plan.sites[&site(0)].models, [model("filetype", 1), model("ocr", 1)]);
}

#[test]
fn somebody_pauses_resumes_and_aborts() {
    let one = Rollout { waves: waves(&[1], &Gate::default()), ..rollout("a", 1) };
    let mut fleet = Fleet::new(3, vec![one]);
    fleet.turn();
    fleet.step(&order(Order::Pause, "a"));
    for _ in 0..3 {
        fleet.turn();
    }
    assert_eq!(fleet.moved(), 1);
    fleet.step(&order(Order::Resume, "a"));
    assert_eq!(fleet.moved(), 3);
    fleet.step(&order(Order::Abort, "a"));
    assert_eq!(fleet.phase("a"), Phase::Aborted);
    assert!(fleet.plan.sites.values().all(|target| target.models.is_empty()));
    assert!(fleet.plan.sites.values().all(|target| target.generation == Generation(2)));
}

#[test]
fn labels_and_percents_make_waves_and_no_more_move_than_may() {
    let gate = Gate::default;
    let label = Size::Label { key: "ring".to_owned(), value: "1".to_owned() };
    let waves =
        vec![Wave { size: label, gate: gate() }, Wave { size: Size::Percent(10), gate: gate() }];
    let limit = Share::Count(2);
    let mut fleet =
        Fleet::new(20, vec![Rollout { waves, max_unavailable: limit, ..rollout("a", 1) }]);
    fleet.turn();
    let count = |fleet: &Fleet, wave| {
        let progress = &fleet.plan.rollouts[&"a".parse::<RolloutName>().unwrap()];
        progress.sites.values().filter(|mark| mark.wave == wave).count()
    };
    assert_eq!([count(&fleet, 0), count(&fleet, 1), count(&fleet, 2)], [10, 2, 8]);
    assert_eq!(fleet.moved(), 2);
    fleet.turn();
    assert_eq!(fleet.moved(), 4);
}

#[test]
fn a_window_opens_by_the_clock_of_the_site_in_summer_and_in_winter() {
    use jiff::civil::Weekday;
    let berlin: Zone = "CET-1CEST,M3.5.0,M10.5.0/3".parse().unwrap();
    let night = Window::new(vec![Weekday::Sunday], 23 * 60, 2 * 60).unwrap();
    let at = |text: &str| {
        let stamp: jiff::Timestamp = text.parse().unwrap();
        Moment::from_millis(u64::try_from(stamp.as_millisecond()).unwrap())
    };
    let cases = [
        ("2026-01-04T21:59:00Z", false),
        ("2026-01-04T22:00:00Z", true),
        ("2026-01-05T00:59:00Z", true),
        ("2026-01-05T01:00:00Z", false),
        ("2026-07-05T20:59:00Z", false),
        ("2026-07-05T21:00:00Z", true),
        ("2026-07-04T21:00:00Z", false),
    ];
    for (text, open) in cases {
        assert_eq!(night.is_open(&berlin, at(text)), open, "{text}");
    }
    let opens = night.opens(&berlin, at("2026-07-05T21:00:00Z"));
    assert_eq!(opens, Some(at("2026-07-12T21:00:00Z")));
    assert_eq!(night.opens(&berlin, at("2026-10-20T00:00:00Z")), Some(at("2026-10-25T22:00:00Z")));
    assert!("Europe/Berlin".parse::<Zone>().is_err());
    assert!(Window::new(vec![], 0, 60).is_err());

    let mut fleet = Fleet::new(1, vec![Rollout { window: Some(night), ..rollout("a", 1) }]);
    fleet.turn();
    assert!(matches!(fleet.stage("a", 0), Stage::Waits(Wait::Window(Some(_)))));
}

#[test]
fn a_site_without_room_fails_alone_and_is_told_nothing() {
    let gate = Gate { success: 50, ..Gate::default() };
    let mut fleet = Fleet::new(2, vec![Rollout { waves: waves(&[2], &gate), ..rollout("a", 1) }]);
    fleet.inventory.get_mut(&site(1)).unwrap().memory = 10;
    for _ in 0..3 {
        fleet.turn();
    }
    assert_eq!(fleet.stage("a", 1), &Stage::Failed("no-memory".to_owned()));
    assert_eq!(fleet.plan.sites[&site(1)].generation, Generation(0));
    assert_eq!(fleet.phase("a"), Phase::Finished);
}

#[test]
fn who_was_stuck_goes_back_to_what_it_served_and_who_comes_back_is_judged() {
    let half = Gate { success: 50, ..Gate::default() };
    let second = Rollout { waves: waves(&[2], &half), ..rollout("b", 2) };
    let mut fleet = Fleet::new(2, vec![rollout("a", 1), second]);
    let stuck = |fleet: &mut Fleet, online| {
        fleet.set_online(1, online);
        let target = fleet.plan.sites[&site(1)].generation;
        let seen = fleet.seen.get_mut(&site(1)).unwrap();
        (seen.generation, seen.wanted, seen.settled) = (Generation(1), target, false);
        seen.failed = Some("not-ready".to_owned());
    };
    fleet.turn();
    fleet.turn();
    // It was told, is away until nobody waits for it, and comes back with a version that fails.
    assert!(matches!(fleet.stage("b", 1), Stage::Moving(_)));
    fleet.seen.get_mut(&site(1)).unwrap().generation = Generation(1);
    fleet.seen.get_mut(&site(1)).unwrap().settled = false;
    fleet.set_online(1, false);
    fleet.pass(3600);
    fleet.step(&[]);
    assert_eq!((fleet.phase("b"), fleet.stage("b", 1)), (Phase::Finished, &Stage::Skipped));
    stuck(&mut fleet, true);
    fleet.step(&[]);
    assert_eq!(fleet.stage("b", 1), &Stage::Failed("not-ready".to_owned()));
    // The next change finds it stuck, and what that is taken back to is what it served.
    fleet.policy.rollouts.push(rollout("c", 3));
    fleet.step(&[]);
    assert_eq!(fleet.plan.sites[&site(1)].models, [model("filetype", 3)]);
    fleet.step(&order(Order::Abort, "c"));
    assert_eq!(fleet.plan.sites[&site(0)].models, [model("filetype", 2)]);
    assert_eq!(fleet.plan.sites[&site(1)].models, [model("filetype", 1)]);
}

#[test]
fn lint_names_what_must_not_be_published() {
    let mut fleet = Fleet::new(3, vec![rollout("a", 1)]);
    fleet.turn();
    let mut bad = fleet.plan.clone();
    bad.sites.get_mut(&site(0)).unwrap().generation = Generation(0);
    bad.sites.get_mut(&site(1)).unwrap().models.clear();
    bad.sites.remove(&site(2));
    let problems = lint(&fleet.policy, &fleet.inventory, &fleet.plan, &bad);
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "site-000: goes back from generation 1 to 0",
            "site-001: has other models in the same generation 1",
            "site-002: is gone from the plan: its generation would begin again",
        ]
    );
}

#[derive(Debug, Clone)]
enum Step {
    Online(usize, bool),
    Obey,
    Order(u8, bool),
    Pass(u64),
    Leave(usize),
    Traffic(usize, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..8, any::<bool>()).prop_map(|(at, online)| Step::Online(at, online)),
        Just(Step::Obey),
        (0u8..5, any::<bool>()).prop_map(|(order, first)| Step::Order(order, first)),
        (1u64..4000).prop_map(Step::Pass),
        (0usize..8).prop_map(Step::Leave),
        (0usize..8, 0u64..100).prop_map(|(at, errors)| Step::Traffic(at, errors)),
    ]
}

fn any_rollout(name: &'static str) -> impl Strategy<Value = Rollout> {
    let parts = (1usize..4, 1usize..4, 1usize..5, any::<bool>(), any::<bool>(), 0u8..=100, 0u8..3);
    parts.prop_map(move |(one, two, most, pause, approval, success, version)| {
        let gate = Gate { success, approval, errors: Some(500), ..Gate::default() };
        Rollout {
            waves: waves(&[one, two], &gate),
            max_unavailable: Share::Count(most),
            on_failure: if pause { OnFailure::Pause } else { OnFailure::RollBack },
            ..rollout(name, version)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// `step` lints each plan, so generations, rooms, limits and double moves are checked there.
    #[test]
    fn plans_are_sound_whatever_is_seen_and_finish_when_all_is_well(
        first in any_rollout("a"),
        second in any_rollout("b"),
        steps in prop::collection::vec(any_step(), 0..60),
        bad in 0u8..3,
    ) {
        let mut fleet = Fleet::new(8, vec![first, second]);
        fleet.bad = vec![Digest::of(&[bad])];
        let inventory = fleet.inventory.clone();
        for step in steps {
            let mut orders = Vec::new();
            match step {
                Step::Online(at, online) => fleet.set_online(at, online),
                Step::Obey => fleet.obey(),
                Step::Order(order, first) => {
                    let name: RolloutName = if first { "a" } else { "b" }.parse().unwrap();
                    orders.push(match order {
                        0 => Order::Pause(name),
                        1 => Order::Resume(name),
                        2 => Order::Abort(name),
                        3 => Order::Retry(name),
                        _ => Order::Approve(name, 0),
                    });
                }
                Step::Pass(seconds) => fleet.pass(seconds),
                Step::Leave(at) => {
                    fleet.inventory.remove(&site(at));
                }
                Step::Traffic(at, errors) => {
                    let traffic = Traffic { requests: 100, errors, p99_us: 10 };
                    fleet.seen.get_mut(&site(at)).unwrap().traffic = traffic;
                }
            }
            let before = fleet.plan.clone();
            fleet.step(&orders);
            for (name, target) in fleet.plan.changes(&before) {
                // Only a way back, and the same again, reach who is offline.
                let same = before.sites.get(name).is_some_and(|old| old.models == target.models);
                let back = fleet.plan.rollouts.values().any(|progress| {
                    progress.sites.get(name).is_some_and(|mark| mark.stage == Stage::Undone)
                });
                prop_assert!(fleet.seen[name].online || back || same, "{name} moved while offline");
            }
        }
        // All is well again, and somebody approves.
        fleet.inventory = inventory;
        fleet.bad.clear();
        for at in 0..8 {
            fleet.set_online(at, true);
            fleet.seen.get_mut(&site(at)).unwrap().traffic = Traffic::default();
        }
        let names: [RolloutName; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        let again = |name: &RolloutName| [Order::Resume(name.clone()), Order::Retry(name.clone())];
        fleet.obey();
        fleet.step(&names.iter().flat_map(again).collect::<Vec<_>>());
        let approve = |name: &RolloutName| [0, 1, 2].map(|wave| Order::Approve(name.clone(), wave));
        let approvals: Vec<_> = names.iter().flat_map(approve).collect();
        for _ in 0..60 {
            fleet.pass(60);
            fleet.obey();
            fleet.step(&approvals);
        }
        for name in &names {
            prop_assert_eq!(fleet.phase(name.as_str()), Phase::Finished, "{}", fleet.plan);
        }
        let text = serde_json::to_string(&fleet.plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), fleet.plan);
    }
}
