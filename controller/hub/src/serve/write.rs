//! What changes something: it is handed to the loop, which answers when it is on the disk.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use wick_fleet::enrol::Problem;
use wick_fleet::plan::Order;
use wick_fleet::{Moment, SiteName};

use super::auth::Caller;
use super::{Answer, Api, Refused, json as answer_json};
use crate::ask::Ask;
use crate::hub::{Input, now};
use crate::token::{self, Grant, Role, Token};

/// How long the loop may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long tokens hold unless it is said, in hours: for enrolling a day, for others a year; and at most.
const ENROL_HOURS: u64 = 24;
const ROLE_HOURS: u64 = 365 * 24;
const MAX_HOURS: u64 = 10 * 365 * 24;

/// Longest name of a token.
const MAX_NAME: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    site: SiteName,
    #[serde(default)]
    again: bool,
    hours: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: Role,
    hours: Option<u64>,
}

/// Counted from one, as everywhere where people look.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Approval {
    wave: Option<usize>,
}

pub(super) async fn enrol(State(api): State<Api>, body: Bytes) -> Answer {
    let request = parse(&body)?;
    Ok(answer_json(&api.ask(|answer| Ask::Enrol { request, answer }).await?))
}

pub(super) async fn renew(State(api): State<Api>, body: Bytes) -> Answer {
    let request = parse(&body)?;
    Ok(answer_json(&api.ask(|answer| Ask::Renew { request, answer }).await?))
}

/// A webhook: whoever calls it learns nothing and can make the hub look at most every two seconds.
pub(super) async fn pull(State(api): State<Api>) -> Response {
    api.shared.pull.notify_one();
    StatusCode::ACCEPTED.into_response()
}

pub(super) async fn order(
    State(api): State<Api>,
    Path((rollout, order)): Path<(String, String)>,
    caller: Caller,
    body: Bytes,
) -> Answer {
    caller.must(Role::Operator)?;
    let name = rollout
        .parse()
        .map_err(|_| Refused::new("unknown", format!("there is no rollout {rollout}")))?;
    let order = match order.as_str() {
        "pause" => Order::Pause(name),
        "resume" => Order::Resume(name),
        "abort" => Order::Abort(name),
        "retry" => Order::Retry(name),
        "approve" => {
            let approval: Approval =
                if body.is_empty() { Approval::default() } else { parse(&body)? };
            let current =
                api.shared.state.read().plan.rollouts.get(&name).map(|progress| progress.wave + 1);
            let wave = approval.wave.or(current).unwrap_or(1);
            let wave = wave
                .checked_sub(1)
                .ok_or_else(|| Refused::new("malformed", "waves are counted from 1"))?;
            Order::Approve(name, wave)
        }
        other => return Err(Refused::new("unknown", format!("there is no order `{other}`"))),
    };
    let who = caller.name;
    Ok(answer_json(&api.ask(|answer| Ask::Order { who, order, answer }).await?))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Path(site): Path<String>,
    caller: Caller,
) -> Answer {
    caller.must(Role::Admin)?;
    let unknown = || Refused::new("unknown", format!("no site {site} is enrolled"));
    let (site, who) = (site.parse().map_err(|_| unknown())?, caller.name);
    api.ask(|answer| Ask::Revoke { who, site, answer }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn enrolment(State(api): State<Api>, caller: Caller, body: Bytes) -> Answer {
    caller.must(Role::Operator)?;
    let Enrolment { site, again, hours } = parse(&body)?;
    let name = site.to_string();
    let grant = Grant::Enrol { site, again, used: None };
    make(&api, caller.name, name, grant, hours.unwrap_or(ENROL_HOURS)).await
}

pub(super) async fn make_token(State(api): State<Api>, caller: Caller, body: Bytes) -> Answer {
    caller.must(Role::Admin)?;
    let NewToken { name, role, hours } = parse(&body)?;
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Refused::new(
            "malformed",
            format!("a name has 1 to {MAX_NAME} printable bytes"),
        ));
    }
    make(&api, caller.name, name, Grant::Role(role), hours.unwrap_or(ROLE_HOURS)).await
}

pub(super) async fn rotate(State(api): State<Api>, caller: Caller) -> Answer {
    caller.must(Role::Admin)?;
    let who = caller.name;
    Ok(answer_json(&api.ask(|answer| Ask::Rotate { who, answer }).await?))
}

pub(super) async fn drop_token(
    State(api): State<Api>,
    Path(name): Path<String>,
    caller: Caller,
) -> Answer {
    caller.must(Role::Admin)?;
    let who = caller.name;
    let dropped = api.ask(|answer| Ask::DropToken { who, name, answer }).await?;
    Ok(answer_json(&json!({"dropped": dropped})))
}

async fn make(api: &Api, who: String, name: String, grant: Grant, hours: u64) -> Answer {
    let text = token::make().map_err(|error| Refused::new("internal", error.to_string()))?;
    let expires: Moment = now() + Duration::from_secs(hours.min(MAX_HOURS) * 3600);
    let token = Token { name, expires, grant };
    let (hash, shown) =
        (token::hash(&text), json!({"token": text, "name": token.name, "expires": expires}));
    api.ask(|answer| Ask::MakeToken { who, hash, token, answer }).await?;
    Ok(answer_json(&shown))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::new("malformed", error.to_string()))
}

// === impl Api ===

impl Api {
    async fn ask<T>(&self, ask: impl FnOnce(crate::ask::Answer<T>) -> Ask) -> Result<T, Refused> {
        let (sender, receiver) = oneshot::channel();
        let late =
            || Refused::new("late", "the hub has not answered: it may have done it all the same");
        self.inputs.try_send(Input::Ask(ask(sender))).map_err(|error| match error {
            TrySendError::Full(_) => Refused::new("busy", "the hub is busy: try again in a second"),
            TrySendError::Closed(_) => late(),
        })?;
        let answer = tokio::time::timeout(PATIENCE, receiver).await;
        let answer: Result<T, Problem> = answer.map_err(|_| late())?.map_err(|_| late())?;
        Ok(answer?)
    }
}
