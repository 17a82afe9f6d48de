//! Durations and sizes as people write them: `"2ms"`, `"256MiB"`.

use std::time::Duration;

/// Units of time, in nanoseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Units of size, in bytes. Powers of ten and of two keep their own spellings.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QuantityError {
    /// A space between number and unit; without it the text would do.
    Space(String),
    /// No number, no unit, or an unknown unit.
    Form,
    /// More than the type can hold.
    Overflow,
}

/// Parse a duration: a whole number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, QuantityError> {
    scaled(text, &TIME_UNITS).map(Duration::from_nanos)
}

/// Parse a size in bytes: a whole number and its unit.
pub(crate) fn size(text: &str) -> Result<u64, QuantityError> {
    scaled(text, &SIZE_UNITS)
}

/// A duration in the largest unit that shows it whole.
pub(crate) fn duration_text(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    unscaled(nanos, &TIME_UNITS)
}

/// A size in the largest unit that shows it whole.
pub(crate) fn size_text(bytes: u64) -> String {
    unscaled(bytes, &SIZE_UNITS)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, QuantityError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        let joined: String = text.split_whitespace().collect();
        return Err(match scaled_without_space(text, &joined, units) {
            true => QuantityError::Space(joined),
            false => QuantityError::Form,
        });
    };
    if number.is_empty() {
        return Err(QuantityError::Form);
    }
    let number: u64 = number.parse().map_err(|_| QuantityError::Overflow)?;
    number.checked_mul(*scale).ok_or(QuantityError::Overflow)
}

fn scaled_without_space(text: &str, joined: &str, units: &[(&str, u64)]) -> bool {
    joined.len() < text.len() && scaled(joined, units).is_ok()
}

fn unscaled(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().filter(|(_, scale)| amount >= *scale && amount.is_multiple_of(*scale));
    let (unit, scale) = whole.max_by_key(|(_, scale)| *scale).unwrap_or(&units[0]);
    format!("{}{unit}", amount / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_number_and_a_unit() {
        assert_eq!(duration("2ms"), Ok(Duration::from_millis(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("64MB"), Ok(64_000_000));
        assert_eq!(duration("2 ms"), Err(QuantityError::Space("2ms".into())));
        for bad in ["", "ms", "2", "2 ", "-2ms", "2.5s", "2MS", "2ms2", "٢ms"] {
            assert_eq!(duration(bad), Err(QuantityError::Form), "{bad}");
        }
        for big in ["99999999999999999999ns", "18446744073709551615h"] {
            assert_eq!(duration(big), Err(QuantityError::Overflow), "{big}");
        }
    }

    #[test]
    fn quantities_are_shown_in_the_largest_whole_unit() {
        assert_eq!(duration_text(Duration::from_secs(86_400)), "24h");
        assert_eq!(duration_text(Duration::ZERO), "0ns");
        assert_eq!(size_text(4 << 30), "4GiB");
        assert_eq!(size_text(1_000_001), "1000001B");
    }
}
