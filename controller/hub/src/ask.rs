//! What people and sites ask of the hub, one after the other.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use wick_fleet::SiteName;
use wick_fleet::enrol::{EnrolRequest, Enrolled, Problem, RenewRequest};
use wick_fleet::plan::{Order, Phase, Plan};

use crate::token::Token;

/// A question, and where its answer goes.
pub enum Ask {
    Order {
        who: String,
        order: Order,
        answer: Answer<OrderDone>,
    },
    Enrol {
        request: EnrolRequest,
        answer: Answer<Enrolled>,
    },
    Renew {
        request: RenewRequest,
        answer: Answer<Enrolled>,
    },
    Revoke {
        who: String,
        site: SiteName,
        answer: Answer<()>,
    },
    Rotate {
        who: String,
        answer: Answer<Rotated>,
    },
    /// By its hash.
    MakeToken {
        who: String,
        hash: String,
        token: Token,
        answer: Answer<()>,
    },
    /// All with this name.
    DropToken {
        who: String,
        name: String,
        answer: Answer<usize>,
    },
}

pub type Answer<T> = oneshot::Sender<Result<T, Problem>>;

/// Where the rollout is after an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDone {
    pub rollout: String,
    pub phase: Phase,
    pub wave: usize,
    pub reason: Option<String>,
}

/// The key that is in use since.
#[derive(Debug, Serialize)]
pub struct Rotated {
    /// Counts the lists of keys.
    pub serial: u64,
    pub key: String,
}

pub fn problem(code: &str, message: impl Into<String>) -> Problem {
    Problem { code: code.to_owned(), message: message.into() }
}

/// What an order is called, and of which rollout it is.
pub fn named(order: &Order) -> (&'static str, String) {
    match order {
        Order::Pause(name) => ("pause", name.to_string()),
        Order::Resume(name) => ("resume", name.to_string()),
        Order::Abort(name) => ("abort", name.to_string()),
        Order::Retry(name) => ("retry", name.to_string()),
        Order::Approve(name, wave) => ("approve", format!("{name}, wave {}", wave + 1)),
    }
}

/// Whether an order means anything now. The planner passes over what doesn't, and whoever asked should know.
///
/// # Errors
/// There is no such rollout, or it is in another phase.
pub fn permits(plan: &Plan, order: &Order) -> Result<(), Problem> {
    let (Order::Pause(name)
    | Order::Resume(name)
    | Order::Abort(name)
    | Order::Retry(name)
    | Order::Approve(name, _)) = order;
    let Some(progress) = plan.rollouts.get(name) else {
        return Err(problem("unknown", format!("there is no rollout {name}")));
    };
    let phase = progress.phase;
    let fits = match order {
        Order::Pause(_) => phase == Phase::Running,
        Order::Resume(_) => phase == Phase::Paused,
        Order::Abort(_) | Order::Approve(..) => phase.is_open(),
        Order::Retry(_) => matches!(phase, Phase::Paused | Phase::Aborted | Phase::RolledBack),
    };
    match fits {
        true => Ok(()),
        false => Err(problem("phase", format!("{name} is {phase}: this order means nothing now"))),
    }
}
