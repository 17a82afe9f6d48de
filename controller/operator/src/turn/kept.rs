//! Which revisions have objects: those that answer, those that may answer soon, and a few to go
//! back to. The rest goes.

use std::collections::BTreeSet;

use super::{Sight, Stored};
use crate::revision::{Revision, RevisionName};
use crate::rollout::State;

/// Those that stay, the one that is wanted among them, and those that go.
pub fn kept(sight: &Sight<'_>, state: &State) -> (Vec<Revision>, Vec<RevisionName>) {
    let mut needed: BTreeSet<RevisionName> = state.active.iter().cloned().collect();
    needed.extend(state.candidate().cloned());
    needed.extend(state.previous.clone());
    needed.extend(state.draining.iter().map(|(name, _)| name.clone()));
    let mut revisions: Vec<Revision> = Vec::new();
    if let Ok(wanted) = &sight.wanted
        && needed.contains(&wanted.name)
    {
        revisions.push(wanted.clone());
    }
    let mut stored: Vec<&Stored> = sight.stored.iter().collect();
    // The newest are the likeliest to be gone back to.
    stored.sort_by(|a, b| (b.created, &b.revision.name).cmp(&(a.created, &a.revision.name)));
    let history = sight.model.spec.rollout.revision_history_limit;
    let mut spare = usize::try_from(history).unwrap_or(0);
    let mut gone = Vec::new();
    for Stored { revision, .. } in stored {
        if revisions.iter().any(|known| known.name == revision.name) {
            continue;
        }
        if needed.contains(&revision.name) {
            revisions.push(revision.clone());
        } else if spare > 0 {
            spare -= 1;
            revisions.push(revision.clone());
        } else {
            gone.push(revision.name.clone());
        }
    }
    (revisions, gone)
}
