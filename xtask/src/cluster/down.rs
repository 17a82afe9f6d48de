//! Stop a cluster completely, whatever state it is in. Each step looks at the machine and
//! not at what an earlier step believed, so stopping twice, or after a crash, is the same.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::instance::{Place, Record};
use super::left::{LeftOver, mounts};
use super::{cgroups, control, network, processes};
use crate::tools;

/// Stop it, remove everything of it but its logs, and check that nothing is left.
pub fn run(place: &Place) -> anyhow::Result<()> {
    stop(place)?;
    processes::kill(place)?;
    for point in mounts(&place.folder)? {
        tools::output(Command::new("umount").arg("--lazy").arg(&point))?;
    }
    network::remove(&place.name)?;
    cgroups::remove(&place.name)?;
    remove_folder(place)?;
    let left = LeftOver::of(place)?;
    ensure!(left.is_empty(), "the cluster {} left {left}", place.name.as_str());
    Ok(())
}

/// Where the logs of a cluster that was stopped are.
pub fn old_logs(place: &Place) -> PathBuf {
    place.folder.with_extension("logs")
}

/// The orderly part: every daemon is asked to end, in reverse order. It is only an offer;
/// what does not work here is done by force afterwards.
fn stop(place: &Place) -> anyhow::Result<()> {
    // An unreadable record is what a crash in the middle of `up` leaves.
    let Ok(Some(record)) = Record::read(place) else { return Ok(()) };
    if record.supervisor.is_alive()
        && let Err(error) = control::order(place, "stop")
    {
        eprintln!("cluster: {error:#}; killing it");
    }
    Ok(())
}

fn remove_folder(place: &Place) -> anyhow::Result<()> {
    if !place.folder.exists() {
        return Ok(());
    }
    let (logs, old) = (place.path("log"), old_logs(place));
    if logs.exists() {
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
        }
        fs::rename(&logs, &old).with_context(|| format!("keep {}", logs.display()))?;
    }
    fs::remove_dir_all(&place.folder).with_context(|| format!("remove {}", place.folder.display()))
}
