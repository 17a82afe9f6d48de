//! Maintenance windows in a site's time zone. A zone is the rule that POSIX writes, such as
//! `CET-1CEST,M3.5.0,M10.5.0/3`: it needs no database, which only a file could be.

use std::str::FromStr;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::time::Moment;

/// Longest rule of a zone; real ones have 40 bytes.
const MAX_ZONE: usize = 100;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// How far the next opening is looked for: a week, and the day that a window of today began.
const LOOK: i64 = 8;

/// The rule of a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no rule of a time zone: write it as POSIX does, such as `CET-1CEST,M3.5.0,M10.5.0/3`"
)]
pub struct ZoneError(String);

/// On some days, from a minute of the day to another; past midnight where it ends before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days that it begins on.
    days: Vec<Weekday>,
    from: u16,
    until: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window has a day, and begins and ends at two minutes below 1440")]
pub struct WindowError;

// === impl Zone ===

impl Zone {
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    fn local(&self, now: Moment) -> Option<DateTime> {
        let stamp = Timestamp::from_millisecond(i64::try_from(now.millis()).ok()?).ok()?;
        Some(self.0.to_datetime(stamp))
    }

    fn moment(&self, local: DateTime) -> Option<Moment> {
        let stamp = self.0.to_timestamp(local).ok()?;
        u64::try_from(stamp.as_millisecond()).ok().map(Moment::from_millis)
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        let shown =
            || ZoneError(text.chars().take(MAX_ZONE).flat_map(char::escape_debug).collect());
        if text == "UTC" {
            return Ok(Self::utc());
        }
        if text.len() > MAX_ZONE {
            return Err(shown());
        }
        TimeZone::posix(text).map(Self).map_err(|_| shown())
    }
}

// === impl Window ===

impl Window {
    /// # Errors
    /// It would never open, or has a minute that no day has.
    pub fn new(days: Vec<Weekday>, from: u16, until: u16) -> Result<Self, WindowError> {
        if days.is_empty() || from >= DAY || until >= DAY || from == until {
            return Err(WindowError);
        }
        Ok(Self { days, from, until })
    }

    pub fn is_open(&self, zone: &Zone, now: Moment) -> bool {
        let Some(local) = zone.local(now) else { return false };
        let minute =
            u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let today = self.days.contains(&local.weekday());
        let yesterday = self.days.contains(&local.weekday().previous());
        if self.from < self.until {
            return today && (self.from..self.until).contains(&minute);
        }
        (today && minute >= self.from) || (yesterday && minute < self.until)
    }

    /// When it opens next. None where the calendar ends before.
    pub fn opens(&self, zone: &Zone, now: Moment) -> Option<Moment> {
        let local = zone.local(now)?;
        let midnight = local.date().at(0, 0, 0, 0);
        (0..=LOOK).find_map(|days| {
            let day = midnight.checked_add(days.days()).ok()?;
            // By the clock on the wall, on the days when it is set too.
            let begin = day.checked_add(i64::from(self.from).minutes()).ok()?;
            let begin = self.days.contains(&day.weekday()).then(|| zone.moment(begin))??;
            (begin > now).then_some(begin)
        })
    }
}
