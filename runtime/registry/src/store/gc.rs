//! What garbage collection deletes. Pure: what is there comes in, what goes comes out.
//!
//! What is leased or pinned stays, and all that a kept image refers to. Images go by age, and then
//! the least recently used until the rest fits. What nobody refers to goes when it is older than a
//! grace, since it may be a pull's that was killed and will go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use wick_package::Digest;

/// All that is there.
#[derive(Debug, Clone)]
pub struct Facts {
    pub now: SystemTime,
    pub images: Vec<Image>,
    /// Files of blobs.
    pub blobs: BTreeMap<Digest, File>,
    /// Files of blobs on their way, by name, that nobody holds.
    pub partials: BTreeMap<String, File>,
    /// What is fetched or used now, or kept for another reason.
    pub pinned: BTreeSet<Digest>,
    /// What somebody has just removed: it has no grace.
    pub released: BTreeSet<Digest>,
}

/// An image, and all blobs that it refers to, its own document included.
#[derive(Debug, Clone)]
pub struct Image {
    pub digest: Digest,
    pub used: SystemTime,
    pub blobs: BTreeSet<Digest>,
}

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub size: u64,
    pub modified: SystemTime,
}

/// How much may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Images that were not used for longer go.
    pub unused: Option<Duration>,
    /// Images go, the least recently used first, until no more bytes than this are kept.
    pub bytes: Option<u64>,
    /// What nobody refers to stays for this long.
    pub grace: Duration,
}

/// What goes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    pub images: BTreeSet<Digest>,
    pub blobs: BTreeSet<Digest>,
    pub partials: BTreeSet<String>,
    /// Bytes of those blobs and partials.
    pub bytes: u64,
}

/// Decide what goes.
pub fn plan(facts: &Facts, limits: &Limits) -> Plan {
    let mut plan = Plan::default();
    let age = |time: SystemTime| facts.now.duration_since(time).unwrap_or_default();
    let free = |image: &Image| !facts.pinned.contains(&image.digest);
    if let Some(unused) = limits.unused {
        let old = facts.images.iter().filter(|image| free(image) && age(image.used) > unused);
        plan.images.extend(old.map(|image| image.digest));
    }
    if let Some(most) = limits.bytes {
        let mut kept: Vec<_> =
            facts.images.iter().filter(|image| !plan.images.contains(&image.digest)).collect();
        // The least recently used is last.
        kept.sort_by_key(|image| (std::cmp::Reverse(image.used), image.digest));
        let mut holders = holders(facts, &kept);
        let mut bytes: u64 = holders.keys().filter_map(|blob| size(facts, blob)).sum();
        while bytes > most {
            let Some(at) = kept.iter().rposition(|image| free(image)) else { break };
            let image = kept.remove(at);
            for blob in &image.blobs {
                let left = holders.get_mut(blob);
                if let Some(left) = left {
                    *left -= 1;
                    if *left == 0 {
                        holders.remove(blob);
                        bytes -= size(facts, blob).unwrap_or_default();
                    }
                }
            }
            plan.images.insert(image.digest);
        }
    }
    let (gone, kept): (Vec<_>, Vec<_>) =
        facts.images.iter().partition(|image| plan.images.contains(&image.digest));
    let kept = holders(facts, &kept);
    let removed: BTreeSet<_> = gone.iter().flat_map(|image| &image.blobs).collect();
    for (blob, file) in &facts.blobs {
        let given_up = facts.released.contains(blob) || removed.contains(blob);
        if !kept.contains_key(blob) && (given_up || age(file.modified) > limits.grace) {
            plan.blobs.insert(*blob);
            plan.bytes += file.size;
        }
    }
    for (name, file) in &facts.partials {
        if age(file.modified) > limits.grace {
            plan.partials.insert(name.clone());
            plan.bytes += file.size;
        }
    }
    plan
}

/// How many reasons there are to keep each blob.
fn holders(facts: &Facts, images: &[&Image]) -> BTreeMap<Digest, usize> {
    let mut holders = BTreeMap::new();
    for blob in images.iter().flat_map(|image| &image.blobs).chain(&facts.pinned) {
        *holders.entry(*blob).or_insert(0) += 1;
    }
    holders
}

