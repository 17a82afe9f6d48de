//! A container's control group: made, limited, measured, frozen, killed and removed.
//!
//! ```text
//!  mountinfo (read once) ──▶ Layout ──┐
//!  linux.cgroupsPath ───────▶ path  ──┴─▶ Cgroup ── limits, stats, freezer, kill, remove
//! ```
//!
//! What is written where is decided by pure code (`limits`, `path`, `stats`); this file only
//! touches the files. It knows nothing of containerd's requests or of namespaces. With the
//! systemd driver the scope's folder is made directly: asking systemd over D-Bus is not built
//! in, so systemd does not list such a scope, and does not need to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::util::convert_to_any;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};

mod device;
mod layout;
mod limits;
mod path;
mod stats;

pub use layout::Layout;
pub use limits::{Limits, Need, Write};
pub use path::CgroupPath;

/// Rounds of freezing, listing and killing. A fork bomb can't fork while it is frozen, so two
/// rounds are enough; more are for processes that are slow to die.
const KILL_ROUNDS: u32 = 50;

/// How long a round waits for what it killed to be gone.
const KILL_PAUSE: Duration = Duration::from_millis(4);

/// How often a removal is tried: the kernel says "busy" until the last task is reaped.
const REMOVE_TRIES: u32 = 40;

/// Between two tries.
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// Depth of groups that a container made below its own and that are removed with it.
const MAX_DEPTH: u32 = 16;

/// One container's group in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: Arc<Layout>,
    path: CgroupPath,
}

/// How a new process comes into the group.
#[derive(Debug)]
pub enum Entry {
    /// Files of v1 to which the process writes `0` for itself.
    Tasks(Vec<OwnedFd>),
    /// The folder of v2 for `CLONE_INTO_CGROUP`.
    Folder(OwnedFd),
}

/// What a group can't do.
#[derive(Debug)]
pub struct CgroupError {
    pub what: String,
    pub source: io::Error,
}

// === impl Cgroup ===

impl Cgroup {
    pub fn new(layout: Arc<Layout>, path: CgroupPath) -> Self {
        Self { layout, path }
    }

    /// Make the group in every hierarchy and set its limits.
    ///
    /// # Errors
    /// A folder can't be made, or a limit that must hold can't be set. Nothing is left then.
    pub fn create(&self, limits: &Limits) -> Result<(), CgroupError> {
        let made = self.make_folders().and_then(|()| self.apply(limits));
        if made.is_err() {
            // What was made is ours: a group that existed before is not empty and stays.
            let _ = self.remove();
        }
        made
    }

    fn make_folders(&self) -> Result<(), CgroupError> {
        match &*self.layout {
            Layout::V1(controllers) => {
                for controller in controllers {
                    let folder = controller.root.join(self.path.relative());
                    make_folder(&folder)?;
                    if controller.has("cpuset") {
                        inherit_cpuset(&controller.root, self.path.relative())?;
                    }
                }
                Ok(())
            }
            Layout::V2(root) => {
                let folder = root.join(self.path.relative());
                make_folder(&folder)?;
                enable_controllers(root, self.path.relative());
                Ok(())
            }
        }
    }

