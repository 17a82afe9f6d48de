//! Signals that ask a worker to end, read like messages.
//!
//! They are blocked before anything else happens, so that each is kept until it is read. A
//! handler would do as well, but the first process of a PID namespace has to have one before
//! the signal comes, and what it may do in it is next to nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};

use crate::channel::Channel;
use crate::sys;

/// Signals that ask a process to end: what Kubernetes sends, and what an image may name.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];

/// Where signals are read.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
}

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The channel has a message, or was closed.
    Channel,
    Signal(i32),
}

// === impl Signals ===

impl Signals {
    /// Bytes that the kernel describes a signal with.
    pub const INFO: usize = size_of::<libc::signalfd_siginfo>();

    /// Take signals that ask to end over, for this thread and all that it starts.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn take() -> io::Result<Self> {
        Ok(Self { descriptor: sys::take_signals(&ENDING)? })
    }

    /// A descriptor that never waits, on which each signal is read as [`Signals::INFO`] bytes,
    /// for somebody who waits for several things.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// The signal of which these bytes were read.
    pub fn number(info: &[u8]) -> Option<i32> {
        // The number is the first field of the kernel's description.
        let number = u32::from_ne_bytes(*info.first_chunk::<4>()?);
        i32::try_from(number).ok()
    }

    fn next(&self) -> io::Result<Option<i32>> {
        let mut info = [0; Self::INFO];
        match rustix::io::read(&self.descriptor, &mut info) {
            Ok(Self::INFO) => Ok(Self::number(&info)),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Wait for a message on `channel` or a signal.
    ///
    /// # Errors
    /// The system can't wait.
    pub fn wait_beside(&self, channel: &Channel) -> io::Result<Woken> {
        loop {
            let stream = channel.stream();
            let mut sources = [&self.descriptor as &dyn AsFd, &stream]
                .map(|source| PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN));
            match rustix::event::poll(&mut sources, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(signal) = self.next()? {
                return Ok(Woken::Signal(signal));
            }
            if !sources[1].revents().is_empty() {
                return Ok(Woken::Channel);
            }
        }
    }
}
