//! Messages over a stream socket: a length of four bytes, little endian, and JSON.
//!
//! It blocks: a worker has one thread and nothing else to do, and a shim keeps its end on a
//! thread that may wait. The peer of a shim may be hostile, so a length is checked before
//! memory is taken for it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where a worker finds its end of the channel.
pub const WORKER_FD: i32 = 3;

/// Longest message. An order has some hundred mounts and variables of some kilobytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// One end of the conversation.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the other end is gone")]
    Closed,
    #[error("no message came in time")]
    TimedOut,
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    #[error("a message that is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the channel failed: {0}")]
    Io(io::Error),
}

// === impl Channel ===

impl Channel {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Two ends that are connected.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one), Self::new(other)))
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// # Errors
    /// The other end is gone, or the message is too long.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message)?;
        let length = text.len();
        let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE);
        let prefix = prefix.ok_or(ChannelError::TooLong(length))?;
        // One write, so that a reader wakes once.
        let mut frame = Vec::with_capacity(4 + length);
        frame.extend_from_slice(&prefix.to_le_bytes());
        frame.extend_from_slice(&text);
        self.stream.write_all(&frame).map_err(ChannelError::from_io)
    }

    /// The next message. `timeout` bounds each wait for bytes; none waits for ever.
    ///
    /// # Errors
    /// Nothing came in time, the other end is gone, or the message is too long or not of
    /// this type.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<T, ChannelError> {
        self.stream.set_read_timeout(timeout).map_err(ChannelError::Io)?;
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).map_err(ChannelError::from_io)?;
        let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(ChannelError::TooLong(length));
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).map_err(ChannelError::from_io)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

// === impl ChannelError ===

impl ChannelError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Go, VERSION};

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (mut shim, mut worker) = Channel::pair().unwrap();
        shim.send(&Go { version: VERSION }).unwrap();
        assert_eq!(worker.receive::<Go>(None).unwrap(), Go { version: VERSION });
    }

    #[test]
    fn a_peer_that_says_nothing_or_leaves_is_an_error() {
        let (shim, mut worker) = Channel::pair().unwrap();
        let silent = worker.receive::<Go>(Some(Duration::from_millis(10)));
        assert!(matches!(silent, Err(ChannelError::TimedOut)), "{silent:?}");
        drop(shim);
        let gone = worker.receive::<Go>(None);
        assert!(matches!(gone, Err(ChannelError::Closed)), "{gone:?}");
    }

    #[test]
    fn a_length_is_checked_before_memory_is_taken() {
        let (shim, mut worker) = Channel::pair().unwrap();
        shim.stream().write_all(&u32::MAX.to_le_bytes()).unwrap();
        let long = worker.receive::<Go>(None);
        assert!(matches!(long, Err(ChannelError::TooLong(_))), "{long:?}");
    }

    #[test]
    fn other_text_than_the_message_is_an_error() {
        let (shim, mut worker) = Channel::pair().unwrap();
        shim.stream().write_all(b"\x02\0\0\0[]").unwrap();
        let wrong = worker.receive::<Go>(None);
        assert!(matches!(wrong, Err(ChannelError::Malformed(_))), "{wrong:?}");
    }
}
