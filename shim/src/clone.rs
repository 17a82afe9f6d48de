//! New processes: one thread that lives as long as the shim clones them, straight into the
//! namespaces and the control group that they are for.
//!
//! ```text
//!  task service ── job ──▶ cloner thread: mount, enter namespaces, clone3 ──▶ child: exec
//!                             ▲                                                 │
//!                             └──────────── pipe: the step that failed ─────────┘
//! ```
//!
//! Only this thread ever enters another's namespaces, and only for the length of a clone. A
//! child is killed by the kernel when the thread that cloned it ends, which is why it is one
//! thread and not a pool. It also does what would change a pooled thread's working folder.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::thread;

use rustix::fd::AsFd;
use rustix::io::fcntl_dupfd_cloexec;

use crate::cgroup::Entry;
use crate::plan::Namespaces;

mod child;
mod enter;

use child::{Prepared, Step};
use enter::Home;

/// Descriptors that a child renumbers are above what it renumbers them to.
const LOWEST_FD: i32 = 10;

/// The cloner does little and calls nothing deep.
const STACK_BYTES: usize = 256 << 10;

/// What a new process is made of.
#[derive(Debug)]
pub struct Birth {
    pub executable: OwnedFd,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub stdio: [OwnedFd; 3],
    /// Its end of the channel, which becomes descriptor 3.
    pub channel: OwnedFd,
    pub entry: Entry,
    pub namespaces: Namespaces,
}

/// A process that has executed its program.
#[derive(Debug)]
pub struct Child {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Why there is no process.
#[derive(Debug)]
pub struct CloneError {
    step: &'static str,
    source: io::Error,
}

/// The thread's door.
#[derive(Debug, Clone)]
pub struct Cloner {
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&Home) + Send>;

// === impl Cloner ===

impl Cloner {
    /// # Errors
    /// No thread can be started, or `/proc` is not mounted.
    pub fn start() -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        thread::Builder::new().name("cloner".to_owned()).stack_size(STACK_BYTES).spawn(
            move || {
                let home = match Home::remember() {
                    Ok(home) => home,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let _ = ready.send(Ok(()));
                for job in inbox {
                    job(&home);
                }
            },
        )?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self { jobs })
    }

    /// Clone a process. It blocks until the process has executed its program.
    ///
    /// # Errors
    /// A namespace can't be entered, or the child could not do one of its steps.
    pub fn clone_process(&self, birth: Birth) -> Result<Child, CloneError> {
        let gone =
            |_| CloneError { step: "ask the cloner", source: io::ErrorKind::BrokenPipe.into() };
        self.call(move |home| clone_here(home, &birth)).map_err(gone)?
    }

    /// Do something else on this thread, such as a mount whose many layers are named relative
    /// to a folder that the thread must enter.
    ///
    /// # Errors
    /// The thread has ended, which it never does before the shim.
    pub fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Home) -> T + Send + 'static,
    ) -> Result<T, mpsc::RecvError> {
        let (sender, answer) = mpsc::channel();
        let job: Job = Box::new(move |home| {
            // The caller may have been cancelled.
            let _ = sender.send(job(home));
        });
        self.jobs.send(job).map_err(|_| mpsc::RecvError)?;
        answer.recv()
    }
}

fn clone_here(home: &Home, birth: &Birth) -> Result<Child, CloneError> {
    let failed = |step: &'static str| move |source: io::Error| CloneError { step, source };
    let (errors, errors_in) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(io::Error::from)
        .map_err(failed("make a pipe"))?;
    let high = |fd: &OwnedFd| -> Result<OwnedFd, CloneError> {
        let dup = fcntl_dupfd_cloexec(fd.as_fd(), LOWEST_FD).map_err(io::Error::from);
        dup.map_err(failed("duplicate a descriptor"))
    };
    let stdio = [high(&birth.stdio[0])?, high(&birth.stdio[1])?, high(&birth.stdio[2])?];
    let channel = high(&birth.channel)?;
    let executable = high(&birth.executable)?;
    let report = high(&errors_in)?;
    drop(errors_in);
    let prepared = Prepared::new(&birth.args, &birth.env)
        .descriptors([&stdio[0], &stdio[1], &stdio[2], &channel], &executable, &report, &errors)
        .control_group(&birth.entry)
        .namespaces(&birth.namespaces);
    home.enter(&birth.namespaces).map_err(|(step, source)| CloneError { step, source })?;
    let cloned = child::spawn(&prepared).map_err(failed("clone"));
    home.come_back();
    let (pid, pidfd) = cloned?;
    drop(report);
    match read_failure(errors) {
        None => Ok(Child { pid, pidfd }),
        Some((step, source)) => Err(CloneError { step: step.name(), source }),
    }
}

/// What the child wrote before it ended; nothing when it has executed its program, which
/// closes the pipe.
fn read_failure(pipe: OwnedFd) -> Option<(Step, io::Error)> {
    let mut words = [0; 8];
    debug_assert!(pipe.as_raw_fd() >= 0);
    File::from(pipe).read_exact(&mut words).ok()?;
    let (step, errno) = words.split_at(4);
    let number = |bytes: &[u8]| bytes.try_into().map(i32::from_ne_bytes).unwrap_or(0);
    Some((Step::from_number(number(step)), io::Error::from_raw_os_error(number(errno))))
}

// === impl CloneError ===

impl std::fmt::Display for CloneError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a process could not be started: {}", self.step)
    }
}

impl std::error::Error for CloneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
