//! What a cloned child does until it executes its program. The parent has threads, so between
//! the clone and the exec only async-signal-safe calls are made on memory that was prepared
//! before: no allocation, no lock, no panic.
#![allow(unsafe_code, reason = "clone3 and what may follow it have no safe binding")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use crate::cgroup::Entry;
use crate::plan::{Namespace, Namespaces};

/// The flag of clone3 that the target's `libc` types as a signed number.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

const CLONE_PIDFD: u64 = 0x1000;

/// Exit status of a child that could not execute: a shell's for the same.
const CANT_EXECUTE: i32 = 127;

/// A step of the child, for the message when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    ControlGroup = 1,
    ControlGroupNamespace,
    ParentDeath,
    Session,
    Descriptors,
    Execute,
}

/// Everything that the child needs, in memory that it only reads.
pub struct Prepared<'a> {
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    tasks: Vec<RawFd>,
    group: Option<RawFd>,
    targets: [RawFd; 4],
    executable: RawFd,
    report: RawFd,
    report_reader: RawFd,
    flags: u64,
    /// The pointers above are into these.
    _text: std::marker::PhantomData<&'a CString>,
}

/// The kernel's `struct clone_args`, with the fields up to the control group.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

// === impl Prepared ===

impl<'a> Prepared<'a> {
    pub fn new(args: &'a [CString], env: &'a [CString]) -> Self {
        let pointers = |list: &[CString]| {
            list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
        };
        Self {
            args: pointers(args),
            env: pointers(env),
            tasks: Vec::new(),
            group: None,
            targets: [-1; 4],
            executable: -1,
            report: -1,
            report_reader: -1,
            flags: CLONE_PIDFD | libc::CLONE_NEWNS.cast_unsigned() as u64,
            _text: std::marker::PhantomData,
        }
    }

    /// `targets` become descriptors 0 to 3. All are above them.
    pub fn descriptors(
        mut self,
        targets: [&'a OwnedFd; 4],
        executable: &'a OwnedFd,
        report: &'a OwnedFd,
        report_reader: &'a OwnedFd,
    ) -> Self {
        self.targets = targets.map(AsRawFd::as_raw_fd);
        self.executable = executable.as_raw_fd();
        self.report = report.as_raw_fd();
        self.report_reader = report_reader.as_raw_fd();
        self
    }

    pub fn control_group(mut self, entry: &'a Entry) -> Self {
        self.tasks = entry.tasks().iter().map(AsRawFd::as_raw_fd).collect();
        self.group = entry.folder().map(|fd| fd.as_raw_fd());
        if self.group.is_some() {
            self.flags |= CLONE_INTO_CGROUP;
        }
        self
    }

    pub fn namespaces(mut self, namespaces: &Namespaces) -> Self {
        let all = [
            (&namespaces.network, libc::CLONE_NEWNET),
            (&namespaces.ipc, libc::CLONE_NEWIPC),
            (&namespaces.uts, libc::CLONE_NEWUTS),
            (&namespaces.pid, libc::CLONE_NEWPID),
        ];
        for (namespace, flag) in all {
            if *namespace == Namespace::New {
                self.flags |= u64::from(flag.cast_unsigned());
            }
        }
        self
    }
}

/// Clone. The child never returns; the parent gets its process id and descriptor.
pub fn spawn(prepared: &Prepared<'_>) -> io::Result<(u32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: prepared.flags,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: prepared.group.map_or(0, |fd| u64::from(fd.unsigned_abs())),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is the kernel's structure and its size is passed. Without CLONE_VM the
    // child has a copy of this memory and runs on a copy of this stack, as after fork; it only
    // calls `run`, which keeps to async-signal-safe calls and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid == 0 {
        run(prepared);
    }
    match u32::try_from(pid) {
        // SAFETY: the kernel has just stored this new descriptor, and nobody else owns it.
        Ok(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The child's life. Nothing here allocates: the parent's allocator may be locked in the copy.
fn run(prepared: &Prepared<'_>) -> ! {
    let report = prepared.report;
    let check = |step: Step, result: libc::c_long| {
        if result < 0 {
            fail(report, step);
        }
    };
    for &file in &prepared.tasks {
        // SAFETY: an open descriptor and one byte of static text.
        let written = unsafe { libc::write(file, c"0".as_ptr().cast(), 1) };
        check(Step::ControlGroup, written as libc::c_long);
    }
    // After the group was entered, so that the namespace's root is the container's group.
    // SAFETY: no pointers. This process has one thread.
    check(Step::ControlGroupNamespace, unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into());
    // SAFETY: no pointers.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    check(Step::ParentDeath, set.into());
    die_with_parent(prepared);
    // SAFETY: no pointers.
    check(Step::Session, unsafe { libc::setsid() }.into());
    reset_signals();
    for (target, &source) in (0..).zip(&prepared.targets) {
        // SAFETY: no pointers; `source` is open and is not one of the targets.
        check(Step::Descriptors, unsafe { libc::dup2(source, target) }.into());
    }
    // SAFETY: no pointers. All that is open closes on exec by itself; this is for what some
    // library opened without saying so.
    let closed =
        unsafe { libc::syscall(libc::SYS_close_range, 4u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(Step::Descriptors, closed);
    // SAFETY: static text; the masks are numbers.
    unsafe {
        libc::umask(0o022);
        libc::chdir(c"/".as_ptr());
    }
    // SAFETY: both lists end with a null pointer and point to texts that the parent's frame
    // holds, of which this process has a copy; the empty path means the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            prepared.executable,
            c"".as_ptr(),
            prepared.args.as_ptr(),
            prepared.env.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    fail(report, Step::Execute)
}

/// The parent may have died before the kernel was told to kill this process with it. Then
/// nobody reads the pipe. Asking for the parent's id does not help in a new pid namespace.
fn die_with_parent(prepared: &Prepared<'_>) {
    let mut poll = libc::pollfd { fd: prepared.report, events: 0, revents: 0 };
    // SAFETY: `poll` is one entry that outlives the call; the descriptor is this process's.
    unsafe {
        libc::close(prepared.report_reader);
        libc::poll(&raw mut poll, 1, 0);
        if poll.revents & libc::POLLERR != 0 {
            libc::_exit(CANT_EXECUTE);
        }
    }
}

/// An exec keeps the mask and what is ignored: Rust's runtime ignores SIGPIPE.
fn reset_signals() {
    // SAFETY: the set is initialised before it is used; default handlers need no memory.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

fn fail(report: RawFd, step: Step) -> ! {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let words = [step as i32, errno];
    // SAFETY: eight bytes of this frame; a pipe takes them in one piece. `_exit` runs nothing
    // of the parent's that this process has a copy of.
    unsafe {
        libc::write(report, words.as_ptr().cast(), 8);
        libc::_exit(CANT_EXECUTE)
    }
}

// === impl Step ===

impl Step {
    pub fn from_number(number: i32) -> Self {
        match number {
            1 => Self::ControlGroup,
            2 => Self::ControlGroupNamespace,
            3 => Self::ParentDeath,
            4 => Self::Session,
            5 => Self::Descriptors,
            _ => Self::Execute,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ControlGroup => "enter the control group",
            Self::ControlGroupNamespace => "make a control group namespace",
            Self::ParentDeath => "arrange to die with the shim",
            Self::Session => "start a session",
            Self::Descriptors => "arrange the descriptors",
            Self::Execute => "execute the program",
        }
    }
}
