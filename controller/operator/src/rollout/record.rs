//! A rollout's state in the status of its Model, and back.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use wick_api::{DrainingStatus, RejectedStatus, RolloutPhase, RolloutStatus};

use super::{Phase, Reason, State};
use crate::revision::RevisionName;
use crate::time::Moment;

// === impl State ===

impl State {
    /// The form in which a status keeps it.
    pub fn to_status(&self) -> RolloutStatus {
        let text = |name: &RevisionName| name.to_string();
        let mut status = RolloutStatus {
            active: self.active.as_ref().map(text),
            candidate: self.candidate().map(text),
            previous: self.previous.as_ref().map(text),
            rejected: self.rejected.as_ref().map(|(name, reason)| RejectedStatus {
                name: name.to_string(),
                reason: reason.of_model().code().to_owned(),
            }),
            ..RolloutStatus::default()
        };
        let draining = self.draining.iter();
        status.draining = draining
            .map(|(name, until)| DrainingStatus { name: name.to_string(), until: time(*until) })
            .collect();
        match &self.phase {
            Phase::Idle => {}
            Phase::Starting { since, direct, .. } => {
                status.phase = RolloutPhase::Starting;
                (status.since, status.direct) = (Some(time(*since)), *direct);
            }
            Phase::Late { since, .. } => {
                (status.phase, status.since) = (RolloutPhase::Late, Some(time(*since)));
            }
            Phase::Stepping { step, since, unready, .. } => {
                status.phase = RolloutPhase::Stepping;
                status.step = i32::try_from(*step).ok();
                (status.since, status.unready_since) = (Some(time(*since)), unready.map(time));
            }
            Phase::Held { since, reason, .. } => {
                (status.phase, status.since) = (RolloutPhase::Held, Some(time(*since)));
                status.reason = Some(reason.of_model().code().to_owned());
            }
        }
        status
    }

    /// What a status has kept. What it lacks, or what somebody has written into it that is no
    /// state, is taken for a rollout that has not begun: nothing is lost but time.
    pub fn from_status(status: &RolloutStatus) -> Self {
        let known = |name: &Option<String>| name.as_deref().map(RevisionName::known);
        let rejected = status.rejected.as_ref();
        let rejected = rejected.and_then(|rejected| {
            Some((RevisionName::known(&rejected.name), Reason::of_code(&rejected.reason)?))
        });
        let draining = status.draining.iter();
        let draining =
            draining.map(|one| (RevisionName::known(&one.name), moment(&one.until))).collect();
        Self {
            active: known(&status.active),
            previous: known(&status.previous),
            rejected,
            phase: phase(status).unwrap_or_default(),
            draining,
        }
    }
}

fn phase(status: &RolloutStatus) -> Option<Phase> {
    let candidate = RevisionName::known(status.candidate.as_deref()?);
    let since = moment(status.since.as_ref()?);
    Some(match status.phase {
        RolloutPhase::Idle => return None,
        RolloutPhase::Starting => Phase::Starting { candidate, since, direct: status.direct },
        RolloutPhase::Late => Phase::Late { candidate, since },
        RolloutPhase::Stepping => {
            let step = usize::try_from(status.step?).ok()?;
            let unready = status.unready_since.as_ref().map(moment);
            Phase::Stepping { candidate, step, since, unready }
        }
        RolloutPhase::Held => {
            let reason = Reason::of_code(status.reason.as_deref()?)?;
            Phase::Held { candidate, since, reason }
        }
    })
}

// === impl Reason ===

impl Reason {
    fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.of_model().code() == code)
    }
}

fn time(moment: Moment) -> MicroTime {
    let since_1970 = Duration::from_millis(moment.millis());
    // Times that no calendar has come only of a clock that is broken.
    let timestamp = Timestamp::UNIX_EPOCH.checked_add(since_1970);
    MicroTime(timestamp.unwrap_or(Timestamp::MAX))
}

fn moment(time: &MicroTime) -> Moment {
    Moment::from_millis(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
}
