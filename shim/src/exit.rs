//! What a failed call is for containerd: the one place that knows status codes.

use std::fmt;

use containerd_shim::protos::ttrpc::{self, Code, get_status};

use crate::plan::Refusals;
use crate::policy::Denied;
use crate::state::Illegal;

/// Why a call failed.
#[derive(Debug)]
pub enum Fault {
    NotFound(String),
    Exists(String),
    /// The spec asks for what can't be given.
    Refused(Refusals),
    Illegal(Illegal),
    /// The node's policy does not let it run.
    Denied(Denied),
    /// wick does not have it, and says what to do instead.
    Unsupported(String),
    Failed(anyhow::Error),
}

// === impl Fault ===

impl Fault {
    pub fn no_task(id: &str) -> Self {
        Self::NotFound(format!("no task `{id}`"))
    }

    pub fn no_process(id: &str, exec_id: &str) -> Self {
        Self::NotFound(format!("no process `{exec_id}` in task `{id}`"))
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NOT_FOUND,
            Self::Exists(_) => Code::ALREADY_EXISTS,
            Self::Refused(_) => Code::INVALID_ARGUMENT,
            Self::Denied(_) => Code::PERMISSION_DENIED,
            Self::Illegal(_) => Code::FAILED_PRECONDITION,
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            Self::Failed(_) => Code::UNKNOWN,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) | Self::Exists(what) | Self::Unsupported(what) => {
                f.write_str(what)
            }
            Self::Refused(refusals) => fmt::Display::fmt(refusals, f),
            Self::Denied(denied) => fmt::Display::fmt(denied, f),
            Self::Illegal(illegal) => fmt::Display::fmt(illegal, f),
            // With its causes: containerd shows one line.
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<Fault> for ttrpc::Error {
    fn from(fault: Fault) -> Self {
        Self::RpcStatus(get_status(fault.code(), fault.to_string()))
    }
}

impl From<Illegal> for Fault {
    fn from(illegal: Illegal) -> Self {
        Self::Illegal(illegal)
    }
}

impl From<Refusals> for Fault {
    fn from(refusals: Refusals) -> Self {
        Self::Refused(refusals)
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast() {
            Ok(denied) => Self::Denied(denied),
            Err(error) => Self::Failed(error),
        }
    }
}
