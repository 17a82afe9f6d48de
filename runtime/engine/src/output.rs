//! What a guest prints: lines become log events with the model's name, or go on as they
//! are to files of the host; the line of a panic is remembered for the request's error.

use std::fs::File;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes of one line; the rest of a longer one starts the next.
const MAX_LINE: usize = 4096;

/// Lines of one request that reach the log. A guest that prints in a loop would
/// otherwise fill the disk of its node.
const MAX_LINES: u32 = 1000;

/// Bytes of a panic's text in an error.
const MAX_PANIC: usize = 300;

/// Bytes that a guest may write at once; wasi splits larger writes.
const MAX_WRITE: usize = 64 << 10;

/// Bytes of each stream that are kept for a caller who wants them.
const MAX_CAPTURE: usize = 1 << 20;

/// What Rust prints before the text of a panic.
const PANICKED: &str = "panicked at ";

/// Where a command's output goes, byte by byte as it is written. A file that takes nothing
/// more keeps the command waiting, as it would any program.
#[derive(Debug)]
pub struct Streams {
    pub stdout: File,
    pub stderr: File,
}

/// Both streams of one instance.
pub(crate) struct Output {
    model: Arc<str>,
    lines: Mutex<Lines>,
    streams: Option<Streams>,
}

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

/// One stream, as wasi wants it.
pub(crate) struct Printer {
    output: Arc<Output>,
    channel: Channel,
}

#[derive(Default)]
struct Lines {
    logged: u32,
    /// The line that is being printed, of each stream.
    partial: [Vec<u8>; 2],
    panic: Option<String>,
    /// The last line announced a panic, whose text is the next one.
    panicking: bool,
    /// Everything printed, for a caller who wants it.
    captured: Option<[Vec<u8>; 2]>,
}

// === impl Output ===

impl Output {
    pub(crate) fn new(model: Arc<str>, capture: bool) -> Arc<Self> {
        let captured = capture.then(Default::default);
        let lines = Mutex::new(Lines { captured, ..Lines::default() });
        Arc::new(Self { model, lines, streams: None })
    }

    /// Everything goes to `streams`, and nothing to the log.
    pub(crate) fn streamed(model: Arc<str>, streams: Streams) -> Arc<Self> {
        let lines = Mutex::new(Lines { logged: MAX_LINES + 1, ..Lines::default() });
        Arc::new(Self { model, lines, streams: Some(streams) })
    }

    pub(crate) fn printer(self: &Arc<Self>, channel: Channel) -> Printer {
        Printer { output: Arc::clone(self), channel }
    }

    /// Log the lines that are not ended yet.
    pub(crate) fn finish(&self) {
        let mut lines = self.lines.lock();
        for channel in [Channel::Stdout, Channel::Stderr] {
            if !lines.partial[channel as usize].is_empty() {
                self.end_line(&mut lines, channel);
            }
        }
    }

    /// The next request of an instance that is used again has its own lines.
    pub(crate) fn restart(&self) {
        self.finish();
        self.lines.lock().logged = 0;
    }

    /// The text of the guest's panic, if it printed one.
    pub(crate) fn panic(&self) -> Option<String> {
        self.lines.lock().panic.clone()
    }

    /// What was printed to stdout and stderr, each up to a limit.
    pub(crate) fn captured(&self) -> [Vec<u8>; 2] {
        self.lines.lock().captured.take().unwrap_or_default()
    }

    fn write(&self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        match &self.streams {
            None => self.log_lines(channel, bytes),
            Some(streams) => {
                let mut file = match channel {
                    Channel::Stdout => &streams.stdout,
                    Channel::Stderr => &streams.stderr,
                };
                file.write_all(bytes)?;
                if channel == Channel::Stderr {
                    // Only to find the text of a panic.
                    self.log_lines(channel, bytes);
                }
            }
        }
        Ok(())
    }

