//! Whether a request that no pod can take now may wait, and until when. Pure: it is told how
//! many wait.

use std::time::Duration;

use super::refusal::Refusal;

/// Requests that wait for all Models together. Each holds a connection, or a stream of one, and
/// nothing is read of its body, so it costs some tens of kilobytes.
pub const MAX_HELD: u32 = 20_000;

/// Of one pod, held requests that were sent and have no answer yet. A worker's queue takes
/// 64 unless its package says otherwise, and there may be two activators: a burst is let
/// through as it is answered, and not refused by the first pod that is there.
pub const MAX_UNANSWERED: u32 = 32;

/// What is known when a request comes that no pod can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Whether the Model's requests wait at all.
    pub hold: bool,
    pub held: u32,
    pub max_held: u32,
    /// Of all Models.
    pub held_in_all: u32,
}

/// Until when a request waits, and what it is told then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    pub time: Duration,
    pub then: Refusal,
}

// === impl Room ===

impl Room {
    /// Whether one more may wait.
    pub fn admit(self) -> Result<(), Refusal> {
        if !self.hold {
            Err(Refusal::NoPod)
        } else if self.held >= self.max_held {
            Err(Refusal::ModelFull)
        } else if self.held_in_all >= MAX_HELD {
            Err(Refusal::ActivatorFull)
        } else {
            Ok(())
        }
    }
}

// === impl Patience ===

impl Patience {
    /// The Model's time, or the client's own if that is shorter.
    pub fn new(model: Duration, client: Option<Duration>) -> Self {
        match client {
            Some(time) if time < model => Self { time, then: Refusal::ClientDeadline },
            _ => Self { time: model, then: Refusal::HeldTooLong },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_refuses_with_its_own_reason() {
        let room = Room { hold: true, held: 0, max_held: 2, held_in_all: 0 };
        assert_eq!(room.admit(), Ok(()));
        assert_eq!(Room { held: 1, ..room }.admit(), Ok(()));
        assert_eq!(Room { held: 2, ..room }.admit(), Err(Refusal::ModelFull));
        assert_eq!(Room { held_in_all: MAX_HELD, ..room }.admit(), Err(Refusal::ActivatorFull));
        assert_eq!(Room { hold: false, held: 9, ..room }.admit(), Err(Refusal::NoPod));
    }

    #[test]
    fn the_shorter_patience_counts() {
        let [one, two] = [1, 2].map(Duration::from_secs);
        assert_eq!(Patience::new(two, None).then, Refusal::HeldTooLong);
        assert_eq!(Patience::new(two, Some(one)).then, Refusal::ClientDeadline);
        assert_eq!(Patience::new(one, Some(two)), Patience::new(one, None));
    }
}
