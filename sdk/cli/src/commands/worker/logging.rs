//! The worker's own log, on standard error, which is a pipe that somebody else reads: a reader
//! that stops must not stop requests. Lines wait in a bounded queue, for a thread that writes
//! them; those for which there is no room are counted, and the count is written instead.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use wick_sandbox::order::Order;

use crate::failure::{Failure, Outcome};
use crate::logging::{self, LogFormat};

/// Lines that wait. A guest's line has 4 KiB at most, so that is 2 MiB.
const QUEUE: usize = 512;

/// Time that the last lines have to be read before the process ends without them.
const FLUSH: Duration = Duration::from_millis(500);

/// Between two looks at whether they were.
const LOOK: Duration = Duration::from_millis(1);

/// Stack of the thread that writes.
const STACK: usize = 64 << 10;

/// The container's variable that says how lines look: `json`, or text for people.
const FORMAT: &str = "WICK_LOG_FORMAT=";

/// What is logged unless the pod says otherwise.
const LEVEL: &str = "info";

/// The log of this process.
pub struct Log {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    queued: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// Where lines come from.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

// === impl Log ===

impl Log {
    /// Start logging, and the thread that writes.
    ///
    /// # Errors
    /// The filter is malformed, or there is no thread left.
    pub fn start(order: &Order) -> Outcome<Self> {
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = sync_channel(QUEUE);
        let written = Arc::clone(&counts);
        thread::Builder::new()
            .name("wick-log".into())
            .stack_size(STACK)
            .spawn(move || write(&receiver, &written, &mut io::stderr()))
            .map_err(|error| Failure::from(anyhow::Error::new(error).context("no thread left")))?;
        let json = order.env.iter().any(|variable| variable.strip_prefix(FORMAT) == Some("json"));
        let format = if json { LogFormat::Json } else { LogFormat::Human };
        let level = order.settings.log.as_deref().unwrap_or(LEVEL);
        let lines = Lines { sender, counts: Arc::clone(&counts) };
        logging::init_to(format, level, false, None, lines)?;
        Ok(Self { counts })
    }

    /// Wait until everything is written, or nobody reads it.
    pub fn flush(&self) {
        let start = Instant::now();
        let queued = self.counts.queued.load(Ordering::Acquire);
        while self.counts.written.load(Ordering::Acquire) < queued && start.elapsed() < FLUSH {
            thread::sleep(LOOK);
        }
    }
}

fn write(lines: &Receiver<Vec<u8>>, counts: &Counts, out: &mut impl io::Write) {
    while let Ok(line) = lines.recv() {
        // A reader that is gone does not come back, and nobody can be told.
        let _ = out.write_all(&line);
        let dropped = counts.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(out, "{dropped} log lines are missing here: nobody read them in time");
        }
        counts.written.fetch_add(1, Ordering::Release);
    }
}

// === impl Lines ===

impl io::Write for Lines {
    /// One call is one event, whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.sender.try_send(bytes.to_vec()) {
            Ok(()) => self.counts.queued.fetch_add(1, Ordering::Release),
            Err(_) => self.counts.dropped.fetch_add(1, Ordering::Relaxed),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_counted_and_hold_nobody_up() {
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = sync_channel(2);
        let mut lines = Lines { sender, counts: Arc::clone(&counts) };
        for number in 0..5 {
            lines.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        drop(lines);
        let mut out = Vec::new();
        write(&receiver, &counts, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "line 0\n3 log lines are missing here: nobody read them in time\nline 1\n"
        );
        assert_eq!(counts.written.load(Ordering::Relaxed), 2);
    }
}
