//! How long to wait before the next try to reach the broker. Pure.

use std::time::Duration;

/// First pause: a broker that restarts is back in a second or two.
const FIRST: Duration = Duration::from_millis(500);

/// Longest pause. A connection that lasted this long was a good one.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The pause after `failures` in a row, at least one. `random` spreads the nodes of a site
/// over the second half of it, so that they don't come back all at once.
pub fn pause(failures: u32, random: u64) -> Duration {
    let full = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    let half = full / 2;
    let part = u32::try_from(random % 1000).unwrap_or(0);
    half + half * part / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        assert_eq!(pause(1, 0), FIRST / 2);
        assert_eq!(pause(2, 0), FIRST);
        assert_eq!(pause(u32::MAX, 0), LONGEST / 2);
        assert!(pause(u32::MAX, 999) <= LONGEST && pause(u32::MAX, 999) > LONGEST / 2);
        assert!(pause(0, 0) > Duration::ZERO);
    }
}
