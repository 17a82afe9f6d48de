//! The life of a task as a table: which step may follow which.

use containerd_shim::protos::api::Status;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    Stopped,
}

/// A step that does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Illegal {
    pub from: State,
    pub step: &'static str,
}

// === impl State ===

impl State {
    pub fn start(self) -> Result<Self, Illegal> {
        self.step("start", &[Self::Created], Self::Running)
    }

    pub fn pause(self) -> Result<Self, Illegal> {
        self.step("pause", &[Self::Running], Self::Paused)
    }

    pub fn resume(self) -> Result<Self, Illegal> {
        self.step("resume", &[Self::Paused], Self::Running)
    }

    /// Whatever it was before: a process ends when it likes.
    pub fn ended(self) -> Self {
        Self::Stopped
    }

    pub fn status(self) -> Status {
        match self {
            Self::Created => Status::CREATED,
            Self::Running => Status::RUNNING,
            Self::Paused => Status::PAUSED,
            Self::Stopped => Status::STOPPED,
        }
    }

    fn step(self, step: &'static str, from: &[Self], to: Self) -> Result<Self, Illegal> {
        if from.contains(&self) { Ok(to) } else { Err(Illegal { from: self, step }) }
    }
}

impl std::fmt::Display for Illegal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "can't {} a task that is {:?}", self.step, self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::State::{Created, Paused, Running, Stopped};

    #[test]
    fn only_the_steps_of_the_table_are_taken() {
        for state in [Created, Running, Paused, Stopped] {
            assert_eq!(state.start().is_ok(), state == Created);
            assert_eq!(state.pause().is_ok(), state == Running);
            assert_eq!(state.resume().is_ok(), state == Paused);
            assert_eq!(state.ended(), Stopped);
        }
        let text = Stopped.start().unwrap_err().to_string();
        assert_eq!(text, "can't start a task that is Stopped");
    }
}
