//! Two hundred seeds, and the test of the test: a seed is always the same run.

/// As many as run in a few seconds; `cargo xtask bench fleet` has more.
const SEEDS: u64 = 200;

#[test]
fn promises_hold_under_faults_and_everything_comes_to_rest() {
    let (mut activations, mut crashes, mut refusals) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = wick_sim::run(seed, false);
        assert_eq!(outcome.broken, None, "cargo run -p wick-sim -- --seed {seed} --trace");
        activations += outcome.activations;
        crashes += outcome.crashes;
        refusals += outcome.refusals;
    }
    // Runs in which nothing happens would prove nothing.
    assert!(activations > SEEDS * 5, "{activations} activations");
    assert!(crashes > SEEDS * 2, "{crashes} crashes");
    assert!(refusals > SEEDS * 2, "{refusals} refusals");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
    for seed in 0..10 {
        let (one, two) = (wick_sim::run(seed, true), wick_sim::run(seed, true));
        assert_eq!(one, two);
        assert!(!one.trace.is_empty());
        assert_ne!(one.digest, wick_sim::run(seed + 1, true).digest);
    }
}