fn size(facts: &Facts, blob: &Digest) -> Option<u64> {
    facts.blobs.get(blob).map(|file| file.size)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Image `n` has the blob `n` and others; blobs are of size 10 and were written at 0.
    fn facts(images: &[(u8, u64, &[u8])], pinned: &[u8]) -> Facts {
        let file = File { size: 10, modified: at(0) };
        Facts {
            now: at(1000),
            images: images
                .iter()
                .map(|(n, used, blobs)| Image {
                    digest: digest(*n),
                    used: at(*used),
                    blobs: blobs.iter().chain([n]).map(|n| digest(*n)).collect(),
                })
                .collect(),
            blobs: (0..16).map(|n| (digest(n), file)).collect(),
            partials: BTreeMap::from([("part".to_owned(), file)]),
            pinned: pinned.iter().map(|n| digest(*n)).collect(),
            released: BTreeSet::new(),
        }
    }

    const KEEP_ALL: Limits = Limits { unused: None, bytes: None, grace: Duration::from_secs(5000) };

    #[test]
    fn what_is_young_stays_although_nobody_refers_to_it() {
        let facts = facts(&[(1, 0, &[2])], &[]);
        assert_eq!(plan(&facts, &KEEP_ALL), Plan::default());
        let limits = Limits { grace: Duration::from_secs(500), ..KEEP_ALL };
        let plan = plan(&facts, &limits);
        assert_eq!((plan.blobs.len(), plan.partials.len(), plan.bytes), (14, 1, 150));
        assert!(plan.images.is_empty());
    }

    #[test]
    fn the_least_recently_used_goes_first_until_the_rest_fits() {
        // Blob 9 is shared; 1, 2, 3 and 9 make 40 bytes.
        let facts = facts(&[(1, 30, &[9]), (2, 10, &[9]), (3, 20, &[])], &[]);
        let limits = |bytes| Limits { bytes: Some(bytes), ..KEEP_ALL };
        assert_eq!(plan(&facts, &limits(40)).images, BTreeSet::new());
        assert_eq!(plan(&facts, &limits(30)).images, BTreeSet::from([digest(2)]));
        assert_eq!(plan(&facts, &limits(29)).images, BTreeSet::from([digest(2), digest(3)]));
        let all = plan(&facts, &limits(0));
        assert_eq!((all.images.len(), all.blobs.len()), (3, 4));
    }

    #[test]
    fn what_is_used_now_is_neither_too_old_nor_too_large() {
        let facts = facts(&[(1, 0, &[2])], &[1, 2]);
        let limits = Limits { unused: Some(Duration::ZERO), bytes: Some(0), ..KEEP_ALL };
        assert_eq!(plan(&facts, &limits), Plan::default());
    }

    prop_compose! {
        fn any_facts()(
            images in vec((0u8..8, 0u64..1000, btree_set(0u8..16, 0..6)), 0..8),
            files in vec((0u8..16, 0u64..100, 0u64..2000), 0..16),
            pinned in btree_set(0u8..16, 0..4),
            released in btree_set(0u8..16, 0..4),
        ) -> Facts {
            let set = |set: &BTreeSet<u8>| set.iter().map(|n| digest(*n)).collect();
            let mut seen = BTreeSet::new();
            let images = images.iter().filter(|(n, ..)| seen.insert(*n));
            Facts {
                now: at(1000),
                images: images.map(|(n, used, blobs)| Image {
                    digest: digest(*n),
                    used: at(*used),
                    blobs: blobs.iter().chain([n]).map(|n| digest(*n)).collect(),
                }).collect(),
                blobs: files.iter().map(|(n, size, modified)| {
                    (digest(*n), File { size: *size, modified: at(*modified) })
                }).collect(),
                partials: BTreeMap::new(),
                pinned: set(&pinned),
                released: set(&released),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_somebody_needs_is_deleted_and_the_rest_fits(
            facts in any_facts(),
            unused in proptest::option::of(0u64..1200),
            bytes in proptest::option::of(0u64..800),
            grace in 0u64..1200,
        ) {
            let limits = Limits {
                unused: unused.map(Duration::from_secs),
                bytes,
                grace: Duration::from_secs(grace),
            };
            let plan = plan(&facts, &limits);
            prop_assert!(plan.blobs.is_disjoint(&facts.pinned));
            prop_assert!(plan.images.is_disjoint(&facts.pinned));
            let kept: Vec<_> =
                facts.images.iter().filter(|image| !plan.images.contains(&image.digest)).collect();
            for image in &kept {
                prop_assert!(image.blobs.is_disjoint(&plan.blobs));
            }
            let age = |time: SystemTime| facts.now.duration_since(time).unwrap_or_default();
            if let Some(unused) = limits.unused {
                let late = kept.iter().filter(|image| age(image.used) > unused);
                prop_assert!(late.into_iter().all(|image| facts.pinned.contains(&image.digest)));
            }
            if let Some(most) = bytes {
                let held: BTreeSet<_> =
                    kept.iter().flat_map(|image| &image.blobs).chain(&facts.pinned).collect();
                let size: u64 = held.into_iter().filter_map(|blob| size(&facts, blob)).sum();
                let pinned = kept.iter().all(|image| facts.pinned.contains(&image.digest));
                prop_assert!(size <= most || pinned);
            }
            // Nothing of an image that goes stays without a reason.
            let gone = facts.images.iter().filter(|image| plan.images.contains(&image.digest));
            for blob in gone.flat_map(|image| &image.blobs) {
                let held = facts.pinned.contains(blob)
                    || kept.iter().any(|image| image.blobs.contains(blob));
                prop_assert!(
                    held || plan.blobs.contains(blob) || !facts.blobs.contains_key(blob)
                );
            }
        }
    }
}