    fn log_lines(&self, channel: Channel, bytes: &[u8]) {
        let mut lines = self.lines.lock();
        if let Some(captured) = &mut lines.captured {
            let captured = &mut captured[channel as usize];
            let room = MAX_CAPTURE.saturating_sub(captured.len());
            captured.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        if lines.logged > MAX_LINES && lines.panic.is_some() {
            return;
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            for chunk in text.chunks(MAX_LINE) {
                let partial = &mut lines.partial[channel as usize];
                if partial.len() + chunk.len() > MAX_LINE {
                    self.end_line(&mut lines, channel);
                }
                lines.partial[channel as usize].extend_from_slice(chunk);
            }
            if ended {
                self.end_line(&mut lines, channel);
            }
        }
    }

    fn end_line(&self, lines: &mut Lines, channel: Channel) {
        let mut bytes = std::mem::take(&mut lines.partial[channel as usize]);
        let text = String::from_utf8_lossy(&bytes);
        if channel == Channel::Stderr {
            lines.note_panic(&text);
        }
        if lines.logged < MAX_LINES {
            self.log(channel, &text);
        } else if lines.logged == MAX_LINES {
            self.log(channel, "more lines of this request are not logged");
        }
        lines.logged = lines.logged.saturating_add(1);
        bytes.clear();
        lines.partial[channel as usize] = bytes;
    }

    fn log(&self, channel: Channel, text: &str) {
        let model = &*self.model;
        match channel {
            Channel::Stdout => tracing::info!(target: "guest", model, stream = "stdout", "{text}"),
            Channel::Stderr => tracing::warn!(target: "guest", model, stream = "stderr", "{text}"),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.finish();
    }
}

// === impl Lines ===

impl Lines {
    /// Rust prints "thread '…' panicked at FILE:LINE:COLUMN:" and the text on the
    /// next line.
    fn note_panic(&mut self, line: &str) {
        if std::mem::take(&mut self.panicking) {
            if let Some(panic) = &mut self.panic {
                let text: String = line.chars().take(MAX_PANIC).collect();
                panic.push(' ');
                panic.push_str(&text);
            }
        } else if self.panic.is_none()
            && let Some((_, place)) = line.split_once(PANICKED)
        {
            let place: String = place.chars().take(MAX_PANIC).collect();
            self.panic = Some(format!("{PANICKED}{place}"));
            self.panicking = true;
        }
    }
}

// === impl Printer ===

impl IsTerminal for Printer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl Clone for Printer {
    fn clone(&self) -> Self {
        self.output.printer(self.channel)
    }
}

impl StdoutStream for Printer {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printer {
    async fn ready(&mut self) {}
}

impl OutputStream for Printer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.channel, &bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => StreamError::Closed,
            _ => StreamError::LastOperationFailed(error.into()),
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

impl AsyncWrite for Printer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.output.write(self.channel, bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(stderr: &[&str]) -> Arc<Output> {
        let output = Output::new("m".into(), true);
        for text in stderr {
            output.write(Channel::Stderr, text.as_bytes()).unwrap();
        }
        output.finish();
        output
    }

    #[test]
    fn the_text_of_a_panic_is_kept() {
        let output =
            printed(&["thread 'main' pani", "cked at src/lib.rs:1:2:\nno", " luck\nnote\n"]);
        assert_eq!(output.panic().unwrap(), "panicked at src/lib.rs:1:2: no luck");
        assert_eq!(printed(&["all is well\n"]).panic(), None);
    }

    #[test]
    fn long_lines_are_split_and_lines_are_bounded() {
        let long = "x".repeat(3 * MAX_LINE + 1);
        assert_eq!(printed(&[&long]).lines.lock().logged, 4);
        let output = Output::new("m".into(), false);
        for _ in 0..MAX_LINES * 3 {
            output.write(Channel::Stdout, b"y\n").unwrap();
        }
        assert!(output.lines.lock().partial.iter().all(|partial| partial.capacity() <= MAX_LINE));
    }

    #[test]
    fn streamed_output_arrives_as_it_was_written_and_a_panic_is_still_found() {
        let [stdout, stderr] = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let files = [stdout.try_clone().unwrap(), stderr.try_clone().unwrap()];
        let output = Output::streamed("m".into(), Streams { stdout, stderr });
        output.write(Channel::Stdout, b"no end of").unwrap();
        output.write(Channel::Stderr, b"thread 'main' panicked at a.rs:1:2:\nbad\n").unwrap();
        let text = files.map(|mut file| {
            use std::io::{Read as _, Seek as _};
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(text[0], "no end of");
        assert!(text[1].ends_with("\nbad\n"));
        assert_eq!(output.panic().unwrap(), "panicked at a.rs:1:2: bad");
    }

    #[test]
    fn captured_output_is_bounded() {
        let output = Output::new("m".into(), true);
        for _ in 0..100 {
            output.write(Channel::Stdout, &[b'z'; MAX_CAPTURE / 10]).unwrap();
        }
        assert_eq!(output.captured()[0].len(), MAX_CAPTURE);
    }
}
