//! The hub's loop: what comes in, one decision over all of it, the store, and then everybody who must hear of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use wick_fleet::enrol::Problem;
use wick_fleet::plan::{Order, Plan, lint, plan};
use wick_fleet::{Moment, RolloutName, SiteName};
use wick_package::error_text;

use crate::ask::{self, Answer, Ask, OrderDone, problem};
use crate::link::Heard;
use crate::policy::{self, Documents};
use crate::record::{self, Asked};
use crate::shared::{KeptPolicy, LinkState, POLICY, Shared};
use crate::source::Fetched;
use crate::store::{Change, Table};

/// Inputs that wait for the loop. Who has more waits too.
pub const MAX_INPUTS: usize = 1024;

/// Inputs that one decision takes in: a plan is for all that is there.
const BATCH: usize = 1024;

/// Shortest time between two decisions, so that a thousand reports make a handful of plans.
const PACE: Duration = Duration::from_millis(50);

/// Longest time between two: gates bake and windows open by the clock.
const TICK: Duration = Duration::from_secs(1);

/// The share of time that plans of a large fleet may take: one in this many.
const IDLE: u32 = 20;

/// After a connection the broker says all that it has kept. When it has been silent for this long, or after the
/// second time, that was it; before that sites seem to be offline that are not.
const QUIET: Duration = Duration::from_millis(500);
const MAX_QUIET: Duration = Duration::from_secs(30);

/// What comes in.
pub enum Input {
    Link(Heard),
    Policy(Fetched),
    /// The repository has nothing new.
    Unchanged,
    /// Why there is no new policy.
    NoPolicy(String),
    Ask(Ask),
}

/// The loop's own state.
struct Hub {
    shared: Arc<Shared>,
    orders: Vec<(String, Order, Answer<OrderDone>)>,
    /// A policy that the disk has not taken.
    waiting: Option<Fetched>,
    connected: Option<Instant>,
    last_message: Instant,
}

/// The time by this machine's clock.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Decide for as long as somebody asks or tells.
pub async fn run(shared: Arc<Shared>, mut inputs: mpsc::Receiver<Input>) {
    let last_message = Instant::now();
    let mut hub = Hub { shared, orders: Vec::new(), waiting: None, connected: None, last_message };
    let (mut next, mut pending) = (Instant::now(), true);
    let mut last = next;
    loop {
        let wait = if pending { last + PACE } else { next };
        tokio::select! {
            input = inputs.recv() => {
                let Some(input) = input else { return };
                pending |= hub.take(input);
                for _ in 1..BATCH {
                    let Ok(input) = inputs.try_recv() else { break };
                    pending |= hub.take(input);
                }
            }
            () = sleep_until(wait) => pending = true,
        }
        if pending && Instant::now() >= last + PACE {
            last = Instant::now();
            hub.catch_up();
            tokio::task::block_in_place(|| {
                if let Some(fetched) = hub.waiting.take() {
                    hub.adopt(fetched);
                }
                hub.decide();
            });
            pending = false;
            next = Instant::now() + TICK.max(last.elapsed() * IDLE);
        }
    }
}

// === impl Hub ===

