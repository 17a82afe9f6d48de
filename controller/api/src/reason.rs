//! Why a Model is as it is: every reason that a condition can have, in one table.

use self::ConditionType::{Degraded, Progressing, Ready};
use crate::status::Status::{self, False, True};

/// The conditions of a Model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// A request would be answered now, or after a cold start.
    Ready,
    /// Something is under way.
    Progressing,
    /// Something is not as the spec wants it, though requests may be answered.
    Degraded,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Serving,
    Cold,
    Starting,
    NoReadyPods,
    ImageUnresolved,
    Unsigned,
    NeverReady,
    Complete,
    Resolving,
    NewRevision,
    RollingOut,
    Paused,
    AwaitingPromotion,
    AsWanted,
    TooManyErrors,
    TooSlow,
    TooFewRequests,
    LostReadiness,
    Aborted,
    Undone,
    UpdateUnsigned,
    EndpointsNotWritten,
    NoMetrics,
    Unschedulable,
}

/// One line of the table.
struct Line {
    reason: Reason,
    code: &'static str,
    condition: ConditionType,
    status: Status,
    meaning: &'static str,
}

const fn line(
    reason: Reason,
    code: &'static str,
    condition: ConditionType,
    status: Status,
    meaning: &'static str,
) -> Line {
    Line { reason, code, condition, status, meaning }
}

/// In the order of `Reason`, which a test checks.
static TABLE: [Line; 24] = [
    line(Reason::Serving, "Serving", Ready, True, "pods are ready"),
    line(Reason::Cold, "Cold", Ready, True, "no pod runs; the next request starts one"),
    line(Reason::Starting, "Starting", Ready, False, "the first pod is starting"),
    line(Reason::NoReadyPods, "NoReadyPods", Ready, False, "pods run, and none is ready"),
    line(
        Reason::ImageUnresolved,
        "ImageUnresolved",
        Ready,
        False,
        "the registry has not said which digest the tag stands for",
    ),
    line(
        Reason::Unsigned,
        "Unsigned",
        Ready,
        False,
        "none of `spec.package.signature.keys` signed it",
    ),
    line(
        Reason::NeverReady,
        "NeverReady",
        Degraded,
        True,
        "the revision was not ready within `spec.rollout.progressDeadline`",
    ),
    line(
        Reason::Complete,
        "Complete",
        Progressing,
        False,
        "all traffic goes to the newest revision",
    ),
    line(Reason::Resolving, "Resolving", Progressing, True, "the registry is asked for the digest"),
    line(Reason::NewRevision, "NewRevision", Progressing, True, "a new revision is starting"),
    line(Reason::RollingOut, "RollingOut", Progressing, True, "traffic moves to a new revision"),
    line(Reason::Paused, "Paused", Progressing, False, "the rollout stays where it is, as asked"),
    line(
        Reason::AwaitingPromotion,
        "AwaitingPromotion",
        Progressing,
        False,
        "the step lasts until somebody promotes the revision",
    ),
    line(Reason::AsWanted, "AsWanted", Degraded, False, "everything is as the spec wants it"),
    line(
        Reason::TooManyErrors,
        "TooManyErrors",
        Degraded,
        True,
        "the new revision failed more often than its gate permits",
    ),
    line(
        Reason::TooSlow,
        "TooSlow",
        Degraded,
        True,
        "the new revision was slower than its gate permits",
    ),
    line(
        Reason::TooFewRequests,
        "TooFewRequests",
        Degraded,
        True,
        "a step's deadline came before enough requests, and the gates want them",
    ),
    line(
        Reason::LostReadiness,
        "LostReadiness",
        Degraded,
        True,
        "the new revision was ready and is not any more",
    ),
    line(Reason::Aborted, "Aborted", Degraded, True, "somebody aborted the rollout"),
    line(Reason::Undone, "Undone", Degraded, True, "somebody went back to an older revision"),
    line(
        Reason::UpdateUnsigned,
        "UpdateUnsigned",
        Degraded,
        True,
        "none of `spec.package.signature.keys` signed the new image, so the one before stays",
    ),
    line(
        Reason::EndpointsNotWritten,
        "EndpointsNotWritten",
        Degraded,
        True,
        "the API server does not take the EndpointSlice, so no pod is stopped",
    ),
    line(
        Reason::NoMetrics,
        "NoMetrics",
        Degraded,
        True,
        "nobody says how many requests there are, so the number of pods stays",
    ),
    line(
        Reason::Unschedulable,
        "Unschedulable",
        Degraded,
        True,
        "no node has what a pod asks for, such as a device",
    ),
];

// === impl Reason ===

impl Reason {
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|line| line.reason)
    }

    /// The word in the condition, the event and the metric.
    pub fn code(self) -> &'static str {
        self.line().code
    }

    /// The condition that has it.
    pub fn condition(self) -> ConditionType {
        self.line().condition
    }

    /// What the condition then is.
    pub fn status(self) -> Status {
        self.line().status
    }

    /// What it says to people.
    pub fn meaning(self) -> &'static str {
        self.line().meaning
    }

    fn line(self) -> &'static Line {
        &TABLE[self as usize]
    }
}

// === impl ConditionType ===

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_reasons() {
        for (index, line) in TABLE.iter().enumerate() {
            assert_eq!(line.reason as usize, index);
            assert_eq!(line.code, format!("{:?}", line.reason));
        }
    }

    #[test]
    fn the_documentation_has_every_reason() {
        let text = include_str!("../../../docs/model.md");
        for reason in Reason::all() {
            let row = format!(
                "| {} | {} | {} | {} |",
                reason.condition().as_str(),
                reason.status().as_str(),
                reason.code(),
                reason.meaning(),
            );
            assert!(text.contains(&row), "docs/model.md has no row: {row}");
        }
    }
}
