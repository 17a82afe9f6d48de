//! Values of flags that have a unit: sizes and durations, as in `wick.toml`.

use std::time::Duration;

/// Units of size, in bytes.
const UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Parse a size, for instance `64MiB`.
///
/// # Errors
/// Says what a size looks like.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let bytes = number.parse::<u64>().ok().zip(scale).and_then(|(n, scale)| n.checked_mul(scale));
    bytes.ok_or_else(|| "write a whole number and a unit, for instance 64MiB".to_owned())
}

/// Parse a duration, for instance `30s` or `1m 30s`.
///
/// # Errors
/// Says what a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, for instance 30s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("3kB"), Ok(3000));
        for bad in ["", "64", "MiB", "-1B", "1.5MiB", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert!(duration("30").is_err());
    }
}