    /// Set limits, at creation and for a resize in place.
    ///
    /// # Errors
    /// A limit that must hold can't be set.
    pub fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        let writes = match &*self.layout {
            Layout::V1(_) => limits.v1(),
            Layout::V2(_) => limits.v2(),
        };
        // Limits that depend on each other (memory below memory plus swap, quota below the
        // parent's) are refused in the wrong order, which depends on the values before: what
        // failed is tried once more when everything else is set.
        let mut failed = Vec::new();
        for write in &writes {
            if self.write(write).is_err() {
                failed.push(write);
            }
        }
        for write in failed {
            match self.write(write) {
                Err(error) if write.need == Need::Must => return Err(error),
                Err(error) => tracing::warn!("{}: {}", error.what, error.source),
                Ok(()) => {}
            }
        }
        if let Layout::V2(root) = &*self.layout {
            device::attach(&root.join(self.path.relative()), limits.devices())
                .map_err(|source| CgroupError::new("set the permitted devices", source))?;
        }
        Ok(())
    }

    fn write(&self, write: &Write) -> Result<(), CgroupError> {
        let Some(folder) = self.folder(write.controller) else {
            // A controller that the node lacks limits nothing. Only what is the default
            // anyway may be written to it.
            let missing = io::Error::new(io::ErrorKind::NotFound, "the controller is not mounted");
            let what = format!("set {} to {}", write.file, write.value);
            return match write.need {
                Need::Must => Err(CgroupError::new(what, missing)),
                Need::Wish => Ok(()),
            };
        };
        write_file(&folder.join(&write.file), &write.value)
    }

    /// Ways for a new process into the group, opened so that a fresh child needs no path.
    ///
    /// # Errors
    /// The group is gone, or no descriptors are left.
    pub fn entry(&self) -> Result<Entry, CgroupError> {
        match &*self.layout {
            Layout::V1(controllers) => {
                let open = |root: &PathBuf| {
                    // `tasks` and not `cgroup.procs`: a thread that moves only itself takes
                    // no lock on all of its process, which costs 5 ms in `cgroup.procs`.
                    let file = root.join(self.path.relative()).join("tasks");
                    let opened = OpenOptions::new().write(true).open(&file);
                    opened.map(OwnedFd::from).map_err(|e| CgroupError::new(display(&file), e))
                };
                let files: Result<_, _> = controllers.iter().map(|c| open(&c.root)).collect();
                Ok(Entry::Tasks(files?))
            }
            Layout::V2(root) => {
                let folder = root.join(self.path.relative());
                let opened = File::open(&folder).map(OwnedFd::from);
                Ok(Entry::Folder(opened.map_err(|e| CgroupError::new(display(&folder), e))?))
            }
        }
    }

    /// The processes in the group and in those below it.
    pub fn processes(&self) -> Vec<u32> {
        let Some(folder) = self.folder("freezer").or_else(|| self.any_folder()) else {
            return Vec::new();
        };
        let mut pids = Vec::new();
        collect_processes(&folder, MAX_DEPTH, &mut pids);
        pids
    }

    /// Kill every process in the group, also those that fork meanwhile.
    pub fn kill(&self) {
        if let (Layout::V2(_), Some(folder)) = (&*self.layout, self.any_folder())
            && write_file(&folder.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            let _ = self.freeze();
            self.signal(Signal::KILL);
            // A frozen process of v1 dies only when it thaws.
            let _ = self.thaw();
            if self.processes().is_empty() {
                return;
            }
            std::thread::sleep(KILL_PAUSE);
        }
        tracing::warn!("processes of {} do not die", self.path.relative().display());
    }

    /// # Errors
    /// The node has no freezer, or the group is gone.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen("FROZEN", "1")
    }

    /// # Errors
    /// The node has no freezer, or the group is gone.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen("THAWED", "0")
    }

    fn set_frozen(&self, v1: &str, v2: &str) -> Result<(), CgroupError> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "no freezer is mounted");
        let folder = self.folder("freezer").ok_or_else(|| CgroupError::new("freeze", none()))?;
        match &*self.layout {
            Layout::V1(_) => write_file(&folder.join("freezer.state"), v1),
            Layout::V2(_) => write_file(&folder.join("cgroup.freeze"), v2),
        }
    }

    /// containerd's metrics of this group, in the message of its version.
    ///
    /// # Errors
    /// The message can't be encoded.
    pub fn stats(&self) -> Result<Any, containerd_shim::Error> {
        let read = |controller: &str, file: &str| {
            let folder = self.folder(controller)?;
            fs::read_to_string(folder.join(file)).ok()
        };
        match &*self.layout {
            Layout::V1(_) => convert_to_any(Box::new(stats::v1(&read))),
            Layout::V2(_) => convert_to_any(Box::new(stats::v2(&read))),
        }
    }

    /// How many processes of the group the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some((folder, file)) = self.oom_file() else { return 0 };
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        stats::keyed(&text, "oom_kill").unwrap_or(0)
    }

    /// The file whose count of `oom_kill` grows, and its folder.
    fn oom_file(&self) -> Option<(PathBuf, &'static str)> {
        let file = match &*self.layout {
            Layout::V1(_) => "memory.oom_control",
            Layout::V2(_) => "memory.events",
        };
        Some((self.folder("memory")?, file))
    }

    /// A descriptor that is readable when a process of the group was killed for want of memory,
    /// and when the group goes.
    ///
    /// # Errors
    /// The node does not account memory, or no descriptors are left.
    pub fn oom_notices(&self) -> io::Result<OwnedFd> {
        let (folder, file) = self.oom_file().ok_or(io::ErrorKind::NotFound)?;
        match &*self.layout {
            Layout::V1(_) => {
                let notices = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let control = File::open(folder.join(file))?;
                let line = format!("{} {}", notices.as_raw_fd(), control.as_raw_fd());
                fs::write(folder.join("cgroup.event_control"), line)?;
                Ok(notices)
            }
            Layout::V2(_) => {
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let notices = inotify::init(flags)?;
                inotify::add_watch(&notices, folder.join(file), inotify::WatchFlags::MODIFY)?;
                Ok(notices)
            }
        }
    }

    pub fn exists(&self) -> bool {
        self.any_folder().is_some_and(|folder| folder.exists())
    }

    /// Send a signal to every process in the group.
    pub fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Remove the group and what the container made below it.
    ///
    /// # Errors
    /// It is still busy after [`REMOVE_TRIES`].
    pub fn remove(&self) -> Result<(), CgroupError> {
        let roots: Vec<&PathBuf> = match &*self.layout {
            Layout::V1(controllers) => controllers.iter().map(|c| &c.root).collect(),
            Layout::V2(root) => vec![root],
        };
        let mut result = Ok(());
        for root in roots {
            let folder = root.join(self.path.relative());
            if let Err(error) = remove_with_retries(&folder) {
                result = Err(CgroupError::new(format!("remove {}", display(&folder)), error));
            }
        }
        result
    }

    fn folder(&self, controller: &str) -> Option<PathBuf> {
        match &*self.layout {
            Layout::V1(controllers) => {
                let found = controllers.iter().find(|c| c.has(controller))?;
                Some(found.root.join(self.path.relative()))
            }
            Layout::V2(root) => Some(root.join(self.path.relative())),
        }
    }

    fn any_folder(&self) -> Option<PathBuf> {
        match &*self.layout {
            Layout::V1(controllers) => Some(controllers.first()?.root.join(self.path.relative())),
            Layout::V2(root) => Some(root.join(self.path.relative())),
        }
    }
}

