//! Signals of a worker, awaited.

use std::io::ErrorKind;

use anyhow::Context as _;
use tokio::net::unix::pipe::Receiver;
use wick_sandbox::Signals;

use crate::failure::Outcome;

/// The worker's signals in the runtime's hands.
pub struct Listening {
    /// No pipe, but polled and read like one.
    source: Receiver,
}

// === impl Listening ===

impl Listening {
    /// # Errors
    /// The system refuses.
    pub fn new(signals: &Signals) -> Outcome<Self> {
        let open = || Receiver::from_owned_fd_unchecked(signals.descriptor()?);
        Ok(Self { source: open().context("cannot listen for signals")? })
    }

    /// Wait for the next signal. Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> i32 {
        let mut info = [0; Signals::INFO];
        loop {
            // What can't be polled never comes: the kernel ends this process in the end.
            if self.source.readable().await.is_err() {
                return std::future::pending().await;
            }
            match self.source.try_read(&mut info) {
                Ok(count) => {
                    if let Some(signal) = Signals::number(&info[..count]) {
                        return signal;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}
