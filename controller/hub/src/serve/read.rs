//! What is shown.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use wick_fleet::plan::{Plan, Problem, lint, plan as make_plan};
use wick_fleet::{RolloutName, SiteName};

use super::auth::Caller;
use super::{Answer, Api, Refused, json as answer_json, raw};
use crate::hub::{now, objection};
use crate::policy::{self, File};
use crate::record::{Asked, Event, Told};
use crate::show::{self, Totals};
use crate::store::Table;
use crate::token::{Role, Token};

/// Sites, events and entries of one answer, unless fewer are asked for.
const PAGE: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRun {
    files: Vec<File>,
}

/// Ready is a hub that hears the fleet and has a policy.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let state = api.shared.state.read();
    let (code, text) = match (state.link.caught_up, &state.documents) {
        (true, Some(_)) => (StatusCode::OK, "ready\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not connected to the broker\n"),
        (true, None) => (StatusCode::SERVICE_UNAVAILABLE, "there is no policy yet\n"),
    };
    (code, raw("text/plain", text)).into_response()
}

pub(super) async fn status(State(api): State<Api>, _caller: Caller) -> Response {
    let state = api.shared.state.read();
    let problems: Vec<_> = state.problems.iter().map(ToString::to_string).collect();
    let signing = api.shared.authority.signing();
    let serial = signing.ring.serial();
    answer_json(&json!({
        "now": now(),
        "made": state.plan.made,
        "link": state.link,
        "keys": {
            "serial": serial, "key": signing.key.public().id().to_string(),
            "sites": show::believers(&state, serial),
        },
        "source": state.source,
        "sites": Totals::of(&state),
        "rollouts": show::rollouts(&state),
        "problems": problems,
    }))
}

pub(super) async fn sites(State(api): State<Api>, _caller: Caller, uri: Uri) -> Response {
    let query = query(&uri);
    let most = limit(&query);
    let after = query.get("after").and_then(|name| name.parse::<SiteName>().ok());
    let state = api.shared.state.read();
    let names =
        state.members.keys().filter(|name| after.as_ref().is_none_or(|after| *name > after));
    let sites: Vec<_> = names.take(most).filter_map(|name| show::site(&state, name)).collect();
    let next = (sites.len() == most).then(|| sites.last().map(|site| site.name.clone())).flatten();
    answer_json(&json!({"sites": sites, "next": next}))
}

pub(super) async fn site(
    State(api): State<Api>,
    Path(name): Path<String>,
    _caller: Caller,
) -> Answer {
    let name = site_name(&name)?;
    let shown = show::site(&api.shared.state.read(), &name);
    Ok(answer_json(&shown.ok_or_else(|| no_site(name.as_str()))?))
}

pub(super) async fn generations(
    State(api): State<Api>,
    Path(name): Path<String>,
    _caller: Caller,
) -> Answer {
    let name = site_name(&name)?;
    let told: Vec<(String, Told)> =
        api.shared.store.all(Table::Generations, &format!("{name}/"))?;
    let told: Vec<_> = told.into_iter().rev().map(|(_, told)| told).collect();
    Ok(answer_json(&json!({"generations": told})))
}

pub(super) async fn rollouts(State(api): State<Api>, _caller: Caller) -> Response {
    answer_json(&json!({"rollouts": show::rollouts(&api.shared.state.read())}))
}

pub(super) async fn rollout(
    State(api): State<Api>,
    Path(name): Path<String>,
    _caller: Caller,
) -> Answer {
    let none = || Refused::new("unknown", format!("there is no rollout {name}"));
    let name: RolloutName = name.parse().map_err(|_| none())?;
    let shown = show::rollout(&api.shared.state.read(), &name);
    Ok(answer_json(&shown.ok_or_else(none)?))
}

pub(super) async fn plan(State(api): State<Api>, _caller: Caller) -> Response {
    let state = api.shared.state.read();
    answer_json(&json!({"made": state.plan.made, "text": state.plan.to_string()}))
}

/// What these files would do now, if they were the policy. Nothing is kept.
pub(super) async fn dry_run(State(api): State<Api>, _caller: Caller, body: Bytes) -> Answer {
    let DryRun { files } = serde_json::from_slice(&body)
        .map_err(|error| Refused::new("malformed", error.to_string()))?;
    let work = tokio::task::spawn_blocking(move || answer_json(&dry(&api, &files)));
    work.await.map_err(|error| Refused::new("internal", error.to_string()))
}

#[derive(Serialize, Default)]
struct Dry {
    mistakes: Vec<policy::Mistake>,
    problems: Vec<String>,
    text: String,
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct Change {
    site: SiteName,
    generation: u64,
    rollout: Option<RolloutName>,
}

fn dry(api: &Api, files: &[File]) -> Dry {
    let documents = match policy::read(files) {
        Ok(documents) => documents,
        Err(mistakes) => return Dry { mistakes, ..Dry::default() },
    };
    let state = api.shared.state.read();
    if let Some(problem) = objection(state.documents.as_ref(), &documents, &state.plan) {
        return Dry { problems: vec![problem], ..Dry::default() };
    }
    let before: &Plan = &state.plan;
    let mut inventory = state.inventory.clone();
    for (name, better) in &documents.sites {
        if let Some(place) = inventory.get_mut(name) {
            better.apply(place);
        }
    }
    let after =
        make_plan(&documents.policy, &inventory, state.heard.seen(), before.clone(), &[], now());
    let problems = lint(&documents.policy, &inventory, before, &after);
    let changes = after.changes(before).map(|(site, target)| Change {
        site: site.clone(),
        generation: target.generation.0,
        rollout: target.rollout.clone(),
    });
    Dry {
        mistakes: Vec::new(),
        problems: problems.iter().map(Problem::to_string).collect(),
        text: after.to_string(),
        changes: changes.collect(),
    }
}

pub(super) async fn history(State(api): State<Api>, _caller: Caller, uri: Uri) -> Answer {
    let query = query(&uri);
    let wanted = query.get("rollout");
    let keep = |event: &Event| wanted.is_none_or(|name| event.rollout.as_str() == name);
    let events = api.shared.store.last(Table::History, limit(&query), keep)?;
    Ok(answer_json(&json!({"history": events})))
}

pub(super) async fn audit(State(api): State<Api>, caller: Caller, uri: Uri) -> Answer {
    caller.must(Role::Admin)?;
    let entries = api.shared.store.last::<Asked>(Table::Audit, limit(&query(&uri)), |_| true)?;
    Ok(answer_json(&json!({"audit": entries})))
}

pub(super) async fn tokens(State(api): State<Api>, caller: Caller) -> Answer {
    caller.must(Role::Admin)?;
    let tokens: Vec<(String, Token)> = api.shared.store.all(Table::Tokens, "")?;
    let tokens: Vec<_> = tokens.into_iter().map(|(_, token)| token).collect();
    Ok(answer_json(&json!({"tokens": tokens})))
}

fn site_name(name: &str) -> Result<SiteName, Refused> {
    name.parse().map_err(|_| no_site(name))
}

fn no_site(name: &str) -> Refused {
    Refused::new("unknown", format!("no site {name} is enrolled"))
}

/// Names have no letter that a query would write otherwise.
fn query(uri: &Uri) -> BTreeMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn limit(query: &BTreeMap<String, String>) -> usize {
    let asked = query.get("limit").and_then(|limit| limit.parse().ok());
    asked.unwrap_or(PAGE).clamp(1, PAGE)
}
