//! The shim's own log: lines in containerd's form into the `log` FIFO of the bundle. A line is
//! one write that never waits: when containerd does not read, lines are dropped, not pods.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longest line: a FIFO takes up to 4096 bytes in one piece.
const MAX_LINE: usize = 4000;

/// Where lines go.
#[derive(Debug)]
struct Journal {
    file: File,
    level: Level,
}

struct Line(String);

/// Log into the bundle's FIFO, if there is one.
pub fn start(debug: bool) {
    // Both directions: opening does not wait, and containerd may come and go.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open("log");
    if let Ok(file) = opened {
        let level = if debug { Level::DEBUG } else { Level::INFO };
        // There is no other subscriber in this process.
        let _ = tracing::subscriber::set_global_default(Journal { file, level });
    }
}

impl Subscriber for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.is_event() || metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        ours && *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        self.write(event.metadata(), &|line| event.record(line));
    }

    /// The shim's own spans are made when they are over, with their times as fields: a line each.
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.write(span.metadata(), &|line| {
            let _ = write!(line.0, " span={}", span.metadata().name());
            span.record(line);
        });
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Journal {
    fn write(&self, metadata: &Metadata<'_>, record: &dyn Fn(&mut Line)) {
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Line(format!("time=\"{}\" level={level}", utc(now.as_secs())));
        record(&mut line);
        let mut text = line.0;
        let mut end = MAX_LINE.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('\n');
        // A full FIFO loses the line.
        let _ = (&self.file).write(text.as_bytes());
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        let text = format!("{value:?}");
        // What is a string is quoted already.
        let _ = if text.starts_with('"') {
            write!(self.0, " {name}={text}")
        } else {
            write!(self.0, " {name}={text:?}")
        };
    }
}

/// RFC 3339 of seconds since 1970, by the days of civil years.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn seconds_become_a_date() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_795_530_096), "2026-11-24T14:21:36Z");
    }
}
