//! The terminal of a process that runc starts: runc sends its end over a socket, and two
//! threads copy between it and containerd's FIFOs. Only an interactive process has them.
#![allow(unsafe_code, reason = "setting a terminal's size has no safe binding here")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// runc has sent it before it returns.
const ARRIVAL: Duration = Duration::from_secs(10);

/// A copying thread has a buffer on its stack and calls nothing deep.
const STACK_BYTES: usize = 64 << 10;

/// Tells two sockets of one shim apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A socket on which runc sends a terminal.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

/// A terminal, seen from outside.
#[derive(Debug)]
pub struct Console {
    terminal: File,
}

// === impl Listener ===

impl Listener {
    /// # Errors
    /// The socket can't be made.
    pub fn bind() -> io::Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short: a socket's path has 107 bytes, and a bundle's is longer.
        let name = format!("wick-console-{}-{number}", std::process::id());
        let path = Path::new("/run").join(name);
        let _ = std::fs::remove_file(&path);
        Ok(Self { socket: UnixListener::bind(&path)?, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn receive(&self) -> io::Result<File> {
        let limit = Timespec { tv_sec: ARRIVAL.as_secs().cast_signed(), tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (stream, _) = self.socket.accept()?;
        receive_descriptor(&stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It is used once.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn receive_descriptor(stream: &UnixStream) -> io::Result<File> {
    stream.set_read_timeout(Some(ARRIVAL))?;
    let mut name = [0; 256];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut name)];
    recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let found = descriptors.next().and_then(|mut rights| rights.next());
    found.map(File::from).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

// === impl Console ===

impl Console {
    /// Take the terminal that runc has sent, and copy. It blocks until it has arrived.
    ///
    /// # Errors
    /// None came, or no thread can be started.
    pub fn attach(listener: &Listener, ends: [OwnedFd; 3]) -> io::Result<Self> {
        let terminal = listener.receive()?;
        let [stdin, stdout, _] = ends;
        copy("console-out", terminal.try_clone()?, File::from(stdout))?;
        copy("console-in", File::from(stdin), terminal.try_clone()?)?;
        Ok(Self { terminal })
    }

    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, width: u32, height: u32) -> io::Result<()> {
        let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = libc::winsize {
            ws_row: short(height),
            ws_col: short(width),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: `size` is what this request takes, and outlives the call.
        let result =
            unsafe { libc::ioctl(self.terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Copy until either side ends: a terminal reads as an error when its last process is gone.
fn copy(name: &str, mut from: File, mut to: File) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        let _ = io::copy(&mut from, &mut to);
    })?;
    Ok(())
}
