//! Who rests to make room for a model that is loaded: the least recently used first,
//! nobody that has requests in work.

/// A model that is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held<T> {
    pub id: T,
    pub bytes: u64,
    /// When it was last asked for; larger is later.
    pub used: u64,
    /// Requests are in work or wait.
    pub busy: bool,
}

/// Everything that may rest would not be enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom {
    /// Bytes that models with requests in work hold.
    pub busy: u64,
}

/// The models that rest so that `need` more bytes keep the sum within `limit`, in the order
/// in which they do.
///
/// # Errors
/// [`NoRoom`]; then nobody has to rest for nothing.
pub(super) fn make_room<T: Copy>(
    limit: u64,
    need: u64,
    held: &[Held<T>],
) -> Result<Vec<T>, NoRoom> {
    let mut sum = held.iter().fold(need, |sum, held| sum.saturating_add(held.bytes));
    let mut idle: Vec<_> = held.iter().filter(|held| !held.busy).collect();
    idle.sort_by_key(|held| held.used);
    let mut resting = Vec::new();
    for held in idle {
        if sum <= limit {
            break;
        }
        sum = sum.saturating_sub(held.bytes);
        resting.push(held.id);
    }
    if sum <= limit {
        return Ok(resting);
    }
    Err(NoRoom { busy: held.iter().filter(|held| held.busy).map(|held| held.bytes).sum() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(id: char, bytes: u64, used: u64, busy: bool) -> Held<char> {
        Held { id, bytes, used, busy }
    }

    #[test]
    fn the_least_recently_used_rests_first_and_no_more_than_needed() {
        let all = [held('a', 40, 3, false), held('b', 40, 1, false), held('c', 10, 2, true)];
        assert_eq!(make_room(100, 10, &all), Ok(vec![]));
        assert_eq!(make_room(100, 11, &all), Ok(vec!['b']));
        assert_eq!(make_room(100, 60, &all), Ok(vec!['b', 'a']));
        assert_eq!(make_room(100, 91, &all), Err(NoRoom { busy: 10 }));
        assert_eq!(make_room(100, 100, &[]), Ok::<Vec<char>, _>(vec![]));
        assert_eq!(make_room(100, 101, &[]), Err::<Vec<char>, _>(NoRoom { busy: 0 }));
    }

    proptest! {
        #[test]
        fn the_bound_is_held_whenever_it_can_be_and_nobody_in_use_is_dropped(
            limit in 0..300_u64,
            need in 0..200_u64,
            models in prop::collection::vec((0..100_u64, 0..50_u64, any::<bool>()), 0..12),
        ) {
            let all: Vec<_> = models
                .iter()
                .enumerate()
                .map(|(id, &(bytes, used, busy))| Held { id, bytes, used, busy })
                .collect();
            let busy: u64 = all.iter().filter(|held| held.busy).map(|held| held.bytes).sum();
            match make_room(limit, need, &all) {
                Ok(resting) => {
                    prop_assert!(resting.iter().all(|&id| !all[id].busy));
                    let stays: Vec<_> =
                        all.iter().filter(|held| !resting.contains(&held.id)).collect();
                    let sum: u64 = stays.iter().map(|held| held.bytes).sum();
                    prop_assert!(sum + need <= limit);
                    let latest = resting.iter().map(|&id| all[id].used).max();
                    let is_older = |held: &&Held<usize>| Some(held.used) < latest && !held.busy;
                    prop_assert!(!stays.iter().any(is_older), "somebody older stays");
                    if let Some(last) = resting.last() {
                        prop_assert!(sum + all[*last].bytes + need > limit, "one too many");
                    }
                }
                Err(no) => {
                    prop_assert_eq!(no.busy, busy);
                    prop_assert!(busy + need > limit);
                }
            }
        }
    }
}
