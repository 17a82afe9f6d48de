//! The conversation with a process of ours: an order, `Ready`, `Go`, `Started`. The pause
//! process speaks it too. It blocks, so it runs where blocking is allowed; each wait is
//! bounded. After `Started` nothing is read until the process has ended: the peer holds
//! untrusted code by then.

use std::time::Duration;

use serde::Serialize;
use wick_sandbox::order::{Go, Phase, Report, VERSION};
use wick_sandbox::{Channel, ChannelError};

/// A worker loads backend libraries from a cold disk before it is ready; seconds are usual
/// for a large GPU library, and kubelet gives a Create two minutes.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// From `Go` to a listening port: threads, a socket and no package.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Reading what is already in the socket of a process that has ended.
const LAST_WORD_DEADLINE: Duration = Duration::from_millis(50);

/// Reports that are read after the end: `Failed` is the last.
const MAX_LAST_REPORTS: usize = 4;

/// The shim's end.
#[derive(Debug)]
pub struct Worker {
    channel: Channel,
}

/// Why a process is not ready or not started.
#[derive(Debug)]
pub enum WorkerError {
    /// It said so.
    Failed {
        code: String,
        message: String,
    },
    /// It ended, or is silent, or talks nonsense.
    Lost {
        waiting_for: &'static str,
        source: ChannelError,
    },
    Unexpected(&'static str),
}

// === impl Worker ===

impl Worker {
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Hand over the order and wait until the process is locked down.
    ///
    /// # Errors
    /// It failed, ended, or took too long.
    pub fn prepare<T: Serialize>(&mut self, order: &T) -> Result<Vec<Phase>, WorkerError> {
        let lost = |source| WorkerError::Lost { waiting_for: "the worker to be ready", source };
        match self.channel.send(order) {
            // A process that ended may have said why.
            Ok(()) | Err(ChannelError::Closed) => {}
            Err(error) => return Err(lost(error)),
        }
        match self.channel.receive(Some(READY_DEADLINE)).map_err(lost)? {
            Report::Ready { phases } => Ok(phases),
            Report::Failed { code, message } => Err(WorkerError::Failed { code, message }),
            Report::Started { .. } => Err(WorkerError::Unexpected("started before it was told to")),
        }
    }

    /// Let it run, and wait until its port listens.
    ///
    /// # Errors
    /// It failed, ended, or took too long.
    pub fn start(&mut self) -> Result<(Option<String>, Vec<Phase>), WorkerError> {
        let lost = |source| WorkerError::Lost { waiting_for: "the worker to start", source };
        match self.channel.send(&Go { version: VERSION }) {
            Ok(()) | Err(ChannelError::Closed) => {}
            Err(error) => return Err(lost(error)),
        }
        match self.channel.receive(Some(START_DEADLINE)).map_err(lost)? {
            Report::Started { addr, phases } => Ok((addr, phases)),
            Report::Failed { code, message } => Err(WorkerError::Failed { code, message }),
            Report::Ready { .. } => Err(WorkerError::Unexpected("said twice that it was ready")),
        }
    }

    /// Why a process that has ended says it failed.
    pub fn last_word(&mut self) -> Option<String> {
        for _ in 0..MAX_LAST_REPORTS {
            if let Report::Failed { code, message } =
                self.channel.receive(Some(LAST_WORD_DEADLINE)).ok()?
            {
                return Some(format!("{code}: {message}"));
            }
        }
        None
    }
}

impl std::fmt::Display for WorkerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { code, message } => write!(f, "{code}: {message}"),
            Self::Lost { waiting_for, .. } => write!(f, "waited for {waiting_for}"),
            Self::Unexpected(what) => write!(f, "the worker {what}"),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lost { source, .. } => Some(source),
            Self::Failed { .. } | Self::Unexpected(_) => None,
        }
    }
}