impl Hub {
    /// Whether it is something to decide over.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Link(heard) => self.hear(heard),
            Input::Policy(fetched) => tokio::task::block_in_place(|| self.adopt(fetched)),
            Input::Unchanged => {
                let mut state = self.shared.state.write();
                state.source.looked = Some(now());
                state.source.error = state.source.refused.clone();
                false
            }
            Input::NoPolicy(error) => {
                tracing::warn!(%error, "the policy stays as it was");
                let mut state = self.shared.state.write();
                state.source.looked = Some(now());
                state.source.error = Some(error);
                false
            }
            Input::Ask(ask) => self.answer(ask),
        }
    }

    fn hear(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Message { topic, payload } => {
                self.last_message = Instant::now();
                self.shared.counts.heard.fetch_add(1, Ordering::Relaxed);
                let heard = self.shared.state.write().heard.hear(&topic, &payload, now());
                heard.unwrap_or_else(|refusal| {
                    tracing::warn!(topic = topic.as_str(), code = refusal.code(), %refusal, "a message is refused");
                    false
                })
            }
            Heard::Connected => {
                tracing::info!("connected to the broker");
                self.connected = Some(Instant::now());
                self.last_message = Instant::now();
                let mut state = self.shared.state.write();
                state.link = LinkState { connected: true, since: now(), ..LinkState::default() };
                drop(state);
                self.shared.repeat();
                false
            }
            Heard::Lost(error) => {
                let mut state = self.shared.state.write();
                if state.link.connected || state.link.error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "not connected to the broker");
                }
                let since = if state.link.connected { now() } else { state.link.since };
                state.link =
                    LinkState { connected: false, caught_up: false, since, error: Some(error) };
                self.connected = None;
                false
            }
        }
    }

    /// Whether everything that the broker keeps was heard by now.
    fn catch_up(&mut self) {
        let Some(connected) = self.connected else { return };
        let mut state = self.shared.state.write();
        let quiet = self.last_message.elapsed() >= QUIET || connected.elapsed() >= MAX_QUIET;
        if !state.link.caught_up && quiet {
            state.link.caught_up = true;
            state.heard.reconnected(now());
        }
    }

    /// Take a policy that is good; of one that isn't, say why.
    fn adopt(&mut self, fetched: Fetched) -> bool {
        self.waiting = None;
        let Fetched { origin, commit, files } = &fetched;
        let read = policy::read(files);
        let mut state = self.shared.state.write();
        state.source.looked = Some(now());
        state.source.tried = Some(commit.clone());
        let documents = match read {
            Ok(documents) => documents,
            Err(mut mistakes) => {
                let error = origin.mistaken(commit, &mut mistakes);
                tracing::warn!(%commit, %error, "the policy stays as it was");
                state.source.refuse(error, mistakes);
                return false;
            }
        };
        if let Some(error) = objection(state.documents.as_ref(), &documents, &state.plan) {
            tracing::warn!(%commit, %error, "the policy stays as it was");
            let error = origin.refused(commit, error);
            state.source.refuse(error, Vec::new());
            return false;
        }
        // One that comes back under its name is another one, whether anything was decided between or not.
        let kept = |name: &RolloutName| {
            documents.policy.rollouts.iter().any(|rollout| rollout.name == *name)
        };
        let gone = state.plan.rollouts.keys().filter(|name| !kept(name));
        let gone: Vec<RolloutName> = gone.cloned().collect();
        drop(state);
        let mut change = Change::default();
        gone.iter().for_each(|name| change.delete(Table::Rollouts, name.as_str()));
        change.put(
            Table::Meta,
            POLICY,
            &KeptPolicy { commit: commit.clone(), files: files.clone() },
        );
        let asked = Asked {
            at: now(),
            who: origin.as_str().to_owned(),
            what: "policy".to_owned(),
            about: commit.clone(),
        };
        change.log(Table::Audit, &asked);
        if let Err(error) = self.shared.store.commit(&change) {
            let error = origin.refused(commit, error_text(&error));
            let mut state = self.shared.state.write();
            if state.source.refused.as_ref() != Some(&error) {
                tracing::error!(error, "the policy can't be kept: it is tried again each second");
            }
            state.source.refuse(error, Vec::new());
            self.waiting = Some(fetched);
            return false;
        }
        tracing::info!(%commit, rollouts = documents.policy.rollouts.len(), "a new policy");
        let mut state = self.shared.state.write();
        gone.iter().for_each(|name| drop(state.plan.rollouts.remove(name)));
        state.documents = Some(documents);
        state.source.adopt(fetched.commit);
        state.take_inventory();
        true
    }

    fn answer(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Order { who, order, answer } => {
                match ask::permits(&self.shared.state.read().plan, &order) {
                    Ok(()) => self.orders.push((who, order, answer)),
                    // Who asked may be gone; so below.
                    Err(problem) => drop(answer.send(Err(problem))),
                }
                return true;
            }
            Ask::Enrol { request, answer } => drop(answer.send(self.shared.enrol(&request))),
            Ask::Renew { request, answer } => drop(answer.send(self.shared.renew(&request))),
            Ask::Revoke { who, site, answer } => drop(answer.send(self.shared.revoke(who, &site))),
            Ask::Rotate { who, answer } => drop(answer.send(self.shared.rotate(who))),
            Ask::MakeToken { who, hash, token, answer } => {
                drop(answer.send(self.shared.make_token(who, &hash, &token)));
            }
            Ask::DropToken { who, name, answer } => {
                drop(answer.send(self.shared.drop_token(who, &name)));
            }
        }
        true
    }

    /// Make the next plan, write it down, and only then say it.
    fn decide(&mut self) {
        let orders = std::mem::take(&mut self.orders);
        let given: Vec<Order> = orders.iter().map(|(_, order, _)| order.clone()).collect();
        let state = self.shared.state.read();
        let Some(documents) = &state.documents else {
            return refuse(orders, "policy", "there is no policy yet");
        };
        // Cut off, it sees nobody: time stands still, and only orders have an effect.
        let time = match (state.link.caught_up, given.is_empty()) {
            (true, _) => now(),
            (false, true) => return,
            (false, false) => state.plan.made,
        };
        let (before, policy) = (&state.plan, &documents.policy);
        let after =
            plan(policy, &state.inventory, state.heard.seen(), before.clone(), &given, time);
        let problems = lint(policy, &state.inventory, before, &after);
        self.shared.counts.plans.fetch_add(1, Ordering::Relaxed);
        if let Some(first) = problems.first() {
            let text = first.to_string();
            drop(state);
            tracing::error!(problem = text, "a plan is not published");
            self.shared.state.write().problems = problems;
            return refuse(orders, "lint", &text);
        }
        let mut change = Change::default();
        for (who, order, _) in &orders {
            let (what, about) = ask::named(order);
            let who = who.clone();
            change.log(Table::Audit, &Asked { at: now(), who, what: what.to_owned(), about });
        }
        record::differences(before, &after, &mut change);
        let changed: Vec<SiteName> = after.changes(before).map(|(name, _)| name.clone()).collect();
        drop(state);
        if let Err(error) = self.shared.store.commit(&change) {
            tracing::error!(%error, "a plan can't be written down, so it is not published");
            return refuse(orders, "internal", &error.to_string());
        }
        {
            let mut state = self.shared.state.write();
            state.plan = after;
            state.problems.clear();
        }
        self.shared.outbox.add(changed);
        self.done(orders);
    }

    fn done(&self, orders: Vec<(String, Order, Answer<OrderDone>)>) {
        let state = self.shared.state.read();
        for (_, order, answer) in orders {
            let (Order::Pause(name)
            | Order::Resume(name)
            | Order::Abort(name)
            | Order::Retry(name)
            | Order::Approve(name, _)) = &order;
            let progress = state.plan.rollouts.get(name);
            let done = progress.map(|progress| OrderDone {
                rollout: name.to_string(),
                phase: progress.phase,
                wave: progress.wave + 1,
                reason: progress.reason.clone(),
            });
            let gone = || problem("unknown", format!("{name} has left the policy"));
            drop(answer.send(done.ok_or_else(gone)));
        }
    }
}

fn refuse(orders: Vec<(String, Order, Answer<OrderDone>)>, code: &str, why: &str) {
    for (_, _, answer) in orders {
        let problem: Problem = problem(code, why);
        drop(answer.send(Err(problem)));
    }
}

/// Why a policy that is well formed can't follow the one in force.
pub fn objection(before: Option<&Documents>, after: &Documents, made: &Plan) -> Option<String> {
    if let Some(before) = before
        && let Some(name) = policy::changed(&before.policy, &after.policy)
        && made.rollouts.contains_key(&name)
    {
        return Some(format!(
            "rollout {name} has begun, and its models, `remove` and `select` stay as they are: give the change another name"
        ));
    }
    // Of the policy alone: plans are looked at when they are made.
    let problems =
        lint(&after.policy, &std::collections::BTreeMap::new(), &Plan::default(), &Plan::default());
    problems.first().map(ToString::to_string)
}
