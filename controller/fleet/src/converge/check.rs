//! What holds after every event, whatever happens to a site.

use crate::converge::runs::Run;
use crate::converge::site::{Phase, Site};
use crate::wire::State;

/// A promise that was broken. It is a bug of the state machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("versions have {have} bytes of memory, and the site {most}")]
    Memory { have: u64, most: u64 },
    #[error("images have {have} bytes, and the site's disk {most}")]
    Disk { have: u64, most: u64 },
    #[error("it serves a generation that is newer than the wanted one")]
    Ahead,
    #[error("{0} is served, and drained")]
    Drained(String),
    #[error("nothing ends the state {0:?}")]
    Endless(State),
    #[error("it waits without a reason")]
    NoReason,
}

// === impl Site ===

impl Site {
    /// Whether everything that is promised holds.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), Broken> {
        let (have, most) = (self.runs.memory(), self.settings.memory);
        if have > most {
            return Err(Broken::Memory { have, most });
        }
        let (have, most) = (self.store.used(), self.settings.disk);
        if have > most {
            return Err(Broken::Disk { have, most });
        }
        let kept = &self.kept;
        let serving = kept.serving.as_ref().map(|serving| serving.generation);
        if serving > kept.wanted.as_ref().map(|wanted| wanted.generation) {
            return Err(Broken::Ahead);
        }
        if let Some(serving) = &kept.serving {
            for (version, entry) in &self.runs.entries {
                if entry.run == Run::Draining && serving.has(version) {
                    return Err(Broken::Drained(version.to_string()));
                }
            }
        }
        let state = self.state();
        let still = matches!(state, State::Empty | State::Converged);
        if !still && self.due().is_none() {
            return Err(Broken::Endless(state));
        }
        match (self.phase, self.reason) {
            (Phase::Waiting { .. }, None) => Err(Broken::NoReason),
            _ => Ok(()),
        }
    }
}