// === impl CgroupError ===

impl CgroupError {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source }
    }
}

impl std::fmt::Display for CgroupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "control group: {}", self.what)
    }
}

impl std::error::Error for CgroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn make_folder(folder: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(folder)
        .map_err(|e| CgroupError::new(format!("make {}", folder.display()), e))
}

fn write_file(file: &Path, value: &str) -> Result<(), CgroupError> {
    let written = OpenOptions::new().write(true).open(file);
    let written = written.and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|e| CgroupError::new(format!("write `{value}` to {}", file.display()), e))
}

/// A new cpuset group of v1 is empty, and a process can't enter it before it has the CPUs and
/// memory nodes of its parent.
fn inherit_cpuset(root: &Path, relative: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut folder = root.to_owned();
        let mut value = fs::read_to_string(folder.join(file)).unwrap_or_default();
        for part in relative.components() {
            folder.push(part);
            let own = fs::read_to_string(folder.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                write_file(&folder.join(file), value.trim())?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

/// Hand the controllers that there are down to the group's parent. A controller that can't be
/// enabled shows when a limit is written to it.
fn enable_controllers(root: &Path, relative: &Path) {
    let mut folder = root.to_owned();
    for part in relative.components() {
        let there = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        for controller in there.split_whitespace() {
            let _ = write_file(&folder.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
        folder.push(part);
    }
}

fn collect_processes(folder: &Path, depth: u32, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|&pid| pid != 0));
    for child in child_folders(folder).into_iter().filter(|_| depth > 0) {
        collect_processes(&child, depth - 1, pids);
    }
}

fn child_folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_folder = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
    entries.flatten().filter(is_folder).map(|e| e.path()).collect()
}

fn remove_with_retries(folder: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match remove_tree(folder, MAX_DEPTH) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < REMOVE_TRIES => {
                tries += 1;
                std::thread::sleep(REMOVE_PAUSE);
            }
            other => return other,
        }
    }
}

fn remove_tree(folder: &Path, depth: u32) -> io::Result<()> {
    // The files of a group are the kernel's: only folders are removed.
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy && depth > 0 => {
            for child in child_folders(folder) {
                remove_tree(&child, depth - 1)?;
            }
            fs::remove_dir(folder)
        }
        other => other,
    }
}

impl Entry {
    /// The descriptors in the order in which the child uses them.
    pub fn tasks(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        match self {
            Self::Tasks(files) => files.iter().map(AsFd::as_fd).collect(),
            Self::Folder(_) => Vec::new(),
        }
    }

    pub fn folder(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self {
            Self::Tasks(_) => None,
            Self::Folder(folder) => Some(folder.as_fd()),
        }
    }
}

#[cfg(test)]
mod tests;
