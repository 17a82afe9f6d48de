//! A plan as text: the dry run.

use std::fmt;

use crate::plan::gate::Tally;
use crate::plan::{Mark, Phase, Plan, Progress, Stage, Wait};

/// Sites of a wave that are listed; of more, how many there are.
const LISTED: usize = 20;

// === impl Plan ===

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, progress) in &self.rollouts {
            write!(f, "rollout {name}: {}", progress.phase)?;
            if progress.phase.is_open() {
                write!(f, ", wave {}", progress.wave + 1)?;
            }
            if let Some(reason) = &progress.reason {
                write!(f, " ({reason})")?;
            }
            writeln!(f)?;
            self.waves(progress, f)?;
        }
        Ok(())
    }
}

impl Plan {
    fn waves(&self, progress: &Progress, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = progress.sites.values().map(|mark| mark.wave).max();
        for wave in 0..=last.unwrap_or(0) {
            let marks = || progress.sites.iter().filter(move |(_, mark)| mark.wave == wave);
            let Tally { done, failed, skipped, open } = Tally::of(marks().map(|(_, mark)| mark));
            write!(f, "  wave {}: {} sites", wave + 1, marks().count())?;
            let counts = [("done", done), ("failed", failed), ("skipped", skipped), ("open", open)];
            for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                write!(f, ", {count} {what}")?;
            }
            writeln!(f)?;
            let told = |mark: &Mark| !matches!(mark.stage, Stage::Planned | Stage::Done);
            let listed: Vec<_> = marks().filter(|(_, mark)| told(mark)).collect();
            for (name, mark) in listed.iter().take(LISTED) {
                let generation = self.sites.get(*name).map(|t| t.generation).unwrap_or_default();
                writeln!(f, "    {name}: generation {generation}, {}", mark.stage)?;
            }
            if listed.len() > LISTED {
                writeln!(f, "    and {} more", listed.len() - LISTED)?;
            }
        }
        Ok(())
    }
}

// === impl Phase ===

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled back",
            Self::Finished => "finished",
        })
    }
}

// === impl Stage ===

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned => f.write_str("planned"),
            Self::Waits(Wait::Rollout(other)) => write!(f, "waits: the rollout {other} has it"),
            Self::Waits(Wait::Window(Some(at))) => {
                let seconds = at.millis() / 1000;
                write!(f, "waits: its window opens at {seconds} (seconds since 1970)")
            }
            Self::Waits(Wait::Window(None)) => f.write_str("waits: its window never opens"),
            Self::Waits(Wait::Unavailable) => f.write_str("waits: enough sites are on their way"),
            Self::Waits(Wait::Offline(_)) => f.write_str("waits: it is offline"),
            Self::Waits(Wait::Settling) => f.write_str("waits: it is on its way to something else"),
            Self::Moving(_) => f.write_str("moving"),
            Self::Done => f.write_str("done"),
            Self::Failed(code) => write!(f, "failed ({code})"),
            Self::Skipped => f.write_str("skipped: it was offline, and catches up"),
            Self::Undone => f.write_str("went back"),
        }
    }
}
