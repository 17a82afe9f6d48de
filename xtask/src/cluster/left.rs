//! What a cluster leaves on the machine: nothing, when it is stopped. This is the check, and
//! it looks at the machine alone, so it holds after any crash.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::instance::Place;
use super::{cgroups, network, processes};

/// Everything of one cluster that exists now. For a running one that is a lot.
#[derive(Debug, Default, Serialize)]
pub struct LeftOver {
    pub processes: Vec<String>,
    pub mounts: Vec<PathBuf>,
    pub interfaces: Vec<String>,
    pub cgroups: Vec<PathBuf>,
    pub folders: Vec<PathBuf>,
}

// === impl LeftOver ===

impl LeftOver {
    pub fn of(place: &Place) -> anyhow::Result<Self> {
        let found = processes::of_cluster(place)?;
        let list = |process| processes::list(std::slice::from_ref(process));
        Ok(Self {
            processes: found.iter().map(list).collect(),
            mounts: mounts(&place.folder)?,
            interfaces: network::interfaces(&place.name)?,
            cgroups: cgroups::roots(&place.name)?,
            folders: [place.folder.clone()].into_iter().filter(|path| path.exists()).collect(),
        })
    }

    pub fn is_empty(&self) -> bool {
        let Self { processes, mounts, interfaces, cgroups, folders } = self;
        processes.is_empty()
            && mounts.is_empty()
            && interfaces.is_empty()
            && cgroups.is_empty()
            && folders.is_empty()
    }
}

impl fmt::Display for LeftOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.display().to_string()).collect()
        };
        let kinds = [
            ("processes", self.processes.clone()),
            ("mounts", paths(&self.mounts)),
            ("interfaces", self.interfaces.clone()),
            ("cgroups", paths(&self.cgroups)),
            ("folders", paths(&self.folders)),
        ];
        let some = kinds.iter().filter(|(_, things)| !things.is_empty());
        let words: Vec<String> =
            some.map(|(kind, things)| format!("{kind}: {}", things.join(", "))).collect();
        f.write_str(&words.join("; "))
    }
}

/// Mount points at or below a folder, the innermost first.
pub fn mounts(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read the list of mounts")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    Ok(points)
}

/// The kernel writes a space in a path as `\040`.
fn unescape(path: &str) -> PathBuf {
    PathBuf::from(path.replace("\\040", " "))
}
