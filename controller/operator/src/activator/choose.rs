//! Which revision and which pod gets a request: by weight among revisions that have a usable
//! pod, then the less busy one of two random pods. Random numbers come in as arguments.

/// A revision as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighted {
    pub weight: u8,
    /// Whether it has a pod that may get a request.
    pub usable: bool,
}

/// The revision that gets a request. One without a usable pod gets none: its part falls to the
/// others.
pub fn revision(revisions: impl Iterator<Item = Weighted> + Clone, roll: u32) -> Option<usize> {
    let weight = |one: Weighted| if one.usable { u32::from(one.weight) } else { 0 };
    let sum: u32 = revisions.clone().map(weight).sum();
    let mut left = roll.checked_rem(sum)?;
    for (index, one) in revisions.enumerate() {
        let weight = weight(one);
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    None
}

/// The less busy one of two of `count` pods, which the rolls choose. Two are as good as all
/// for keeping the load even, and several activators don't all rush to the same one.
pub fn pod(count: usize, rolls: [usize; 2], busy: impl Fn(usize) -> u32) -> Option<usize> {
    let first = rolls[0].checked_rem(count)?;
    let Some(step) = rolls[1].checked_rem(count - 1) else { return Some(first) };
    let second = (first + 1 + step) % count;
    Some(if busy(second) < busy(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[(u8, bool)]) -> impl Iterator<Item = Weighted> + Clone {
        weights.iter().map(|&(weight, usable)| Weighted { weight, usable })
    }

    /// How many of 100 rolls each gets.
    fn split(weights: &[(u8, bool)]) -> Vec<usize> {
        let mut got = vec![0; weights.len()];
        for roll in 0..100 {
            if let Some(index) = revision(shares(weights), roll) {
                got[index] += 1;
            }
        }
        got
    }

    #[test]
    fn revisions_get_what_their_weights_say_and_those_without_pods_nothing() {
        assert_eq!(split(&[(95, true), (5, true)]), [95, 5]);
        assert_eq!(split(&[(95, false), (5, true)]), [0, 100]);
        assert_eq!(split(&[(95, true), (5, false)]), [100, 0]);
        assert_eq!(split(&[(100, true), (0, true)]), [100, 0]);
        assert_eq!(split(&[(0, true), (0, true)]), [0, 0]);
        assert_eq!(split(&[]), [0_usize; 0]);
    }

    proptest! {
        #[test]
        fn the_choice_is_always_usable(
            weights in prop::collection::vec((0..=100_u8, any::<bool>()), 0..5),
            roll in any::<u32>(),
        ) {
            let some = weights.iter().any(|&(weight, usable)| usable && weight > 0);
            let chosen = revision(shares(&weights), roll);
            prop_assert_eq!(chosen.is_some(), some);
            if let Some(index) = chosen {
                prop_assert!(weights[index].1 && weights[index].0 > 0);
            }
        }

        #[test]
        fn the_busiest_of_several_pods_is_never_chosen(
            busy in prop::collection::hash_set(0..1000_u32, 1..9),
            rolls in any::<[usize; 2]>(),
        ) {
            let busy: Vec<u32> = busy.into_iter().collect();
            let chosen = pod(busy.len(), rolls, |index| busy[index]).unwrap();
            let most = *busy.iter().max().unwrap();
            prop_assert!(busy.len() == 1 || busy[chosen] < most);
            prop_assert_eq!(pod(0, rolls, |_| 0), None);
        }
    }
}
